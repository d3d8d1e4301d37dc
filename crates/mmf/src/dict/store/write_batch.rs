//! [`WriteBatch`]: a change of shared memory as a list of stores, committed through the redo log.
//!
//! The problem: a change takes several stores (slot, stamp, counts, lists). The writer can die
//! between any two of them, and readers without a lock see each of them as it happens.
//!
//! The algorithm, under the write lock:
//!
//! 1. The writer computes the change as a list of pairs: an offset and the word to store there. It
//!    writes directly to free memory only, to which no word leads yet.
//! 2. It copies the pairs to the redo log.
//! 3. It stores their count in REDO_LEN. This is the commit point.
//! 4. It performs the stores in their order.
//! 5. It stores 0 in REDO_LEN.
//!
//! ```text
//! REDO_LEN      u64: the number of pairs, 0 without a change under way
//! REDO_LOG + 0  u64 offset, u64 word      the first pair
//! REDO_LOG + 16 u64 offset, u64 word      the second pair, and so on
//! ```
//!
//! Why it is correct:
//!
//! - Before step 3 no word leads to anything that the writer has written. A death loses the change
//!   and nothing else.
//! - From step 3 on, the next holder of the lock replays the pairs
//!   ([`redo_log`](crate::dict::store::redo_log)). They are absolute, so a repeated store stores
//!   the same word.
//! - One of the stores is that of COMMIT or that of BUCKETS. The stores before it are of words that
//!   readers do not follow yet. The stores after it free what no reader needs any more.
//! - A word that readers follow must not go back to what an earlier store of the batch made of it.
//!   So if memory already has the word of that one store, a replay begins with that store.
//!
//! Cost: two copies of the pairs, each a guarded call, and no system call. A batch of up to 16
//! stores lies on the stack and is searched linearly. A longer batch allocates a hash table
//! ([`IndexedStores`]).

mod indexed_stores;

use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;

use indexed_stores::IndexedStores;
pub(in crate::dict) use indexed_stores::prepare;

use crate::dict::format::layout::{Layout, at};
use crate::error::{Error, Result};
use crate::mapping::Mapping;
use crate::mem::Accessor;
use crate::sys::fence;

/// A batch of up to this many stores lies on the stack and is searched linearly.
const INLINE_STORES: usize = 16;

/// The stores of one change, in their order.
pub(in crate::dict) struct WriteBatch {
    /// The stores, from index 1 on. Index 0 and the index after the last store are free for the
    /// two stores of REDO_LEN, so that `commit` passes one slice.
    inline_stores: [MaybeUninit<[u64; 2]>; INLINE_STORES + 2],
    /// Index in `inline_stores` of the next store, or `INLINE_END` once `indexed` exists.
    next: usize,
    /// A Bloom filter of the offsets in `inline_stores`: a clear bit means that no store has the
    /// offset. [`bit_of`] chooses the bit. Stores of `push_blind` are not in it.
    words: u64,
    /// All stores, once there are more than `INLINE_STORES`.
    indexed: Option<Box<IndexedStores>>,
    /// Offset and index of the store that [`push_or_replace`](WriteBatch::push_or_replace) made
    /// last. It is a cache of one entry: most lookups ask for that word.
    last_store: (u64, usize),
}

/// The value of `next` that marks `inline_stores` as full.
const INLINE_END: usize = INLINE_STORES + 1;

/// The value of `last_store` that matches no offset.
const NO_STORE: (u64, usize) = (u64::MAX, 0);

/// Returns the bit of the Bloom filter for the word at `offset`.
#[inline(always)]
fn bit_of(offset: u64) -> u64 {
    1 << ((offset >> 3 ^ offset >> 9) & 63)
}

impl WriteBatch {
    #[inline]
    pub(in crate::dict) fn new() -> WriteBatch {
        WriteBatch {
            inline_stores: [const { MaybeUninit::uninit() }; INLINE_STORES + 2],
            next: 1,
            words: 0,
            indexed: None,
            last_store: NO_STORE,
        }
    }

    /// Reserves room for about `stores` stores. The batch must be empty.
    #[inline]
    pub(in crate::dict) fn reserve(&mut self, stores: usize) {
        if stores > INLINE_STORES {
            self.indexed = Some(IndexedStores::new(self.stores(), stores));
            self.next = INLINE_END;
        }
    }

