//! [`Plan`]: a change as a list of words to store, and the journal that has it done to the end whoever dies.
//!
//! A change is worked out with nothing changed but memory that is free. Then its stores go to the journal, then they
//! are carried out, in their order. A plan is valid once the journal's count is stored; whoever takes the lock next
//! and finds a count carries the stores out again. They are absolute, so that does no harm, however often it is done.
//!
//! One of the stores is that of the commit's version, or that of the count of buckets: before it come those that readers do not
//! follow yet, after it those that free what nobody needs any more. What readers follow must not go back to what an
//! earlier store of the plan made of it; so if that one store is done, the journal is carried out from there on.

use std::collections::HashMap;
use std::sync::atomic::{Ordering, fence};

use super::shape::{Shape, at, number};
use crate::error::{Error, ErrorKind, Result};
use crate::mapping::Mapping;
use crate::segment::layout::PAYLOAD;

/// So many stores are kept in place and looked through one by one; more have a map.
const FEW: usize = 24;

/// Stores to be made, in their order.
pub(super) struct Plan {
    few: [[u64; 2]; FEW],
    len: usize,
    /// All of them, once there are more than `few` holds.
    many: Option<Box<Many>>,
}

#[derive(Default)]
struct Many {
    stores: Vec<[u64; 2]>,
    newest: HashMap<u64, u64>,
}

impl Plan {
    #[inline]
    pub(super) fn new() -> Plan {
        Plan { few: [[0; 2]; FEW], len: 0, many: None }
    }

    #[inline]
    pub(super) fn clear(&mut self) {
        self.len = 0;
        if self.many.is_some() {
            self.many = None;
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn stores(&self) -> &[[u64; 2]] {
        match &self.many {
            None => &self.few[..self.len],
            Some(many) => &many.stores,
        }
    }

    /// The word at `offset` as it will be.
    #[inline]
    pub(super) fn get(&self, map: &Mapping, offset: usize) -> Result<u64> {
        match self.planned(offset) {
            Some(value) => Ok(value),
            None => map.word(offset),
        }
    }

    #[inline]
    pub(super) fn planned(&self, offset: usize) -> Option<u64> {
        let offset = offset as u64;
        match &self.many {
            None => self.few[..self.len].iter().rev().find(|[known, _]| *known == offset).map(|[_, value]| *value),
            Some(many) => many.newest.get(&offset).copied(),
        }
    }

    #[inline]
    pub(super) fn put(&mut self, offset: usize, value: u64) {
        if self.len < FEW {
            self.few[self.len] = [offset as u64, value];
        } else {
            self.put_more(offset as u64, value);
        }
        self.len += 1;
    }

    #[cold]
    fn put_more(&mut self, offset: u64, value: u64) {
        let many = self.many.get_or_insert_with(|| {
            Box::new(Many {
                stores: self.few.to_vec(),
                newest: self.few.iter().map(|[offset, value]| (*offset, *value)).collect(),
            })
        });
        many.stores.push([offset, value]);
        many.newest.insert(offset, value);
    }

    /// Has it done: from here on it happens, whoever dies.
    pub(super) fn carry_out(&self, map: &Mapping, shape: &Shape) -> Result<()> {
        let stores = self.stores();
        if stores.len() > shape.pairs {
            let reason =
                format!("the change takes {} steps, more than the {} of the journal", stores.len(), shape.pairs);
            let help = "make it in smaller parts, or the dict with more capacity";
            return Err(map.name_it(Error::invalid("change", reason)).with_help(help));
        }
        map.put_words(at::PAIRS, stores.as_flattened())?;
        // A release, so whoever sees the count sees the pairs.
        map.put_word(at::JOURNAL, stores.len() as u64)?;
        for [offset, value] in stores {
            map.put_word(number(*offset), *value)?;
        }
        map.put_word(at::JOURNAL, 0)?;
        // What was freed is written to next; who still reads it sees before that it was freed.
        fence(Ordering::Release);
        Ok(())
    }
}

/// Carries out what a dead writer left in the journal, and tells whether there was anything. The caller has the lock.
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
        if offset < PAYLOAD || offset % 8 != 0 || journal.contains(&offset) || pairs.contains(&offset) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn segment() -> (Mapping, Shape) {
        let shape = Shape::of((PAYLOAD as u64) + (1 << 20)).unwrap();
        (Mapping::anonymous(shape.heap as u64).unwrap(), shape)
    }

    /// Stores the plan in the journal and carries out so many of its stores.
    fn begin(map: &Mapping, stores: &[(usize, u64)], done: usize) {
        for (nth, (offset, value)) in stores.iter().enumerate() {
            map.put_word(at::PAIRS + 16 * nth, *offset as u64).unwrap();
            map.put_word(at::PAIRS + 16 * nth + 8, *value).unwrap();
        }
        map.put_word(at::JOURNAL, stores.len() as u64).unwrap();
        stores[..done].iter().for_each(|(offset, value)| map.put_word(*offset, *value).unwrap());
    }

    #[test]
    fn what_a_dead_writer_began_is_done_to_the_end_from_wherever_it_died() {
        let stores = [(at::LEN, 1), (at::CLASSES, 2), (at::COMMIT, 7), (at::LEN, 3), (at::FREE, 4)];
        for done in 0..=stores.len() {
            let (map, shape) = segment();
            begin(&map, &stores, done);
            assert!(finish(&map, &shape).unwrap());
            let words = [at::LEN, at::CLASSES, at::COMMIT, at::FREE, at::JOURNAL].map(|at| map.word(at).unwrap());
            assert_eq!(words, [3, 2, 7, 4, 0], "died after {done}");
            assert!(!finish(&map, &shape).unwrap());
        }
    }

    #[test]
    fn what_readers_follow_does_not_go_back_when_a_journal_is_carried_out_again() {
        for point in [at::COMMIT, at::BUCKETS] {
            let (map, shape) = segment();
            // What the store before the point made, a store after it has replaced; the rest is left to be done.
            begin(&map, &[(at::CLASSES, 1), (point, 7), (at::LEN, 2), (at::CLASSES + 8, 3)], 3);
            map.put_word(at::CLASSES, 9).unwrap();
            assert!(finish(&map, &shape).unwrap());
            assert_eq!([at::CLASSES, at::CLASSES + 8].map(|at| map.word(at).unwrap()), [9, 3]);
        }
    }

    #[test]
    fn a_journal_that_leads_elsewhere_changes_nothing() {
        let (map, shape) = segment();
        for wrong in [0, 4096, at::LEN + 1, at::JOURNAL, at::PAIRS + 16] {
            begin(&map, &[(at::LEN, 5), (wrong, 1)], 0);
            assert!(matches!(finish(&map, &shape).unwrap_err().kind(), ErrorKind::Damaged { .. }));
            assert_eq!(map.word(at::LEN).unwrap(), 0);
        }
        map.put_word(at::JOURNAL, u64::MAX).unwrap();
        assert!(matches!(finish(&map, &shape).unwrap_err().kind(), ErrorKind::Damaged { .. }));
    }
}
