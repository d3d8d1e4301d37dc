//! Liveness tokens of participants: an event per slot, which is there for as long as its owner holds it.
//!
//! Nobody may open one: its access list is empty. So nobody, prober or enemy, can keep a dead participant's token there,
//! but the user who made it, who may also end the process. Whether it is there is told all the same: where it is, the
//! system refuses access, and where it is not, it finds nothing.
//!
//! Who may read the segment can compute the names, and can make the events of slots that nobody has: that blocks those
//! slots for as long as it lives.

use std::os::windows::io::OwnedHandle;
use std::sync::{Mutex, PoisonError};

use windows_sys::Win32::Foundation::{
    STATUS_ACCESS_DENIED, STATUS_OBJECT_NAME_COLLISION, STATUS_OBJECT_NAME_NOT_FOUND, STATUS_OBJECT_TYPE_MISMATCH,
};
use windows_sys::Win32::Storage::FileSystem::SYNCHRONIZE;
use windows_sys::Win32::System::Threading::EVENT_MODIFY_STATE;

use super::error;
use super::event::{self, Existing, Use};
use super::object::Object;
use super::security::{Descriptor, Kind, User};
use crate::error::Result;

/// Whether somebody has the token of a slot. Its name tells, so that those may ask who may take none.
pub(crate) fn token_is_held(_object: &Object, id: &[u8; 16], slot: usize) -> Result<bool> {
    is_held(id, slot)
}

fn is_held(id: &[u8; 16], slot: usize) -> Result<bool> {
    // A right that an owner does not have unasked.
    match event::open(&event::path(id, Use::Token, slot), EVENT_MODIFY_STATE) {
        // Opened, it is an impostor's, who blocks the slot.
        Ok(_) | Err(STATUS_ACCESS_DENIED | STATUS_OBJECT_TYPE_MISMATCH) => Ok(true),
        Err(STATUS_OBJECT_NAME_NOT_FOUND) => Ok(false),
        Err(status) => Err(error::of_status("probe", status)),
    }
}

/// One handle's tokens: its own, and those of the dead that it takes over for a moment.
pub(crate) struct Tokens {
    id: [u8; 16],
    own: Mutex<Option<OwnedHandle>>,
}

impl Tokens {
    pub(crate) fn new(_object: &Object, id: &[u8; 16]) -> Result<Tokens> {
        Ok(Tokens { id: *id, own: Mutex::new(None) })
    }

    /// Takes the token of a slot for this handle's life; `false` where somebody has it.
    pub(crate) fn take(&self, slot: usize) -> Result<bool> {
        let Some(event) = self.make(slot)? else { return Ok(false) };
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = Some(event);
        Ok(true)
    }

    /// Gives the token back: the one that it took.
    pub(crate) fn give(&self, _slot: usize) {
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether somebody has the token of this slot.
    pub(crate) fn is_alive(&self, slot: usize) -> Result<bool> {
        is_held(&self.id, slot)
    }

    /// Takes over the token of a dead participant until the result is dropped; `None` where it is not dead.
    pub(crate) fn seize(&self, slot: usize) -> Result<Option<OwnedHandle>> {
        self.make(slot)
    }

    fn make(&self, slot: usize) -> Result<Option<OwnedHandle>> {
        // The owner is named, as in all that this crate makes.
        let nobody = Descriptor::parse(&format!("O:{}D:P", User::current()?.sid), Kind::Section)?;
        match event::make(&event::path(&self.id, Use::Token, slot), SYNCHRONIZE, &nobody, Existing::Refuse) {
            Ok(event) => Ok(Some(event)),
            Err(STATUS_OBJECT_NAME_COLLISION | STATUS_OBJECT_TYPE_MISMATCH) => Ok(None),
            Err(status) => Err(error::of_status("hold", status)),
        }
    }
}
