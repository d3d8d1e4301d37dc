//! Errors as Ruby's exceptions.

use magnus::{Error, ExceptionClass, RModule, Ruby, prelude::*};
use mmf::ErrorKind;
use win32_mmap_store::{Error as StoreError, marshal};

/// The exception for what went wrong.
pub(crate) fn raise(ruby: &Ruby, error: &StoreError) -> Error {
    let text = error.to_string();
    match error {
        StoreError::Mmf(error) => of_mmf(ruby, error, text),
        StoreError::System(error) => match error.raw_os_error() {
            Some(code) => system(ruby, code, &text),
            None => new(ruby, "Error", text),
        },
        StoreError::Marshal(marshal::Error::Refused { .. }) => {
            new(ruby, "FormatError", format!("{text}; objects of classes need `trusted: true`"))
        }
        StoreError::Marshal(_) | StoreError::NoAttributes => new(ruby, "FormatError", text),
        StoreError::Timeout { .. } => new(ruby, "TimeoutError", text),
        StoreError::TooLong { .. } => Error::new(ruby.exception_range_error(), text),
        _ => new(ruby, "Error", text),
    }
}

fn of_mmf(ruby: &Ruby, error: &mmf::Error, text: String) -> Error {
    let errno = match error.kind() {
        ErrorKind::NotFound => "ENOENT",
        ErrorKind::AlreadyExists => "EEXIST",
        ErrorKind::PermissionDenied | ErrorKind::ForeignOwner { .. } | ErrorKind::HardLinked { .. } => "EACCES",
        ErrorKind::NoSpace => "ENOSPC",
        ErrorKind::Busy => "EBUSY",
        ErrorKind::InvalidName { .. }
        | ErrorKind::InvalidInput { .. }
        | ErrorKind::Mismatch { .. }
        | ErrorKind::Unsupported { .. } => return Error::new(ruby.exception_arg_error(), text),
        ErrorKind::ReadOnly => return Error::new(ruby.exception_io_error(), text),
        ErrorKind::OutOfBounds { .. } => return Error::new(ruby.exception_range_error(), text),
        ErrorKind::Other if win32_mmap_store::errno(error).is_some() => {
            return system(ruby, win32_mmap_store::errno(error).unwrap_or(0), &text);
        }
        _ => return new(ruby, "Error", text),
    };
    let class = ruby.class_object().const_get::<_, RModule>("Errno").and_then(|errors| errors.const_get(errno));
    match class {
        Ok(class) => Error::new(class, text),
        Err(error) => error,
    }
}

/// Ruby knows the class of a code.
fn system(ruby: &Ruby, code: i32, text: &str) -> Error {
    match ruby.exception_system_call_error().new_instance((text, code)) {
        Ok(exception) => exception.into(),
        Err(error) => error,
    }
}

pub(crate) fn format(ruby: &Ruby, text: &str) -> Error {
    new(ruby, "FormatError", text.to_owned())
}

/// An exception of the gem's own.
fn new(ruby: &Ruby, class: &str, text: String) -> Error {
    let class = crate::class(ruby).and_then(|mmap| mmap.const_get::<_, ExceptionClass>(class));
    match class {
        Ok(class) => Error::new(class, text),
        Err(error) => error,
    }
}
