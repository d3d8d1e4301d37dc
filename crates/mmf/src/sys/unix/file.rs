//! Objects in files.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::birth::Newborn;
use super::object::{Object, check_demands, open_flags};
use super::system;
use crate::error::{Error, ErrorKind, Result};
use crate::spec::{LargePages, Spec};

pub(super) fn create(path: &Path, spec: &Spec) -> Result<Object> {
    refuse_large_pages(spec)?;
    let Some(name) = path.file_name() else {
        return Err(Error::invalid("create", "the path does not end in a file's name"));
    };
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(parent, flags, Mode::empty()).map_err(system("open the directory of"))?;
    if rustix::fs::statat(&dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        return Err(Error::new(ErrorKind::AlreadyExists, "create"));
    }
    let mut newborn = Newborn::in_dir(dir.as_fd())?;
    newborn.shape(spec.size.unwrap_or(0), spec)?;
    newborn.publish(name).map_err(system("create"))?;
    Object::new(newborn.into_fd(), None, Some(path.display().to_string()), spec)
}

pub(super) fn open(path: &Path, spec: &Spec) -> Result<Object> {
    refuse_large_pages(spec)?;
    // NONBLOCK: a fifo must be refused, not waited for.
    let flags = open_flags(spec.access) | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::ISDIR => Error::unsupported("open", "mapping a directory"),
        // A socket, or a device that nothing drives (`open(2)`).
        Errno::NXIO => Error::unsupported("open", "mapping what is no regular file").with_source(errno.into()),
        errno => system("open")(errno),
    })?;
    check_demands(&fd, spec)?;
    Object::new(fd, None, Some(path.display().to_string()), spec)
}

fn refuse_large_pages(spec: &Spec) -> Result<()> {
    if spec.large_pages == LargePages::Require {
        return Err(Error::unsupported("open", "large pages for a file; they are for named and anonymous memory"));
    }
    Ok(())
}
