//! Named objects: who makes, opens, lists and removes them.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::birth::{Newborn, extend, size_to_make, write_all};
use super::live::{Holders, Judged, Live, Patience, WARY, holders, remove_if_dead};
use super::native::{self, LockKind};
use super::object::{Object, check_demands, check_kind, check_owner, info_of, open_flags, out_of_space};
use super::scope::{Identity, Missing, PREFIX, ScopeDir, file_name};
use super::{is_exhausted, system};
use crate::error::{Error, ErrorKind, Result};
use crate::name::{Name, Scope};
use crate::spec::{Listed, Spec, Swept};

/// Who takes so much memory for an object that has no name yet tells others, who may be short of it just for that.
const MUCH: u64 = 1 << 20;

pub(super) fn create(name: &Name, spec: &Spec) -> Result<Object> {
    if name.scope() == Scope::Exact {
        let fd = with_room(|| native::create_exact(&file_name(name), spec))?;
        return Object::new(fd, None, Some(native::exact_path(&file_name(name))), spec);
    }
    let dir = ScopeDir::open(name.scope(), Missing::Make)?;
    let file = file_name(name);
    let location = Some(dir.path_of(&file));
    sweep_dir(&dir)?;
    let mut patience = Patience::new();
    // Looked at before any memory is taken for nothing.
    while !is_free(&dir, &file, name, spec)? {
        if let Some((fd, live)) = revive(&dir, &file, name, spec)? {
            return Object::new(fd, Some(live), location, spec);
        }
        patience.wait("create")?;
    }
    let mut newborn = Newborn::in_dir(dir.fd.as_fd())?;
    let second = newborn.second_description()?;
    let Some(live) = Live::hold(second, name)? else {
        return Err(Error::new(ErrorKind::Busy, "create"));
    };
    let size = size_to_make(spec)?;
    let mut turn = if size >= MUCH { dir.join() } else { None };
    if let Err(error) = with_room(|| newborn.shape(size, spec)) {
        if *error.kind() != ErrorKind::NoSpace {
            return Err(error);
        }
        // Others may be making the same object, each with memory of its own. One by one, there may be enough for one.
        drop(turn.take());
        turn = dir.take_turn();
        let mut tries = 0..20;
        loop {
            is_free(&dir, &file, name, spec)?;
            match with_room(|| newborn.shape(size, spec)) {
                // What others have given up may not have been freed yet.
                Err(error) if *error.kind() == ErrorKind::NoSpace && tries.next().is_some() => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                shaped => break shaped?,
            }
        }
    }
    loop {
        match newborn.publish(file.as_ref()) {
            Ok(()) => {
                drop(turn);
                return Object::new(newborn.into_fd(), Some(live), location, spec);
            }
            Err(Errno::EXIST) => {
                is_free(&dir, &file, name, spec)?;
                patience.wait("create")?;
            }
            Err(errno) => return Err(system("create")(errno).with_help("is /proc mounted?")),
        }
    }
}

/// Takes memory, where need be that of the dead, whose scope may be another: all lie in the same memory.
pub(super) fn with_room<T>(take: impl Fn() -> Result<T>) -> Result<T> {
    match take() {
        Err(error) if is_exhausted(&error) => {
            // What cannot be swept leaves the error that there is.
            let _ = sweep();
            take().map_err(out_of_space)
        }
        taken => taken,
    }
}

