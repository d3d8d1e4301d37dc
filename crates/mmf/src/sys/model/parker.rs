//! Sleeping and waking, as `sys` promises them and no better: every sleeper that is unparked wakes,
//! and no other.

use std::time::Duration;

use loom::sync::{Condvar, Mutex};

use super::{MODEL_SLOTS, ModelConfig, ParkerKind, is_dead, me, model_state, peek, step};
use crate::sys::Object;

/// Nothing to keep: the model has the parkers of all.
pub(crate) struct Parker;

/// Nothing to remember: the word or the event tells of wake-ups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ParkToken;

pub(super) struct State {
    kind: ParkerKind,
    inner: Mutex<Inner>,
    /// The threads that sleep on each word.
    words: Vec<(usize, Condvar)>,
    /// The threads that sleep as each slot.
    slots: Vec<Condvar>,
}

#[derive(Default)]
struct Inner {
    /// How often it was told that time passes.
    lapses: u32,
    /// Whether a slot was unparked since its last sleep.
    unparked: [bool; MODEL_SLOTS],
}

impl State {
    pub(super) fn new(config: &ModelConfig) -> State {
        let words = config.slept_on.iter().map(|word| (*word, Condvar::new())).collect();
        let slots = (0..MODEL_SLOTS).map(|_| Condvar::new()).collect();
        State { kind: config.parker, inner: Mutex::default(), words, slots }
    }

    fn word(&self, word: usize) -> &Condvar {
        let known = self.words.iter().find(|(at, _)| *at == word);
        &known.expect("a model names the words that are slept on").1
    }

    /// Ends every sleep, and lets those to come end at their bounds again.
    pub(super) fn lapse(&self) {
        self.inner.lock().unwrap().lapses += 1;
        self.words.iter().for_each(|(_, sleepers)| sleepers.notify_all());
        self.slots.iter().for_each(Condvar::notify_all);
    }
}

impl Parker {
    pub(crate) fn new(_id: &[u8; 16]) -> Parker {
        Parker
    }

    pub(crate) fn register(&self, _object: &Object, slot: usize) {
        me(|me| me.slot.set(slot));
    }

    pub(crate) fn prepare(&self) -> ParkToken {
        ParkToken
    }

    pub(crate) fn park(&self, word: *const u32, expected: u32, _token: ParkToken, timeout: Duration) {
        if is_dead() {
            return;
        }
        let (model_state, slot) = (model_state(), me(|me| me.slot.get()));
        let word = model_state.words.offset(word.addr());
        let mut inner = model_state.parker.inner.lock().unwrap();
        let over = match model_state.parker.kind {
            ParkerKind::Futex => peek::<u32>(word) != expected,
            ParkerKind::Event => std::mem::take(&mut inner.unparked[slot]),
        };
        if over {
            return;
        }
        me(|me| me.time.set(me.time.get() + timeout));
        let lapses = inner.lapses;
        if me(|me| me.lapses.replace(lapses)) != lapses {
            me(|me| me.sleeps.set(0));
        }
        if me(|me| me.sleeps.replace(me.sleeps.get() + 1)) < model_state.timeouts {
            return;
        }
        match model_state.parker.kind {
            ParkerKind::Futex => drop(model_state.parker.word(word).wait(inner)),
            ParkerKind::Event => {
                while !inner.unparked[slot] && inner.lapses == lapses {
                    inner = model_state.parker.slots[slot].wait(inner).unwrap();
                }
                inner.unparked[slot] = false;
            }
        }
    }

    pub(crate) fn unpark(&self, word: *const u32, slots: [u64; 4]) {
        if step().is_err() {
            return;
        }
        let model_state = model_state();
        let mut inner = model_state.parker.inner.lock().unwrap();
        match model_state.parker.kind {
            ParkerKind::Futex => model_state.parker.word(model_state.words.offset(word.addr())).notify_all(),
            ParkerKind::Event => {
                for slot in (0..MODEL_SLOTS).filter(|slot| slots[0] >> slot & 1 != 0) {
                    inner.unparked[slot] = true;
                    model_state.parker.slots[slot].notify_all();
                }
            }
        }
    }
}
