//! Decides, when a file is opened, whether a power cut has left it, and rebuilds it then.
//!
//! The problem: after a power cut a file may be any mixture of pages
//! ([`flush`](crate::dict::write::flush)). Exactly then, and once, a process must rebuild the dict,
//! while other processes open it, wait for its lock, or read it without a lock.
//!
//! # When a dict is rebuilt
//!
//! BOOT is a hash of the id of the boot in which the dict was last opened for writing. A handle for
//! writing decides when it opens the file, before anything else:
//!
//! 1. If BOOT is 0 (no change yet) or this boot, there is nothing to do. It takes no lock.
//! 2. It attaches as an unchecked participant, takes the write lock, and loads BOOT again. If BOOT
//!    is this boot now, another process has rebuilt the dict, and there is nothing to do.
//! 3. If REDO_LEN is [`REPAIRING`] and BOOT is [`RECOVERING`], a rebuild was interrupted. The
//!    handle does it again, whatever participants live: they can do nothing before it is complete.
//!    With another BOOT a repair was interrupted. A user must run it again, and the handle is
//!    refused.
//! 4. If a checked participant lives (see `segment/boot.rs`), the machine has not stopped since
//!    that participant's checks, and BOOT is the id of another container. There is nothing to do.
//!    BOOT stays, so that containers do not replace each other's. (RECOVERING becomes this boot:
//!    the rebuild was interrupted before its first store or after its last.)
//! 5. If CLEAN is set, the disk has all changes. BOOT becomes this boot.
//! 6. Otherwise the handle rebuilds the dict ([`Rebuild`]).
//!
//! In all cases except a refusal the handle then takes its second token, still under the lock. From
//! then on it is a checked participant. A handle that ended at step 1 takes both tokens when it
//! attaches. Its check stays valid, since the machine does not stop while the handle's process
//! lives.
//!
//! Cost: one load and one comparison of the boot's hash if there is nothing to do.
//!
//! # Why it is correct
//!
//! *Two processes open the file at the same time after a power cut.* Both may be attached, so the
//! first token says nothing. The one that gets the lock rebuilds; the other waits for the lock and
//! finds this boot at 2. If the first is killed, the system releases its lock and tokens, and the
//! second finds RECOVERING at 3 or the old boot at 6. An unchecked participant, such as a repair,
//! never has the second token, so step 4 does not count it.
//!
//! *A process with the boot id that BOOT names opens the file while another rebuilds it.* The
//! rebuild replaces BOOT by RECOVERING before it changes anything else, so that process does not
//! end at 1.
//!
//! *A handle was opened before the rebuild and has not locked.* It has no token, so it does not
//! keep the rebuild from being made. When it locks, it waits for the lock, and then finds the
//! rebuilt dict, or RECOVERING, and does the rest itself (`WriteSession::recover`).
//!
//! *Readers without a lock.* From before the first destructive store on, BUCKETS has no buckets,
//! and REDO_LEN is REPAIRING until after the last store. The upper bits of BUCKETS end larger than
//! they began. A reader returns "absent" in three cases:
//!
//! - A slot leads to a record that says so, and its stamp and slot did not change: a removal, a
//!   version up to FLOOR, or an uncommitted change without a previous record. The rebuild makes no
//!   removal and does not raise FLOOR. So that record is from before the rebuild.
//! - No slot of the bucket leads to the key. After that, and after an acquire fence, the reader
//!   loads BUCKETS again, on the fast path too. If the rebuild stored any word that the reader has
//!   loaded, BUCKETS has changed, and the reader starts again.
//! - BUCKETS has no buckets. Then the reader loads REDO_LEN: REPAIRING is an error. If REDO_LEN is
//!   something else, the rebuild has stored BUCKETS before, and the reader's second load of BUCKETS
//!   shows it.
//!
//! *The disk.* RECOVERING is synced before anything else is stored. After a second power cut during
//! the rebuild, BOOT is neither 0 nor a boot, and step 3 or 6 does the rebuild again. Older
//! releases take RECOVERING for another boot, find REPAIRING in REDO_LEN and refuse the file.

use std::sync::atomic::Ordering;

use xxhash_rust::xxh3::xxh3_64;

