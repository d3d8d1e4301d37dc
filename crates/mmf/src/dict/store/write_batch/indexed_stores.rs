//! [`IndexedStores`]: the stores of a batch that has more than 16, with a hash table of their
//! offsets.

#[cfg(test)]
use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use crate::dict::format::layout::number;
use crate::once::ProcessOnce;

/// The stores of a batch in the order of their execution, with a hash table from offset to store.
pub(super) struct IndexedStores {
    /// The stores, from index 1 on. Index 0 is free for the store of the redo log's count.
    pub(super) stores: Vec<[u64; 2]>,
    /// The hash table, with linear probing: the index in `stores` of a word's newest store, or 0.
    /// At most half of its places are used.
    newest: Vec<u32>,
    used: usize,
    /// A Bloom filter of 4096 bits for the 64-byte lines that have a store.
    pub(super) lines: [u64; 64],
    /// Chooses a word's place in `newest`.
    key: Key,
    /// The number of places of `newest` that `find` has read.
    #[cfg(test)]
    pub(super) probes: Cell<u64>,
}

/// The secret key of the hash table.
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
        // `usize` has at least 32 bits, so no bit of the masked result is lost.
        number(((product ^ product >> 64) & 0xffff_ffff) as u64) & mask
    }
}

/// Draws the key of this process when a dict is opened. No later change then asks the system for
/// random numbers, which a sandbox may forbid by that time.
pub(in crate::dict) fn prepare() {
    let _ = Key::get();
}

impl IndexedStores {
    /// Copies `stores`, and reserves memory for `room` stores.
    pub(super) fn new(stores: &[[u64; 2]], room: usize) -> Box<IndexedStores> {
        // About half of the stores are pushed blindly, and are not in the table.
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
        // The redo log has room for 65536 stores at most, so the index fits 32 bits.
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

    /// Replaces the value of the word's newest store, or appends a store. Returns its index.
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

    /// Returns the value of a word's newest store.
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

    /// Returns the word of `lines` and the bit in it for the line that has `offset`.
    #[inline]
    pub(super) fn bit(offset: u64) -> (usize, u64) {
        let bit = number(mixed(offset >> 6) & 4095);
        (bit / 64, 1 << (bit % 64))
    }
}

/// Mixes the bits of a word: a multiplication whose high half is folded into the low half.
#[inline]
pub(super) fn mixed(word: u64) -> u64 {
    let product = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}
