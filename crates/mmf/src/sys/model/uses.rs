//! Which locks each thread uses, in loom's hands: the words of [`threads`](crate::lock::threads).

use std::cell::Cell;
use std::rc::Rc;

use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{SLOTS, me, try_world};

/// A word for each thread and handle; handles have successive numbers.
#[derive(Default)]
pub(super) struct State {
    words: [[AtomicU64; SLOTS]; SLOTS],
    /// Whether a thread checks a handle.
    checking: [Rc<AtomicBool>; SLOTS],
    /// How many threads have some of them.
    threads: Cell<usize>,
}

/// This thread's word for a handle grows by `more`.
pub(crate) fn use_lock(place: usize, more: u64, order: Ordering) {
    let Some(world) = try_world() else { return };
    let Some(uses) = &world.uses else { return };
    let thread = me(|me| {
        let thread = me.record.get().unwrap_or_else(|| uses.threads.replace(uses.threads.get() + 1));
        me.record.set(Some(thread));
        thread
    });
    let word = &uses.words[thread][place % SLOTS];
    word.store(word.load(Ordering::Relaxed).wrapping_add(more), order);
}

/// All threads' words for a handle.
pub(crate) fn uses_of_lock(place: usize, mut visit: impl FnMut(u64)) {
    match try_world().as_ref().and_then(|world| world.uses.as_ref()) {
        Some(uses) => uses.words.iter().for_each(|words| visit(words[place % SLOTS].load(Ordering::Acquire))),
        None => visit(!0),
    }
}

/// Whether a thread checks a handle. `None` where threads do not tell what they use.
pub(crate) fn one_at_a_time(place: usize) -> Option<Rc<AtomicBool>> {
    Some(Rc::clone(&try_world()?.uses.as_ref()?.checking[place % SLOTS]))
}