use crate::dict::format::layout::at;
use crate::dict::format::marks::{CLEAN, NO_BOOT, RECOVERING, REPAIRING};
use crate::dict::format::slot::bucket_count;
use crate::dict::recovery::rebuild::{Rebuild, Superseded};
use crate::dict::recovery::record_scan::ScanScope;
use crate::dict::store::redo_log::was_cut_off;
use crate::dict::store::sync_mark;
use crate::dict::{Dict, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::segment::{self, WriteLock};
use crate::sys::fence;
use crate::types::Access;

/// Returns the hash of this boot's id, which is neither 0 nor [`RECOVERING`]. It does not include
/// the machine's id, since containers on one machine may each have another one.
pub(in crate::dict) fn this_boot_word() -> Result<u64> {
    Ok(boot_of(&segment::this_boot()?.boot))
}

fn boot_of(id: &[u8; 16]) -> u64 {
    xxh3_64(id).clamp(1, NO_BOOT - 1)
}

/// Returns the word that a change stores in BOOT. A dict in memory does not outlive the machine, so
/// a process without a boot id can use it.
pub(in crate::dict) fn boot_to_store(dict: &Dict) -> Result<u64> {
    let boot = this_boot_word();
    if dict.is_file() { boot } else { Ok(boot.unwrap_or(NO_BOOT)) }
}

/// Marks the dict as being rebuilt, for readers and on the disk. The caller holds the lock and has
/// stored nothing yet.
pub(in crate::dict) fn begin_rebuild(dict: &Dict, scope: ScanScope) -> Result<()> {
    let map = &dict.segment.map;
    // A repair has stored its own mark already. It scans more than a rebuild does, so if it is
    // interrupted, a rebuild must not take its place.
    if scope == ScanScope::UsedBlocks {
        map.put_word(at::BOOT, RECOVERING)?;
        if dict.is_file() {
            sync_mark::sync_or_mark(map, at::BOOT..at::BOOT + 8, map.word(at::DURABLE)?)?;
        }
        map.put_word(at::REDO_LEN, REPAIRING)?;
    }
    let count = map.word(at::BUCKETS)?;
    map.put_word(at::BUCKETS, count & !bucket_count(count))?;
    // Fills of whole spans are not release stores.
    fence(Ordering::Release);
    Ok(())
}

/// Rebuilds the dict. The caller holds the lock.
#[cold]
#[inline(never)]
pub(in crate::dict) fn rebuild(dict: &Dict) -> Result<()> {
    Rebuild::new(dict, ScanScope::UsedBlocks)?.run(&Superseded::Unknown, &mut Report::default()).map(drop)
}

impl Dict {
    /// Returns whether the file's contents are consistent: they were written in this boot, no
    /// change followed the last flush, or a checked participant lives.
    pub(in crate::dict) fn is_trusted(&self) -> Result<bool> {
        if !self.is_file() {
            return Ok(true);
        }
        let boot = self.segment.map.word(at::BOOT)?;
        if boot == 0 || boot == this_boot_word()? {
            return Ok(true);
        }
        Ok(self.segment.map.word(at::DURABLE)? & CLEAN != 0 || self.segment.has_checked_participant()?)
    }
}

/// Checks a dict that was just opened, and rebuilds it after a power cut. See the start of this
/// file.
pub(in crate::dict) fn open_after_power_cut(dict: &Dict) -> Result<()> {
    if dict.is_file() {
        let boot = dict.segment.map.word(at::BOOT)?;
        if boot != 0 && boot != this_boot_word()? {
            return if dict.segment.map.access() == Access::ReadWrite {
                check(dict)
            } else {
                check_to_read(dict, boot)
            };
        }
    }
    dict.segment.end_checks()
}

/// Performs steps 2 to 6 of the start of this file.
#[cold]
fn check(dict: &Dict) -> Result<()> {
    let map = &dict.segment.map;
    let this = this_boot_word()?;
    let _lock = WriteLock::lock(&dict.segment, || dict.lock_deadline(), "recover", |outcome| outcome)?.0;
    let boot = map.word(at::BOOT)?;
    if boot != this {
        if was_cut_off(map)? {
            rebuild(dict)?;
        } else {
            dict.storage().check_no_incomplete_repair()?;
            if dict.segment.has_checked_participant()? {
                if boot == RECOVERING {
                    map.put_word(at::BOOT, this)?;
                }
            } else if map.word(at::DURABLE)? & CLEAN != 0 {
                map.put_word(at::BOOT, this)?;
            } else {
                rebuild(dict)?;
            }
        }
    }
    dict.segment.end_checks()
}

/// Refuses a handle for reading if the dict has to be rebuilt. It takes no lock.
#[cold]
fn check_to_read(dict: &Dict, mut boot: u64) -> Result<()> {
    let map = &dict.segment.map;
    // A rebuild takes longer than one iteration, so only a hostile peer makes 100 of them.
    for _ in 0..100 {
        let refused = dict.storage().check_no_incomplete_repair();
        if refused.is_ok() && dict.is_trusted()? {
            return Ok(());
        }
        // Another process may have completed a rebuild between two of these loads.
        let now = map.word(at::BOOT)?;
        if now == boot {
            refused?;
            break;
        }
        boot = now;
    }
    let reason = "its last changes were made in another boot, and not flushed";
    let error = map.name_error(Error::new(ErrorKind::Damaged { reason: reason.to_owned() }, "open"));
    Err(error.with_help("open it once for writing, or run `mmf repair`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_that_a_peer_makes_up_hide_no_other_handle_from_a_repair() {
        use std::sync::atomic::Ordering;

        use crate::segment::layout;

        let path = std::env::temp_dir().join(format!("mmf others {}", std::process::id()));
        let dict = Dict::create_new(path.as_path(), 1 << 20).unwrap();
        let other = Dict::open(path.as_path()).unwrap();
        other.set_bytes("key", b"value").unwrap();
        let slot = dict.segment.participant("examine").unwrap().slot();
        let readers = layout::slot(slot, layout::at::SLOT_READERS);
        dict.segment.map.store(readers, 1_u32, Ordering::Relaxed).unwrap();
        assert!(dict.segment.has_other_participants().unwrap());
        drop(other);
        assert!(!dict.segment.has_other_participants().unwrap());
        drop(dict);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_first_change_in_another_boot_waits_no_longer_than_its_timeout() {
        use std::sync::atomic::Ordering::SeqCst;
        use std::time::Duration;

        use crate::error::ErrorKind;
        use crate::segment::layout;
        use crate::sys::LivenessTokens;

        let timeout = Duration::from_secs(2);
        let path = std::env::temp_dir().join(format!("mmf first change {}", std::process::id()));
        let dict = Dict::options().timeout(Some(timeout)).capacity(1 << 20).create_new(path.as_path()).unwrap();
        let map = &dict.segment.map;
        // A living participant that has not finished its checks, and holds the lock.
        let (slot, id) = (5, dict.segment.header.id);
        let tokens = LivenessTokens::new(map.object(), &id).unwrap();
        assert!(tokens.take(slot).unwrap());
        dict.segment.lock.readers().set_occupied(slot, true).unwrap();
        map.store(layout::at::LOCK, slot as u64 + 1, SeqCst).unwrap();
        let boot = layout::at::BOOT + 16;
        let this: u64 = map.load(boot, SeqCst).unwrap();
        map.store(boot, this ^ 2, SeqCst).unwrap();
        let error = std::thread::scope(|scope| {
            // The participant has cleared what the other boot left, and keeps the lock.
            scope.spawn(|| {
                std::thread::sleep(timeout / 4 * 3);
                map.store(boot, this, SeqCst).unwrap();
            });
            dict.set_bytes("key", b"value").unwrap_err()
        });
        // A quarter of the timeout was left for the lock.
        let ErrorKind::Timeout { holder: Some(holder) } = error.kind() else { panic!("{error}") };
        assert!(holder.held_for < timeout, "{:?}", holder.held_for);
        tokens.give(slot);
        dict.set_bytes("key", b"value").unwrap();
        drop(dict);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn no_boot_has_a_number_that_means_something_else() {
        for id in 0..1000_u128 {
            let boot = boot_of(&id.to_le_bytes());
            assert!(boot != 0 && boot != RECOVERING, "{id}");
        }
    }
}
