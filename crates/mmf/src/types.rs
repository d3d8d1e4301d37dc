//! Options and results of operations on objects: the types that every layer shares.

use std::fmt;

use crate::name::Name;

/// The access of a mapping to its bytes. No mapping is executable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Access {
    /// Read only. Opening needs only the right to read.
    ReadOnly,
    /// Read and write. All processes see the changes.
    #[default]
    ReadWrite,
    /// Read and write, with changes that stay in this mapping. Opening needs only the right to
    /// read.
    CopyOnWrite,
}

/// The users that may open a new object.
///
/// # Examples
///
/// ```
/// use mmf::Permissions;
///
/// // A service lets the programs of its group look:
/// let permissions = if cfg!(windows) {
///     Permissions::Sddl("D:P(A;;GA;;;SY)(A;;GR;;;BU)".to_owned())
/// } else {
///     Permissions::Mode(0o640)
/// };
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Permissions {
    /// Only this user may read and write.
    #[default]
    User,
    /// All users of the machine may read and write.
    Everyone,
    /// An exact mode (`chmod`), independent of the umask. Unix only.
    Mode(u32),
    /// A security descriptor as
    /// [SDDL](https://learn.microsoft.com/windows/win32/secauthz/security-descriptor-definition-language)
    /// text. Windows only.
    Sddl(String),
}

/// Selects whether an object consists of large pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LargePages {
    /// Uses ordinary pages.
    #[default]
    Never,
    /// Uses large pages if the system has them available, and ordinary pages otherwise.
    Prefer,
    /// Uses large pages, or fails. The error names the missing privilege or setting. Pages added by
    /// later growth are large if the system decides so.
    Require,
}

/// The way in which a mapping handles a page that is gone (a truncated file, exhausted memory, a
/// failing disk).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FaultPolicy {
    /// A handler catches the fault. On Unix it is a signal handler for `SIGBUS`, and for `SIGSEGV`
    /// on systems that report such faults by it. On Windows it is a structured exception handler
    /// that covers only mmf's copy routines. An access without a fault has no extra cost.
    ///
    /// On Unix, mmf cannot catch the fault and the process dies in two cases:
    ///
    /// - The thread blocks `SIGBUS`.
    /// - Another handler has replaced mmf's and does not pass on signals that it does not handle.
    ///   One example is Python's `faulthandler`, enabled after the first mapping.
    ///
    /// mmf checks for a replaced handler at each opening, growth, sync and flush, and at a handle's
    /// first lock. It then installs its own handler on top of the other. Between the installation
    /// of the other handler and the next check, mmf catches no faults. So install such a handler
    /// before the first mapping, or call [`Mapping::sync`](crate::Mapping::sync) after installing
    /// it. mmf's handler passes on signals that it does not handle.
    ///
    /// The handler stays installed. On Unix, a library that contains mmf therefore stays loaded
    /// after `dlclose`.
    #[default]
    Trap,
    /// The system copies the bytes and reports errors: by `process_vm_readv` on Linux,
    /// `mach_vm_read_overwrite` on macOS and `ReadProcessMemory` on Windows. mmf installs no
    /// handler. Every access is a system call, and atomic operations are
    /// [unsupported](crate::ErrorKind::Unsupported).
    ///
    /// Opening fails if the system refuses that call. A system-call filter (seccomp) may end the
    /// process instead. It then does so when the mapping is opened: mmf cannot detect such a filter
    /// beforehand. The other policies never make that call.
    SystemCalls,
    /// No handling: a page that is gone ends the process. For memory that no other process can
    /// truncate.
    Unguarded,
}

impl FaultPolicy {
    /// Returns a policy that guards every access which either of the two guards.
    pub(crate) fn stricter(self, other: FaultPolicy) -> FaultPolicy {
        match (self, other) {
            (FaultPolicy::SystemCalls, _) | (_, FaultPolicy::SystemCalls) => FaultPolicy::SystemCalls,
            (FaultPolicy::Trap, _) | (_, FaultPolicy::Trap) => FaultPolicy::Trap,
            (FaultPolicy::Unguarded, FaultPolicy::Unguarded) => FaultPolicy::Unguarded,
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::ReadOnly => "read-only",
            Access::ReadWrite => "read-write",
            Access::CopyOnWrite => "copy-on-write",
        })
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Permissions::User => f.write_str("this user alone"),
            Permissions::Everyone => f.write_str("everyone"),
            Permissions::Mode(mode) => write!(f, "mode {mode:04o}"),
            Permissions::Sddl(text) => f.write_str(text),
        }
    }
}

/// The options of an object and of its view.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spec {
    pub(crate) access: Access,
    /// The size of a new object in bytes. On opening, the least size that is accepted.
    pub(crate) size: Option<u64>,
    /// The size in bytes to which the object may grow.
    pub(crate) reserve: Option<u64>,
    /// `None` selects the default for a new object, and demands nothing on opening.
    pub(crate) permissions: Option<Permissions>,
    pub(crate) large_pages: LargePages,
    pub(crate) inheritable: bool,
    pub(crate) allow_other_owners: bool,
    /// The first bytes of a new object, which make it a segment. At most `size` bytes.
    pub(crate) first_bytes: Vec<u8>,
}

/// A live named object, as returned by [`list`](crate::list).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// The name of the object.
    pub name: Name,
    /// The object's length in bytes, or `None` if this user may not read it.
    pub size: Option<u64>,
    /// The object's owner and permissions, or `None` if this user may not read them.
    pub info: Option<ObjectInfo>,
}

/// A file of a dead process, as reported by [`sweep`](crate::sweep).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// The name of the object.
    pub name: Name,
    /// The object's length in bytes.
    pub size: u64,
    /// The reason why the file still exists, or `None` if it was removed.
    pub kept: Option<String>,
}

/// Metadata of an object for display. The texts have the system's form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectInfo {
    /// The owner: a user id on Unix, an account or a security identifier on Windows. Empty if the
    /// system has recorded no owner.
    pub owner: String,
    /// The permissions: a mode such as `0600` on Unix, SDDL text on Windows. Empty if the system
    /// has recorded no owner.
    pub permissions: String,
    /// The location: a path, or the full name of the kernel object.
    pub location: Option<String>,
}
