//! The words of the lock and of its queues, in loom's hands.
//!
//! The orderings are the weakest that every processor's routines give. A load is an acquire. An operation that reads and
//! writes is an acquire and a release, and where it wrote no later operation of this thread is done before it: what
//! sequential consistency promises to one who changes a word and then looks at another. A total order of the loads among
//! themselves is not modelled, so what the models show does not depend on it.

use loom::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use super::memory::{Place, Word, dict, lock_word};
use super::{Loads, ModelConfig, model_state, step, step_unseen};
use crate::sys::guard::{self, Fault};

pub(super) struct State {
    bases: Vec<usize>,
    shared_len: usize,
    words: Vec<(usize, Width)>,
    stored_to: Vec<usize>,
    loads: Loads,
    fences: bool,
}

enum Width {
    One(AtomicU8),
    Two(AtomicU16),
    Four(AtomicU32),
    Eight(AtomicU64),
}

impl State {
    pub(super) fn new(config: &ModelConfig) -> State {
        let word = |(offset, width): &(usize, usize)| match width {
            1 => (*offset, Width::One(AtomicU8::new(0))),
            2 => (*offset, Width::Two(AtomicU16::new(0))),
            4 => (*offset, Width::Four(AtomicU32::new(0))),
            _ => (*offset, Width::Eight(AtomicU64::new(0))),
        };
        State {
            bases: config.bases.clone(),
            shared_len: config.shared_len,
            words: config.words.iter().map(word).collect(),
            stored_to: config.stored_to.clone(),
            loads: config.loads,
            fences: config.fences,
        }
    }

    /// Where the handle begins that has this address.
    pub(super) fn base(&self, address: usize) -> Option<usize> {
        self.bases.iter().copied().find(|base| (*base..*base + self.shared_len).contains(&address))
    }

    /// Where in the shared memory that is.
    pub(super) fn offset(&self, address: usize) -> usize {
        address - self.base(address).expect("a model knows the handles that take part")
    }

    /// Whether a word of the model is there.
    pub(super) fn has(&self, offset: usize) -> bool {
        self.at(offset).is_some()
    }

    fn at(&self, offset: usize) -> Option<&Width> {
        self.words.iter().find(|(at, _)| *at == offset).map(|(_, word)| word)
    }
}

/// The word at an offset, for the model to judge by.
pub(crate) fn peek<W: Word>(offset: usize) -> W {
    W::peek(offset)
}

fn fence_behind_exchange() {
    if model_state().words.fences {
        fence(Ordering::SeqCst);
    }
}

macro_rules! word {
    ($word:ty, $atomic:ty, $width:ident, $with:ident) => {
        /// Uses the word at that offset.
        fn $with<R>(offset: usize, use_it: impl FnOnce(&$atomic) -> R) -> R {
            match model_state().words.at(offset) {
                Some(Width::$width(word)) => use_it(word),
                _ => panic!("a model has no such word at {offset}"),
            }
        }

        #[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast, reason = "a dict has words of 64 bits")]
        impl Word for $word {
            unsafe fn load(src: *const Self) -> Result<Self, Fault> {
                match Place::of(src.addr()) {
                    Place::Lock(offset) => step_unseen().map(|()| Self::peek(offset)),
                    Place::Dict { base, offset } => {
                        dict::<Self, _>(|memory| memory.load(base, offset, Ordering::Acquire)).map(|word| word as Self)
                    }
                    // SAFETY: the caller's promise, passed on.
                    Place::Bytes(_) => step_unseen().and_then(|()| unsafe { guard::Word::load(src) }),
                    // SAFETY: the caller's promise, passed on.
                    Place::Private => unsafe { guard::Word::load(src) },
                }
            }
            unsafe fn store(dst: *mut Self, value: Self) -> Result<(), Fault> {
                // SAFETY: the caller's promise, passed on.
                unsafe { Self::swap(dst, value) }.map(drop)
            }
            unsafe fn store_release(dst: *mut Self, value: Self) -> Result<(), Fault> {
                if let Place::Dict { offset, .. } = Place::of(dst.addr()) {
                    return dict::<Self, _>(|memory| memory.store(offset, value.into(), Ordering::Release));
                }
                let Some(offset) = lock_word(dst.addr()) else {
                    // SAFETY: the caller's promise, passed on.
                    return unsafe { guard::Word::store_release(dst, value) };
                };
                step()?;
                $with(offset, |word| word.store(value, Ordering::Release));
                Ok(())
            }
            unsafe fn swap(dst: *mut Self, value: Self) -> Result<Self, Fault> {
                let Some(offset) = lock_word(dst.addr()) else {
                    // SAFETY: the caller's promise, passed on.
                    return unsafe { guard::Word::swap(dst, value) };
                };
                step()?;
                let old = $with(offset, |word| word.swap(value, Ordering::AcqRel));
                fence_behind_exchange();
                Ok(old)
            }
            unsafe fn add(dst: *mut Self, value: Self) -> Result<Self, Fault> {
                let Some(offset) = lock_word(dst.addr()) else {
                    // SAFETY: the caller's promise, passed on.
                    return unsafe { guard::Word::add(dst, value) };
                };
                step()?;
                let old = $with(offset, |word| word.fetch_add(value, Ordering::AcqRel));
                fence_behind_exchange();
                Ok(old)
            }
            unsafe fn compare_exchange(dst: *mut Self, current: Self, new: Self) -> Result<Self, Fault> {
                let Some(offset) = lock_word(dst.addr()) else {
                    // SAFETY: the caller's promise, passed on.
                    return unsafe { guard::Word::compare_exchange(dst, current, new) };
                };
                step()?;
                let outcome =
                    $with(offset, |word| word.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire));
                if outcome.is_ok() {
                    fence_behind_exchange();
                }
                let (Ok(old) | Err(old)) = outcome;
                Ok(old)
            }
            fn peek(offset: usize) -> Self {
                let load = |word: &$atomic| match model_state().words.loads {
                    Loads::Latest if !model_state().words.stored_to.contains(&offset) => {
                        word.fetch_or(0, Ordering::Acquire)
                    }
                    Loads::Old | Loads::Latest => word.load(Ordering::Acquire),
                };
                $with(offset, load)
            }
        }
    };
}
word!(u8, AtomicU8, One, with_u8);
word!(u16, AtomicU16, Two, with_u16);
word!(u32, AtomicU32, Four, with_u32);
word!(u64, AtomicU64, Eight, with_u64);
