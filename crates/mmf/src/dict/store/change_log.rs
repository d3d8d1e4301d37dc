//! The change log: a ring buffer of the keys that changed, for watchers.
//!
//! The problem: a watcher without a lock must learn of each change, in order, or learn that it has
//! missed some. A writer must never wait for a watcher.
//!
//! ```text
//! entry:  +0  version of the change
//!         +8  bits 0..16 length of the key; 16..24 kind: 0, 1 set, 2 removed, 3 all cleared
//!         +16 the key, padded with zeros to a multiple of 8
//! HEAD:     the position after the last complete entry
//! CLAIMED:  the position up to which a writer has written or may be writing
//! ```
//!
//! A position only grows. An entry stands at its position modulo the log's size, and continues at
//! the start if it passes the end.
//!
//! The algorithm of a writer, which holds the lock:
//!
//! 1. It computes the end of the change's entries ([`EventReservation`]), and adds the store of
//!    HEAD to the write batch, after that of COMMIT.
//! 2. It stores the end in CLAIMED, and then writes the entries.
//! 3. It commits the batch, which moves HEAD.
//! 4. If the entries are longer than half of the log, it writes none. The batch moves HEAD and
//!    CLAIMED by twice the log's size, so that each watcher reports missed changes.
//!
//! The algorithm of a watcher ([`next`]):
//!
//! 1. If its position is HEAD, there is no new entry.
//! 2. It copies the entry at its position, and then loads CLAIMED.
//! 3. If CLAIMED is more than the log's size ahead of its position, a writer may have overwritten
//!    the entry. The copy may be torn, and the watcher reports missed changes. Otherwise the entry
//!    is complete.
//!
//! Why it is correct: the store of CLAIMED is visible before the bytes of the entries (release
//! fence), and the watcher loads CLAIMED after its copy (acquire fence). So a copy of overwritten
//! bytes is followed by a CLAIMED that shows it. A writer that dies before its commit leaves HEAD
//! where it was, and the next writer overwrites the entries.
//!
//! Cost: a store of CLAIMED, and a copy of 16 bytes plus the key for each changed key. The store of
//! HEAD is part of the batch.

use std::sync::atomic::Ordering;

use crate::dict::format::layout::{MIN_CHANGE_LOG_SIZE, at, number};
use crate::dict::format::record::{KEY_MAX, RecordKind};
use crate::dict::store::accessor::PathAccess;
use crate::dict::store::storage::Storage;
use crate::dict::store::write_batch::WriteBatch;
use crate::error::Result;
use crate::mem::{Accessor, AccessorMut};
use crate::sys::fence;

const EVENT_HEADER_LEN: usize = 16;
/// The kind of the entry of `clear`.
const CLEARED: u64 = 3;

/// A copied entry of the change log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dict) struct LogEvent {
    pub(in crate::dict) version: u64,
    /// `None` if the change was a `clear`.
    pub(in crate::dict) kind: Option<RecordKind>,
    pub(in crate::dict) key: Vec<u8>,
}

/// The place that a change's entries will take. The caller holds the lock.
#[derive(Clone, Copy)]
pub(in crate::dict) struct EventReservation {
    /// The offset in the ring at which the next entry begins.
    at: usize,
    end: u64,
    /// CLAIMED before this change.
    claimed: u64,
    /// The entries are longer than half of the change log. None is written, and each watcher
    /// reports missed changes.
    skipped: bool,
}

/// Returns the length of an entry with a key of `key_len` bytes.
#[inline(always)]
const fn event_len(key_len: usize) -> usize {
    EVENT_HEADER_LEN + key_len.next_multiple_of(8)
}

impl EventReservation {
    /// Reserves the place after HEAD for entries with keys of these lengths.
    #[inline(always)]
    pub(in crate::dict) fn new<A: Accessor>(
        storage: &Storage<'_>,
        map: A,
        keys: impl Iterator<Item = usize>,
    ) -> Result<EventReservation, A::Error> {
        let len = keys.map(|len| event_len(len) as u64).fold(0, u64::saturating_add);
        EventReservation::reserve(storage, map, len, len > storage.layout.change_log_size as u64 / 2)
    }

