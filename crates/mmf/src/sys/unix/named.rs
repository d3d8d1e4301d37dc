//! Named objects: creates, opens, lists and removes them.
//!
//! # Problem
//!
//! Processes create, open and remove an object of one name at one time, and are killed at any
//! instruction. Each process must find a complete live object or none, and must not use a file that
//! another user forged.
//!
//! # Algorithm of `create`
//!
//! 1. Sweep a bounded number of dead files.
//! 2. Check that the name is free. Remove a dead file that has it.
//! 3. Create a file without a name, and take its live byte.
//! 4. Allocate the memory. If there is none, sweep all dead files and try again. Then wait for the
//!    turn (`NamespaceDir::take_turn`) and try again, then up to
//!    20 times more at intervals of 1 ms.
//! 5. Publish the file under its name. If the name is taken, repeat the check of step 2.
//!
//! # Algorithm of `open`
//!
//! 1. Open the file, and query which processes hold its live byte.
//! 2. If no process holds it, remove the file and return `NotFound`.
//! 3. If a creator or remover holds it, wait for up to 1 s and repeat.
//! 4. Otherwise take the live byte shared.
//! 5. Check that the name still leads to the file, that the file has one link and that it meets the
//!    demands.
//!
//! # Correctness
//!
//! The live byte orders creation, opening and removal: see `remove`. Publication is the commit
//! point of a creation: see `create`.
//!
//! # Cost
//!
//! Without contention, a fixed number of system calls, the bounded sweep of step 1 and the
//! allocation of memory. No thread waits.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::create::{UnpublishedFile, size_to_make};
use super::liveness::{BusyRetry, Holders, LivenessHold, SAFE_OPEN, holders};
use super::namespace_dir::{Identity, IfMissing, NamespaceDir, PREFIX, file_name};
use super::native;
use super::object::{Object, check_demands, check_kind, check_owner, hard_linked, info_of, open_flags, out_of_space};
use super::remove::{ExpectedFile, RemovalOutcome, discard, give_up, is_given_up, is_own, remove_if_dead};
use super::second_name::is_its_creators;
use super::sweep::{entries, scopes, sweep, sweep_dir, sweep_some};
use super::{is_exhausted, object, system};
use crate::error::{Error, ErrorKind, Result};
use crate::name::{Name, Scope};
use crate::types::{Listed, Spec};

/// Size from which a creation announces that it takes memory for an object without a name. Other
/// creations may lack that memory.
const LARGE_OBJECT: u64 = 1 << 20;

pub(super) fn create(name: &Name, spec: &Spec) -> Result<Object> {
    if name.scope() == Scope::Exact {
        let (fd, len) = with_room(|| native::create_exact(&file_name(name), spec))?;
        return Object::new(fd, None, Some(native::exact_path(&file_name(name))), len, spec);
    }
    let dir = NamespaceDir::open(name.scope(), IfMissing::Make)?;
    dir.check_sticky(spec)?;
    let file = file_name(name);
    let location = Some(dir.path_of(&file));
    sweep_some(&dir)?;
    let mut busy_retry = BusyRetry::new();
    // Checks the name first, before the creation takes memory.
    while !is_free(&dir, &file, name)? {
        busy_retry.wait("create")?;
    }
    let mut unpublished = UnpublishedFile::in_dir(dir.fd.as_fd())?;
    let second = unpublished.second_description()?;
    let Some(live) = LivenessHold::hold(second, name)?.map(LivenessHold::proven) else {
        return Err(Error::new(ErrorKind::Busy, "create"));
    };
    let size = size_to_make(spec)?;
    let mut turn = if size >= LARGE_OBJECT { dir.join() } else { None };
    if let Err(error) = with_room(|| unpublished.prepare(size, spec)) {
        if *error.kind() != ErrorKind::NoSpace {
            return Err(error);
        }
        // Other processes may be creating this object at this time, each with its own memory. One
        // at a time, there may be enough memory.
        drop(turn.take());
        turn = dir.take_turn();
        let mut tries = 0..20;
        is_free(&dir, &file, name)?;
        let mut shaped = with_room(|| unpublished.prepare(size, spec));
        // The kernel may not have freed yet the memory that other processes gave up.
        while shaped.as_ref().is_err_and(|error| *error.kind() == ErrorKind::NoSpace) && tries.next().is_some() {
            std::thread::sleep(Duration::from_millis(1));
            is_free(&dir, &file, name)?;
            shaped = unpublished.prepare(size, spec).map_err(out_of_space);
        }
        shaped?;
    }
    loop {
        match unpublished.publish(file.as_ref()) {
            Ok(()) => {
                drop(turn);
                return Object::new(unpublished.into_fd(), Some(live), location, size, spec);
            }
            Err(Errno::EXIST) => {
                is_free(&dir, &file, name)?;
                busy_retry.wait("create")?;
            }
            Err(errno) => return Err(system("create")(errno).with_help("is /proc mounted?")),
        }
    }
}

