//! What is done with the bytes: by those who hold the lock, and by those who only look.

use std::cell::Cell;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::segment::layout::PAYLOAD;
use crate::segment::{Segment, Until};
use crate::sys::guard::Fault;

/// The longest sleep of one who waits for a change: whoever should wake it may have died.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// The length of the contents, checked against what is mapped: any process can write any number there.
#[inline]
pub(super) fn len(segment: &Segment, doing: &'static str) -> Result<usize> {
    match segment.len.load() {
        // It is at most a length of this process's memory.
        Ok(told) if told <= room(segment.map.len()) => Ok(usize::try_from(told).unwrap_or(0)),
        told => len_beyond(segment, told, doing),
    }
}

/// Bytes of contents that there is room for.
#[inline]
fn room(mapped: usize) -> u64 {
    mapped.saturating_sub(PAYLOAD) as u64
}

/// Somebody else may have made it longer.
#[cold]
#[inline(never)]
fn len_beyond(segment: &Segment, told: Result<u64, Fault>, doing: &'static str) -> Result<usize> {
    let told = segment.or_gone(told, doing)?;
    if told <= room(segment.map.refresh()?) {
        return Ok(usize::try_from(told).unwrap_or(0));
    }
    let reason = format!("its contents claim {told} bytes, more than there are");
    Err(segment.name_it(Error::new(ErrorKind::Damaged { reason }, doing)))
}

/// Copies the contents without a lock: again and again until no writer came between.
pub(super) fn read_unlocked(segment: &Segment, bytes: &mut Vec<u8>, until: Until) -> Result<()> {
    let doing = "read";
    let deadline = until.deadline();
    loop {
        let before = segment.or_gone(segment.version.load(), doing)?;
        let poisoned = segment.or_gone(segment.is_poisoned(), doing)?;
        if poisoned {
            return Err(segment.name_it(Error::new(ErrorKind::Poisoned, doing)));
        }
        if before % 2 == 0 {
            let len = len(segment, doing)?;
            segment.map.read_to(PAYLOAD, len, bytes)?;
            // The load that comes next must not be done before the copy's.
            std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
            if segment.or_gone(segment.version.load(), doing)? == before {
                return Ok(());
            }
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(segment.name_it(Error::new(ErrorKind::Contended, doing)));
        }
        std::thread::yield_now();
    }
}

/// Makes room for contents of `len` bytes, which nobody sees before `set_len`.
#[inline]
pub(super) fn make_room(segment: &Segment, len: usize) -> Result<()> {
    let there = room(segment.map.len()).min(segment.header.capacity.saturating_sub(PAYLOAD as u64));
    if len as u64 <= there { Ok(()) } else { make_more_room(segment, len) }
}

#[cold]
#[inline(never)]
fn make_more_room(segment: &Segment, len: usize) -> Result<()> {
    let doing = "write";
    let capacity = segment.header.capacity;
    let Some(size) = len.checked_add(PAYLOAD).filter(|size| *size as u64 <= capacity) else {
        let most = capacity - PAYLOAD as u64;
        let reason = format!("{len} bytes pass its capacity of {most}");
        return Err(segment.name_it(Error::invalid(doing, reason)).with_help("give it more when it is created"));
    };
    // In large steps, where those can be had: each is a call of the system, and peers ask once for each.
    let wanted = size.max(segment.map.len().saturating_mul(2)).min(usize::try_from(capacity).unwrap_or(usize::MAX));
    if wanted == size || segment.map.grow(wanted).is_err() {
        segment.map.grow(size)?;
    }
    Ok(())
}

#[inline]
pub(super) fn set_len(segment: &Segment, len: usize, doing: &'static str) -> Result<()> {
    segment.or_gone(segment.len.store(len as u64), doing)
}

/// The locks that one thread can have at the same time.
const MOST: usize = 64;

/// The segments that a thread has locked, by their marks. Without a destructor, so that reaching it costs nothing.
struct Marks {
    ids: [Cell<u128>; MOST],
    count: Cell<usize>,
}

thread_local! {
    static MINE: Marks = const { Marks { ids: [const { Cell::new(0) }; MOST], count: Cell::new(0) } };
}

fn id(segment: &Segment) -> u128 {
    segment.mark
}

/// A mark that this thread has a segment's lock. It stays in its thread.
pub(super) struct Mine<'a> {
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
    pub(super) fn first(segment: &'a Segment) -> Option<Mine<'a>> {
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
    pub(super) fn mark(segment: &'a Segment, doing: &'static str) -> Result<Mine<'a>> {
        let id = id(segment);
        let refused = MINE.with(|mine| {
            let count = mine.count.get();
            if mine.ids[..count].iter().any(|known| known.get() == id) {
                return Some((ErrorKind::Deadlock, "drop the guard that this thread has, or use that one"));
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
    pub(super) fn segment(&self) -> &'a Segment {
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