    /// Reserves the place for one entry, which is never longer than half of the change log.
    #[inline(always)]
    pub(in crate::dict) fn for_key<A: Accessor>(
        storage: &Storage<'_>,
        map: A,
        key_len: usize,
    ) -> Result<EventReservation, A::Error> {
        const { assert!(event_len(KEY_MAX) <= MIN_CHANGE_LOG_SIZE / 2) };
        EventReservation::reserve(storage, map, event_len(key_len) as u64, false)
    }

    #[inline(always)]
    fn reserve<A: Accessor>(
        storage: &Storage<'_>,
        map: A,
        len: u64,
        skipped: bool,
    ) -> Result<EventReservation, A::Error> {
        let size = storage.layout.change_log_size as u64;
        const { assert!(at::LOG_HEAD == at::LOG_CLAIMED + 8) };
        let [claimed, position, ..] = map.four_words(at::LOG_CLAIMED)?;
        let end = position.wrapping_add(if skipped { 2 * size } else { len });
        // A peer with write access may have stored a head that is no multiple of 8.
        let at = number(position % size) & !7;
        Ok(EventReservation { at, end, claimed, skipped })
    }

    /// Adds the store that moves HEAD to the end of these entries.
    #[inline(always)]
    pub(in crate::dict) fn push_head(&self, batch: &mut WriteBatch) {
        batch.push_blind(at::LOG_HEAD, self.end);
        if self.skipped {
            // CLAIMED moves with the commit, since no entry is overwritten before, and the change
            // may still fail.
            batch.push_blind(at::LOG_CLAIMED, self.end);
        }
    }

    /// Stores CLAIMED before the first entry is written. From then on, a watcher whose position is
    /// more than the log's size behind reports missed changes. The change must not fail afterwards.
    #[inline(always)]
    fn claim<A: AccessorMut>(&self, storage: &Storage<'_>, map: A) -> Result<(), A::Error> {
        if self.skipped {
            return Ok(());
        }
        // A writer that died may have claimed more.
        if self.end.wrapping_sub(self.claimed) <= storage.layout.change_log_size as u64 {
            map.put_word(at::LOG_CLAIMED, self.end)?;
        }
        // A watcher that sees a byte of the entries also sees the claim.
        fence(Ordering::Release);
        Ok(())
    }

    /// Claims the place, and writes the entries.
    #[inline(always)]
    pub(in crate::dict) fn write_all<'k, A: PathAccess + AccessorMut>(
        mut self,
        storage: &Storage<'_>,
        map: A,
        events: impl Iterator<Item = (u64, RecordKind, &'k [u8])>,
    ) -> Result<(), A::Error> {
        self.claim(storage, map)?;
        for (version, kind, key) in events {
            self.write_event(storage, map, version, kind_code(kind), key)?;
        }
        Ok(())
    }

    /// Claims the place, and writes the entry of a `clear`.
    pub(in crate::dict) fn write_cleared(mut self, storage: &Storage<'_>, version: u64) -> Result<()> {
        self.claim(storage, storage.map)?;
        self.write_event(storage, storage.map, version, CLEARED, &[])
    }

    #[inline(always)]
    fn write_event<A: PathAccess + AccessorMut>(
        &mut self,
        storage: &Storage<'_>,
        map: A,
        version: u64,
        kind: u64,
        key: &[u8],
    ) -> Result<(), A::Error> {
        if self.skipped {
            return Ok(());
        }
        let words = [version, key.len() as u64 | kind << 16];
        let len = event_len(key.len());
        if self.at + len > storage.layout.change_log_size {
            *self = self.write_wrapped(storage, words, key)?;
            return Ok(());
        }
        put_event(map, storage.layout.change_log + self.at, words, key)?;
        self.step(storage, len);
        Ok(())
    }

    /// Writes an entry that passes the end of the ring, and returns the place after it.
    // It takes `self` by value so that the caller keeps its reservation in registers.
    #[cold]
    #[inline(never)]
    fn write_wrapped(mut self, storage: &Storage<'_>, words: [u64; 2], key: &[u8]) -> Result<EventReservation> {
        let (map, layout) = (storage.map, storage.layout);
        // A word never lies across the end: positions are multiples of 8.
        for word in words {
            map.put_word(layout.change_log + self.at, word)?;
            self.step(storage, 8);
        }
        if key.len() % 8 != 0 {
            let last = ((self.at + key.len()) % layout.change_log_size) & !7;
            map.put_word(layout.change_log + last, 0)?;
        }
        let (here, there) = key.split_at(key.len().min(layout.change_log_size - self.at));
        map.write_at(layout.change_log + self.at, here)?;
        if !there.is_empty() {
            map.write_at(layout.change_log, there)?;
        }
        self.step(storage, key.len().next_multiple_of(8));
        Ok(self)
    }

