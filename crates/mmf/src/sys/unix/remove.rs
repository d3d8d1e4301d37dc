//! Removal of one file that belongs to a dead object.
//!
//! # Problem
//!
//! Several processes may create, open and remove an object of one name at one time. A removal must
//! never remove the file of a live object. In the directory that all users share, other users may
//! also replace or link files at any moment.
//!
//! # Algorithm
//!
//! A file is dead if no process holds its live byte. To remove a dead file, a process:
//!
//! 1. opens it and checks that no process holds the live byte;
//! 2. takes the live byte exclusively;
//! 3. checks that the name still leads to this file;
//! 4. removes the name.
//!
//! # Hard links
//!
//! In the shared directory, a user can `link(2)` another user's file to a second name. With
//! `fs.protected_hardlinks=1` this needs the right to write to the file, and with `0` it needs no
//! right. The second name leads to a file that belongs to the first user, with contents that the
//! second user wrote. Three rules keep such a name from passing for an object:
//!
//! 1. A file with more than one link is not an object (`named::open`).
//! 2. When a process removes an object that has further links, it marks the file as given up. The
//!    mark is a mode bit ([`native::GIVEN_UP`]) that objects never have, and that only the owner
//!    and root can change. No process opens a marked file under any name, and the processes of its
//!    owner remove it.
//! 3. A process removes a dead file with further links only if it has held the file as an object,
//!    or if the file's owner orders the removal. Another user may have linked any file of the
//!    owner's to that name, and such a file must not change.
//!
//! # Correctness
//!
//! The live byte excludes in both directions: a process that opens the object needs it shared, a
//! process that removes the object holds it exclusively. Step 3 detects a file that another process
//! put under the name between steps 1 and 2.
//!
//! # Cost
//!
//! A fixed number of system calls. A check that finds a live file takes no lock.

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

/// The caller's knowledge of a file before it is judged.
#[derive(Clone, Copy, Debug)]
pub(super) enum ExpectedFile {
    /// No knowledge.
    Any,
    /// The file must have this identity.
    File(Identity),
    /// The file must have this identity, and was an object under this name alone.
    Object(Identity),
}

/// The result of judging a file.
#[derive(Debug)]
pub(super) enum RemovalOutcome {
    /// The file was dead and is removed.
    Removed { size: u64 },
    /// A process holds the file, or it is not the file of an object.
    Alive,
    /// The file is dead, but this process may not remove it. The error is `MLINK` if the file has
    /// more than one link.
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
        // The file is gone, or this user may not judge it. `AGAIN` means that its owner has a lease
        // on it (`F_SETLEASE`). Waiting for the lease would let that owner stop every sweep.
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
        // A file that was given up is dead, even if processes hold it.
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
    // Under the exclusive lock, no process takes hold of the file and no other process removes it.
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
    // Only root removes files of other users. Such a user may replace the file at any moment. In a
    // directory that is sticky or this user's own, no other user can replace this user's files.
    let removed = match !is_own(&stat) && rustix::process::geteuid().is_root() {
        true => discard(dir, file_name, identity),
        false => rustix::fs::unlinkat(&dir.fd, file_name, AtFlags::empty()),
    };
    // Another user may have linked the file at the last moment. The file had one name, so it was an
    // object.
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
        // Another process has just removed the file.
        Err(Errno::NOENT) => RemovalOutcome::Alive,
        Err(why) => RemovalOutcome::Kept { size, stat: Box::new(*stat), why },
    }
}

/// Returns whether this user owns the file.
pub(super) fn is_own(stat: &Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw()
}

/// Returns whether the file's owner has given it up. Such a file is not an object under any name.
pub(super) fn is_given_up(stat: &Stat) -> bool {
    Mode::from_raw_mode(stat.st_mode).intersects(native::GIVEN_UP)
}

/// Marks a file as given up. Only its owner and root can do so.
pub(super) fn give_up(fd: BorrowedFd<'_>, stat: &Stat) {
    // A process without the right to mark the file has no right to remove it from a sticky
    // directory either.
    let _ = rustix::fs::fchmod(fd, Mode::from_raw_mode(stat.st_mode) | native::GIVEN_UP);
}

/// Removes a name that leads to this file, or returns `NOENT` if the name leads to another file.
///
/// Another process, also one of another user, may give the name to another file at any moment. So
/// this function first moves the name to a name of its own. It moves the name back if it moved the
/// wrong file.
pub(super) fn discard(dir: &NamespaceDir, file_name: &str, identity: Identity) -> Result<(), Errno> {
    let aside = temporary_name();
    move_name(dir, file_name, &aside)?;
    if dir.holds(&aside, identity) {
        return rustix::fs::unlinkat(&dir.fd, &*aside, AtFlags::empty());
    }
    // If a third file has the name by now, the moved file stays aside until its last holder ends. A
    // sweep then removes it.
    let _ = move_name(dir, &aside, file_name);
    Err(Errno::NOENT)
}

/// Renames a file, and never replaces a file that has the new name.
fn move_name(dir: &NamespaceDir, from: &str, to: &str) -> Result<(), Errno> {
    match native::rename_new(dir.fd.as_fd(), from, to.as_ref()) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            rustix::fs::linkat(&dir.fd, from, &dir.fd, to, AtFlags::empty())?;
            rustix::fs::unlinkat(&dir.fd, from, AtFlags::empty())
        }
        moved => moved,
    }
}

/// Opens a file description that can take the exclusive lock, which needs the right to write.
/// If the owner removed that right (mode 0444), this function restores it on the dead file for the
/// call.
fn lockable(dir: &NamespaceDir, file_name: &str, look: &OwnedFd, stat: &Stat) -> Result<OwnedFd, Errno> {
    let open = || rustix::fs::openat(&dir.fd, file_name, OFlags::RDWR | SAFE_OPEN, Mode::empty());
    match open() {
        // Another user may have linked another file of this user's to this name, to have its mode
        // changed.
        Err(Errno::ACCESS) if is_own(stat) && stat.st_nlink > 1 => Err(Errno::MLINK),
        Err(Errno::ACCESS) if is_own(stat) => {
            rustix::fs::fchmod(look, Mode::RUSR | Mode::WUSR)?;
            let opened = open();
            // Restores the mode at once: the description keeps its right, and a process may just
            // have taken hold of the object.
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
            // Locks the file as a live object's file, so that the sweeps of other tests keep it.
            native::lock(fd.as_fd(), LockKind::Shared).unwrap();
            (Identity::of(&rustix::fs::fstat(&fd).unwrap()), fd)
        };
        let (dead, _dead) = create(&judged);
        let (alive, _alive) = create(&living);
        // Between the check and the removal, the live file takes the name.
        assert_eq!(discard(&dir, &living, dead), Err(Errno::NOENT));
        assert!(dir.holds(&living, alive));
        discard(&dir, &judged, dead).unwrap();
        assert!(dir.stat_of(&judged).is_none());
        discard(&dir, &living, alive).unwrap();
        assert!(dir.stat_of(&living).is_none());
    }
}
