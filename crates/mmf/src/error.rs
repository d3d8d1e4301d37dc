//! The error type of this crate. An error holds the failed operation, the object, the reason, the
//! system's own error and advice.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::time::Duration;

/// The result of every fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of an operation of this crate.
///
/// It displays as one sentence without a final stop:
/// `cannot open name:frames: not found: no process holds an object of that name`.
/// [`kind`](Error::kind) is for programs, the text is for people. If the system reported an error,
/// it is the [`source`](std::error::Error::source).
///
/// It is one pointer wide, so that a `Result<()>` fits one register and success costs nothing.
///
/// # Examples
///
/// ```
/// use mmf::{ErrorKind, Mapping, Name};
///
/// let error = Mapping::open(Name::local("no process holds this")?).unwrap_err();
/// assert_eq!(*error.kind(), ErrorKind::NotFound);
/// println!("{error}");
/// # Ok::<(), mmf::Error>(())
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    doing: &'static str,
    target: Option<String>,
    help: Option<Cow<'static, str>>,
    source: Option<io::Error>,
}

/// The kind of an [`Error`].
///
/// Offsets and lengths are in bytes. Offsets count from the start of the mapping on which the
/// operation was called.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No object of that name or path exists, or no process holds it any more.
    NotFound,
    /// An object of that name or path exists already.
    AlreadyExists,
    /// The system refuses the operation: this process lacks a right.
    PermissionDenied,
    /// The object belongs to another user, and
    /// [`allow_other_owners`](crate::MappingOptions::allow_other_owners) is not set.
    ForeignOwner {
        /// The owner: a user id on Unix, a security identifier (SID) on Windows.
        owner: String,
    },
    /// The file of a named object has more than one hard link. Another user may have made a link,
    /// so that opening the name could yield another object.
    HardLinked {
        /// The number of names of the file.
        links: u64,
    },
    /// The name breaks a rule of mmf or of this system. mmf never shortens a name.
    InvalidName {
        /// The rule that the name breaks.
        reason: String,
    },
    /// An option or argument is invalid, or two of them contradict each other.
    InvalidInput {
        /// The reason.
        reason: String,
    },
    /// The object exists, but differs from what the options demand.
    Mismatch {
        /// The property that differs.
        what: &'static str,
        /// The value that the options demand.
        wanted: String,
        /// The value that the object has.
        found: String,
    },
    /// Memory or disk space is exhausted.
    NoSpace,
    /// This system or this kind of object does not support the operation.
    Unsupported {
        /// The unsupported operation.
        what: String,
    },
    /// Another process is creating, removing or using the object, and did not finish before the
    /// timeout.
    Busy,
    /// The range passes the end of the mapping.
    OutOfBounds {
        /// The first byte of the range.
        offset: usize,
        /// The length of the range.
        len: usize,
        /// The length of the mapping.
        size: usize,
    },
    /// The offset is not a multiple of the alignment that an atomic operation needs.
    Misaligned {
        /// The requested offset.
        offset: usize,
        /// The needed alignment.
        align: usize,
    },
    /// The mapping is read-only.
    ReadOnly,
    /// A page is gone: its file was truncated, the memory for it is exhausted, or its disk fails.
    Fault {
        /// The first byte that could not be accessed.
        offset: usize,
        /// The number of bytes that were transferred before it.
        done: usize,
    },
    /// The object is not a segment of mmf, or this release cannot use it.
    NotASegment {
        /// The reason.
        reason: String,
    },
    /// The segment contains data that mmf never writes.
    Damaged {
        /// The defect that was found.
        reason: String,
    },
    /// Another thread or process has the lock.
    WouldBlock,
    /// The timeout ended before the lock was free.
    Timeout {
        /// The process that has the lock, if that is known.
        holder: Option<Holder>,
    },
    /// This thread has the lock already, so waiting for it would never end.
    Deadlock,
    /// A writer died or panicked in the middle of a change.
    Poisoned,
    /// Writers changed the data during each attempt to read it, until the timeout.
    Contended,
    /// There is no room left for one more participant, or in a dict.
    Full,
    /// Another error that the system reported; see the error's source.
    Other,
}