    /// Advances by `len` bytes, which are fewer than the size of the change log.
    #[inline(always)]
    fn step(&mut self, storage: &Storage<'_>, len: usize) {
        self.at += len;
        if self.at >= storage.layout.change_log_size {
            self.at -= storage.layout.change_log_size;
        }
    }
}

/// Writes an entry that does not pass the end of the ring, padded with zeros.
#[inline(always)]
fn put_event<A: AccessorMut>(map: A, at: usize, words: [u64; 2], key: &[u8]) -> Result<(), A::Error> {
    map.put_words(at, &words)?;
    if key.len() % 8 != 0 {
        map.put_word(at + EVENT_HEADER_LEN + (key.len() & !7), 0)?;
    }
    map.write(at + EVENT_HEADER_LEN, key)
}

#[inline(always)]
fn kind_code(kind: RecordKind) -> u64 {
    match kind {
        RecordKind::Bytes => 0,
        RecordKind::Encoded => 1,
        RecordKind::Removal => 2,
    }
}

/// The result of a read of the change log.
#[derive(Debug)]
pub(in crate::dict) enum NextEvent {
    /// An entry, and the position of the next one.
    Event(LogEvent, u64),
    /// No entry: the position is HEAD.
    Nothing,
    /// The entry was overwritten. The field is HEAD, where the watcher continues.
    Lost(u64),
}

/// Reads the entry at a position, without a lock.
pub(in crate::dict) fn next(storage: &Storage<'_>, position: u64) -> Result<NextEvent> {
    let map = storage.map;
    let head = map.word(at::LOG_HEAD)?;
    if position == head {
        return Ok(NextEvent::Nothing);
    }
    let size = storage.layout.change_log_size as u64;
    // A position after HEAD means that it is of another dict, or that a peer has moved HEAD back.
    let is_lost = |claimed: u64| claimed.wrapping_sub(position) > size || head.wrapping_sub(position) > size;
    if is_lost(map.word(at::LOG_CLAIMED)?) {
        return Ok(NextEvent::Lost(head));
    }
    let mut bytes = [0; EVENT_HEADER_LEN + KEY_MAX];
    copy(storage, position, &mut bytes[..EVENT_HEADER_LEN])?;
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    let (version, what) = (word(0), word(8));
    let len = (what & 0xffff) as usize;
    let kind = match what >> 16 {
        0 => Some(Some(RecordKind::Bytes)),
        1 => Some(Some(RecordKind::Encoded)),
        2 => Some(Some(RecordKind::Removal)),
        CLEARED => Some(None),
        _ => None,
    };
    let mut key = Vec::new();
    if len <= KEY_MAX {
        copy(
            storage,
            position.wrapping_add(EVENT_HEADER_LEN as u64),
            &mut bytes[EVENT_HEADER_LEN..EVENT_HEADER_LEN + len],
        )?;
        key.extend(&bytes[EVENT_HEADER_LEN..EVENT_HEADER_LEN + len]);
    }
    fence(Ordering::Acquire);
    if is_lost(map.word(at::LOG_CLAIMED)?) {
        return Ok(NextEvent::Lost(head));
    }
    match kind {
        Some(kind) if len <= KEY_MAX => {
            let next = position.wrapping_add((EVENT_HEADER_LEN + len.next_multiple_of(8)) as u64);
            Ok(NextEvent::Event(LogEvent { version, kind, key }, next))
        }
        _ => Err(storage.damaged(format!("its change log has no entry at {position}"))),
    }
}

/// Copies bytes of the ring from a position on, in two pieces if they pass the end.
fn copy(storage: &Storage<'_>, position: u64, to: &mut [u8]) -> Result<()> {
    let from = number(position % storage.layout.change_log_size as u64);
    let len = to.len().min(storage.layout.change_log_size - from);
    let (here, there) = to.split_at_mut(len);
    storage.map.read_at(storage.layout.change_log + from, here)?;
    if there.is_empty() { Ok(()) } else { storage.map.read_at(storage.layout.change_log, there) }
}
