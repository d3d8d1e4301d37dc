//! Errors as Ruby's exceptions, whose classes `lib/mmf/errors.rb` defines.

use magnus::{Error, ExceptionClass, Ruby, prelude::*};
use mmf::ErrorKind;

/// The exception for an error.
pub(crate) fn raise(ruby: &Ruby, error: mmf::Error) -> Error {
    let text = error.to_string();
    let class = match error.kind() {
        ErrorKind::NotFound => "NotFoundError",
        ErrorKind::AlreadyExists => "AlreadyExistsError",
        ErrorKind::PermissionDenied | ErrorKind::HardLinked { .. } => "PermissionError",
        ErrorKind::ForeignOwner { .. } => "ForeignOwnerError",
        ErrorKind::InvalidName { .. } => "InvalidNameError",
        ErrorKind::InvalidInput { .. } => "InvalidArgumentError",
        ErrorKind::Mismatch { .. } => "MismatchError",
        ErrorKind::NoSpace => "NoSpaceError",
        ErrorKind::Unsupported { .. } => "UnsupportedError",
        ErrorKind::Busy => "BusyError",
        ErrorKind::OutOfBounds { .. } => "OutOfBoundsError",
        ErrorKind::Misaligned { .. } => "MisalignedError",
        ErrorKind::ReadOnly => "ReadOnlyError",
        ErrorKind::Fault { .. } => "FaultError",
        ErrorKind::NotASegment { .. } => "NotASegmentError",
        ErrorKind::Damaged { .. } => "DamagedError",
        ErrorKind::WouldBlock | ErrorKind::Timeout { .. } => "TimeoutError",
        ErrorKind::Deadlock => "DeadlockError",
        ErrorKind::Poisoned => "PoisonedError",
        ErrorKind::Contended => "ContendedError",
        ErrorKind::Full => "FullError",
        _ => return system(ruby, text, error.raw_os_error()),
    };
    new(ruby, class, text)
}

/// What the system said, with its code.
fn system(ruby: &Ruby, text: String, code: Option<i32>) -> Error {
    let exception = class(ruby, "SystemError").and_then(|class| class.new_instance((text, code)));
    exception.map_or_else(|error| error, Into::into)
}

/// An exception of this gem.
pub(crate) fn new(ruby: &Ruby, name: &str, text: impl Into<String>) -> Error {
    class(ruby, name).map_or_else(|error| error, |class| Error::new(class, text.into()))
}

fn class(ruby: &Ruby, name: &str) -> Result<ExceptionClass, Error> {
    crate::module(ruby)?.const_get(name)
}
