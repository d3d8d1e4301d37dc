//! The verbs of dicts.

pub(super) mod check;
pub(super) mod del;
pub(super) mod export;
pub(super) mod get;
pub(super) mod import;
pub(super) mod incr;
pub(super) mod keys;
pub(crate) mod set;
pub(super) mod stats;
pub(super) mod watch;

pub(crate) use set::Pair;

use mmf::{Access, Dict, DictOptions, ErrorKind};

use crate::cli::{Changing, Looking, Making};
use crate::failure::{FAILED, Failure, Result};
use crate::object::{Object, Opened};

/// The default capacity of a created file.
const CAPACITY: u64 = 1 << 30;

/// The options of `mmf hold` that create a dict.
pub(super) const HOLDING: &str = "--dict --capacity 64M";

fn options(looking: &Looking) -> DictOptions {
    Dict::options().allow_other_owners(looking.any_owner).timeout(Some(looking.timeout_option.timeout))
}

/// Opens an existing dict to read from; if its lock is needed, for writing if this user may.
fn to_read(object: &Object, looking: &Looking, locking: bool) -> Result<Dict> {
    if locking {
        // An error of the opening for writing does not prevent reading.
        if let Ok(dict) = options(looking).open(object.source()) {
            return Ok(dict);
        }
    }
    object.dict_to_read(&options(looking)).map_err(|error| unopened(object, looking, error))
}

/// Opens an existing dict to change it.
fn to_change(object: &Object, changing: &Changing) -> Result<Dict> {
    let looking = &changing.looking;
    options(looking).open(object.source()).map_err(|error| unopened(object, looking, error))
}

/// Opens a dict to change it; creates a file that does not exist.
fn to_fill(object: &Object, making: &Making, changing: &Changing) -> Result<Dict> {
    let looking = &changing.looking;
    let present = options(looking).capacity(making.capacity.unwrap_or(0));
    match present.open(object.source()) {
        Err(error) if object.path().is_some() && *error.kind() == ErrorKind::NotFound => {
            let absent = options(looking).capacity(making.capacity.unwrap_or(CAPACITY));
            match absent.create_new(object.source()) {
                // Another process was faster.
                Err(error) if *error.kind() == ErrorKind::AlreadyExists => present.open(object.source()),
                made => made,
            }
        }
        opened => opened,
    }
    .map_err(|error| unopened(object, looking, error))
}

/// The error of an object that cannot be opened as a dict, with advice.
fn unopened(object: &Object, looking: &Looking, error: mmf::Error) -> Failure {
    if matches!(error.kind(), ErrorKind::NotASegment { .. } | ErrorKind::Mismatch { .. }) {
        let opened = object.open_as_is(Access::ReadOnly, looking.any_owner, looking.timeout_option.timeout);
        let is = match opened {
            Ok(Opened::Raw(_)) if object.path().is_some() => "is a file of another kind, not a dict",
            Ok(Opened::Raw(_)) => "is raw memory, not a dict",
            Ok(Opened::Region(_)) => "is a region, not a dict",
            _ => return error.into(),
        };
        return Failure::new(FAILED, format!("{object} {is}")).hint(format!("see: mmf info {}", object.typed()));
    }
    if let (Some(path), ErrorKind::NotFound) = (object.path(), error.kind()) {
        // The parent of a relative path without a directory is empty.
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir());
        return Failure::from(error).hint(match directory {
            Some(directory) => format!("there is no directory {}", directory.display()),
            None => format!("to create it: mmf set {} KEY=TEXT", object.typed()),
        });
    }
    object.advise_opener(error, HOLDING)
}

/// Flushes the changes to the disk if `--flush` was given.
fn finish(dict: &Dict, changing: &Changing) -> Result<()> {
    if changing.flush {
        dict.flush()?;
    }
    Ok(())
}

fn no_key(object: &Object, key: &str) -> Failure {
    Failure::new(FAILED, format!("{object} has no key {key:?}"))
}
