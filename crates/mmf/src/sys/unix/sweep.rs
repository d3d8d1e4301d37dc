//! Sweeping: removes files that dead processes left in the directories of both scopes.
//!
//! # Problem
//!
//! A process that is killed removes nothing. Any user can put thousands of files into the shared
//! directory, so a creation must not examine all of them.
//!
//! # Algorithm
//!
//! - [`sweep`] and `list` examine every file.
//! - Each creation examines a bounded number of files:
//!   1. It reads up to [`READ`] entries, from the position at which this process's last creation
//!      stopped.
//!   2. If the directory has more entries, it reads up to [`READ_ELSEWHERE`] further entries from a
//!      random position. Processes that create one object each therefore reach every file in the
//!      end.
//!   3. It judges up to [`JUDGED`] files, and skips files of other users, which it could not
//!      remove.
//! - A creation that finds no memory left sweeps completely, and then tries again
//!   (`named::with_room`).
//!
//! # Correctness
//!
//! A sweep removes files by [`remove_if_dead`] alone, which never removes a live object's file.
//!
//! # Cost
//!
//! A creation reads at most 384 entries and judges at most 32 files.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicI64, Ordering};

use rustix::fs::{Dir, FileType};
use rustix::io::Errno;

use super::named::check_exact;
use super::namespace_dir::{IfMissing, NamespaceDir, PREFIX, is_temporary};
use super::native;
use super::object::links;
use super::remove::{ExpectedFile, RemovalOutcome, is_own, remove_if_dead};
use super::system;
use crate::error::{ErrorKind, Result};
use crate::name::{Name, Scope};
use crate::types::Swept;

/// Entries that a creation reads from the position where the last creation stopped.
const READ: u32 = 256;
/// Entries that a creation reads from a random position, if the directory has more.
const READ_ELSEWHERE: u32 = 128;
/// Files that a creation judges.
const JUDGED: u32 = 32;

pub(crate) fn sweep() -> Result<Vec<Swept>> {
    let mut met = Vec::new();
    for dir in scopes()? {
        met.extend(sweep_dir(&dir)?);
    }
    Ok(met)
}

