//! Which segments a thread has locked.

use std::cell::Cell;

use super::Segment;
use crate::error::{Error, ErrorKind, Result};

/// The locks that one thread can have at the same time.
const MOST: usize = 64;

/// The segments that a thread has locked, by their ids. Without a destructor, so that reaching it costs nothing.
struct Marks {
    ids: [Cell<u128>; MOST],
    count: Cell<usize>,
}

thread_local! {
    static MINE: Marks = const { Marks { ids: [const { Cell::new(0) }; MOST], count: Cell::new(0) } };
}

/// A mark that this thread has a segment's lock; dropped with the lock.
pub(crate) struct Mine(u128);

impl Mine {
    /// `Deadlock` if this thread has it already, by whichever handle.
    #[inline]
    pub(crate) fn mark(segment: &Segment, doing: &'static str) -> Result<Mine> {
        let id = u128::from_ne_bytes(segment.header.id);
        let marked = MINE.with(|mine| {
            let count = mine.count.get();
            if count == MOST || mine.ids[..count].iter().any(|known| known.get() == id) {
                return false;
            }
            mine.ids[count].set(id);
            mine.count.set(count + 1);
            true
        });
        if marked { Ok(Mine(id)) } else { Err(Mine::refused(segment, doing)) }
    }

    #[cold]
    #[inline(never)]
    fn refused(segment: &Segment, doing: &'static str) -> Error {
        if MINE.with(|mine| mine.count.get()) == MOST {
            let error = segment.name_it(Error::new(ErrorKind::Full, doing));
            return error.with_help(format!("a thread can have {MOST} locks at a time"));
        }
        let error = segment.name_it(Error::new(ErrorKind::Deadlock, doing));
        error.with_help("drop the guard that this thread has, or use that one")
    }
}

impl Drop for Mine {
    #[inline]
    fn drop(&mut self) {
        MINE.with(|mine| {
            let last = mine.count.get().saturating_sub(1);
            // Mostly the last; else the last takes its place.
            if let Some(at) = mine.ids[..=last].iter().rposition(|id| id.get() == self.0) {
                mine.ids[at].set(mine.ids[last].get());
                mine.count.set(last);
            }
        });
    }
}
