//! [`WriteBatch`]: a change as a list of words to store, and the redo log that completes it if the
//! writer dies.
//!
//! 1. The writer computes the change, and writes to free memory only.
//! 2. It copies the stores to the redo log, and then stores their count. That is the commit point.
//! 3. It performs the stores in their order, and stores a count of 0.
//!
//! A participant that takes the lock and finds a count performs the stores again. They are
//! absolute, so repeating them changes nothing.
//!
//! One of the stores is that of the version (COMMIT), or that of the number of buckets. The stores
//! before it are of words that readers do not follow yet; the stores after it free what no reader
//! needs any more. A word that readers follow must not go back to what an earlier store of the
//! batch made of it. So if that one store is done, a replay begins with it.

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

/// So many stores are kept in place and looked through one by one; more have a map.
const INLINE_STORES: usize = 16;

/// Stores to be made, in their order.
pub(in crate::dict) struct WriteBatch {
    /// Between them, and one on either side for the redo log's count.
    inline_stores: [MaybeUninit<[u64; 2]>; INLINE_STORES + 2],
    /// Where in `inline_stores` the next one goes; behind its last place once there are `indexed`.
    next: usize,
    /// A bit for each word that any of `inline_stores` is a store of, or for others.
    words: u64,
    /// All of them, once there are more than `inline_stores` holds.
    indexed: Option<Box<IndexedStores>>,
    /// The word that was [put anywhere](WriteBatch::push_or_replace) last, and where among the
    /// stores it is: what is asked for next mostly is that.
    last_store: (u64, usize),
}

/// Behind the last place in `inline_stores`.
const INLINE_END: usize = INLINE_STORES + 1;

/// No word's offset.
const NO_STORE: (u64, usize) = (u64::MAX, 0);

/// One of 64 bits for the word at an offset.
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

    /// Makes room for about so many stores, before the first of them.
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

    /// Those of `inline_stores` from one to before the other. They were written.
    #[inline]
    fn written(&self, from: usize, to: usize) -> &[[u64; 2]] {
        let some = &self.inline_stores[from..to];
        // SAFETY: `push_inline` has written each from 1 to before `next`, beyond which only
        // `commit` asks, which writes the one before and the one behind; a `MaybeUninit` is laid
        // out as what it holds.
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

    /// Whether any of the words of a line of 64 bytes, by its offset, may be among them.
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

    #[inline(always)]
    pub(in crate::dict) fn push(&mut self, offset: usize, value: u64) {
        // A store behind that one counts.
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

    /// As `put`, for a word that readers do not follow: only the last of its stores is made, in the
    /// place of an earlier one.
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
            // SAFETY: it was written when it became the recent one.
            None => unsafe { self.inline_stores[place].assume_init() },
            Some(indexed) => indexed.stores[place],
        }
    }

    #[inline(always)]
    fn last_replaceable_mut(&mut self) -> &mut [u64; 2] {
        let place = self.last_store.1;
        match &mut self.indexed {
            // SAFETY: as above.
            None => unsafe { self.inline_stores[place].assume_init_mut() },
            Some(indexed) => &mut indexed.stores[place],
        }
    }

    /// As `put`, for a word that this batch does not ask for.
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

    /// Whether the redo log has room for it.
    #[inline]
    pub(in crate::dict) fn fits(&self, map: &Mapping, layout: &Layout) -> Result<()> {
        let len = self.len();
        if len > layout.log_entries { Err(WriteBatch::too_long(len, map, layout)) } else { Ok(()) }
    }

    /// Commits the batch, and performs its stores. Once the count is stored, the change survives
    /// the death of this process.
    #[inline]
    pub(in crate::dict) fn commit(&mut self, map: &Mapping, layout: &Layout) -> Result<()> {
        let count = self.len();
        self.fits(map, layout)?;
        map.put_words(at::REDO_LOG, self.stores().as_flattened())?;
        // A release: a process that loads the count also loads the pairs.
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
