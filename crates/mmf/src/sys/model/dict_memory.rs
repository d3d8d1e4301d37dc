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