    #[inline]
    pub(in crate::dict) fn clear(&mut self) {
        self.next = 1;
        self.words = 0;
        self.last_store = NO_STORE;
        if self.indexed.is_some() {
            self.indexed = None;
        }
    }

    pub(in crate::dict) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline(always)]
    fn len(&self) -> usize {
        match &self.indexed {
            None => self.next - 1,
            Some(indexed) => indexed.stores.len() - 1,
        }
    }

    #[inline]
    fn stores(&self) -> &[[u64; 2]] {
        match &self.indexed {
            None => self.written(1, self.next),
            Some(indexed) => &indexed.stores[1..],
        }
    }

    #[cfg(test)]
    pub(in crate::dict) fn list(&self) -> Vec<[u64; 2]> {
        self.stores().to_vec()
    }

    /// Returns the stores `from..to` of `inline_stores`. The caller has written all of them.
    #[inline]
    fn written(&self, from: usize, to: usize) -> &[[u64; 2]] {
        let some = &self.inline_stores[from..to];
        // SAFETY: all elements of the range are initialized. `push_inline` has written each index
        // from 1 to `next - 1`. Only `commit` asks for more: index 0 and index `next`, which it
        // writes before it asks. `MaybeUninit<T>` has the layout of `T`.
        unsafe { std::slice::from_raw_parts(some.as_ptr().cast(), some.len()) }
    }

    /// Returns the word at `offset` as it will be once the batch is committed.
    #[inline(always)]
    pub(in crate::dict) fn get<A: Accessor>(&self, map: A, offset: usize) -> Result<u64, A::Error> {
        if self.next == 1 {
            return map.word(offset);
        }
        match self.lookup(offset) {
            Some(value) => Ok(value),
            None => map.word(offset),
        }
    }

    #[inline(always)]
    pub(in crate::dict) fn lookup(&self, offset: usize) -> Option<u64> {
        let offset = offset as u64;
        if offset == self.last_store.0 { Some(self.last_replaceable()[1]) } else { self.find_store(offset) }
    }

    #[inline]
    fn find_store(&self, offset: u64) -> Option<u64> {
        match &self.indexed {
            None if self.words & bit_of(offset) == 0 => None,
            None => self.stores().iter().rev().find(|[known, _]| *known == offset).map(|[_, value]| *value),
            Some(indexed) => indexed.newest(offset),
        }
    }

    /// Returns whether the batch may have a store to the 64-byte line at the offset `line`. A
    /// batch on the stack answers exactly. An indexed batch may return `true` for another line.
    #[inline]
    pub(in crate::dict) fn may_have_in_line(&self, line: usize) -> bool {
        match &self.indexed {
            None => self.stores().iter().any(|[offset, _]| offset >> 6 == line as u64 >> 6),
            Some(indexed) => {
                let (word, bit) = IndexedStores::bit(line as u64);
                indexed.lines[word] & bit != 0
            }
        }
    }

    /// Appends a store. Lookups of the word return its newest value.
    #[inline(always)]
    pub(in crate::dict) fn push(&mut self, offset: usize, value: u64) {
        // The new store is newer than the cached one.
        if offset as u64 == self.last_store.0 {
            self.last_store = NO_STORE;
        }
        if self.next <= INLINE_STORES {
            self.words |= bit_of(offset as u64);
            self.push_inline(offset, value);
        } else {
            self.push_indexed(offset as u64, value);
        }
    }

    /// Appends a store, or replaces the value of the word's earlier store if that store is the
    /// cached one or the batch is indexed. The word must be one that readers do not follow, since
    /// the new value may take an earlier place in the order.
    #[inline(always)]
    pub(in crate::dict) fn push_or_replace(&mut self, offset: usize, value: u64) {
        if offset as u64 == self.last_store.0 {
            self.last_replaceable_mut()[1] = value;
        } else {
            self.push_or_replace_other(offset, value);
        }
    }

    #[inline(always)]
    fn push_or_replace_other(&mut self, offset: usize, value: u64) {
        let place = if self.next <= INLINE_STORES {
            self.words |= bit_of(offset as u64);
            self.push_inline(offset, value);
            self.next - 1
        } else {
            self.indexed().push_or_replace(offset as u64, value)
        };
        self.last_store = (offset as u64, place);
    }

    #[inline(always)]
    fn last_replaceable(&self) -> [u64; 2] {
        let place = self.last_store.1;
        match &self.indexed {
            // SAFETY: `push_or_replace_other` has written index `place` through `push_inline`
            // before it stored `place` in `last_store`. `clear`, and a push of the same offset,
            // reset `last_store` to `NO_STORE`. Every offset is a multiple of 8, so none is equal
            // to that of `NO_STORE`, and no caller gets here with it.
            None => unsafe { self.inline_stores[place].assume_init() },
            Some(indexed) => indexed.stores[place],
        }
    }

    #[inline(always)]
    fn last_replaceable_mut(&mut self) -> &mut [u64; 2] {
        let place = self.last_store.1;
        match &mut self.indexed {
            // SAFETY: see `last_replaceable`.
            None => unsafe { self.inline_stores[place].assume_init_mut() },
            Some(indexed) => &mut indexed.stores[place],
        }
    }

    /// Appends a store without making it known to lookups, which is faster. The batch must not
    /// look the word up afterwards.
    #[inline(always)]
    pub(in crate::dict) fn push_blind(&mut self, offset: usize, value: u64) {
        if self.next <= INLINE_STORES {
            self.push_inline(offset, value);
        } else {
            self.indexed().stores.push([offset as u64, value]);
        }
    }

    #[inline(always)]
    fn push_inline(&mut self, offset: usize, value: u64) {
        self.inline_stores[self.next].write([offset as u64, value]);
        self.next += 1;
    }

    #[inline(never)]
    fn push_indexed(&mut self, offset: u64, value: u64) {
        self.indexed().push(offset, value);
    }

    #[inline(always)]
    fn indexed(&mut self) -> &mut IndexedStores {
        if self.indexed.is_none() {
            self.move_to_index();
        }
        self.indexed.get_or_insert_with(|| IndexedStores::new(&[], INLINE_STORES))
    }

    #[cold]
    #[inline(never)]
    fn move_to_index(&mut self) {
        self.indexed = Some(IndexedStores::new(self.stores(), 4 * INLINE_STORES));
        self.next = INLINE_END;
    }

    /// Checks that the redo log has room for the batch.
    #[inline]
    pub(in crate::dict) fn fits(&self, map: &Mapping, layout: &Layout) -> Result<()> {
        let len = self.len();
        if len > layout.log_entries { Err(WriteBatch::too_long(len, map, layout)) } else { Ok(()) }
    }

    /// Commits the batch and performs its stores. Once the count is stored, the change survives the
    /// death of this process.
    #[inline]
    pub(in crate::dict) fn commit(&mut self, map: &Mapping, layout: &Layout) -> Result<()> {
        let count = self.len();
        self.fits(map, layout)?;
        map.put_words(at::REDO_LOG, self.stores().as_flattened())?;
        // The store of the count is a release: a process that loads the count also loads the pairs.
        let (begin, end) = ([at::REDO_LEN as u64, count as u64], [at::REDO_LEN as u64, 0]);
        match &mut self.indexed {
            None => {
                self.inline_stores[0].write(begin);
                self.inline_stores[count + 1].write(end);
                map.put_pairs(self.written(0, count + 2))?;
            }
            Some(indexed) => {
                indexed.stores[0] = begin;
                indexed.stores.push(end);
                let done = map.put_pairs(&indexed.stores);
                indexed.stores.pop();
                done?;
            }
        }
        // The writer reuses the freed blocks next. A reader of such a block finds its slot changed
        // before it can load other bytes.
        fence(Ordering::Release);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn too_long(count: usize, map: &Mapping, layout: &Layout) -> Error {
        let reason = format!("the change takes {count} stores, more than the {} of the redo log", layout.log_entries);
        let help = "make it in smaller parts, or the dict with more capacity";
        map.name_error(Error::invalid("change", reason)).with_help(help)
    }
}

#[cfg(test)]
mod tests;
