//! The rest of the shared memory, as a dict uses it: words that change under a lock, and that are read without one.
//!
//! Who has the lock finds in each word what was stored last, since the lock orders its holders: models of its own show that. Who
//! has a handle that only reads finds whatever the orderings allow. Those of loom's words that nobody looks at without the
//! lock would only multiply the orders, so they are no words of loom's; and a model fails where one is looked at after all.
//!
//! A copy is relaxed and goes by whole words. What has the same value before and after a store is no change.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use loom::sync::atomic::{AtomicU64, Ordering, fence};

use super::{step, step_unseen, try_model_state};
use crate::sys::guard::{self, Fault, Matches};
use crate::types::FaultPolicy;

/// Memory that a model's processes share, in whole words.
#[derive(Clone)]
pub(crate) struct DictMemory {
    /// What is there at the beginning, from the segment's first byte on.
    pub(crate) start: Arc<[u64]>,
    /// Where the handles have it that read without the lock.
    pub(crate) lockless: Vec<usize>,
    /// Whether those may look at an offset.
    pub(crate) is_seen: fn(usize) -> bool,
    /// The words that they may look at and that change.
    pub(crate) changing: BTreeSet<usize>,
}

pub(super) struct State {
    ground: DictMemory,
    /// What was stored since.
    now: RefCell<HashMap<usize, u64>>,
    /// With how many values each may still be found.
    words: HashMap<usize, (AtomicU64, Cell<u32>)>,
    changed: RefCell<BTreeSet<usize>>,
}

impl State {
    pub(super) fn new(ground: &DictMemory) -> State {
        let word = |offset: &usize| (*offset, (AtomicU64::new(ground.start[offset / 8]), Cell::new(1)));
        State {
            ground: ground.clone(),
            now: RefCell::default(),
            words: ground.changing.iter().map(word).collect(),
            changed: RefCell::default(),
        }
    }

    fn latest(&self, offset: usize) -> u64 {
        self.now.borrow().get(&offset).copied().unwrap_or_else(|| self.ground.start[offset / 8])
    }

    fn load(&self, base: usize, offset: usize, ordering: Ordering) -> Result<u64, Fault> {
        step_unseen()?;
        if !self.ground.lockless.contains(&base) {
            return Ok(self.latest(offset));
        }
        assert!((self.ground.is_seen)(offset), "the word at {offset} is looked at without the lock");
        match self.words.get(&offset) {
            Some((word, _)) => Ok(word.load(ordering)),
            None => Ok(self.latest(offset)),
        }
    }

    fn store(&self, offset: usize, value: u64, ordering: Ordering) -> Result<(), Fault> {
        let is_seen = (self.ground.is_seen)(offset);
        // The others are not looked at before something that is.
        if is_seen || offset == REDO_LEN { step() } else { step_unseen() }?;
        // Who finds the same once more learns less from the former.
        if self.latest(offset) == value {
            return Ok(());
        }
        self.now.borrow_mut().insert(offset, value);
        if is_seen {
            self.changed.borrow_mut().insert(offset);
        }
        if let Some((word, values)) = self.words.get(&offset) {
            values.set(values.get() + 1);
            assert!(values.get() <= KEPT, "loom would forget what was at {offset}");
            word.store(value, ordering);
        }
        Ok(())
    }
}

/// So many values of a word loom keeps.
const KEPT: u32 = 7;

/// What a dict's next writer goes by.
const REDO_LEN: usize = crate::segment::layout::PAYLOAD + 128;

/// What is there now, for a model to begin with.
pub(crate) fn contents() -> Arc<[u64]> {
    with(|memory| (0..memory.ground.start.len()).map(|nth| memory.latest(8 * nth)).collect())
}

/// The word that was stored there last, for a model to judge by.
pub(crate) fn latest(offset: usize) -> u64 {
    with(|memory| memory.latest(offset))
}

/// The words that may be looked at without the lock, and have changed.
pub(crate) fn changed() -> BTreeSet<usize> {
    with(|memory| memory.changed.borrow().clone())
}

