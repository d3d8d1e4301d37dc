//! What `mem` reaches shared memory by in the models: the contract of [`guard`], with loom's words
//! in place of the bytes.
//!
//! An access to an address of a model's handle leads to:
//!
//! 1. the words of the lock and of its queues ([`lock_words`](super::lock_words)), where the model
//!    names one there;
//! 2. what lies behind the header ([`dict_memory`](super::dict_memory)), where the model uses it;
//! 3. the bytes themselves. A model fails where one of its threads changes a word of them, unless
//!    it is in the description of a slot, on which no order of events depends.
//!
//! All other addresses, and all outside of a run, are the process's own: they are accessed as they
//! are.

use loom::sync::atomic::{Ordering, fence};

use super::{dict_memory, model_state, try_model_state};
use crate::segment::layout::{PAYLOAD, SLOT_SIZE, SLOT_TABLE, at};
pub(crate) use crate::sys::guard::prefetch;
use crate::sys::guard::{self, Fault, Matches};
use crate::types::FaultPolicy;

/// What is at an address.
pub(super) enum Place {
    /// A word of the lock or of a queue, at that offset.
    Lock(usize),
    /// A part of what lies behind the header, at that offset of the handle that begins there.
    Dict { base: usize, offset: usize },
    /// Bytes of a handle that no model looks at, at that offset.
    Bytes(usize),
    /// No handle's memory; or no run is under way.
    Private,
}

impl Place {
    pub(super) fn of(address: usize) -> Place {
        let Some(model_state) = try_model_state() else { return Place::Private };
        let Some(base) = model_state.words.base(address) else { return Place::Private };
        match address - base {
            offset if offset >= PAYLOAD && model_state.memory.is_some() => Place::Dict { base, offset },
            offset if model_state.words.has(offset) => Place::Lock(offset),
            offset => Place::Bytes(offset),
        }
    }
}

/// The offset of the lock's word that an operation changes; `None` for bytes.
pub(super) fn lock_word(address: usize) -> Option<usize> {
    match Place::of(address) {
        Place::Lock(offset) | Place::Dict { offset, .. } => Some(offset),
        Place::Bytes(offset) if !is_in_description(offset) => Some(offset),
        Place::Bytes(_) | Place::Private => None,
    }
}

/// Whether a word is in the part of a slot that describes the participant to people.
fn is_in_description(offset: usize) -> bool {
    (SLOT_TABLE..PAYLOAD).contains(&offset)
        && (at::SLOT_PROCESS..at::SLOT_LOCK_WORD).contains(&((offset - SLOT_TABLE) % SLOT_SIZE))
}

/// Uses what lies behind the header, where only words of 64 bits are accessed.
pub(super) fn dict<W, R>(use_it: impl FnOnce(&dict_memory::State) -> R) -> R {
    assert_eq!(size_of::<W>(), size_of::<u64>(), "a dict has no such words");
    use_it(model_state().memory.as_ref().expect("a place in it"))
}

/// As [`guard::Word`]; [`lock_words`](super::lock_words) has the widths.
pub(crate) trait Word: Copy {
    unsafe fn load(src: *const Self) -> Result<Self, Fault>;
    unsafe fn store(dst: *mut Self, value: Self) -> Result<(), Fault>;
    unsafe fn store_release(dst: *mut Self, value: Self) -> Result<(), Fault>;
    unsafe fn swap(dst: *mut Self, value: Self) -> Result<Self, Fault>;
    unsafe fn add(dst: *mut Self, value: Self) -> Result<Self, Fault>;
    unsafe fn compare_exchange(dst: *mut Self, current: Self, new: Self) -> Result<Self, Fault>;
    /// The word of the lock at an offset.
    fn peek(offset: usize) -> Self;
}

/// Uses what a dict has at an address; `None` for any other address.
fn in_dict<R>(address: usize, use_it: impl FnOnce(&dict_memory::State, usize, usize) -> R) -> Option<R> {
    match Place::of(address) {
        Place::Dict { base, offset } => Some(dict::<u64, _>(|memory| use_it(memory, base, offset))),
        _ => None,
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
    let load = |nth: usize, ordering| {
        in_dict(src.addr() + 8 * nth, |memory, base, offset| memory.load(base, offset, ordering))
    };
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

/// As [`guard::copy`].
pub(crate) unsafe fn copy(
    policy: FaultPolicy,
    dst: *mut u8,
    src: *const u8,
    len: usize,
    lo: usize,
    hi: usize,
) -> usize {
    let read = in_dict(src.addr(), |memory, base, offset| {
        pieces(offset, len, |word, within, nth| {
            let bytes = memory.load(base, word, Ordering::Relaxed)?.to_le_bytes();
            // SAFETY: the caller's promise for that part of the destination.
            unsafe { dst.wrapping_add(nth).copy_from_nonoverlapping(bytes[within.start..].as_ptr(), within.len()) };
            Ok(())
        })
    });
    let written = in_dict(dst.addr(), |memory, _, offset| {
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
    let filled = in_dict(dst.addr(), |memory, _, offset| {
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
