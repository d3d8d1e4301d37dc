//! The ring of changes: which keys changed, for those who watch.
//!
//! An entry is a version, a word (bits 0..16 length of the key, 16..24 kind), and the key, filled up to whole words. It
//! stands at its position modulo the ring's size, round the end if need be. Before entries are written, the claim says up to
//! where; who reads finds by it whether what it copied may have been written over.

use std::sync::atomic::Ordering;

use super::heap::Heap;
use super::plan::Plan;
use super::record::{KEY_MAX, Kind};
use super::shape::{at, number};
use crate::error::Result;
use crate::mapping::{Glance, GlanceMut};
use crate::sys::fence;

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

/// The place of a change's entries. The caller has the lock.
pub(super) struct Ring {
    /// Where in the ring the next one begins.
    at: usize,
    end: u64,
    /// What was claimed before.
    claimed: u64,
    /// They are too many to be told: everybody who watches falls behind.
    skipped: bool,
}

impl Ring {
    /// The place for entries with keys of these lengths, behind all others.
    #[inline(always)]
    pub(super) fn place(heap: &Heap<'_>, keys: impl Iterator<Item = usize>) -> Result<Ring> {
        let size = heap.shape.ring_size as u64;
        const { assert!(at::RING_HEAD == at::RING_CLAIMED + 8) };
        let [claimed, position, ..] = heap.map.four_words(at::RING_CLAIMED)?;
        let len = keys.map(|len| (HEAD + len.next_multiple_of(8)) as u64).fold(0, u64::saturating_add);
        let skipped = len > size / 2;
        let end = position.wrapping_add(if skipped { 2 * size } else { len });
        // Whoever may write there may have put the head between two words.
        let at = number(position % size) & !7;
        Ok(Ring { at, end, claimed, skipped })
    }

    /// The same for one entry that lies in one piece; `None` for any other.
    #[inline(always)]
    pub(super) fn place_at_a_glance(heap: &Heap<'_>, map: Glance<'_>, key: usize) -> Option<Ring> {
        let size = heap.shape.ring_size as u64;
        let [claimed, position, ..] = map.four_words(at::RING_CLAIMED)?;
        let len = HEAD + key.next_multiple_of(8);
        let at = number(position % size) & !7;
        (at + len <= heap.shape.ring_size).then_some(Ring {
            at,
            end: position.wrapping_add(len as u64),
            claimed,
            skipped: false,
        })
    }

    /// Claims that place and writes the entry, as [`claim`](Ring::claim) and [`write`](Ring::write) do.
    #[inline(always)]
    pub(super) fn write_at_a_glance(
        &self,
        heap: &Heap<'_>,
        map: GlanceMut<'_>,
        version: u64,
        kind: Kind,
        key: &[u8],
    ) -> Option<()> {
        if self.end.wrapping_sub(self.claimed) <= heap.shape.ring_size as u64 {
            map.put_word(at::RING_CLAIMED, self.end)?;
        }
        // The claim is seen before what it is about.
        fence(Ordering::Release);
        put(map, heap.shape.ring + self.at, [version, key.len() as u64 | code(kind) << 16], key)
    }

    /// Has the plan move the ring's head behind these entries.
    #[inline(always)]
    pub(super) fn put_head(&self, plan: &mut Plan) {
        plan.put_unasked(at::RING_HEAD, self.end);
        if self.skipped {
            // Nothing is written over before, so nobody may be told so before: the change may still fail.
            plan.put_unasked(at::RING_CLAIMED, self.end);
        }
    }

    /// Claims the place, before the first entry is written: from here on those who are behind by as much have missed something. The
    /// plan must be one that will be carried out.
    #[inline(always)]
    pub(super) fn claim(&self, heap: &Heap<'_>) -> Result<()> {
        if self.skipped {
            return Ok(());
        }
        // A writer that died may have claimed more.
        if self.end.wrapping_sub(self.claimed) <= heap.shape.ring_size as u64 {
            heap.map.put_word(at::RING_CLAIMED, self.end)?;
        }
        // The claim is seen before what it is about.
        fence(Ordering::Release);
        Ok(())
    }

    /// Writes an entry behind the last.
    #[inline]
    pub(super) fn write(&mut self, heap: &Heap<'_>, version: u64, kind: Kind, key: &[u8]) -> Result<()> {
        self.write_any(heap, version, code(kind), key)
    }

    /// Writes that all was cleared.
    pub(super) fn write_cleared(&mut self, heap: &Heap<'_>, version: u64) -> Result<()> {
        self.write_any(heap, version, CLEARED, &[])
    }

    #[inline]
    fn write_any(&mut self, heap: &Heap<'_>, version: u64, kind: u64, key: &[u8]) -> Result<()> {
        if self.skipped {
            return Ok(());
        }
        let words = [version, key.len() as u64 | kind << 16];
        let len = HEAD + key.len().next_multiple_of(8);
        let is_whole = self.at + len <= heap.shape.ring_size;
        let map = heap.map.glance_mut().filter(|_| is_whole);
        if map.is_some_and(|map| put(map, heap.shape.ring + self.at, words, key).is_some()) {
            self.step(heap, len);
            return Ok(());
        }
        self.write_long(heap, words, key)
    }

    #[cold]
    #[inline(never)]
    fn write_long(&mut self, heap: &Heap<'_>, words: [u64; 2], key: &[u8]) -> Result<()> {
        let (map, shape) = (heap.map, heap.shape);
        // Words never lie across the end: positions are whole words.
        for word in words {
            map.put_word(shape.ring + self.at, word)?;
            self.step(heap, 8);
        }
        if key.len() % 8 != 0 {
            let last = ((self.at + key.len()) % shape.ring_size) & !7;
            map.put_word(shape.ring + last, 0)?;
        }
        let (here, there) = key.split_at(key.len().min(shape.ring_size - self.at));
        map.write_at(shape.ring + self.at, here)?;
        if !there.is_empty() {
            map.write_at(shape.ring, there)?;
        }
        self.step(heap, key.len().next_multiple_of(8));
        Ok(())
    }

    /// So many bytes on, which are fewer than the ring has.
    #[inline(always)]
    fn step(&mut self, heap: &Heap<'_>, len: usize) {
        self.at += len;
        if self.at >= heap.shape.ring_size {
            self.at -= heap.shape.ring_size;
        }
    }
}

/// Writes an entry that lies in one piece, filled up with zeros.
#[inline(always)]
fn put(map: GlanceMut<'_>, at: usize, words: [u64; 2], key: &[u8]) -> Option<()> {
    map.put_words(at, &words)?;
    if key.len() % 8 != 0 {
        map.put_word(at + HEAD + (key.len() & !7), 0)?;
    }
    map.write(at + HEAD, key)
}

#[inline(always)]
fn code(kind: Kind) -> u64 {
    match kind {
        Kind::Bytes => 0,
        Kind::Encoded => 1,
        Kind::Removal => 2,
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