fn with<R>(use_it: impl FnOnce(&State) -> R) -> R {
    let model_state = super::model_state();
    use_it(model_state.memory.as_ref().expect("a model that has memory"))
}

/// Uses what is at an address, as the base of the handle and the offset; `None` for what is not in a run's memory.
fn at<R>(address: usize, use_it: impl FnOnce(&State, usize, usize) -> R) -> Option<R> {
    let model_state = try_model_state()?;
    let memory = model_state.memory.as_ref()?;
    let base = model_state.words.base(address)?;
    let offset = address - base;
    (offset >= crate::segment::layout::PAYLOAD).then(|| use_it(memory, base, offset))
}

/// As [`guard::Word`], for words of memory.
pub(crate) trait Word: Sized {
    unsafe fn load(src: *const Self) -> Result<Self, Fault>;
    unsafe fn store_release(dst: *mut Self, value: Self) -> Result<(), Fault>;
}

impl Word for u64 {
    unsafe fn load(src: *const u64) -> Result<u64, Fault> {
        match at(src.addr(), |memory, base, offset| memory.load(base, offset, Ordering::Acquire)) {
            Some(loaded) => loaded,
            // SAFETY: the caller's promise, passed on.
            None => unsafe { guard::Word::load(src) },
        }
    }

    unsafe fn store_release(dst: *mut u64, value: u64) -> Result<(), Fault> {
        match at(dst.addr(), |memory, _, offset| memory.store(offset, value, Ordering::Release)) {
            Some(stored) => stored,
            // SAFETY: the caller's promise, passed on.
            None => unsafe { guard::Word::store_release(dst, value) },
        }
    }
}

/// As [`guard::store_words`].
pub(crate) unsafe fn store_words(dst: *mut u8, words: &[u64]) -> Result<(), Fault> {
    words.iter().enumerate().try_for_each(|(nth, word)| {
        // SAFETY: the caller's promise, passed on.
        unsafe { Word::store_release(dst.wrapping_add(8 * nth).cast(), *word) }
    })
}

/// As [`guard::store_pairs`].
pub(crate) unsafe fn store_pairs(base: *mut u8, last: u64, pairs: &[[u64; 2]]) -> Result<usize, Fault> {
    for (done, [offset, value]) in pairs.iter().enumerate() {
        if *offset > last || offset % 8 != 0 {
            return Ok(done);
        }
        let at = base.wrapping_add(usize::try_from(*offset).expect("no more than the length"));
        // SAFETY: the caller's promise, passed on.
        unsafe { Word::store_release(at.cast(), *value) }?;
    }
    Ok(pairs.len())
}

/// As [`guard::load_four`].
pub(crate) unsafe fn load_four(src: *const u8) -> Result<[u64; 4], Fault> {
    let mut words = [0; 4];
    for (nth, word) in words.iter_mut().enumerate() {
        // SAFETY: the caller's promise, passed on.
        *word = unsafe { Word::load(src.wrapping_add(8 * nth).cast()) }?;
    }
    Ok(words)
}

/// As [`guard::match_eight`].
pub(crate) unsafe fn match_eight(src: *const u8, mask: u32, wanted: u32) -> Result<Matches, Fault> {
    let load =
        |nth: usize, ordering| at(src.addr() + 8 * nth, |memory, base, offset| memory.load(base, offset, ordering));
    let mut bits = 0;
    for nth in 0..8 {
        // SAFETY: the caller's promise, passed on.
        let Some(word) = load(nth, Ordering::Relaxed) else { return unsafe { guard::match_eight(src, mask, wanted) } };
        bits |= u64::from((word? >> 32) & u64::from(mask) == u64::from(wanted)) << nth;
    }
    let first = if bits == 0 { 7 } else { bits.trailing_zeros() as usize };
    Ok(Matches { bits, word: load(first, Ordering::Acquire).unwrap_or(Err(Fault))? })
}

