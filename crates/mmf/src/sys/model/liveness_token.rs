//! Liveness tokens: one has it, or nobody, or several reapers have, and each call is one step. As with the system's locks, whoever gets a token
//! sees what was done before it was given back.

use std::cell::Cell;
use std::marker::PhantomData;

use loom::sync::Mutex;

use super::{MODEL_SLOTS, is_dead, me, model_state, step};
use crate::error::Result;
use crate::sys::Object;

/// Who has each slot's token.
#[derive(Default)]
pub(super) struct State {
    /// Whether a stranger keeps the tokens of the dead from being had exclusively, so that reapers share them.
    shared: Cell<bool>,
    slots: Mutex<[Holders; MODEL_SLOTS]>,
}

#[derive(Default)]
struct Holders {
    participant: Option<usize>,
    /// A bit for each process.
    reapers: usize,
}

impl State {
    pub(super) fn share(&self) {
        self.shared.set(true);
    }
}

/// The tokens of one handle, and so of the process whose threads use it. A handle makes them when
/// it is opened, before the threads of a model have become processes.
pub(crate) struct LivenessTokens;

fn process() -> usize {
    me(|me| me.process.get())
}

impl LivenessTokens {
    pub(crate) fn new(_object: &Object, _id: &[u8; 16]) -> Result<LivenessTokens> {
        Ok(LivenessTokens)
    }

    pub(crate) fn take(&self, slot: usize) -> Result<bool> {
        Ok(self.grab(slot, |holders, _| {
            let free = holders.participant.is_none() && holders.reapers == 0;
            if free {
                holders.participant = Some(process());
            }
            free
        }))
    }

    pub(crate) fn give(&self, slot: usize) {
        give_back(slot, |holders| {
            assert_eq!(holders.participant.take(), Some(process()), "what is given back was one's own");
        });
    }

    /// The models use no files.
    pub(crate) fn take_checked(&self, _object: &Object, _slot: usize) -> Result<bool> {
        Ok(true)
    }

    pub(crate) fn give_checked(&self, _slot: usize) {}

    pub(crate) fn is_alive(&self, slot: usize) -> Result<bool> {
        if is_dead() {
            return Ok(true);
        }
        // No process with a slot beyond these dies.
        if slot >= MODEL_SLOTS {
            return Ok(true);
        }
        let model_state = model_state();
        let holders = &model_state.tokens.slots.lock().unwrap()[slot];
        let others = !model_state.tokens.shared.get() && holders.reapers & !(1 << process()) != 0;
        Ok(holders.participant.is_some() || others)
    }

    pub(crate) fn seize(&self, slot: usize) -> Result<Option<SeizedToken<'_>>> {
        let seized = self.grab(slot, |holders, shared| {
            let free = holders.participant.is_none() && (holders.reapers == 0 || shared);
            if free {
                holders.reapers |= 1 << process();
            }
            free
        });
        Ok(seized.then(|| SeizedToken { slot, _tokens: PhantomData }))
    }

    fn grab(&self, slot: usize, grab: impl FnOnce(&mut Holders, bool) -> bool) -> bool {
        if slot >= MODEL_SLOTS || step().is_err() {
            return false;
        }
        let model_state = model_state();
        let holders = &mut model_state.tokens.slots.lock().unwrap()[slot];
        grab(holders, model_state.tokens.shared.get())
    }
}

fn give_back(slot: usize, give: impl FnOnce(&mut Holders)) {
    if step().is_ok() {
        give(&mut model_state().tokens.slots.lock().unwrap()[slot]);
    }
}

/// A dead participant's token, held while its slot is cleared.
pub(crate) struct SeizedToken<'a> {
    slot: usize,
    _tokens: PhantomData<&'a LivenessTokens>,
}

impl Drop for SeizedToken<'_> {
    fn drop(&mut self) {
        give_back(self.slot, |holders| holders.reapers &= !(1 << process()));
    }
}

/// What the system does at a process's end: one after the other, and others may come in between.
pub(super) fn release_all(process: usize) {
    let model_state = model_state();
    for holders in model_state.tokens.slots.lock().unwrap().iter_mut() {
        holders.participant = holders.participant.filter(|holder| *holder != process);
    }
    for holders in model_state.tokens.slots.lock().unwrap().iter_mut() {
        holders.reapers &= !(1 << process);
    }
}
