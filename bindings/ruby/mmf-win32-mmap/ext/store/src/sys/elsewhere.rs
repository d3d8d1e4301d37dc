//! Where the old gem never ran.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mmf::{Name, Permissions};

use crate::error::Result;

/// There is none.
pub(crate) enum Semaphore {}

impl Semaphore {
    /// # Errors
    ///
    /// None.
    pub(crate) fn open(_name: &str) -> Result<Option<Semaphore>> {
        Ok(None)
    }

    pub(crate) fn take(&self, _time: Duration) -> Result<bool> {
        match *self {}
    }

    pub(crate) fn give(&self) -> Result<bool> {
        match *self {}
    }
}

/// Windows' prefixes say who sees the name, which `mmf` has scopes for.
pub(crate) fn named(name: &str) -> Result<Name> {
    Ok(if let Some(name) = name.strip_prefix("Global\\") {
        Name::global(name)?
    } else {
        Name::local(name.strip_prefix("Local\\").unwrap_or(name))?
    })
}

/// Whoever may change the file must be able to lock it.
pub(crate) fn rights_like(path: &Path) -> Option<Permissions> {
    Some(Permissions::Mode(std::fs::metadata(path).ok()?.permissions().mode() & 0o666))
}

pub(crate) fn path(bytes: Vec<u8>) -> Option<PathBuf> {
    Some(PathBuf::from(OsString::from_vec(bytes)))
}

pub(crate) fn errno(code: i32) -> Option<i32> {
    Some(code)
}
