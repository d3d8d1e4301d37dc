//! Exact names where shared memory is no file: `shm_open`.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::shm;

use super::create::{check_file_limit, mode_of, size_to_make};
use crate::error::{Error, Result};
use crate::types::{Permissions, Spec};

/// The system makes the name first and the size after, so an opener waits for the size.
///
/// Returns the length as well.
pub(super) fn create_exact(file: &str, spec: &Spec) -> Result<(OwnedFd, u64)> {
    if !spec.first_bytes.is_empty() {
        let what = "a segment under an exact name, where others could meet it before its header is there";
        return Err(Error::unsupported("create", what).with_help("give it a local or a global name"));
    }
    let size = size_to_make(spec)?.max(spec.reserve.unwrap_or(0));
    check_file_limit(size).map_err(super::system("create"))?;
    let mode = mode_of(spec.permissions.as_ref().unwrap_or(&Permissions::User))?;
    let system = |errno: Errno| Error::system("create", errno.into());
    let flags = shm::OFlags::RDWR | shm::OFlags::CREATE | shm::OFlags::EXCL;
    let fd = shm::open(exact_path(file), flags, mode).map_err(system)?;
    rustix::fs::ftruncate(&fd, size).map_err(|errno| {
        let _ = shm::unlink(exact_path(file));
        system(errno)
    })?;
    Ok((fd, size))
}

pub(super) fn open_exact(file: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = if flags.contains(OFlags::RDWR) { shm::OFlags::RDWR } else { shm::OFlags::RDONLY };
    let fd = shm::open(exact_path(file), flags, rustix::fs::Mode::empty())?;
    let since = Instant::now();
    while rustix::fs::fstat(&fd)?.st_size == 0 {
        if since.elapsed() > Duration::from_secs(1) {
            return Err(Errno::BUSY);
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(fd)
}

pub(super) fn unlink_exact(file: &str) -> Result<(), Errno> {
    shm::unlink(exact_path(file))
}

pub(super) fn exact_path(file: &str) -> String {
    format!("/{file}")
}
