//! What can go wrong.

use std::fmt;
use std::io;

use crate::marshal;

/// The result of everything that can fail here.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// What the library `mmf` says.
    Mmf(mmf::Error),
    /// What the system says.
    System(io::Error),
    /// What is in the map, or is to come into it, is not what can be read.
    Marshal(marshal::Error),
    /// The map holds something else than attributes.
    NoAttributes,
    /// Somebody else has the lock, and there was no time to wait, or it is over.
    Timeout {
        /// Who, where that is known.
        holder: Option<u32>,
    },
    /// [`Wait::cancel`](crate::Wait) was set.
    Cancelled,
    /// So many bytes pass the end of the map.
    TooLong {
        /// Where they would end.
        end: u64,
        /// Where the map ends.
        size: u64,
    },
    /// A process died while it changed the map, and this handle may not undo the change.
    HalfWritten,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Mmf(error) => error.fmt(f),
            Error::System(error) => error.fmt(f),
            Error::Marshal(error) => error.fmt(f),
            Error::NoAttributes => {
                f.write_str("the map holds something else than attributes; write_string(\"\\0\\0\") clears it for them")
            }
            Error::Timeout { holder: Some(process) } => write!(f, "process {process} has the lock"),
            Error::Timeout { holder: None } => f.write_str("another process has the lock, or died with it"),
            Error::Cancelled => f.write_str("the wait was given up"),
            Error::TooLong { end, size } => write!(f, "{end} bytes do not fit a map of {size}"),
            Error::HalfWritten => {
                f.write_str("a process died while it changed the map; the next process that opens it for writing undoes that change")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Mmf(error) => Some(error),
            Error::System(error) => Some(error),
            Error::Marshal(error) => Some(error),
            _ => None,
        }
    }
}

impl From<mmf::Error> for Error {
    fn from(error: mmf::Error) -> Self {
        Error::Mmf(error)
    }
}

impl From<marshal::Error> for Error {
    fn from(error: marshal::Error) -> Self {
        Error::Marshal(error)
    }
}
