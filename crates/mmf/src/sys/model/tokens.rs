//! Liveness tokens: one has it, or nobody, or several reapers have, and each call is one step. As with the system's locks, whoever gets a token
//! sees what was done before it was given back.

use std::cell::Cell;
use std::marker::PhantomData;

use loom::sync::Mutex;

use super::{SLOTS, is_dead, me, step, world};
use crate::error::Result;
use crate::sys::Object;

/// Who has each slot's token.
#[derive(Default)]
pub(super) struct State {
    /// Whether a stranger keeps the tokens of the dead from being had exclusively, so that reapers share them.
    shared: Cell<bool>,
    slots: Mutex<[Holders; SLOTS]>,
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
pub(crate) struct Tokens;

fn process() -> usize {
    me(|me| me.process.get())
}

impl Tokens {
    pub(crate) fn new(_object: &Object, _id: &[u8; 16]) -> Result<Tokens> {
        Ok(Tokens)
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
        let world = world();
        let holders = &world.tokens.slots.lock().unwrap()[slot];
        let others = !world.tokens.shared.get() && holders.reapers & !(1 << process()) != 0;
        Ok(holders.participant.is_some() || others)
    }

    pub(crate) fn seize(&self, slot: usize) -> Result<Option<Seized<'_>>> {
        let seized = self.grab(slot, |holders, shared| {
            let free = holders.participant.is_none() && (holders.reapers == 0 || shared);
            if free {
                holders.reapers |= 1 << process();
            }
            free
        });
        Ok(seized.then(|| Seized { slot, _tokens: PhantomData }))
    }

    fn grab(&self, slot: usize, grab: impl FnOnce(&mut Holders, bool) -> bool) -> bool {
        if slot >= SLOTS || step().is_err() {
            return false;
        }
        let world = world();
        let holders = &mut world.tokens.slots.lock().unwrap()[slot];
        grab(holders, world.tokens.shared.get())
    }
}

fn give_back(slot: usize, give: impl FnOnce(&mut Holders)) {
    if step().is_ok() {
        give(&mut world().tokens.slots.lock().unwrap()[slot]);
    }
}

/// A dead participant's token, held while its slot is cleared.
pub(crate) struct Seized<'a> {
    slot: usize,
    _tokens: PhantomData<&'a Tokens>,
}

impl Drop for Seized<'_> {
    fn drop(&mut self) {
        give_back(self.slot, |holders| holders.reapers &= !(1 << process()));
    }
}

/// What the system does at a process's end: one after the other, and others may come in between.
pub(super) fn release_all(process: usize) {
    let world = world();
    for holders in world.tokens.slots.lock().unwrap().iter_mut() {
        holders.participant = holders.participant.filter(|holder| *holder != process);
    }
    for holders in world.tokens.slots.lock().unwrap().iter_mut() {
        holders.reapers &= !(1 << process);
    }
}