/// Opens the directories of both scopes, if they exist.
pub(super) fn scopes() -> Result<Vec<NamespaceDir>> {
    let mut dirs = Vec::new();
    for scope in [Scope::Local, Scope::Global] {
        match NamespaceDir::open(scope, IfMissing::Report) {
            Ok(dir) => dirs.push(dir),
            Err(error) if *error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(dirs)
}

/// Returns the names of objects in a directory, each with its file name, and the files that
/// creators left under a temporary name.
pub(super) fn entries(dir: &NamespaceDir) -> Result<NamespaceEntries> {
    let mut found = NamespaceEntries { objects: Vec::new(), temporaries: Vec::new() };
    for entry in Dir::read_from(&dir.fd).map_err(system("list"))? {
        match what_it_is(dir, &entry.map_err(system("list"))?) {
            Some(NamespaceEntry::Object(name, file)) => found.objects.push((name, file)),
            Some(NamespaceEntry::Temporary(file)) => found.temporaries.push(file),
            None => {}
        }
    }
    Ok(found)
}

pub(super) struct NamespaceEntries {
    pub(super) objects: Vec<(Name, String)>,
    pub(super) temporaries: Vec<String>,
}

enum NamespaceEntry {
    Object(Name, String),
    Temporary(String),
}

impl NamespaceEntry {
    fn file_name(&self) -> &str {
        match self {
            NamespaceEntry::Object(_, file) | NamespaceEntry::Temporary(file) => file,
        }
    }
}

/// Classifies a directory entry. Returns `None` for a file that is not mmf's.
fn what_it_is(dir: &NamespaceDir, entry: &rustix::fs::DirEntry) -> Option<NamespaceEntry> {
    let plausible = matches!(entry.file_type(), FileType::RegularFile | FileType::Unknown);
    let file = entry.file_name().to_str().ok().filter(|_| plausible)?;
    if is_temporary(file) {
        return Some(NamespaceEntry::Temporary(file.to_owned()));
    }
    // Another program chose a file name whose text is not a valid name.
    let name = Name::checked(dir.scope, file.strip_prefix(PREFIX)?.to_owned(), check_exact).ok()?;
    Some(NamespaceEntry::Object(name, file.to_owned()))
}

/// Removes files of dead processes from one directory.
pub(super) fn sweep_dir(dir: &NamespaceDir) -> Result<Vec<Swept>> {
    let mut met = Vec::new();
    let found = entries(dir)?;
    // Temporary names come first: a file that a killed creator was just naming then has one name
    // left.
    for file in found.temporaries {
        remove_if_dead(dir, &file, ExpectedFile::Any)?;
    }
    for (name, file) in found.objects {
        match remove_if_dead(dir, &file, ExpectedFile::Any)? {
            RemovalOutcome::Alive => {}
            RemovalOutcome::Removed { size } => met.push(Swept { name, size, kept: None }),
            RemovalOutcome::Kept { size, stat, why: Errno::MLINK } => {
                let why = format!(
                    "it has {} hard links, which another user may have made; see `mmf rm {name}`",
                    links(&stat)
                );
                met.push(Swept { name, size, kept: Some(why) });
            }
            RemovalOutcome::Kept { size, stat, why } => {
                let why = format!("it belongs to user {}: {}", stat.st_uid, std::io::Error::from(why));
                met.push(Swept { name, size, kept: Some(why) });
            }
        }
    }
    Ok(met)
}

/// Removes some files of dead processes from one directory, in bounded time.
pub(super) fn sweep_some(dir: &NamespaceDir) -> Result<()> {
    /// The position at which this process's last creation stopped, for each scope.
    static STOPPED: [AtomicI64; 2] = [AtomicI64::new(0), AtomicI64::new(0)];
    let stopped = &STOPPED[usize::from(dir.scope == Scope::Local)];
    let mut entries = Dir::read_from(&dir.fd).map_err(system("list"))?;
    let mut judged = 0;
    let start = stopped.load(Ordering::Relaxed);
    if start != 0 {
        native::seek_dir(&entries, start);
    }
    let end = sweep_from(dir, &mut entries, READ, &mut judged)?;
    stopped.store(end.unwrap_or(0), Ordering::Relaxed);
    if end.is_some() {
        let mut elsewhere = Dir::read_from(&dir.fd).map_err(system("list"))?;
        native::seek_dir(&elsewhere, random_position());
        judged = judged.min(JUDGED / 2);
        sweep_from(dir, &mut elsewhere, READ_ELSEWHERE, &mut judged)?;
    }
    Ok(())
}

/// Reads up to `most` entries, and judges those that this process may remove. Returns the position
/// if it stops before the end.
fn sweep_from(dir: &NamespaceDir, entries: &mut Dir, most: u32, judged: &mut u32) -> Result<Option<i64>> {
    let may_remove_all = dir.scope == Scope::Local || rustix::process::geteuid().is_root();
    let mut position = 0;
    for _ in 0..most {
        let Some(entry) = entries.read() else { return Ok(None) };
        let entry = entry.map_err(system("list"))?;
        position = native::position_after(&entry);
        let Some(found) = what_it_is(dir, &entry) else { continue };
        if !may_remove_all && !dir.stat_of(found.file_name()).is_some_and(|stat| is_own(&stat)) {
            continue;
        }
        remove_if_dead(dir, found.file_name(), ExpectedFile::Any)?;
        *judged += 1;
        if *judged >= JUDGED {
            return Ok(Some(position));
        }
    }
    Ok(entries.read().map(|_| position))
}

/// Returns a random position in a directory of unknown size. Each power of two is equally likely,
/// since positions count either entries or creations. A position after the last entry yields no
/// entries.
fn random_position() -> i64 {
    let random = RandomState::new().hash_one(0);
    let bits = 8 + random % 23;
    // The value has at most 31 bits.
    i64::try_from((1 << bits) | ((random >> 32) % (1 << bits))).unwrap_or(0)
}
