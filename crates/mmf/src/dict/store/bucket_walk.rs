//! [`BucketWalk`]: visits the lines of one bucket, in the order in which each leads to the next.
//!
//! The problem: a peer with write access may forge a chain of lines that has no end, or many
//! buckets that lead to one chain. Readers without a lock walk beside writers.
//!
//! The algorithm:
//!
//! 1. Begin at the bucket's first line, which the directory names.
//! 2. Count the line against two bounds: [`MAX_BUCKET_LINES`] for this bucket, and the budget of
//!    the operation. If either is used up, end with
//!    [`ErrorKind::Damaged`](crate::ErrorKind::Damaged).
//! 3. Copy the line's eight words and return them.
//! 4. On the next call, follow the eighth word. Without a batch, load it again as one word, since
//!    the copy may be torn. End if it is 0.
//!
//! Why it is correct: a bucket has at most 4096 lines, and no two buckets share a line. So an
//! operation that walks several buckets passes one budget to all of its walks: the number of lines
//! that the index can have ([`Index::most_lines`](crate::dict::store::index::Index::most_lines)).
//! Forged chains therefore end after that many lines, however they are linked.
//!
//! Cost: one guarded copy of 64 bytes for each line, and one more load for each line after the
//! first.
//!
//! A walk does not replace the [`WorkLimit`](crate::dict::store::work_limit::WorkLimit): a caller
//! that walks many buckets spends a unit of it for each line.
//!
//! Two walks are separate. The fast path of reading leaves a bucket to the slow path after three
//! lines, so it needs no other bound. `check` reports each fault, and continues where this walk
//! would end.

use crate::dict::format::slot::{LINE_SLOTS, Line, NEXT_LINE};
use crate::dict::store::index::MAX_BUCKET_LINES;
use crate::dict::store::storage::Storage;
use crate::dict::store::write_batch::WriteBatch;
use crate::error::{Error, Result};

/// A position in a bucket.
pub(in crate::dict) struct BucketWalk<'a> {
    storage: &'a Storage<'a>,
    /// The batch whose stores replace words of the lines. Without one, a line is what memory has.
    batch: Option<&'a WriteBatch>,
    /// The number of lines that all walks of the operation may still visit.
    budget: Option<&'a mut usize>,
    bucket: u64,
    visited: usize,
    /// The line that was visited last, and the word of its copy that leads to the next. Before the
    /// first visit, `line` is the first line.
    line: usize,
    next: u64,
}

