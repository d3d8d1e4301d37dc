//! [`Plan`]: a change as a list of words to store, and the journal that has it done to the end whoever dies.
//!
//! A change is worked out with nothing changed but memory that is free. Then its stores go to the journal, then they
//! are carried out, in their order. A plan is valid once the journal's count is stored; whoever takes the lock next
//! and finds a count carries the stores out again. They are absolute, so that does no harm, however often it is done.
//!
//! One of the stores is that of the commit's version, or that of the count of buckets: before it come those that readers do not
//! follow yet, after it those that free what nobody needs any more. What readers follow must not go back to what an
//! earlier store of the plan made of it; so if that one store is done, the journal is carried out from there on.

mod many;

use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;

use many::Many;
pub(super) use many::prepare;

use super::shape::{Shape, at, number};
use crate::error::{Error, ErrorKind, Result};
use crate::mapping::{Glance, Mapping};
use crate::segment::layout::PAYLOAD;
use crate::sys::fence;

/// In the place of the journal's count while a repair is under way or was cut off.
pub(super) const REPAIR: u64 = u64::MAX;

/// So many stores are kept in place and looked through one by one; more have a map.
const FEW: usize = 16;

/// Stores to be made, in their order.
pub(super) struct Plan {
    /// Between them, and one on either side for the journal's count.
    few: [MaybeUninit<[u64; 2]>; FEW + 2],
    /// Where in `few` the next one goes; behind its last place once there are `many`.
    next: usize,
    /// A bit for each word that any of `few` is a store of, or for others.
    words: u64,
    /// All of them, once there are more than `few` holds.
    many: Option<Box<Many>>,
    /// The word that was [put anywhere](Plan::put_anywhere) last, and where among the stores it is: what is asked for next mostly is
    /// that.
    recent: (u64, usize),
}

/// Behind the last place in `few`.
const NO_MORE: usize = FEW + 1;

/// No word's offset.
const NOWHERE: (u64, usize) = (u64::MAX, 0);

/// One of 64 bits for the word at an offset.
#[inline(always)]
fn bit_of(offset: u64) -> u64 {
    1 << ((offset >> 3 ^ offset >> 9) & 63)
}

impl Plan {
    #[inline]
    pub(super) fn new() -> Plan {
        Plan { few: [const { MaybeUninit::uninit() }; FEW + 2], next: 1, words: 0, many: None, recent: NOWHERE }
    }

    /// Makes room for about so many stores, before the first of them.
    #[inline]
    pub(super) fn expect(&mut self, stores: usize) {
        if stores > FEW {
            self.many = Some(Many::new(self.stores(), stores));
            self.next = NO_MORE;
        }
    }