/// Takes memory. If there is none, sweeps both scopes, which share one memory, and tries once more.
pub(super) fn with_room<T>(take: impl Fn() -> Result<T>) -> Result<T> {
    match take() {
        Err(error) if is_exhausted(&error) => {
            // If the sweep fails, the error of the second attempt is reported.
            let _ = sweep();
            take().map_err(out_of_space)
        }
        taken => taken,
    }
}

/// Returns whether the name is free, after removing a dead object that has it.
///
/// Returns `false` if a process is creating or removing an object of that name. Returns the error
/// `AlreadyExists` if such an object lives.
fn is_free(dir: &NamespaceDir, file: &str, name: &Name) -> Result<bool> {
    let look = match rustix::fs::openat(&dir.fd, file, OFlags::RDONLY | SAFE_OPEN, Mode::empty()) {
        Ok(look) => look,
        Err(Errno::NOENT) => return Ok(true),
        Err(Errno::ACCESS) => return Err(taken(dir, file)),
        Err(errno) => return Err(in_the_way(errno)),
    };
    let stat = rustix::fs::fstat(&look).map_err(system("create"))?;
    check_kind(&stat)?;
    if !is_given_up(&stat) {
        match holders(&look)? {
            Holders::Some => return Err(Error::new(ErrorKind::AlreadyExists, "create")),
            Holders::Maker => return Ok(false),
            Holders::None => {}
        }
    }
    let mut judged = remove_if_dead(dir, file, ExpectedFile::Any)?;
    if matches!(judged, RemovalOutcome::Kept { why: Errno::MLINK, .. }) {
        // A killed creator may have left the second link.
        sweep_dir(dir)?;
        judged = remove_if_dead(dir, file, ExpectedFile::Any)?;
    }
    match judged {
        RemovalOutcome::Removed { .. } => Ok(true),
        RemovalOutcome::Alive => Ok(false),
        RemovalOutcome::Kept { why: Errno::MLINK, stat, .. } => {
            Err(hard_linked("create", &stat, &dir.path_of(file), &name.to_string()))
        }
        // A change of owner would not help.
        RemovalOutcome::Kept { stat, why, .. } if is_own(&stat) || why == Errno::ROFS => Err(system("create")(why)),
        // The file is not replaced: it would still belong to its owner, whatever permissions the
        // caller asked for.
        RemovalOutcome::Kept { stat, why, .. } => {
            let owner = format!("user {}", stat.st_uid);
            let help = "a process that died left it; its owner or root can remove it with `mmf rm --stale`";
            Err(Error::new(ErrorKind::ForeignOwner { owner }, "create").with_source(why.into()).with_help(help))
        }
    }
}

/// Returns the error for an object that this user may not read.
fn taken(dir: &NamespaceDir, file: &str) -> Error {
    let error = system("create")(Errno::ACCESS).with_kind(ErrorKind::AlreadyExists);
    match rustix::fs::statat(&dir.fd, file, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => error.with_help(format!("it belongs to user {}", stat.st_uid)),
        Err(_) => error,
    }
}

