//! The change log: a ring buffer of the keys that changed, for watchers.
//!
//! An entry is a version, a word (bits 0..16 length of the key, 16..24 kind), and the key, filled
//! up to whole words. It stands at its position modulo the change log's size, round the end if need
//! be. Before entries are written, the claim says up to where. A reader compares its position with
//! the claim after the copy: if a writer has claimed that place, the copy may be torn, and the
//! reader reports missed changes.

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
/// The kind of an entry that says that all was cleared.
const CLEARED: u64 = 3;

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dict) struct LogEvent {
    pub(in crate::dict) version: u64,
    /// `None`: everything was cleared.
    pub(in crate::dict) kind: Option<RecordKind>,
    pub(in crate::dict) key: Vec<u8>,
}

/// The place of a change's entries. The caller has the lock.
#[derive(Clone, Copy)]
pub(in crate::dict) struct EventReservation {
    /// Where in the change log the next one begins.
    at: usize,
    end: u64,
    /// What was claimed before.
    claimed: u64,
    /// The entries pass half of the change log: each watcher gets a report of missed changes
    /// instead.
    skipped: bool,
}

/// The bytes of an entry with a key of `key_len` bytes.
#[inline(always)]
const fn event_len(key_len: usize) -> usize {
    EVENT_HEADER_LEN + key_len.next_multiple_of(8)
}

impl EventReservation {
    /// The place for entries with keys of these lengths, behind all others.
    #[inline(always)]
    pub(in crate::dict) fn new<A: Accessor>(
        storage: &Storage<'_>,
        map: A,
        keys: impl Iterator<Item = usize>,
    ) -> Result<EventReservation, A::Error> {
        let len = keys.map(|len| event_len(len) as u64).fold(0, u64::saturating_add);
        EventReservation::reserve(storage, map, len, len > storage.layout.change_log_size as u64 / 2)
    }

    /// Reserves the place for one entry, which never passes half of the change log.
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

    /// Has the batch move the change log's head behind these entries.
    #[inline(always)]
    pub(in crate::dict) fn push_head(&self, batch: &mut WriteBatch) {
        batch.push_blind(at::LOG_HEAD, self.end);
        if self.skipped {
            // The claim moves with the commit: no entry is overwritten before, and the change may
            // still fail.
            batch.push_blind(at::LOG_CLAIMED, self.end);
        }
    }

    /// Claims the place, before the first entry is written: from here on those who are behind by as
    /// much have missed something. The batch must be one that will be carried out.
    #[inline(always)]
    fn claim<A: AccessorMut>(&self, storage: &Storage<'_>, map: A) -> Result<(), A::Error> {
        if self.skipped {
            return Ok(());
        }
        // A writer that died may have claimed more.
        if self.end.wrapping_sub(self.claimed) <= storage.layout.change_log_size as u64 {
            map.put_word(at::LOG_CLAIMED, self.end)?;
        }
        // The claim is seen before what it is about.
        fence(Ordering::Release);
        Ok(())
    }

    /// Claims the place, and writes entries to it.
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

    /// Claims the place, and writes that all was cleared.
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

    /// Writes an entry that passes the end of the change log, and returns the place behind it.
    // By value, so that the caller keeps its reservation in registers.
    #[cold]
    #[inline(never)]
    fn write_wrapped(mut self, storage: &Storage<'_>, words: [u64; 2], key: &[u8]) -> Result<EventReservation> {
        let (map, layout) = (storage.map, storage.layout);
        // Words never lie across the end: positions are whole words.
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

/// Writes an entry that lies in one piece, filled up with zeros.
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

/// What comes next in the change log.
#[derive(Debug)]
pub(in crate::dict) enum NextEvent {
    /// An entry, and where the next one is.
    Event(LogEvent, u64),
    /// Nothing yet.
    Nothing,
    /// What was there has been written over; what is there now ends here.
    Lost(u64),
}

/// The entry at a position.
pub(in crate::dict) fn next(storage: &Storage<'_>, position: u64) -> Result<NextEvent> {
    let map = storage.map;
    let head = map.word(at::LOG_HEAD)?;
    if position == head {
        return Ok(NextEvent::Nothing);
    }
    let size = storage.layout.change_log_size as u64;
    // A position that the head has not reached is another dict's, or a peer has moved the head
    // back.
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

fn copy(storage: &Storage<'_>, position: u64, to: &mut [u8]) -> Result<()> {
    let from = number(position % storage.layout.change_log_size as u64);
    let len = to.len().min(storage.layout.change_log_size - from);
    let (here, there) = to.split_at_mut(len);
    storage.map.read_at(storage.layout.change_log + from, here)?;
    if there.is_empty() { Ok(()) } else { storage.map.read_at(storage.layout.change_log, there) }
}
