//! The memory after the header, as a dict uses it: words that change under a lock and are read
//! without one.
//!
//! - The holder of the lock loads what was stored last, since the lock orders its holders. The
//!   models of the lock prove that.
//! - A read-only handle loads any value that the orderings allow.
//! - Words that only the holder of the lock loads would multiply the orders and show nothing. They
//!   are not loom's words, and a model fails if a reader without the lock loads one.
//!
//! A copy is relaxed and goes by whole words. A store of the value that a word has already is no
//! change.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use loom::sync::atomic::{AtomicU64, Ordering};

use super::{step, step_unseen};
use crate::sys::guard::Fault;

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

    pub(super) fn latest(&self, offset: usize) -> u64 {
        self.now.borrow().get(&offset).copied().unwrap_or_else(|| self.ground.start[offset / 8])
    }

    pub(super) fn load(&self, base: usize, offset: usize, ordering: Ordering) -> Result<u64, Fault> {
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

    pub(super) fn store(&self, offset: usize, value: u64, ordering: Ordering) -> Result<(), Fault> {
        let is_seen = (self.ground.is_seen)(offset);
        // A reader loads other words only after one that it can see.
        if is_seen || offset == REDO_LEN { step() } else { step_unseen() }?;
        // A load of the same value a second time excludes fewer orders than the first load.
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
