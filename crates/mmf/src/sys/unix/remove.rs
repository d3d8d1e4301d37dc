//! Removal of one file that belongs to a dead object.
//!
//! A file is dead if no process holds its live byte. To remove it, a process takes that byte
//! exclusively, checks that the name still leads to the file, and removes the name.
//!
//! # Hard links
//!
//! In the directory that all users share, a user can `link(2)` another user's file to a second
//! name, if that user may write to it (`fs.protected_hardlinks=1`) or in any case (`0`). The second
//! name then leads to a file that belongs to the first user, with contents that the second user
//! wrote. Three rules keep such a name from passing for an object:
//!
//! 1. A file with more than one link is no object (`named::open`).
//! 2. When a process removes an object that has further links, it marks the file as given up: it
//!    sets a mode bit ([`native::GIVEN_UP`]) that objects never have and that only the owner and
//!    root can change. No process opens a marked file, under whatever name it stands, and its
//!    owner's processes remove it.
//! 3. A dead file with further links is removed only by a process that has held it as an object, or
//!    on the order of its owner. Another user may have linked any file of the owner's to that name,
//!    and such a file must not be changed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::create::temporary_name;
use super::liveness::{Holders, SAFE_OPEN, holders};
use super::namespace_dir::{Identity, NamespaceDir, is_temporary};
use super::native::{self, LockKind};
use super::system;
use crate::error::Result;
use crate::name::Scope;

/// What is known of a file before it is judged.
#[derive(Clone, Copy, Debug)]
pub(super) enum ExpectedFile {
    /// Nothing.
    Any,
    /// It must be this file.
    File(Identity),
    /// It must be this file, which was an object of this name, under this name alone.
    Object(Identity),
}

/// What became of a file that was judged.
#[derive(Debug)]
pub(super) enum RemovalOutcome {
    /// It was dead and is gone.
    Removed { size: u64 },
    /// A process holds it, or it is no object's file.
    Alive,
    /// It is dead, but this process may not remove it: `MLINK` where it has more links than one.
    Kept { size: u64, stat: Box<Stat>, why: Errno },
}

/// Removes the file if no process holds it.
pub(super) fn remove_if_dead(
    dir: &NamespaceDir,
    file_name: &str,
    expected_file: ExpectedFile,
) -> Result<RemovalOutcome> {
    let look = match rustix::fs::openat(&dir.fd, file_name, OFlags::RDONLY | SAFE_OPEN, Mode::empty()) {
        Ok(look) => look,
        // Gone already, or nothing that this user may judge; `AGAIN`: its owner has a lease on it
        // (`F_SETLEASE`), and so could stop every sweep.
        Err(Errno::NOENT | Errno::ACCESS | Errno::LOOP | Errno::NXIO | Errno::AGAIN) => {
            return Ok(RemovalOutcome::Alive);
        }
        Err(errno) => return Err(system("judge")(errno)),
    };
    let stat = rustix::fs::fstat(&look).map_err(system("judge"))?;
    let identity = Identity::of(&stat);
    let expected = match expected_file {
        ExpectedFile::Any => None,
        ExpectedFile::File(identity) | ExpectedFile::Object(identity) => Some(identity),
    };
    if !FileType::from_raw_mode(stat.st_mode).is_file() || expected.is_some_and(|expected| expected != identity) {
        return Ok(RemovalOutcome::Alive);
    }
    if is_given_up(&stat) {
        // Dead for ever, whatever processes hold it.
        let may = is_own(&stat) || rustix::process::geteuid().is_root();
        return Ok(judged(&stat, if may { discard(dir, file_name, identity) } else { Err(Errno::PERM) }));
    }
    if holders(&look)? != Holders::None {
        return Ok(RemovalOutcome::Alive);
    }
    let own = match lockable(dir, file_name, &look, &stat) {
        Ok(own) => own,
        Err(errno) => return Ok(judged(&stat, Err(errno))),
    };
    if rustix::fs::fstat(&own).is_ok_and(|stat| Identity::of(&stat) != identity)
        || native::lock(own.as_fd(), LockKind::Exclusive).is_err()
    {
        return Ok(RemovalOutcome::Alive);
    }
    // Under the exclusive lock no process takes hold of it, and no other removes it.
    let Some(stat) = dir.stat_of(file_name).filter(|stat| Identity::of(stat) == identity) else {
        return Ok(RemovalOutcome::Alive);
    };
    let was_object = matches!(expected_file, ExpectedFile::Object(_));
    if stat.st_nlink > 1 && !is_temporary(file_name) {
        if !was_object {
            return Ok(judged(&stat, Err(Errno::MLINK)));
        }
        give_up(own.as_fd(), &stat);
    }
    // Only root removes what is another user's, who may put another file in its place at any
    // moment. In a directory that is sticky, or this user's own, no other user can do so with what
    // is this user's.
    let removed = match !is_own(&stat) && rustix::process::geteuid().is_root() {
        true => discard(dir, file_name, identity),
        false => rustix::fs::unlinkat(&dir.fd, file_name, AtFlags::empty()),
    };
    // Another user may have linked it at the last moment. It had one name, so it was an object.
    if removed.is_ok() && dir.scope == Scope::Global && !is_temporary(file_name) {
        if let Some(left) = rustix::fs::fstat(&own).ok().filter(|left| left.st_nlink > 0) {
            give_up(own.as_fd(), &left);
        }
    }
    Ok(judged(&stat, removed))
}