impl<'a> BucketWalk<'a> {
    /// Begins at a bucket's first line. A reader without a lock may use the walk beside writers.
    #[inline(always)]
    pub(in crate::dict) fn new(storage: &'a Storage<'a>, bucket: u64) -> Result<BucketWalk<'a>> {
        let line = storage.index().line(bucket)?;
        Ok(BucketWalk { storage, batch: None, budget: None, bucket, visited: 0, line, next: 0 })
    }

    /// Visits the lines as they will be once `batch` is committed. The caller holds the lock.
    #[inline(always)]
    pub(in crate::dict) fn with_batch(self, batch: &'a WriteBatch) -> BucketWalk<'a> {
        BucketWalk { batch: Some(batch), ..self }
    }

    /// Counts each line against `budget` as well.
    #[inline(always)]
    pub(in crate::dict) fn with_budget(self, budget: &'a mut usize) -> BucketWalk<'a> {
        BucketWalk { budget: Some(budget), ..self }
    }

    /// Visits the next line: copies its words and returns its offset, or `None` after the last.
    ///
    /// Without a lock, each word of the copy may be torn: a mixture of two values of the word.
    /// Before the caller follows a slot, it loads the slot again as one word.
    #[inline(always)]
    pub(in crate::dict) fn advance(&mut self, words: &mut Line) -> Result<Option<usize>> {
        if self.visited > 0 {
            let next = match (self.next, self.batch) {
                (0, _) => return Ok(None),
                // The caller holds the lock, so the copied word is not torn.
                (planned, Some(_)) => planned,
                // The copied word may be torn; this load is not.
                (_, None) => self.storage.map.word(self.line + NEXT_LINE)?,
            };
            let Some(line) = self.storage.index().next_line(next)? else { return Ok(None) };
            self.line = line;
        }
        self.spend()?;
        match self.batch {
            Some(batch) => self.storage.index().line_with_batch(batch, self.line, words)?,
            None => self.storage.map.read_words(self.line, words)?,
        }
        self.next = words[LINE_SLOTS];
        Ok(Some(self.line))
    }

    /// Counts one more line against both bounds.
    #[inline(always)]
    fn spend(&mut self) -> Result<()> {
        if self.visited == MAX_BUCKET_LINES {
            return Err(endless(self.storage, self.bucket));
        }
        self.visited += 1;
        if let Some(budget) = &mut self.budget {
            match budget.checked_sub(1) {
                Some(left) => **budget = left,
                None => return Err(endless(self.storage, self.bucket)),
            }
        }
        Ok(())
    }
}

// A free function: a method's `self` would force the walk out of registers into memory.
#[cold]
#[inline(never)]
fn endless(storage: &Storage<'_>, bucket: u64) -> Error {
    storage.damaged(format!("bucket {bucket} leads to more lines than it can have"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dict::Dict;
    use crate::dict::format::layout::at;
    use crate::dict::store::index::INITIAL_BUCKETS;
    use crate::dict::store::work_limit::WorkLimit;
    use crate::dict::write::compaction::Compaction;
    use crate::error::ErrorKind;
    use crate::name::Name;
    use crate::segment::Deadline;

    fn assert_endless<T: std::fmt::Debug>(result: Result<T>) {
        let error = result.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("leads to more lines than it can have"), "{error}");
    }

    fn dict(name: &str) -> Dict {
        let dict =
            Dict::create_new(Name::local(format!("walk {name} {}", std::process::id())).unwrap(), 1 << 20).unwrap();
        (0..100).for_each(|nth| dict.set_bytes(&format!("key {nth}"), b"value").map(drop).unwrap());
        dict
    }

    #[test]
    fn every_walk_of_a_chain_without_an_end_reports_the_same_damage() {
        let dict = dict("circle");
        let (storage, map) = (dict.storage(), &dict.segment.map);
        // Each bucket leads to itself.
        for bucket in 0..INITIAL_BUCKETS {
            let line = storage.index().line(bucket).unwrap();
            map.put_word(line + NEXT_LINE, line as u64).unwrap();
        }
        let limit = WorkLimit::new(Deadline::Never);
        assert_endless(dict.get_bytes("missing"));
        assert_endless(dict.set_bytes("new", b"value"));
        assert_endless(dict.keys());
        assert_endless(storage.index().shorten(&mut WriteBatch::new(), 0, &mut 1_000_000, &limit));
        map.put_word(at::SWEEP, 1).unwrap();
        let mut batch = WriteBatch::new();
        let mut writer = dict.writer(&mut batch, "sweep").unwrap();
        assert_endless(Compaction::new(&mut writer).sweep(1));
        drop(writer);
        match storage.index().split(&mut batch, &limit) {
            Err(crate::dict::store::spans::AllocError::Failed(error)) => assert_endless::<()>(Err(error)),
            other => panic!("{other:?}"),
        }
        // A reader still finds an entry of the first line.
        assert_eq!(dict.get_bytes("key 7").unwrap().unwrap(), b"value");
    }

    #[test]
    fn buckets_that_share_a_chain_use_up_the_budget() {
        let dict = dict("shared");
        let (storage, map) = (dict.storage(), &dict.segment.map);
        // The spans that were ever taken hold `most` lines. Each bucket leads to a chain of half as
        // many.
        let most = storage.index().most_lines().unwrap();
        let first = storage.layout.span(storage.layout.spans - 1) - (most / 2 - 1) * 64;
        map.grow(storage.layout.span(storage.layout.spans)).unwrap();
        for nth in 0..most / 2 - 1 {
            map.put_word(first + nth * 64 + NEXT_LINE, (first + (nth + 1) * 64) as u64).unwrap();
        }
        for bucket in 0..3 {
            map.put_word(storage.index().line(bucket).unwrap() + NEXT_LINE, first as u64).unwrap();
        }
        let mut budget = most;
        let mut visited = 0;
        let mut walk = |bucket| -> Result<()> {
            let mut walk = BucketWalk::new(&storage, bucket)?.with_budget(&mut budget);
            while walk.advance(&mut [0; 8])?.is_some() {
                visited += 1;
            }
            Ok(())
        };
        walk(0).unwrap();
        assert_endless(walk(1));
        assert_eq!((visited, budget), (most, 0));
        assert_endless(dict.keys());
    }
}
