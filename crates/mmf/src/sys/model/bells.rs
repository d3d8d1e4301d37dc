//! Sleeping and waking, as `sys` promises them and no better: every sleeper that is rung for wakes, and nobody else.

use std::time::Duration;

use loom::sync::{Condvar, Mutex};

use super::{Bell, Plan, SLOTS, is_dead, me, peek, step, world};
use crate::sys::Object;

/// Nothing to keep: the model has the bells of all.
pub(crate) struct Bells;

/// Nothing to remember: the word or the event tells of rings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rings;

pub(super) struct State {
    kind: Bell,
    inner: Mutex<Inner>,
    /// Those who sleep on each word.
    words: Vec<(usize, Condvar)>,
    /// Those who sleep as each slot.
    slots: Vec<Condvar>,
}

#[derive(Default)]
struct Inner {
    /// How often it was told that time passes.
    lapses: u32,
    /// Whether a slot was rung for since its last sleep.
    rung: [bool; SLOTS],
}

impl State {
    pub(super) fn new(plan: &Plan) -> State {
        let words = plan.slept_on.iter().map(|word| (*word, Condvar::new())).collect();
        let slots = (0..SLOTS).map(|_| Condvar::new()).collect();
        State { kind: plan.bell, inner: Mutex::default(), words, slots }
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

impl Bells {
    pub(crate) fn new(_id: &[u8; 16]) -> Bells {
        Bells
    }

    pub(crate) fn hang(&self, _object: &Object, slot: usize) {
        me(|me| me.slot.set(slot));
    }

    pub(crate) fn listen(&self) -> Rings {
        Rings
    }

    pub(crate) fn sleep(&self, word: *const u32, expected: u32, _rings: Rings, timeout: Duration) {
        if is_dead() {
            return;
        }
        let (world, slot) = (world(), me(|me| me.slot.get()));
        let word = world.words.offset(word.addr());
        let mut inner = world.bells.inner.lock().unwrap();
        let over = match world.bells.kind {
            Bell::Futex => peek::<u32>(word) != expected,
            Bell::Event => std::mem::take(&mut inner.rung[slot]),
        };
        if over {
            return;
        }
        me(|me| me.time.set(me.time.get() + timeout));
        let lapses = inner.lapses;
        if me(|me| me.lapses.replace(lapses)) != lapses {
            me(|me| me.sleeps.set(0));
        }
        if me(|me| me.sleeps.replace(me.sleeps.get() + 1)) < world.timeouts {
            return;
        }
        match world.bells.kind {
            Bell::Futex => drop(world.bells.word(word).wait(inner)),
            Bell::Event => {
                while !inner.rung[slot] && inner.lapses == lapses {
                    inner = world.bells.slots[slot].wait(inner).unwrap();
                }
                inner.rung[slot] = false;
            }
        }
    }

    pub(crate) fn ring(&self, word: *const u32, slots: [u64; 4]) {
        if step().is_err() {
            return;
        }
        let world = world();
        let mut inner = world.bells.inner.lock().unwrap();
        match world.bells.kind {
            Bell::Futex => world.bells.word(world.words.offset(word.addr())).notify_all(),
            Bell::Event => {
                for slot in (0..SLOTS).filter(|slot| slots[0] >> slot & 1 != 0) {
                    inner.rung[slot] = true;
                    world.bells.slots[slot].notify_all();
                }
            }
        }
    }
}