/// Whether the name can be taken, removing what the dead left; `false` where somebody is at it just now or where a
/// dead object can only be made anew in place. `AlreadyExists` where one lives.
fn is_free(dir: &ScopeDir, file: &str, name: &Name, spec: &Spec) -> Result<bool> {
    let look = match rustix::fs::openat(&dir.fd, file, OFlags::RDONLY | WARY, Mode::empty()) {
        Ok(look) => look,
        Err(Errno::NOENT) => return Ok(true),
        Err(Errno::ACCESS) => return Err(taken(dir, file)),
        Err(errno) => return Err(in_the_way(errno)),
    };
    check_kind(&rustix::fs::fstat(&look).map_err(system("create"))?)?;
    match holders(&look)? {
        Holders::Some => return Err(Error::new(ErrorKind::AlreadyExists, "create")),
        Holders::Maker => return Ok(false),
        Holders::None => {}
    }
    match remove_if_dead(dir, file, None)? {
        Judged::Removed { .. } => Ok(true),
        Judged::Alive => Ok(false),
        // Another owner would fare no better.
        Judged::Kept { owner, why, .. } if owner == geteuid().as_raw() || why == Errno::ROFS => {
            Err(system("create")(why))
        }
        // It may be written, though not removed.
        Judged::Kept { why, .. }
            if name.scope() == Scope::Global && spec.allow_other_owners && why != Errno::ACCESS =>
        {
            Ok(false)
        }
        Judged::Kept { owner, why, .. } => {
            let owner = format!("user {owner}");
            let help = "it was left by a process that died; its owner, or root, removes it with `mmf rm --stale`";
            Err(Error::new(ErrorKind::ForeignOwner { owner }, "create").with_source(why.into()).with_help(help))
        }
    }
}

/// An object that this user may not even look at.
fn taken(dir: &ScopeDir, file: &str) -> Error {
    let error = system("create")(Errno::ACCESS).with_kind(ErrorKind::AlreadyExists);
    match rustix::fs::statat(&dir.fd, file, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => error.with_help(format!("it belongs to user {}", stat.st_uid)),
        Err(_) => error,
    }
}

/// Something that is no object of ours has the name.
fn in_the_way(errno: Errno) -> Error {
    let error = system("open")(errno);
    match errno {
        Errno::LOOP => error.with_help("a symbolic link stands in its place; who put it there?"),
        _ => error,
    }
}

/// A dead object of another user in the sticky directory cannot be removed, but where its rights allow it is made
/// anew in place, under the exclusive lock, so that nobody meets it half made.
fn revive(dir: &ScopeDir, file: &str, name: &Name, spec: &Spec) -> Result<Option<(OwnedFd, Live)>> {
    if name.scope() != Scope::Global || !spec.allow_other_owners {
        return Ok(None);
    }
    let open = || rustix::fs::openat(&dir.fd, file, OFlags::RDWR | WARY, Mode::empty());
    let (Ok(fd), Ok(own)) = (open(), open()) else { return Ok(None) };
    let stat = check_demands(&own, &Spec { size: None, ..spec.clone() })?;
    let identity = Identity::of(&stat);
    if stat.st_nlink != 1 {
        // Something else's file, which somebody has linked here to have it emptied.
        return Ok(None);
    }
    if native::lock(own.as_fd(), LockKind::Exclusive).is_err()
        || !dir.holds(file, identity)
        || rustix::fs::fstat(&fd).map(|stat| Identity::of(&stat)) != Ok(identity)
    {
        return Ok(None);
    }
    rustix::fs::ftruncate(&fd, 0).map_err(system("create"))?;
    extend(fd.as_fd(), 0, size_to_make(spec)?).map_err(|errno| out_of_space(system("create")(errno)))?;
    write_all(&fd, &spec.first_bytes).map_err(system("create"))?;
    // The exclusive lock becomes a shared one in one step.
    Ok(Live::hold(own, name)?.map(|live| (fd, live)))
}

