//! What a language with handlers of its own loads: a few C functions over [`Mapping`], which return what
//! happened and never crash their host.
//!
//! ```python
//! guest = ctypes.CDLL("target/debug/examples/libguest.so")
//! guest.guest_open.restype = ctypes.c_void_p
//! ```

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::path::PathBuf;

use mmf::{ErrorKind, Mapping, Name, Region};

/// It was done.
pub const DONE: c_int = 0;
/// A page was gone.
pub const GONE: c_int = 1;
/// Anything else; it is told on the standard error.
pub const FAILED: c_int = 2;

/// Maps a file; null if that fails.
///
/// # Safety
///
/// `path` ends with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_open(path: *const c_char) -> *mut c_void {
    // SAFETY: the caller's promise.
    let path = unsafe { CStr::from_ptr(path) };
    // SAFETY: every run of bytes that came from the system is good for it again; here they are those of a C string.
    let path = PathBuf::from(unsafe { OsStr::from_encoded_bytes_unchecked(path.to_bytes()) });
    match Mapping::open(path) {
        Ok(map) => Box::into_raw(Box::new(map)).cast(),
        Err(error) => {
            eprintln!("{error}");
            std::ptr::null_mut()
        }
    }
}

/// Copies `len` bytes at `offset` to `to`.
///
/// # Safety
///
/// - `map` is what [`guest_open`] gave and was not closed.
/// - `to` may be written for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_read(map: *const c_void, offset: usize, to: *mut u8, len: usize) -> c_int {
    // SAFETY: the caller's promise.
    let map = unsafe { &*map.cast::<Mapping>() };
    // SAFETY: the caller's promise.
    let to = unsafe { std::slice::from_raw_parts_mut(to, len) };
    match map.read_at(offset, to) {
        Ok(()) => DONE,
        Err(error) if matches!(error.kind(), ErrorKind::Fault { .. }) => GONE,
        Err(error) => {
            eprintln!("{error}");
            FAILED
        }
    }
}

/// Waits until it is on its disk.
///
/// # Safety
///
/// `map` is what [`guest_open`] gave and was not closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_sync(map: *const c_void) -> c_int {
    // SAFETY: the caller's promise.
    let map = unsafe { &*map.cast::<Mapping>() };
    match map.sync(..) {
        Ok(()) => DONE,
        Err(error) => {
            eprintln!("{error}");
            FAILED
        }
    }
}

/// Ends it.
///
/// # Safety
///
/// `map` is what [`guest_open`] gave, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_close(map: *mut c_void) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(map.cast::<Mapping>()) });
}

/// Creates a region of that name, takes its lock, and drops it: all that registers something with
/// the system.
///
/// # Safety
///
/// `name` ends with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_lock(name: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    let locked = Name::local(name.to_string_lossy()).and_then(|name| {
        let region = Region::create_new(name, 4096)?;
        let locked = region.write().is_ok();
        Ok(locked)
    });
    match locked {
        Ok(true) => DONE,
        Ok(false) => FAILED,
        Err(error) => {
            eprintln!("{error}");
            FAILED
        }
    }
}
