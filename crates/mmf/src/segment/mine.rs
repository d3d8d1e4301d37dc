//! Which segments a thread has locked.

use std::cell::Cell;
use std::marker::PhantomData;

use super::Segment;
use crate::error::{Error, ErrorKind, Result};

/// The locks that one thread can have at the same time.
const MOST: usize = 64;

/// The segments that a thread has locked, by their marks. Without a destructor, so that reaching it costs nothing.
struct Marks {
    ids: [Cell<u128>; MOST],
    count: Cell<usize>,
}

thread_local! {
    #[allow(clippy::missing_const_for_thread_local, reason = "it is; the lint misses that on windows-gnu")]
    static MINE: Marks = const { Marks { ids: [const { Cell::new(0) }; MOST], count: Cell::new(0) } };
}

fn id(segment: &Segment) -> u128 {
    segment.mark
}

/// A mark that this thread has a segment's lock. It stays in its thread.
pub(crate) struct Mine<'a> {
    segment: &'a Segment,
    _here: PhantomData<*const ()>,
}

impl<'a> Mine<'a> {
    #[inline]
    fn new(segment: &'a Segment) -> Mine<'a> {
        Mine { segment, _here: PhantomData }
    }

    /// The mark, unless this thread has any: the usual case.
    #[inline]
    pub(crate) fn first(segment: &'a Segment) -> Option<Mine<'a>> {
        MINE.with(|mine| {
            if mine.count.get() != 0 {
                return None;
            }
            mine.ids[0].set(id(segment));
            mine.count.set(1);
            Some(Mine::new(segment))
        })
    }

    /// `Deadlock` if this thread has it already, by whichever handle.
    #[inline]
    pub(crate) fn mark(segment: &'a Segment, doing: &'static str) -> Result<Mine<'a>> {
        Mine::first(segment).map_or_else(|| Mine::one_of_many(segment, doing), Ok)
    }

    #[cold]
    #[inline(never)]
    fn one_of_many(segment: &'a Segment, doing: &'static str) -> Result<Mine<'a>> {
        let id = id(segment);
        let refused = MINE.with(|mine| {
            let count = mine.count.get();
            if mine.ids[..count].iter().any(|known| known.get() == id) {
                return Some((
                    ErrorKind::Deadlock,
                    "end the guard, transaction or snapshot that this thread has, or use that",
                ));
            }
            if count == MOST {
                return Some((ErrorKind::Full, "a thread can have 64 locks at a time"));
            }
            mine.ids[count].set(id);
            mine.count.set(count + 1);
            None
        });
        match refused {
            None => Ok(Mine::new(segment)),
            Some((kind, help)) => Err(segment.name_it(Error::new(kind, doing)).with_help(help)),
        }
    }

    #[inline]
    pub(crate) fn segment(&self) -> &'a Segment {
        self.segment
    }

    #[cold]
    #[inline(never)]
    fn forget_one_of_many(&self) {
        let id = id(self.segment);
        MINE.with(|mine| {
            let last = mine.count.get().saturating_sub(1);
            // Mostly the last; else the last takes its place.
            if let Some(at) = mine.ids[..=last].iter().rposition(|known| known.get() == id) {
                mine.ids[at].set(mine.ids[last].get());
                mine.count.set(last);
            }
        });
    }
}

impl Drop for Mine<'_> {
    #[inline]
    fn drop(&mut self) {
        MINE.with(|mine| {
            // A mark that is alone in its thread is this one.
            if mine.count.get() == 1 { mine.count.set(0) } else { self.forget_one_of_many() }
        });
    }
}