/// Returns the error for a name that belongs to a file which is not an object.
fn in_the_way(errno: Errno) -> Error {
    let error = system("open")(errno);
    match errno {
        Errno::LOOP => error.with_help("a symbolic link has its name; remove the link"),
        _ => error,
    }
}

pub(super) fn open(name: &Name, spec: &Spec) -> Result<Object> {
    if name.scope() == Scope::Exact {
        return open_exact(name, spec);
    }
    let dir = NamespaceDir::open(name.scope(), IfMissing::Report)?;
    dir.check_sticky(spec)?;
    let file = file_name(name);
    let location = Some(dir.path_of(&file));
    let mut busy_retry = BusyRetry::new();
    loop {
        let open = |flags| rustix::fs::openat(&dir.fd, &*file, flags | SAFE_OPEN, Mode::empty());
        let fd = open(open_flags(spec.access)).map_err(|errno| match errno {
            Errno::NOENT => {
                Error::new(ErrorKind::NotFound, "open").with_help("no process holds it; start the one that creates it")
            }
            Errno::ACCESS => denied(&dir, &file),
            errno => in_the_way(errno),
        })?;
        // The lock needs a separate file description. A description that can write can also remove
        // the object at the end.
        let own = open(OFlags::RDWR).or_else(|_| open(OFlags::RDONLY));
        let mut stat = rustix::fs::fstat(&fd).map_err(system("open"))?;
        check_kind(&stat)?;
        if let Ok(own) = own {
            let held_by = if is_given_up(&stat) { Holders::None } else { holders(&own)? };
            if held_by != Holders::None {
                check_owner(&stat, spec)?;
            }
            match held_by {
                Holders::None => {
                    let _ = remove_if_dead(&dir, &file, ExpectedFile::File(Identity::of(&stat)));
                    return Err(Error::new(ErrorKind::NotFound, "open")
                        .with_help("the last process that held it has ended; start the one that creates it"));
                }
                Holders::Some if stat.st_nlink == 1 => {
                    if let Some(live) = LivenessHold::hold(own, name)? {
                        // The last holder may have removed the file between the opening and the
                        // lock.
                        if live.identity() == Identity::of(&stat) && dir.holds(&file, live.identity()) {
                            // Reads the metadata again: a link made in the meantime counts.
                            stat = check_demands(&fd, spec)?;
                            if stat.st_nlink == 1 && !is_given_up(&stat) {
                                return Object::new(fd, Some(live.proven()), location, object::size(&stat), spec);
                            }
                        }
                    }
                }
                Holders::Some if stat.st_nlink > 1 && !is_its_creators(&dir, &file, &fd, &stat)? => {
                    return Err(hard_linked("open", &stat, &dir.path_of(&file), &name.to_string()));
                }
                Holders::Some | Holders::Maker => {}
            }
        }
        // Until its next system call, a creator may also have the file under its temporary name.
        busy_retry.wait("open").map_err(|busy| match stat.st_nlink {
            0 | 1 => busy,
            _ => hard_linked("open", &stat, &dir.path_of(&file), &name.to_string()),
        })?;
    }
}

/// Returns the error for a missing right. It names the owner, who can grant the right.
fn denied(dir: &NamespaceDir, file: &str) -> Error {
    let error = system("open")(Errno::ACCESS);
    match rustix::fs::statat(&dir.fd, file, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => {
            error.with_help(format!("it belongs to user {}, its mode is {:04o}", stat.st_uid, stat.st_mode & 0o7777))
        }
        Err(_) => error,
    }
}

fn open_exact(name: &Name, spec: &Spec) -> Result<Object> {
    let file = file_name(name);
    let mut busy_retry = BusyRetry::new();
    loop {
        let fd = native::open_exact(&file, open_flags(spec.access)).map_err(in_the_way)?;
        let stat = check_demands(&fd, spec)?;
        check_owner(&stat, spec)?;
        // A file without links was removed just now. Its holders keep its memory.
        if !native::EXACT_IS_FILE || stat.st_nlink <= 1 {
            return Object::new(fd, None, Some(native::exact_path(&file)), object::size(&stat), spec);
        }
        let linked = || hard_linked("open", &stat, &native::exact_path(&file), &name.to_string());
        // An exact name leads to the file of another scope's object.
        if !is_its_creators(&NamespaceDir::open(Scope::Exact, IfMissing::Report)?, &file, &fd, &stat)? {
            return Err(linked());
        }
        busy_retry.wait("open").map_err(|_| linked())?;
    }
}

