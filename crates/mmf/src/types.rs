//! What is asked of an object: the plain words that every layer shares.

use std::fmt;

use crate::name::Name;

/// What a mapping may do with its bytes. None is ever executable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Access {
    /// Look only. Opening needs only the right to read.
    ReadOnly,
    /// Look and change; everybody sees the changes.
    #[default]
    ReadWrite,
    /// Look and change; the changes stay in this mapping. Opening needs only the right to read.
    CopyOnWrite,
}

/// Who may open an object that is being created.
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
    /// This user alone may read and write.
    #[default]
    User,
    /// Everyone on the machine may read and write.
    Everyone,
    /// An exact mode (`chmod`), untouched by the umask. Unix only.
    Mode(u32),
    /// A security descriptor as
    /// [SDDL](https://learn.microsoft.com/windows/win32/secauthz/security-descriptor-definition-language)
    /// text. Windows only.
    Sddl(String),
}

/// Whether an object is made of large pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LargePages {
    /// No.
    #[default]
    Never,
    /// Where the system has them to give, else ordinary ones.
    Prefer,
    /// Or fail: the error names the privilege or the setting that is missing. What is grown later is of large pages
    /// where the system sees fit.
    Require,
}

/// How a mapping survives a page that is gone (a truncated file, exhausted memory, a failing disk).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FaultPolicy {
    /// The fault is caught where it happens: on Unix by a signal handler for `SIGBUS` (and where the
    /// system reports such faults so, `SIGSEGV`), on Windows by a structured exception handler that
    /// covers mmf's copy routines alone. Costs nothing while nothing happens.
    ///
    /// On Unix it fails, and the process dies:
    ///
    /// - in a thread that blocks `SIGBUS`;
    /// - while another handler stands in the place of mmf's that does not pass on what is not its
    ///   own. Python's `faulthandler`, enabled after the first mapping, is one. mmf looks for that,
    ///   and installs its own handler on top of the other, at each opening, growth, sync and flush,
    ///   and at a handle's first lock; between the other's installation and the next of these,
    ///   faults are not caught. So install such a handler before the first mapping, or call
    ///   [`Mapping::sync`](crate::Mapping::sync) after it. mmf's handler passes on what is not its
    ///   own.
    ///
    /// The handler cannot be taken away, so on Unix a library that contains mmf stays loaded after
    /// `dlclose`.
    #[default]
    Trap,
    /// The system copies and reports: `process_vm_readv` on Linux,
    /// `mach_vm_read_overwrite` on macOS, `ReadProcessMemory` on Windows. No handler is installed. Every
    /// access is a system call, and atomic operations are [unsupported](crate::ErrorKind::Unsupported).
    ///
    /// Opening fails where the system refuses that call. A filter of system calls (seccomp) that
    /// ends the process instead does so at the opening: nothing tells the two apart beforehand. The
    /// other policies never make the call.
    SystemCalls,
    /// Not at all: a page that is gone kills the process. For memory that nobody can take away.
    Unguarded,
}

impl FaultPolicy {
    /// The one that guards whatever either of the two guards.
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

/// All that is asked of an object and of the view of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spec {
    pub(crate) access: Access,
    /// Bytes the object shall have; on opening, the least it must have.
    pub(crate) size: Option<u64>,
    /// Bytes it may grow to.
    pub(crate) reserve: Option<u64>,
    /// `None`: the default when creating, no demand when opening.
    pub(crate) permissions: Option<Permissions>,
    pub(crate) large_pages: LargePages,
    pub(crate) inheritable: bool,
    pub(crate) allow_other_owners: bool,
    /// What a created object begins with, which makes it a segment; not longer than `size`.
    pub(crate) first_bytes: Vec<u8>,
}

/// A living named object, as [`list`](crate::list) finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// Its name.
    pub name: Name,
    /// Its length in bytes; `None` where this user may not look.
    pub size: Option<u64>,
    /// Who owns it and may open it; `None` where this user may not look.
    pub info: Option<ObjectInfo>,
}

/// What a dead process left, as [`sweep`](crate::sweep) met it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// Its name.
    pub name: Name,
    /// Its length in bytes.
    pub size: u64,
    /// Why it is still there; `None` where it was removed.
    pub kept: Option<String>,
}

/// What people want to know of an object; the texts are the system's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectInfo {
    /// Its owner: a user id on Unix, an account or a security identifier on Windows; empty if the
    /// system has noted none.
    pub owner: String,
    /// Who may open it: a mode such as `0600` on Unix, SDDL text on Windows; empty if no owner is
    /// noted.
    pub permissions: String,
    /// Where the system keeps it: a path, or the full name of the kernel's object.
    pub location: Option<String>,
}