/// The process that has a lock for which the caller waited until the timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The id of the process in its own pid namespace. It means nothing in another pid namespace.
    pub process: u32,
    /// The least time for which the process has had the lock: the time that the caller observed.
    pub held_for: Duration,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, doing: &'static str) -> Self {
        Error(Box::new(Inner { kind, doing, target: None, help: None, source: None }))
    }

    /// Creates an error from an error of the system, and derives its kind from the code.
    pub(crate) fn system(doing: &'static str, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            io::ErrorKind::Unsupported => ErrorKind::Unsupported { what: doing.to_owned() },
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::OutOfMemory
            | io::ErrorKind::FileTooLarge => ErrorKind::NoSpace,
            io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
            io::ErrorKind::ResourceBusy => ErrorKind::Busy,
            _ => ErrorKind::Other,
        };
        Error::new(kind, doing).with_source(source)
    }

    pub(crate) fn invalid(doing: &'static str, reason: impl Into<String>) -> Self {
        Error::new(ErrorKind::InvalidInput { reason: reason.into() }, doing)
    }

    pub(crate) fn unsupported(doing: &'static str, what: impl Into<String>) -> Self {
        Error::new(ErrorKind::Unsupported { what: what.into() }, doing)
    }

    /// Creates the error for a segment on a file system that other machines may share.
    pub(crate) fn remote_segment(doing: &'static str) -> Self {
        let what =
            "a segment on a file system that other machines may share: each would take the other's processes for dead";
        Error::unsupported(doing, what).with_help("a raw mapping of it works")
    }

    pub(crate) fn mismatch(what: &'static str, wanted: impl fmt::Display, found: impl fmt::Display) -> Self {
        let kind = ErrorKind::Mismatch { what, wanted: wanted.to_string(), found: found.to_string() };
        Error::new(kind, "open")
    }

    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    pub(crate) fn with_source(mut self, source: io::Error) -> Self {
        self.0.source = Some(source);
        self
    }

    pub(crate) fn with_help(mut self, help: impl Into<Cow<'static, str>>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// Names the object, unless a lower layer has already named it.
    pub(crate) fn on(mut self, target: impl fmt::Display) -> Self {
        self.0.target.get_or_insert_with(|| target.to_string());
        self
    }

    /// Returns the kind of this error.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Returns the system's error code (`errno`, `GetLastError`), if the system reported the error.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.0.source.as_ref().and_then(io::Error::raw_os_error)
    }

    /// Returns advice that helps to avoid this error, if there is any.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.0.help.as_deref()
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ErrorKind::NotFound => f.write_str("not found"),
            ErrorKind::AlreadyExists => f.write_str("it exists already"),
            ErrorKind::PermissionDenied => f.write_str("permission denied"),
            ErrorKind::ForeignOwner { owner } => write!(f, "it belongs to {owner}, not to this user"),
            ErrorKind::HardLinked { links } => {
                write!(f, "its file has {links} hard links, but only one name is allowed")
            }
            ErrorKind::InvalidName { reason } => write!(f, "invalid name: {reason}"),
            ErrorKind::InvalidInput { reason } => f.write_str(reason),
            ErrorKind::Mismatch { what, wanted, found } => write!(f, "{what} is {found}, but {wanted} was asked for"),
            ErrorKind::NoSpace => f.write_str("no space left for it"),
            ErrorKind::Unsupported { what } => write!(f, "not supported here: {what}"),
            ErrorKind::Busy => f.write_str("timed out: another process is creating, removing or using it"),
            ErrorKind::OutOfBounds { offset, len, size } => {
                write!(f, "{len} bytes at offset {offset} pass the end at {size}")
            }
            ErrorKind::Misaligned { offset, align } => write!(f, "offset {offset} is not a multiple of {align}"),
            ErrorKind::ReadOnly => f.write_str("it is read-only"),
            ErrorKind::Fault { offset, done } => {
                write!(f, "the page at offset {offset} is gone ({done} bytes were transferred before it)")
            }
            ErrorKind::NotASegment { reason } => write!(f, "it is not a usable segment: {reason}"),
            ErrorKind::Damaged { reason } => write!(f, "it is damaged: {reason}"),
            ErrorKind::WouldBlock => f.write_str("another thread or process has the lock"),
            ErrorKind::Timeout { holder: Some(holder) } => {
                let Holder { process, held_for } = holder;
                write!(f, "timed out: process {process} has had the lock for at least {held_for:?}")
            }
            ErrorKind::Timeout { holder: None } => f.write_str("timed out"),
            ErrorKind::Deadlock => f.write_str("this thread has the lock already"),
            ErrorKind::Poisoned => f.write_str("a writer died or panicked in the middle of a change"),
            ErrorKind::Contended => f.write_str("timed out: writers changed the data during each attempt to read it"),
            ErrorKind::Full => f.write_str("it is full"),
            ErrorKind::Other => f.write_str("the system refused"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        write!(f, "cannot {}", inner.doing)?;
        if let Some(target) = &inner.target {
            write!(f, " {target}")?;
        }
        write!(f, ": {}", inner.kind)?;
        if let Some(source) = &inner.source {
            write!(f, ": {source}")?;
        }
        if let Some(help) = &inner.help {
            write!(f, "; {help}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("doing", &self.0.doing)
            .field("target", &self.0.target)
            .field("help", &self.0.help)
            .field("source", &self.0.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }
}

impl From<Error> for io::Error {
    /// Wraps the whole error. Its `io::ErrorKind` is the closest one to [`Error::kind`].
    fn from(error: Error) -> io::Error {
        let kind = match error.kind() {
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::AlreadyExists => io::ErrorKind::AlreadyExists,
            ErrorKind::PermissionDenied
            | ErrorKind::ForeignOwner { .. }
            | ErrorKind::HardLinked { .. }
            | ErrorKind::ReadOnly => io::ErrorKind::PermissionDenied,
            ErrorKind::InvalidName { .. }
            | ErrorKind::InvalidInput { .. }
            | ErrorKind::Mismatch { .. }
            | ErrorKind::Misaligned { .. } => io::ErrorKind::InvalidInput,
            ErrorKind::NoSpace => io::ErrorKind::StorageFull,
            ErrorKind::Unsupported { .. } => io::ErrorKind::Unsupported,
            ErrorKind::Busy => io::ErrorKind::ResourceBusy,
            ErrorKind::WouldBlock => io::ErrorKind::WouldBlock,
            ErrorKind::Timeout { .. } | ErrorKind::Contended => io::ErrorKind::TimedOut,
            ErrorKind::Deadlock => io::ErrorKind::Deadlock,
            ErrorKind::NotASegment { .. } | ErrorKind::Damaged { .. } | ErrorKind::Poisoned => {
                io::ErrorKind::InvalidData
            }
            ErrorKind::OutOfBounds { .. } => io::ErrorKind::UnexpectedEof,
            ErrorKind::Fault { .. } | ErrorKind::Full | ErrorKind::Other => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_of_nothing_is_one_pointer_wide() {
        assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
    }

    #[test]
    fn the_text_tells_what_where_why_and_what_to_do() {
        let error = Error::system("open", io::Error::from(io::ErrorKind::NotFound))
            .on("name:frames")
            .on("a later layer does not rename it")
            .with_help("start the program that creates it");
        let text = error.to_string();
        assert!(text.starts_with("cannot open name:frames: not found: "), "{text}");
        assert!(text.ends_with("; start the program that creates it"), "{text}");
    }
}
