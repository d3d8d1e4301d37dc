//! The one error type: what was tried, on which object, what the system said, and what to do about it.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::time::Duration;

/// The result of every fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, with all that is known about it.
///
/// It displays as one sentence without a final stop:
/// `cannot open name:frames: not found: no process holds an object of that name`.
/// [`kind`](Error::kind) is for programs, the text is for people. The system's own error, where there is
/// one, is the [`source`](std::error::Error::source).
///
/// It is one pointer wide, so that a `Result` of a read or a write costs nothing while all goes well.
///
/// # Examples
///
/// ```
/// use mmf::{ErrorKind, Mapping, Name};
///
/// let error = Mapping::open(Name::local("nobody holds this")?).unwrap_err();
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

/// What kind of failure an [`Error`] is.
///
/// Offsets and lengths are in bytes, counted from the start of the mapping that the operation was called on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nothing of that name or path exists, or nobody holds it any more.
    NotFound,
    /// An object of that name or path exists already.
    AlreadyExists,
    /// The system refuses: rights are missing.
    PermissionDenied,
    /// The object belongs to somebody else, and
    /// [`allow_other_owners`](crate::MappingOptions::allow_other_owners) was not asked for.
    ForeignOwner {
        /// The owner: a user id on Unix, a security identifier (SID) on Windows.
        owner: String,
    },
    /// The file of a named object has hard links: it can be reached under another name too, which
    /// another user may have made. Opening it could give one object for another.
    HardLinked {
        /// How many names the file has.
        links: u64,
    },
    /// The name cannot be held by this system. It is never shortened.
    InvalidName {
        /// What is wrong with it.
        reason: String,
    },
    /// The options or arguments contradict each other or make no sense.
    InvalidInput {
        /// What is wrong with them.
        reason: String,
    },
    /// The object exists, but is not what the options demand.
    Mismatch {
        /// Which property differs.
        what: &'static str,
        /// What the options asked for.
        wanted: String,
        /// What the object is.
        found: String,
    },
    /// Memory or disk for the bytes is not to be had.
    NoSpace,
    /// This system, or this kind of object, cannot do it.
    Unsupported {
        /// What it is that cannot be done.
        what: String,
    },
    /// Somebody is making, removing or using the object right now and did not finish in time.
    Busy,
    /// The range passes the end.
    OutOfBounds {
        /// Where the range begins.
        offset: usize,
        /// How long it is.
        len: usize,
        /// How long the mapping is.
        size: usize,
    },
    /// The offset is no multiple of the alignment that an atomic operation needs.
    Misaligned {
        /// The offset asked for.
        offset: usize,
        /// The alignment needed.
        align: usize,
    },
    /// The mapping is read-only.
    ReadOnly,
    /// A page is gone: its file was truncated, the memory for it is exhausted, or its disk fails.
    Fault {
        /// The first byte that could not be reached.
        offset: usize,
        /// How many bytes were done before it.
        done: usize,
    },
    /// What is there is no segment of mmf's, or one that this release cannot use.
    NotASegment {
        /// Why it is none.
        reason: String,
    },
    /// A segment holds what no process of ours writes.
    Damaged {
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody has the lock.
    WouldBlock,
    /// Waiting took too long.
    Timeout {
        /// Who was in the way, where that is known.
        holder: Option<Holder>,
    },
    /// This thread has the lock already.
    Deadlock,
    /// A writer died or panicked with a change half made.
    Poisoned,
    /// Writers came between for as long as was waited.
    Contended,
    /// There is no room left: for one more participant, or in a dict.
    Full,
    /// Anything else that the system reported; see the error's source.
    Other,
}

/// Who has a lock that somebody waited for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Its process id, as it knows it: in another pid namespace it means nothing.
    pub process: u32,
    /// For how long, at the least: what the one who waited saw of it.
    pub held_for: Duration,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, doing: &'static str) -> Self {
        Error(Box::new(Inner { kind, doing, target: None, help: None, source: None }))
    }

    /// An error of the system, its kind derived from the code.
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

    /// A segment's place on a file system that other machines may share.
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

    /// Names the object, unless a layer below already has.
    pub(crate) fn on(mut self, target: impl fmt::Display) -> Self {
        self.0.target.get_or_insert_with(|| target.to_string());
        self
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The system's own error code (`errno`, `GetLastError`), where the system was the one to refuse.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.0.source.as_ref().and_then(io::Error::raw_os_error)
    }

    /// What to do about it, where that is known.
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
            ErrorKind::HardLinked { links } => write!(f, "its file has {links} hard links, and one name is allowed"),
            ErrorKind::InvalidName { reason } => write!(f, "invalid name: {reason}"),
            ErrorKind::InvalidInput { reason } => f.write_str(reason),
            ErrorKind::Mismatch { what, wanted, found } => write!(f, "{what} is {found}, but {wanted} was asked for"),
            ErrorKind::NoSpace => f.write_str("no space left for it"),
            ErrorKind::Unsupported { what } => write!(f, "not supported here: {what}"),
            ErrorKind::Busy => f.write_str("somebody is making, removing or using it and did not finish in time"),
            ErrorKind::OutOfBounds { offset, len, size } => {
                write!(f, "{len} bytes at offset {offset} pass the end at {size}")
            }
            ErrorKind::Misaligned { offset, align } => write!(f, "offset {offset} is no multiple of {align}"),
            ErrorKind::ReadOnly => f.write_str("it is read-only"),
            ErrorKind::Fault { offset, done } => {
                write!(f, "the page at offset {offset} is gone ({done} bytes were done before it)")
            }
            ErrorKind::NotASegment { reason } => write!(f, "it is no segment that can be used: {reason}"),
            ErrorKind::Damaged { reason } => write!(f, "it is damaged: {reason}"),
            ErrorKind::WouldBlock => f.write_str("somebody has the lock"),
            ErrorKind::Timeout { holder: Some(holder) } => {
                let Holder { process, held_for } = holder;
                write!(f, "it took too long: process {process} has had the lock for {held_for:?} at least")
            }
            ErrorKind::Timeout { holder: None } => f.write_str("it took too long"),
            ErrorKind::Deadlock => f.write_str("this thread has the lock already"),
            ErrorKind::Poisoned => f.write_str("a writer died or panicked with a change half made"),
            ErrorKind::Contended => f.write_str("writers came between for as long as was waited"),
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
    /// Wraps the whole error, with the `io::ErrorKind` that comes nearest.
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