    #[inline]
    pub(super) fn clear(&mut self) {
        self.next = 1;
        self.words = 0;
        self.recent = NOWHERE;
        if self.many.is_some() {
            self.many = None;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline(always)]
    fn len(&self) -> usize {
        match &self.many {
            None => self.next - 1,
            Some(many) => many.stores.len() - 1,
        }
    }

    #[inline]
    fn stores(&self) -> &[[u64; 2]] {
        match &self.many {
            None => self.written(1, self.next),
            Some(many) => &many.stores[1..],
        }
    }

    #[cfg(test)]
    pub(super) fn list(&self) -> Vec<[u64; 2]> {
        self.stores().to_vec()
    }

    /// Those of `few` from one to before the other. They were written.
    #[inline]
    fn written(&self, from: usize, to: usize) -> &[[u64; 2]] {
        let some = &self.few[from..to];
        // SAFETY: `put_first` has written each from 1 to before `next`, beyond which only `carry_out` asks, which writes the one before and the
        // one behind; a `MaybeUninit` is laid out as what it holds.
        unsafe { std::slice::from_raw_parts(some.as_ptr().cast(), some.len()) }
    }

    /// The same at a glance.
    #[inline(always)]
    pub(super) fn word(&self, map: Glance<'_>, offset: usize) -> Option<u64> {
        if self.next == 1 { map.word(offset) } else { self.planned(offset).or_else(|| map.word(offset)) }
    }

    /// The word at `offset` as it will be.
    #[inline]
    pub(super) fn get(&self, map: &Mapping, offset: usize) -> Result<u64> {
        match self.planned(offset) {
            Some(value) => Ok(value),
            None => map.word(offset),
        }
    }

    #[inline(always)]
    pub(super) fn planned(&self, offset: usize) -> Option<u64> {
        let offset = offset as u64;
        if offset == self.recent.0 { Some(self.recent_store()[1]) } else { self.planned_before(offset) }
    }

    #[inline]
    fn planned_before(&self, offset: u64) -> Option<u64> {
        match &self.many {
            None if self.words & bit_of(offset) == 0 => None,
            None => self.stores().iter().rev().find(|[known, _]| *known == offset).map(|[_, value]| *value),
            Some(many) => many.newest(offset),
        }
    }

    /// Whether any of the words of a line of 64 bytes, by its offset, may be among them.
    #[inline]
    pub(super) fn may_have_of_line(&self, line: usize) -> bool {
        match &self.many {
            None => self.stores().iter().any(|[offset, _]| offset >> 6 == line as u64 >> 6),
            Some(many) => {
                let (word, bit) = Many::bit(line as u64);
                many.lines[word] & bit != 0
            }
        }
    }

    #[inline(always)]
    pub(super) fn put(&mut self, offset: usize, value: u64) {
        // A store behind that one counts.
        if offset as u64 == self.recent.0 {
            self.recent = NOWHERE;
        }
        if self.next <= FEW {
            self.words |= bit_of(offset as u64);
            self.put_first(offset, value);
        } else {
            self.put_more(offset as u64, value);
        }
    }

    /// As `put`, for a word that readers do not follow: only the last of its stores is made, in the place of an earlier one.
    #[inline(always)]
    pub(super) fn put_anywhere(&mut self, offset: usize, value: u64) {
        if offset as u64 == self.recent.0 {
            self.recent_store_mut()[1] = value;
        } else {
            self.put_elsewhere(offset, value);
        }
    }

    #[inline(always)]
    fn put_elsewhere(&mut self, offset: usize, value: u64) {
        let place = if self.next <= FEW {
            self.words |= bit_of(offset as u64);
            self.put_first(offset, value);
            self.next - 1
        } else {
            self.many().put_anywhere(offset as u64, value)
        };
        self.recent = (offset as u64, place);
    }

    #[inline(always)]
    fn recent_store(&self) -> [u64; 2] {
        let place = self.recent.1;
        match &self.many {
            // SAFETY: it was written when it became the recent one.
            None => unsafe { self.few[place].assume_init() },
            Some(many) => many.stores[place],
        }
    }

    #[inline(always)]
    fn recent_store_mut(&mut self) -> &mut [u64; 2] {
        let place = self.recent.1;
        match &mut self.many {
            // SAFETY: as above.
            None => unsafe { self.few[place].assume_init_mut() },
            Some(many) => &mut many.stores[place],
        }
    }

    /// As `put`, for a word that this plan does not ask for.
    #[inline(always)]
    pub(super) fn put_unasked(&mut self, offset: usize, value: u64) {
        if self.next <= FEW {
            self.put_first(offset, value);
        } else {
            self.many().stores.push([offset as u64, value]);
        }
    }

    #[inline(always)]
    fn put_first(&mut self, offset: usize, value: u64) {
        self.few[self.next].write([offset as u64, value]);
        self.next += 1;
    }

    #[inline(never)]
    fn put_more(&mut self, offset: u64, value: u64) {
        self.many().put(offset, value);
    }

    #[inline(always)]
    fn many(&mut self) -> &mut Many {
        if self.many.is_none() {
            self.become_many();
        }
        self.many.get_or_insert_with(|| Many::new(&[], FEW))
    }

    #[cold]
    #[inline(never)]
    fn become_many(&mut self) {
        self.many = Some(Many::new(self.stores(), 4 * FEW));
        self.next = NO_MORE;
    }

    /// Whether the journal has room for it.
    #[inline]
    pub(super) fn fits(&self, map: &Mapping, shape: &Shape) -> Result<()> {
        let len = self.len();
        if len > shape.pairs { Err(Plan::too_long(len, map, shape)) } else { Ok(()) }
    }

    /// Has it done: from here on it happens, whoever dies.
    #[inline]
    pub(super) fn carry_out(&mut self, map: &Mapping, shape: &Shape) -> Result<()> {
        let count = self.len();
        self.fits(map, shape)?;
        map.put_words(at::PAIRS, self.stores().as_flattened())?;
        // Releases, so whoever sees the count sees the pairs.
        let (begin, end) = ([at::JOURNAL as u64, count as u64], [at::JOURNAL as u64, 0]);
        match &mut self.many {
            None => {
                self.few[0].write(begin);
                self.few[count + 1].write(end);
                map.put_pairs(self.written(0, count + 2))?;
            }
            Some(many) => {
                many.stores[0] = begin;
                many.stores.push(end);
                let done = map.put_pairs(&many.stores);
                many.stores.pop();
                done?;
            }
        }
        // What was freed is written to next; who still reads it sees before that it was freed.
        fence(Ordering::Release);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn too_long(count: usize, map: &Mapping, shape: &Shape) -> Error {
        let reason = format!("the change takes {count} steps, more than the {} of the journal", shape.pairs);
        let help = "make it in smaller parts, or the dict with more capacity";
        map.name_it(Error::invalid("change", reason)).with_help(help)
    }
}

/// Carries out what a dead writer left in the journal, and tells whether there was anything. The caller has the lock.
#[inline(always)]
pub(super) fn finish(map: &Mapping, shape: &Shape) -> Result<bool> {
    let count = map.word(at::JOURNAL)?;
    if count == 0 {
        return Ok(false);
    }
    finish_these(map, shape, count)?;
    Ok(true)
}

#[cold]
#[inline(never)]
fn finish_these(map: &Mapping, shape: &Shape, count: u64) -> Result<()> {
    let damaged = |reason: String| map.name_it(Error::new(ErrorKind::Damaged { reason }, "recover"));
    if count == REPAIR {
        return Err(half_repaired(map));
    }
    let count = usize::try_from(count).ok().filter(|count| *count <= shape.pairs);
    let Some(count) = count else { return Err(damaged("its journal claims more than it has room for".to_owned())) };
    let journal = at::JOURNAL..at::JOURNAL + 8;
    let pairs = at::PAIRS..at::PAIRS + 16 * shape.pairs;
    let pair = |nth: usize| -> Result<(usize, u64)> {
        Ok((number(map.word(at::PAIRS + 16 * nth)?), map.word(at::PAIRS + 16 * nth + 8)?))
    };
    let mut from = 0;
    for nth in 0..count {
        let (offset, value) = pair(nth)?;
        // All of it is looked at before any of it is stored.
        let is_there = match map.word(offset) {
            Err(error) if matches!(error.kind(), ErrorKind::Fault { .. }) => return Err(error),
            there => there.is_ok(),
        };
        if offset < PAYLOAD || offset % 8 != 0 || !is_there || journal.contains(&offset) || pairs.contains(&offset) {
            return Err(damaged(format!("its journal leads to {offset}, where no change is made")));
        }
        // What came before that is done, and readers would see it undone where a later store of the plan is to the same word.
        if [at::COMMIT, at::BUCKETS].contains(&offset) && map.word(offset)? == value {
            from = nth;
        }
    }
    for nth in from..count {
        let (offset, value) = pair(nth)?;
        map.put_word(offset, value)?;
    }
    map.put_word(at::JOURNAL, 0)
}

#[cold]
pub(super) fn half_repaired(map: &Mapping) -> Error {
    let (reason, help) = match super::recover::was_cut_off(map) {
        Ok(true) => (
            "the rebuild of it after a power cut is under way, or was cut off",
            "try again; if no process is rebuilding it, open it once for writing",
        ),
        _ => ("a repair of it is under way, or was cut off", "run `mmf repair`"),
    };
    map.name_it(Error::new(ErrorKind::Damaged { reason: reason.to_owned() }, "use")).with_help(help)
}

#[cfg(test)]
mod tests;