/// Removes the name of an object that has hard links, and marks the object as given up. No process
/// opens it any more, under any name. Processes that hold it keep their memory.
pub(crate) fn give_up_linked(name: &Name) -> Result<()> {
    let dir = NamespaceDir::open(name.scope(), IfMissing::Report)?;
    let file = file_name(name);
    let stat = rustix::fs::statat(&dir.fd, &*file, AtFlags::SYMLINK_NOFOLLOW).map_err(system("unlink"))?;
    check_kind(&stat)?;
    if stat.st_nlink <= 1 && !is_given_up(&stat) {
        let reason = "only `exact:` names and objects with hard links are unlinked; others go with their last holder";
        return Err(Error::invalid("unlink", reason));
    }
    if !is_own(&stat) && !geteuid().is_root() {
        let help = format!("it belongs to user {}; only its owner or root can unlink it", stat.st_uid);
        return Err(Error::new(ErrorKind::PermissionDenied, "unlink").with_help(help));
    }
    let look =
        rustix::fs::openat(&dir.fd, &*file, OFlags::RDONLY | SAFE_OPEN, Mode::empty()).map_err(system("unlink"))?;
    let opened = rustix::fs::fstat(&look).map_err(system("unlink"))?;
    if Identity::of(&opened) != Identity::of(&stat) {
        return Err(Error::new(ErrorKind::Busy, "unlink"));
    }
    give_up(look.as_fd(), &opened);
    discard(&dir, &file, Identity::of(&stat)).map_err(system("unlink"))
}

pub(crate) fn unlink_exact(text: &str) -> Result<()> {
    native::unlink_exact(text.trim_start_matches('/')).map_err(system("unlink"))
}

/// Checks the text of an exact name: it may begin with one slash, and contains no other
/// ([`shm_open(3)`](https://man7.org/linux/man-pages/man3/shm_open.3.html)).
pub(crate) fn check_exact(text: &str) -> Result<(), String> {
    let rest = text.strip_prefix('/').unwrap_or(text);
    if rest.is_empty() || rest == "." || rest == ".." {
        return Err("it names no object".to_owned());
    }
    if rest.len() > native::EXACT_MAX {
        return Err(format!("it has {} bytes, and this system's limit is {}", rest.len(), native::EXACT_MAX));
    }
    if rest.starts_with(PREFIX) {
        return Err(format!("it begins with {PREFIX:?} as the files of the other scopes do, which are swept"));
    }
    match rest.chars().find(|c| matches!(c, '/' | '\0')) {
        Some(c) => Err(format!("it holds {c:?} after its beginning")),
        None => Ok(()),
    }
}

pub(crate) fn list() -> Result<Vec<Listed>> {
    let mut living = Vec::new();
    for dir in scopes()? {
        sweep_dir(&dir)?;
        for (name, file) in entries(&dir)?.objects {
            let look = rustix::fs::openat(&dir.fd, &*file, OFlags::RDONLY | SAFE_OPEN, Mode::empty());
            let alive = match &look {
                Ok(look) => holders(look)? != Holders::None,
                // The file is another user's, which this user may not query, or has a lease.
                Err(Errno::ACCESS | Errno::AGAIN) => true,
                Err(_) => false,
            };
            if let Some(stat) = dir.stat_of(&file).filter(|stat| alive && !is_given_up(stat)) {
                let size = u64::try_from(stat.st_size).ok();
                let info = Some(info_of(&stat, Some(dir.path_of(&file))));
                living.push(Listed { name, size, info });
            }
        }
    }
    living.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(living)
}