/// As [`guard::copy_validated`].
pub(crate) unsafe fn copy_validated(
    (first, expected): (*const u64, u64),
    second: *const u64,
    src: *const u64,
    key: &[u8],
    to: *mut [u8],
) -> Result<Option<[u64; 4]>, Fault> {
    let load = |word: *const u64| {
        // SAFETY: the caller's promise, passed on.
        unsafe { Word::load(word) }
    };
    let read = |to: *mut u8, from: *const u8, len: usize| {
        // SAFETY: the caller's promise, passed on.
        let left = unsafe { copy(FaultPolicy::Trap, to, from, len, from.addr(), from.addr() + len) };
        if left == 0 { Ok(()) } else { Err(Fault) }
    };
    let before = load(second)?;
    let mut words = [0_u64; 3];
    read(words.as_mut_ptr().cast(), src.cast(), size_of_val(&words))?;
    let from: *const u8 = src.wrapping_add(3).cast();
    let mut found = vec![0; key.len()];
    read(found.as_mut_ptr(), from, key.len())?;
    read(to.cast(), from.wrapping_add(key.len()), to.len())?;
    fence(Ordering::Acquire);
    let is_same = load(first)? == expected && load(second)? == before;
    Ok((is_same && found == key).then_some([before, words[0], words[1], words[2]]))
}

pub(crate) use guard::prefetch;

/// As [`guard::copy`].
pub(crate) unsafe fn copy(
    policy: FaultPolicy,
    dst: *mut u8,
    src: *const u8,
    len: usize,
    lo: usize,
    hi: usize,
) -> usize {
    let read = at(src.addr(), |memory, base, offset| {
        pieces(offset, len, |word, within, nth| {
            let bytes = memory.load(base, word, Ordering::Relaxed)?.to_le_bytes();
            // SAFETY: the caller's promise for that part of the destination.
            unsafe { dst.wrapping_add(nth).copy_from_nonoverlapping(bytes[within.start..].as_ptr(), within.len()) };
            Ok(())
        })
    });
    let written = at(dst.addr(), |memory, _, offset| {
        pieces(offset, len, |word, within, nth| {
            let mut bytes = memory.latest(word).to_le_bytes();
            let to = bytes[within.start..].as_mut_ptr();
            // SAFETY: the caller's promise for that part of the source.
            unsafe { to.copy_from_nonoverlapping(src.wrapping_add(nth), within.len()) };
            memory.store(word, u64::from_le_bytes(bytes), Ordering::Relaxed)
        })
    });
    match (read, written) {
        (Some(_), Some(_)) => panic!("no model copies from shared memory to shared memory"),
        (Some(left), None) | (None, Some(left)) => left,
        // SAFETY: the caller's promise, passed on.
        (None, None) => unsafe { guard::copy(policy, dst, src, len, lo, hi) },
    }
}

/// As [`guard::fill`].
pub(crate) unsafe fn fill(policy: FaultPolicy, dst: *mut u8, byte: u8, len: usize, lo: usize, hi: usize) -> usize {
    let filled = at(dst.addr(), |memory, _, offset| {
        pieces(offset, len, |word, within, _| {
            let mut bytes = memory.latest(word).to_le_bytes();
            bytes[within].fill(byte);
            memory.store(word, u64::from_le_bytes(bytes), Ordering::Relaxed)
        })
    });
    // SAFETY: the caller's promise, passed on.
    filled.unwrap_or_else(|| unsafe { guard::fill(policy, dst, byte, len, lo, hi) })
}

/// Goes through the words of `len` bytes at an offset: each word's offset, which of its bytes are meant, and how many came
/// before. Gives how many bytes were left when `each` failed.
fn pieces(
    offset: usize,
    len: usize,
    mut each: impl FnMut(usize, std::ops::Range<usize>, usize) -> Result<(), Fault>,
) -> usize {
    let mut done = 0;
    while done < len {
        let at = offset + done;
        let within = at % 8..(at % 8 + len - done).min(8);
        let count = within.len();
        if each(at & !7, within, done).is_err() {
            break;
        }
        done += count;
    }
    len - done
}
