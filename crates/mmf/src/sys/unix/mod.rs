//! Unix: objects are files, named ones in a directory that lies in memory where the system has one.

mod bells;
mod birth;
mod file;
mod forks;
mod identity;
mod live;
mod named;
mod object;
mod scope;
mod view;

#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "wait_linux.rs"]
mod wait;
#[cfg(any(target_os = "macos", target_os = "ios"))]
#[path = "wait_apple.rs"]
mod wait;
#[cfg(target_os = "freebsd")]
#[path = "wait_freebsd.rs"]
mod wait;
#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "macos",
    target_os = "ios",
    target_os = "freebsd"
)))]
#[path = "wait_poll.rs"]
mod wait;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod extents;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[path = "extents_none.rs"]
mod extents;
#[cfg(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "ios"))]
mod ofd;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod shm;
#[cfg(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "ios"))]
mod token;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "ios")))]
#[path = "token_none.rs"]
mod token;

#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "linux.rs"]
mod native;
#[cfg(any(target_os = "macos", target_os = "ios"))]
#[path = "apple.rs"]
mod native;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "ios")))]
#[path = "bsd.rs"]
mod native;

pub use std::os::fd::{BorrowedFd as BorrowedHandle, OwnedFd as OwnedHandle};

pub(crate) use bells::{Bells, Rings};
pub(crate) use identity::{boot, random_id};
pub(crate) use named::{check_exact, list, sweep, unlink_exact};
pub(crate) use object::Object;
pub(crate) use token::{Tokens, forks, token_is_held, watch_forks};
pub(crate) use view::View;

use rustix::io::Errno;

use crate::error::Error;

/// `sysconf(_SC_PAGESIZE)`.
pub(crate) fn page_size() -> usize {
    rustix::param::page_size()
}

/// Gives a type with `handle` and `into_handle` the traits that this system's libraries take.
macro_rules! impl_handle_traits {
    ($type:ty) => {
        impl std::os::fd::AsFd for $type {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.handle()
            }
        }
        impl From<$type> for std::os::fd::OwnedFd {
            fn from(value: $type) -> Self {
                value.into_handle()
            }
        }
    };
}
pub(crate) use impl_handle_traits;

/// Memory without a name where the system has none: a file that never gets its name.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn unnamed_in_shared_dir() -> crate::error::Result<OwnedHandle> {
    use std::os::fd::AsFd;
    let dir = scope::ScopeDir::open(crate::name::Scope::Global, scope::Missing::Report)?;
    Ok(birth::Newborn::in_dir(dir.fd.as_fd())?.into_fd())
}

/// Reads a byte of each page through the system, which reports the pages that are gone.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "ios"))]
fn touch(address: *mut u8, len: usize) -> Result<(), Errno> {
    use crate::spec::FaultPolicy;
    use crate::sys::guard;

    let mut byte = 0_u8;
    for at in (0..len).step_by(page_size()) {
        let src = address.wrapping_add(at);
        // SAFETY: `byte` is ours to write, and a source that cannot be read is what this policy reports.
        let left = unsafe { guard::copy(FaultPolicy::SystemCalls, &raw mut byte, src, 1, src.addr(), src.addr() + 1) };
        if left != 0 {
            return Err(Errno::FAULT);
        }
    }
    Ok(())
}

/// An error of `rustix`, as ours.
fn system(doing: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::system(doing, errno.into())
}
