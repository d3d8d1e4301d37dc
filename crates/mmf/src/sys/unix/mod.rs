//! Unix: objects are files. Named objects lie in a directory that is in memory, if the system has
//! one.

mod code;
mod create;
mod file;
mod forks;
mod identity;
mod liveness;
mod named;
mod namespace_dir;
mod object;
mod parker;
mod remove;
mod second_name;
mod sweep;
mod view;

#[cfg(linux_like)]
#[path = "wait_linux.rs"]
mod wait;
#[cfg(apple)]
#[path = "wait_apple.rs"]
mod wait;
#[cfg(bsd)]
#[path = "wait_freebsd.rs"]
mod wait;
#[cfg(not(any(linux_like, apple, bsd)))]
#[path = "wait_poll.rs"]
mod wait;

#[cfg(linux_like)]
mod extents;
#[cfg(not(linux_like))]
#[path = "extents_none.rs"]
mod extents;
#[cfg(any(linux_like, apple))]
mod liveness_token;
#[cfg(not(any(linux_like, apple)))]
#[path = "liveness_token_none.rs"]
mod liveness_token;
#[cfg(any(linux_like, apple))]
mod ofd;
#[cfg(not(linux_like))]
mod shm;

#[cfg(linux_like)]
#[path = "linux.rs"]
mod native;
#[cfg(apple)]
#[path = "apple.rs"]
mod native;
#[cfg(not(any(linux_like, apple)))]
#[path = "bsd.rs"]
mod native;

pub use std::os::fd::{BorrowedFd as BorrowedHandle, OwnedFd as OwnedHandle};

pub(crate) use code::keep_loaded;
pub(crate) use forks::ForkLock;
pub(crate) use identity::{boot, random_id};
pub(crate) use liveness_token::{LivenessTokens, forks, is_any_checked_token_held, is_token_held, watch_forks};
pub(crate) use named::{check_exact, give_up_linked, list, unlink_exact};
pub(crate) use object::Object;
pub(crate) use parker::{ParkToken, Parker};
pub(crate) use sweep::sweep;
pub(crate) use view::View;

use rustix::io::Errno;

use crate::error::{Error, ErrorKind};

/// Returns `sysconf(_SC_PAGESIZE)`.
pub(crate) fn page_size() -> usize {
    rustix::param::page_size()
}

/// Implements the handle traits of this system for a type with `handle` and `into_handle`.
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

/// Creates memory without a name on systems that have no call for it: a file that never gets a
/// name.
#[cfg(not(linux_like))]
fn unnamed_in_shared_dir() -> crate::error::Result<OwnedHandle> {
    use std::os::fd::AsFd;
    let dir = namespace_dir::NamespaceDir::open(crate::name::Scope::Global, namespace_dir::IfMissing::Report)?;
    Ok(create::UnpublishedFile::in_dir(dir.fd.as_fd())?.into_fd())
}

/// Reads each page by a system call, which reports pages that are gone.
#[cfg(any(linux_like, apple))]
fn touch(address: *mut u8, len: usize) -> Result<(), Errno> {
    let mut pages = (0..len).step_by(page_size()).map(|at| address.wrapping_add(at));
    if pages.all(|page| crate::sys::guard::can_be_read(page)) { Ok(()) } else { Err(Errno::FAULT) }
}

/// Converts an error of `rustix` into one of this crate.
fn system(doing: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| {
        let error = Error::system(doing, errno.into());
        if errno == Errno::FBIG { error.with_help(too_large()) } else { error }
    }
}

/// Returns the advice for a file that exceeds the limit of the process.
#[cold]
fn too_large() -> String {
    match rustix::process::getrlimit(rustix::process::Resource::Fsize).current {
        Some(most) => format!("a file of this process may have {most} bytes at most, see `ulimit -f`"),
        None => "its file system has no files of that size".to_owned(),
    }
}

/// Returns whether memory or disk is exhausted, so that freeing some helps.
fn is_exhausted(error: &Error) -> bool {
    let code = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .and_then(std::io::Error::raw_os_error);
    *error.kind() == ErrorKind::NoSpace && code != Some(Errno::FBIG.raw_os_error())
}
