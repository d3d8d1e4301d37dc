//! [`IndexedStores`]: the stores of a batch that has more than a few, with a hash table of their words.

#[cfg(test)]
use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use crate::dict::format::layout::number;
use crate::once::ProcessOnce;

/// More stores than a batch keeps in place.
pub(super) struct IndexedStores {
    /// The first is left free for the redo log's count; the stores follow in their order.
    pub(super) stores: Vec<[u64; 2]>,
    /// By offset: where in `stores` the newest of a word is; 0 is none. At most half of it is used.
    newest: Vec<u32>,
    used: usize,
    /// A bit for each line of 64 bytes that has any of them, or for others.
    pub(super) lines: [u64; 64],
    /// Places a word in `newest`.
    key: Key,
    /// Places of `newest` that `find` has read.
    #[cfg(test)]
    pub(super) probes: Cell<u64>,
}

/// The secret key of the table of a batch's words.
///
/// A peer with write access chooses the offsets that a change stores to. If it knew where in the
/// table each of them goes, it could choose offsets that all go to the same place, and a change of
/// `n` words would take `n`²/2 probes. It cannot read this process's memory, so with this key the
/// offsets that it chooses are spread as random ones are: about 1.5 probes each.
#[derive(Clone, Copy)]
pub(super) struct Key([u64; 2]);

impl Key {
    /// Returns the key of this process.
    #[inline]
    pub(super) fn get() -> Key {
        static KEY: ProcessOnce<Key> = ProcessOnce::new();
        *KEY.get_or_init(|| {
            let random = RandomState::new();
            // An even factor would lose bits.
            Key([random.hash_one(0), random.hash_one(1) | 1])
        })
    }

    /// Returns the place where the search for a word begins: both halves of the product of the
    /// keyed offset and the key, folded.
    #[inline]
    pub(super) fn home(self, offset: u64, mask: usize) -> usize {
        let product = u128::from(offset >> 3 ^ self.0[0]) * u128::from(self.0[1]);
        // Both halves have 64 bits; no process counts with fewer than the 32 that are taken.
        number(((product ^ product >> 64) & 0xffff_ffff) as u64) & mask
    }
}

/// Draws the key of this process, so that no later change asks the system for random numbers:
/// a sandbox may forbid that by then.
pub(in crate::dict) fn prepare() {
    let _ = Key::get();
}

impl IndexedStores {
    pub(super) fn new(stores: &[[u64; 2]], room: usize) -> Box<IndexedStores> {
        // About half of them are asked for.
        let len = room.max(2 * stores.len()).next_power_of_two();
        let mut indexed = Box::new(IndexedStores {
            stores: Vec::with_capacity(room + 2),
            newest: vec![0; len],
            used: 0,
            lines: [0; 64],
            key: Key::get(),
            #[cfg(test)]
            probes: Cell::new(0),
        });
        indexed.stores.push([0; 2]);
        for [offset, value] in stores {
            indexed.push(*offset, *value);
        }
        indexed
    }

    #[inline]
    pub(super) fn push(&mut self, offset: u64, value: u64) {
        let (at, place) = self.find(offset);
        // More than that no redo log has room for.
        self.newest[at] = u32::try_from(self.stores.len()).unwrap_or(u32::MAX);
        self.stores.push([offset, value]);
        let (word, bit) = IndexedStores::bit(offset);
        self.lines[word] |= bit;
        if place == 0 {
            self.used += 1;
            if 2 * self.used > self.newest.len() {
                self.grow();
            }
        }
    }

    /// Gives its place.
    #[inline(never)]
    pub(super) fn push_or_replace(&mut self, offset: u64, value: u64) -> usize {
        match self.find(offset) {
            (_, 0) => {
                self.push(offset, value);
                self.stores.len() - 1
            }
            (_, place) => {
                self.stores[place][1] = value;
                place
            }
        }
    }

    /// The value of a word's newest store.
    #[inline]
    pub(super) fn newest(&self, offset: u64) -> Option<u64> {
        match self.find(offset) {
            (_, 0) => None,
            (_, place) => Some(self.stores[place][1]),
        }
    }

    /// Returns where in `newest` a word is, or may go, and where in `stores` it is, or 0. At least
    /// half of `newest` is free, so the loop ends.
    #[inline]
    fn find(&self, offset: u64) -> (usize, usize) {
        let mask = self.newest.len() - 1;
        let mut at = self.key.home(offset, mask);
        loop {
            #[cfg(test)]
            self.probes.set(self.probes.get() + 1);
            let place = self.newest[at] as usize;
            if place == 0 || self.stores[place][0] == offset {
                return (at, place);
            }
            at = (at + 1) & mask;
        }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        let old = std::mem::take(&mut self.newest);
        self.newest = vec![0; 2 * old.len()];
        for place in old.into_iter().filter(|place| *place != 0) {
            let (at, _) = self.find(self.stores[place as usize][0]);
            self.newest[at] = place;
        }
    }

    #[inline]
    pub(super) fn bit(offset: u64) -> (usize, u64) {
        let bit = number(mixed(offset >> 6) & 4095);
        (bit / 64, 1 << (bit % 64))
    }
}

#[inline]
pub(super) fn mixed(word: u64) -> u64 {
    let product = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}
