//! Which locks each thread uses, in loom's hands: the words of [`threads`](crate::lock::threads).

use std::cell::Cell;

use loom::sync::atomic::{AtomicU32, AtomicU64};

use super::{MODEL_SLOTS, me, try_model_state};

/// What the threads of one handle use.
#[derive(Default)]
pub(super) struct State {
    /// One of each thread.
    words: [AtomicU64; MODEL_SLOTS],
    /// How many threads have a word.
    threads: Cell<usize>,
    check: AtomicU32,
}

/// Gives `ask` this thread's word. Does nothing where threads do not tell what they use.
pub(crate) fn use_lock(ask: impl FnOnce(&AtomicU64)) {
    let Some(model_state) = try_model_state() else { return };
    let Some(uses) = &model_state.uses else { return };
    let thread = me(|me| {
        let thread = me.record.get().unwrap_or_else(|| uses.threads.replace(uses.threads.get() + 1));
        me.record.set(Some(thread));
        thread
    });
    ask(&uses.words[thread]);
}

/// Gives `visit` all threads' words.
pub(crate) fn uses_of_lock(visit: impl FnMut(&AtomicU64)) {
    if let Some(uses) = try_model_state().as_ref().and_then(|model_state| model_state.uses.as_ref()) {
        uses.words.iter().for_each(visit);
    }
}

/// Gives `ask` the state of the handle's check. `None` where threads do not tell what they use: no
/// thread checks there.
pub(crate) fn check_of_lock<T>(ask: impl FnOnce(&AtomicU32) -> T) -> Option<T> {
    Some(ask(&try_model_state()?.uses.as_ref()?.check))
}