pub(super) fn open(name: &Name, spec: &Spec) -> Result<Object> {
    if name.scope() == Scope::Exact {
        return open_exact(name, spec);
    }
    let dir = ScopeDir::open(name.scope(), Missing::Report)?;
    let file = file_name(name);
    let location = Some(dir.path_of(&file));
    let mut patience = Patience::new();
    loop {
        let open = |flags| rustix::fs::openat(&dir.fd, &*file, flags | WARY, Mode::empty());
        let fd = open(open_flags(spec.access)).map_err(|errno| match errno {
            Errno::NOENT => {
                Error::new(ErrorKind::NotFound, "open").with_help("no process holds it; start the one that creates it")
            }
            Errno::ACCESS => denied(&dir, &file),
            errno => in_the_way(errno),
        })?;
        // The hold needs a description of its own; one that can write can also remove the object at the end.
        let own = open(OFlags::RDWR).or_else(|_| open(OFlags::RDONLY));
        let stat = rustix::fs::fstat(&fd).map_err(system("open"))?;
        check_kind(&stat)?;
        if let Ok(own) = own {
            let held_by = holders(&own)?;
            if held_by != Holders::None {
                check_owner(&stat, spec)?;
            }
            match held_by {
                Holders::None => {
                    let _ = remove_if_dead(&dir, &file, Some(Identity::of(&stat)));
                    return Err(Error::new(ErrorKind::NotFound, "open")
                        .with_help("the last process that held it has ended; start the one that creates it"));
                }
                Holders::Some => {
                    if let Some(live) = Live::hold(own, name)? {
                        // Between opening and holding, the last holder may have removed it.
                        if live.identity() == Identity::of(&stat) && dir.holds(&file, live.identity()) {
                            check_demands(&fd, spec)?;
                            return Object::new(fd, Some(live), location, spec);
                        }
                    }
                }
                Holders::Maker => {}
            }
        }
        patience.wait("open")?;
    }
}

/// Who to ask for the right that is missing.
fn denied(dir: &ScopeDir, file: &str) -> Error {
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
    let fd = native::open_exact(&file, open_flags(spec.access)).map_err(in_the_way)?;
    let stat = check_demands(&fd, spec)?;
    check_owner(&stat, spec)?;
    Object::new(fd, None, Some(native::exact_path(&file)), spec)
}

pub(crate) fn unlink_exact(text: &str) -> Result<()> {
    native::unlink_exact(text.trim_start_matches('/')).map_err(system("unlink"))
}

/// [`shm_open(3)`](https://man7.org/linux/man-pages/man3/shm_open.3.html): a slash that may be left out, and no other.
pub(crate) fn check_exact(text: &str) -> Result<(), String> {
    let rest = text.strip_prefix('/').unwrap_or(text);
    if rest.is_empty() || rest == "." || rest == ".." {
        return Err("it names no object".to_owned());
    }
    if rest.len() > native::EXACT_MAX {
        return Err(format!("it has {} bytes, and {} is this system's most", rest.len(), native::EXACT_MAX));
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
        for (name, file) in dir.names()? {
            let look = rustix::fs::openat(&dir.fd, &*file, OFlags::RDONLY | WARY, Mode::empty());
            let alive = match &look {
                Ok(look) => holders(look)? != Holders::None,
                // Somebody's whom we may not ask, or who has a lease on it.
                Err(Errno::ACCESS | Errno::AGAIN) => true,
                Err(_) => false,
            };
            let stat = rustix::fs::statat(&dir.fd, &*file, AtFlags::SYMLINK_NOFOLLOW);
            if let Some(stat) = stat.ok().filter(|_| alive) {
                let size = u64::try_from(stat.st_size).ok();
                let info = Some(info_of(&stat, Some(dir.path_of(&file))));
                living.push(Listed { name, size, info });
            }
        }
    }
    living.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(living)
}

pub(crate) fn sweep() -> Result<Vec<Swept>> {
    let mut met = Vec::new();
    for dir in scopes()? {
        met.extend(sweep_dir(&dir)?);
    }
    Ok(met)
}

/// The directories of both scopes, as far as they exist.
fn scopes() -> Result<Vec<ScopeDir>> {
    let mut dirs = Vec::new();
    for scope in [Scope::Local, Scope::Global] {
        match ScopeDir::open(scope, Missing::Report) {
            Ok(dir) => dirs.push(dir),
            Err(error) if *error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(dirs)
}

/// Removes what the dead left in one directory.
fn sweep_dir(dir: &ScopeDir) -> Result<Vec<Swept>> {
    let mut met = Vec::new();
    for (name, file) in dir.names()? {
        match remove_if_dead(dir, &file, None)? {
            Judged::Alive => {}
            Judged::Removed { size } => met.push(Swept { name, size, kept: None }),
            Judged::Kept { size, owner, why } => {
                let why = format!("it belongs to user {owner}: {}", std::io::Error::from(why));
                met.push(Swept { name, size, kept: Some(why) });
            }
        }
    }
    Ok(met)
}
