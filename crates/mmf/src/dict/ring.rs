//! The ring of changes: which keys changed, for those who watch.
//!
//! An entry is a version, a word (bits 0..16 length of the key, 16..24 kind), and the key, filled up to whole words. It
//! stands at its position modulo the ring's size, round the end if need be. Before entries are written, the claim says up to
//! where; who reads finds by it whether what it copied may have been written over.

use std::sync::atomic::{Ordering, fence};

use super::heap::Heap;
use super::record::{KEY_MAX, Kind};
use super::shape::{at, number};
use crate::error::Result;

const HEAD: usize = 16;
/// The kind of an entry that says that all was cleared.
const CLEARED: u64 = 3;

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) version: u64,
    /// `None`: everything was cleared.
    pub(super) kind: Option<Kind>,
    pub(super) key: Vec<u8>,
}

/// Entries to be written.
pub(super) struct Events {
    few: [u8; 128],
    len: usize,
    more: Vec<u8>,
}

impl Events {
    #[inline]
    pub(super) fn new() -> Events {
        Events { few: [0; 128], len: 0, more: Vec::new() }
    }

    #[inline]
    pub(super) fn push(&mut self, version: u64, kind: Kind, key: &[u8]) {
        let kind = match kind {
            Kind::Bytes => 0,
            Kind::Encoded => 1,
            Kind::Removal => 2,
        };
        self.push_any(version, kind, key);
    }

    pub(super) fn push_cleared(&mut self, version: u64) {
        self.push_any(version, CLEARED, &[]);
    }

    #[inline]
    fn push_any(&mut self, version: u64, kind: u64, key: &[u8]) {
        let what = key.len() as u64 | kind << 16;
        let end = self.len + HEAD + key.len().next_multiple_of(8);
        if self.more.is_empty() && end <= self.few.len() {
            let entry = &mut self.few[self.len..end];
            entry[..8].copy_from_slice(&version.to_le_bytes());
            entry[8..HEAD].copy_from_slice(&what.to_le_bytes());
            entry[HEAD..HEAD + key.len()].copy_from_slice(key);
        } else {
            if self.more.is_empty() {
                self.more.extend(&self.few[..self.len]);
            }
            self.more.extend(version.to_le_bytes());
            self.more.extend(what.to_le_bytes());
            self.more.extend(key);
            self.more.resize(end, 0);
        }
        self.len = end;
    }

    /// Writes them behind the ring's head, and gives where the head will be. The caller has the lock.
    #[inline]
    pub(super) fn write(&self, heap: &Heap<'_>) -> Result<u64> {
        let map = heap.map;
        let head = map.word(at::RING_HEAD)?;
        let claimed = map.word(at::RING_CLAIMED)?;
        let size = heap.shape.ring_size as u64;
        let mut end = head.wrapping_add(self.len as u64);
        if self.len as u64 > size / 2 {
            // Too many to be told: everybody who watches has fallen behind.
            end = end.wrapping_add(size);
            map.put_word(at::RING_CLAIMED, end.wrapping_add(size))?;
            return Ok(end);
        }
        // A writer that died may have claimed more.
        if claimed.wrapping_sub(end) as i64 <= 0 {
            map.put_word(at::RING_CLAIMED, end)?;
        }
        // The claim is seen before what it is about.
        fence(Ordering::Release);
        let bytes = if self.more.is_empty() { &self.few[..self.len] } else { &self.more[..] };
        let from = number(head % size);
        let (here, there) = bytes.split_at(bytes.len().min(heap.shape.ring_size - from));
        map.write_at(heap.shape.ring + from, here)?;
        if !there.is_empty() {
            map.write_at(heap.shape.ring, there)?;
        }
        Ok(end)
    }
}

/// What comes next in the ring.
#[derive(Debug)]
pub(super) enum Next {
    /// An entry, and where the next one is.
    Event(Event, u64),
    /// Nothing yet.
    Nothing,
    /// What was there has been written over; what is there now ends here.
    Lost(u64),
}

/// The entry at a position.
pub(super) fn next(heap: &Heap<'_>, position: u64) -> Result<Next> {
    let map = heap.map;
    let head = map.word(at::RING_HEAD)?;
    if position == head {
        return Ok(Next::Nothing);
    }
    let size = heap.shape.ring_size as u64;
    // A position that the head has not reached is another dict's, or somebody's mischief.
    let is_lost = |claimed: u64| claimed.wrapping_sub(position) > size || head.wrapping_sub(position) > size;
    if is_lost(map.word(at::RING_CLAIMED)?) {
        return Ok(Next::Lost(head));
    }
    let mut bytes = [0; HEAD + KEY_MAX];
    copy(heap, position, &mut bytes[..HEAD])?;
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    let (version, what) = (word(0), word(8));
    let len = (what & 0xffff) as usize;
    let kind = match what >> 16 {
        0 => Some(Some(Kind::Bytes)),
        1 => Some(Some(Kind::Encoded)),
        2 => Some(Some(Kind::Removal)),
        CLEARED => Some(None),
        _ => None,
    };
    let mut key = Vec::new();
    if len <= KEY_MAX {
        copy(heap, position.wrapping_add(HEAD as u64), &mut bytes[HEAD..HEAD + len])?;
        key.extend(&bytes[HEAD..HEAD + len]);
    }
    fence(Ordering::Acquire);
    if is_lost(map.word(at::RING_CLAIMED)?) {
        return Ok(Next::Lost(head));
    }
    match kind {
        Some(kind) if len <= KEY_MAX => {
            let next = position.wrapping_add((HEAD + len.next_multiple_of(8)) as u64);
            Ok(Next::Event(Event { version, kind, key }, next))
        }
        _ => Err(heap.damaged(format!("its ring of changes has no entry at {position}"))),
    }
}

fn copy(heap: &Heap<'_>, position: u64, to: &mut [u8]) -> Result<()> {
    let from = number(position % heap.shape.ring_size as u64);
    let len = to.len().min(heap.shape.ring_size - from);
    let (here, there) = to.split_at_mut(len);
    heap.map.read_at(heap.shape.ring + from, here)?;
    if there.is_empty() { Ok(()) } else { heap.map.read_at(heap.shape.ring, there) }
}
