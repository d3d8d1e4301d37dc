//! The words of the lock and of its queues, in loom's hands.
//!
//! The orderings are the weakest that every processor's routines give. A load is an acquire. An operation that reads and
//! writes is an acquire and a release, and where it wrote no later operation of this thread is done before it: what
//! sequential consistency promises to one who changes a word and then looks at another. A total order of the loads among
//! themselves is not modelled, so what the models show does not depend on it.

use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::{Loads, ModelConfig, model_state};

pub(super) struct State {
    bases: Vec<usize>,
    shared_len: usize,
    words: Vec<(usize, Width)>,
    stored_to: Vec<usize>,
    loads: Loads,
    fences: bool,
}

enum Width {
    Four(AtomicU32),
    Eight(AtomicU64),
}

impl State {
    pub(super) fn new(config: &ModelConfig) -> State {
        let word = |(offset, width): &(usize, usize)| match width {
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

/// A width of words: the model's have 32 or 64 bits.
pub(super) trait LockWord: Copy {
    fn store(self, offset: usize);
    fn swap(self, offset: usize) -> Self;
    fn add(self, offset: usize) -> Self;
    fn compare_exchange(offset: usize, current: Self, new: Self) -> Self;
    /// What is at an offset.
    fn peek(offset: usize) -> Self;
}

/// What is at an offset, for the model to judge by.
#[allow(private_bounds, reason = "the widths are those of `LockWord`")]
pub(crate) fn peek<W: LockWord>(offset: usize) -> W {
    W::peek(offset)
}

fn fence_behind_exchange() {
    if model_state().words.fences {
        fence(Ordering::SeqCst);
    }
}

macro_rules! lock_word {
    ($word:ty, $atomic:ty, $width:ident, $with:ident) => {
        /// Uses the word at that offset.
        fn $with<R>(offset: usize, use_it: impl FnOnce(&$atomic) -> R) -> R {
            match model_state().words.at(offset) {
                Some(Width::$width(word)) => use_it(word),
                _ => no_word(offset),
            }
        }

        impl LockWord for $word {
            fn store(self, offset: usize) {
                $with(offset, |word| word.store(self, Ordering::Release));
            }
            fn swap(self, offset: usize) -> Self {
                let old = $with(offset, |word| word.swap(self, Ordering::AcqRel));
                fence_behind_exchange();
                old
            }
            fn add(self, offset: usize) -> Self {
                let old = $with(offset, |word| word.fetch_add(self, Ordering::AcqRel));
                fence_behind_exchange();
                old
            }
            fn compare_exchange(offset: usize, current: Self, new: Self) -> Self {
                let outcome =
                    $with(offset, |word| word.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire));
                if outcome.is_ok() {
                    fence_behind_exchange();
                }
                let (Ok(old) | Err(old)) = outcome;
                old
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

fn no_word(offset: usize) -> ! {
    panic!("a model has no such word at {offset}")
}

lock_word!(u32, AtomicU32, Four, with_u32);
lock_word!(u64, AtomicU64, Eight, with_u64);
