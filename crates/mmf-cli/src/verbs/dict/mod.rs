//! What the program does with dicts.

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

/// Bytes that a file may grow to where nobody says how many.
const CAPACITY: u64 = 1 << 30;

/// What `mmf hold` needs to make one.
pub(super) const HOLDING: &str = "--dict --capacity 64M";

fn options(looking: &Looking) -> DictOptions {
    Dict::options().allow_other_owners(looking.any_owner).timeout(Some(looking.timeout_option.timeout))
}

/// One that exists, to read from; where its lock is needed, for reading and writing if this user may.
fn to_read(object: &Object, looking: &Looking, locking: bool) -> Result<Dict> {
    if locking {
        // Whatever stands against writing does not stand against reading.
        if let Ok(dict) = options(looking).open(object.source()) {
            return Ok(dict);
        }
    }
    object.dict_to_read(&options(looking)).map_err(|error| unopened(object, looking, error))
}

/// One that exists, to change.
fn to_change(object: &Object, changing: &Changing) -> Result<Dict> {
    let looking = &changing.looking;
    options(looking).open(object.source()).map_err(|error| unopened(object, looking, error))
}

/// One to change; a file is made where there is none.
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

/// Why it cannot be opened as a dict, and what to do about it.
fn unopened(object: &Object, looking: &Looking, error: mmf::Error) -> Failure {
    if matches!(error.kind(), ErrorKind::NotASegment { .. } | ErrorKind::Mismatch { .. }) {
        let opened = object.open_as_is(Access::ReadOnly, looking.any_owner, looking.timeout_option.timeout);
        let is = match opened {
            Ok(Opened::Raw(_)) if object.path().is_some() => "is a file of another kind, and no dict",
            Ok(Opened::Raw(_)) => "is raw memory, and no dict",
            Ok(Opened::Region(_)) => "is a region, and no dict",
            _ => return error.into(),
        };
        return Failure::new(FAILED, format!("{object} {is}")).hint(format!("see: mmf info {}", object.typed()));
    }
    if let (Some(path), ErrorKind::NotFound) = (object.path(), error.kind()) {
        // Of what is in the directory where one works the parent is empty.
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir());
        return Failure::from(error).hint(match directory {
            Some(directory) => format!("there is no directory {}", directory.display()),
            None => format!("the first `mmf set {} KEY=TEXT` makes it", object.typed()),
        });
    }
    object.advise_opener(error, HOLDING)
}

/// Brings the changes to the disk if that is wanted.
fn finish(dict: &Dict, changing: &Changing) -> Result<()> {
    if changing.flush {
        dict.flush()?;
    }
    Ok(())
}

fn no_key(object: &Object, key: &str) -> Failure {
    Failure::new(FAILED, format!("{object} has no key {key:?}"))
}
