//! Liveness tokens: one has it, or nobody, and each call is one step. As with the system's locks, whoever gets a token
//! sees what was done before it was given back.

use loom::sync::Mutex;

use super::{SLOTS, is_dead, me, step, world};
use crate::error::Result;
use crate::sys::Object;

/// Who has each slot's token, and in which of its two hands.
#[derive(Default)]
pub(super) struct State(Mutex<[Option<(usize, Hand)>; SLOTS]>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hand {
    Own,
    Reaper,
}

/// The tokens of one handle, and so of one process.
pub(crate) struct Tokens {
    process: usize,
}

impl Tokens {
    pub(crate) fn new(_object: &Object, _id: &[u8; 16]) -> Result<Tokens> {
        Ok(Tokens { process: me(|me| me.process.get()) })
    }

    pub(crate) fn take(&self, slot: usize) -> Result<bool> {
        Ok(self.grab(slot, Hand::Own))
    }

    pub(crate) fn give(&self, slot: usize) {
        self.give_back(slot, Hand::Own);
    }

    pub(crate) fn is_alive(&self, slot: usize) -> Result<bool> {
        Ok(is_dead()
            || world().tokens.0.lock().unwrap()[slot].is_some_and(|holder| holder != (self.process, Hand::Reaper)))
    }

    pub(crate) fn seize(&self, slot: usize) -> Result<Option<Seized<'_>>> {
        Ok(self.grab(slot, Hand::Reaper).then(|| Seized { tokens: self, slot }))
    }

    fn grab(&self, slot: usize, hand: Hand) -> bool {
        if slot >= SLOTS || step().is_err() {
            return false;
        }
        let world = world();
        let holder = &mut world.tokens.0.lock().unwrap()[slot];
        let free = holder.is_none();
        if free {
            *holder = Some((self.process, hand));
        }
        free
    }

    fn give_back(&self, slot: usize, hand: Hand) {
        if step().is_err() {
            return;
        }
        let world = world();
        let holder = &mut world.tokens.0.lock().unwrap()[slot];
        assert_eq!(*holder, Some((self.process, hand)), "what is given back was one's own");
        *holder = None;
    }
}

/// A dead participant's token, held while its slot is cleared.
pub(crate) struct Seized<'a> {
    tokens: &'a Tokens,
    slot: usize,
}

impl Drop for Seized<'_> {
    fn drop(&mut self) {
        self.tokens.give_back(self.slot, Hand::Reaper);
    }
}

/// What the system does at a process's end: one after the other, and others may come in between.
pub(super) fn release_all(process: usize) {
    let world = world();
    for hand in [Hand::Own, Hand::Reaper] {
        let mut holders = world.tokens.0.lock().unwrap();
        for holder in holders.iter_mut().filter(|holder| **holder == Some((process, hand))) {
            *holder = None;
        }
    }
}