fn judged(stat: &Stat, removed: Result<(), Errno>) -> RemovalOutcome {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    match removed {
        Ok(()) => RemovalOutcome::Removed { size },
        // Another process has just removed it.
        Err(Errno::NOENT) => RemovalOutcome::Alive,
        Err(why) => RemovalOutcome::Kept { size, stat: Box::new(*stat), why },
    }
}

/// Whether this user owns the file.
pub(super) fn is_own(stat: &Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw()
}

/// Whether the owner has given this file up: it is no object, under whatever name it stands.
pub(super) fn is_given_up(stat: &Stat) -> bool {
    Mode::from_raw_mode(stat.st_mode).intersects(native::GIVEN_UP)
}

/// Marks a file as given up. Only its owner and root can.
pub(super) fn give_up(fd: BorrowedFd<'_>, stat: &Stat) {
    // A process without the right to mark it has no right to remove it from a sticky directory
    // either.
    let _ = rustix::fs::fchmod(fd, Mode::from_raw_mode(stat.st_mode) | native::GIVEN_UP);
}

/// Removes a name that leads to this file. Another user, or another process of this user's, may
/// give the name to another file at any moment; so the name is moved to one of this process's own
/// first, and moved back where it was the wrong file. `NOENT` where the name leads to another file.
pub(super) fn discard(dir: &NamespaceDir, file_name: &str, identity: Identity) -> Result<(), Errno> {
    let aside = temporary_name();
    move_name(dir, file_name, &aside)?;
    if dir.holds(&aside, identity) {
        return rustix::fs::unlinkat(&dir.fd, &*aside, AtFlags::empty());
    }
    // Where a third file has the name by now, this one stays aside until its last holder is gone,
    // and is swept then.
    let _ = move_name(dir, &aside, file_name);
    Err(Errno::NOENT)
}

/// Renames, and never replaces what has the new name.
fn move_name(dir: &NamespaceDir, from: &str, to: &str) -> Result<(), Errno> {
    match native::rename_new(dir.fd.as_fd(), from, to.as_ref()) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            rustix::fs::linkat(&dir.fd, from, &dir.fd, to, AtFlags::empty())?;
            rustix::fs::unlinkat(&dir.fd, from, AtFlags::empty())
        }
        moved => moved,
    }
}

/// A description that can take the exclusive lock, which needs the right to write. An owner who
/// gave that right away (mode 0444) takes it back for the dead file.
fn lockable(dir: &NamespaceDir, file_name: &str, look: &OwnedFd, stat: &Stat) -> Result<OwnedFd, Errno> {
    let open = || rustix::fs::openat(&dir.fd, file_name, OFlags::RDWR | SAFE_OPEN, Mode::empty());
    match open() {
        // Another link may be the name of another file of this user's, put here by another user to
        // have its mode changed.
        Err(Errno::ACCESS) if is_own(stat) && stat.st_nlink > 1 => Err(Errno::MLINK),
        Err(Errno::ACCESS) if is_own(stat) => {
            rustix::fs::fchmod(look, Mode::RUSR | Mode::WUSR)?;
            let opened = open();
            // Back at once: the description keeps its right, and a process may just have taken hold
            // of the object.
            let _ = rustix::fs::fchmod(look, Mode::from_raw_mode(stat.st_mode));
            opened
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::super::namespace_dir::IfMissing;
    use super::*;

    #[test]
    fn a_name_that_leads_to_another_file_by_now_stays() {
        let dir = NamespaceDir::open(Scope::Local, IfMissing::Make).unwrap();
        let pid = std::process::id();
        let [judged, living] = ["judged", "living"].map(|text| format!("mmf.{text}-{pid}"));
        let create = |name: &str| {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | SAFE_OPEN;
            let fd = rustix::fs::openat(&dir.fd, name, flags, Mode::RUSR | Mode::WUSR).unwrap();
            // As held as a living object's, so that the sweeps of other tests leave it.
            native::lock(fd.as_fd(), LockKind::Shared).unwrap();
            (Identity::of(&rustix::fs::fstat(&fd).unwrap()), fd)
        };
        let (dead, _dead) = create(&judged);
        let (alive, _alive) = create(&living);
        // Between the check and the removal, the living file takes the name.
        assert_eq!(discard(&dir, &living, dead), Err(Errno::NOENT));
        assert!(dir.holds(&living, alive));
        discard(&dir, &judged, dead).unwrap();
        assert!(dir.stat_of(&judged).is_none());
        discard(&dir, &living, alive).unwrap();
        assert!(dir.stat_of(&living).is_none());
    }
}
