//! Objects in files.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::birth::Newborn;
use super::object::{Object, check_demands, open_flags};
use super::{native, system};
use crate::error::{Error, ErrorKind, Result};
use crate::spec::{LargePages, Spec};

pub(super) fn create(path: &Path, spec: &Spec) -> Result<Object> {
    create_where(path, spec, native::is_remote)
}

/// `is_remote`: whether other machines share the file system of such a file.
fn create_where(path: &Path, spec: &Spec, is_remote: impl Fn(BorrowedFd<'_>) -> Result<bool, Errno>) -> Result<Object> {
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
    // Before it has a name that would stay.
    if !spec.first_bytes.is_empty() && is_remote(newborn.as_fd()).map_err(system("create"))? {
        return Err(Error::remote_segment("create"));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_that_other_machines_could_open_is_refused_and_leaves_nothing() {
        let dir = std::env::temp_dir().join(format!("mmf-remote-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("segment");
        let spec = Spec { size: Some(4096), first_bytes: vec![1], ..Spec::default() };
        let error = create_where(&path, &spec, |_| Ok(true)).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::Unsupported { .. }), "{error}");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        let raw = Spec { size: Some(4096), ..Spec::default() };
        create_where(&path, &raw, |_| Ok(true)).unwrap();
        std::fs::remove_file(&path).unwrap();
        create_where(&path, &spec, |_| Ok(false)).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
