//! What `Win32::MMap` does, without Ruby: a map of bytes, the lock beside it, and the hash of attributes in it, which is one
//! Ruby Marshal string at the first byte.
//!
//! Apart from Ruby so that it can be tested where there is none, under Wine above all, and fuzzed.

use std::path::PathBuf;

mod error;
mod latch;
pub mod marshal;
mod store;
mod sys;
mod wait;

pub use error::{Error, Result};
pub use latch::{Exclusive, Latch};
pub use store::{Held, Place, Plan, Store};
pub use wait::Wait;

/// A path as Ruby has it: UTF-8 on Windows, any bytes elsewhere.
#[must_use]
pub fn path(bytes: Vec<u8>) -> Option<PathBuf> {
    sys::path(bytes)
}

/// The system's code of an error, where Ruby would take it for the same.
#[must_use]
pub fn errno(error: &mmf::Error) -> Option<i32> {
    error.raw_os_error().and_then(sys::errno)
}
