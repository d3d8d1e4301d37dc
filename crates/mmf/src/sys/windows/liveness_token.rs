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
use super::event::{self, EventUse, Existing};
use super::object::Object;
use super::security::{Descriptor, SecuredObject, User};
use crate::error::Result;

/// Whether somebody has the token of a slot. Its name tells, so that those may ask who may take none.
pub(crate) fn is_token_held(_object: &Object, id: &[u8; 16], slot: usize) -> Result<bool> {
    is_held(id, EventUse::Token, slot)
}

/// Whether a process has the second token of any slot. Asked as [`is_token_held`].
pub(crate) fn is_any_checked_token_held(object: &Object, id: &[u8; 16]) -> Result<bool> {
    let id = id_of_file(object, id)?;
    for slot in 0..TOKEN_SLOTS {
        if is_held(&id, EventUse::Checked, slot)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The number of slots of a segment.
const TOKEN_SLOTS: usize = 256;

/// The segment's id, changed by which file it is in: a copy has the same id, and was not checked
/// with its original.
fn id_of_file(object: &Object, id: &[u8; 16]) -> Result<[u8; 16]> {
    Ok((u128::from_le_bytes(*id) ^ object.identity()?).to_le_bytes())
}

fn is_held(id: &[u8; 16], of: EventUse, slot: usize) -> Result<bool> {
    // A right that an owner does not have unasked.
    match event::open(&event::path(id, of, slot), EVENT_MODIFY_STATE) {
        // Opened, it is an impostor's, who blocks the slot.
        Ok(_) | Err(STATUS_ACCESS_DENIED | STATUS_OBJECT_TYPE_MISMATCH) => Ok(true),
        Err(STATUS_OBJECT_NAME_NOT_FOUND) => Ok(false),
        Err(status) => Err(error::of_status("probe", status)),
    }
}

/// One handle's tokens: its own, and those of the dead that it takes over for a moment.
pub(crate) struct LivenessTokens {
    id: [u8; 16],
    own: Mutex<Vec<(EventUse, usize, OwnedHandle)>>,
}

impl LivenessTokens {
    pub(crate) fn new(_object: &Object, id: &[u8; 16]) -> Result<LivenessTokens> {
        Ok(LivenessTokens { id: *id, own: Mutex::new(Vec::new()) })
    }

    /// Takes the token of a slot for this handle's life; `false` where somebody has it.
    pub(crate) fn take(&self, slot: usize) -> Result<bool> {
        self.keep(EventUse::Token, slot, make(&self.id, EventUse::Token, slot)?)
    }

    /// Gives the token back.
    pub(crate) fn give(&self, slot: usize) {
        self.drop_own(EventUse::Token, slot);
    }

    /// Takes the second token of a slot until it is given back or this value is dropped; `false`
    /// where another has it.
    pub(crate) fn take_checked(&self, object: &Object, slot: usize) -> Result<bool> {
        self.keep(EventUse::Checked, slot, make(&id_of_file(object, &self.id)?, EventUse::Checked, slot)?)
    }

    /// Gives the second token back.
    pub(crate) fn give_checked(&self, slot: usize) {
        self.drop_own(EventUse::Checked, slot);
    }

    fn keep(&self, of: EventUse, slot: usize, event: Option<OwnedHandle>) -> Result<bool> {
        let Some(event) = event else { return Ok(false) };
        self.own.lock().unwrap_or_else(PoisonError::into_inner).push((of, slot, event));
        Ok(true)
    }

    fn drop_own(&self, of: EventUse, slot: usize) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.retain(|(use_of, own, _)| (*use_of, *own) != (of, slot));
    }

    /// Whether somebody has the token of this slot.
    pub(crate) fn is_alive(&self, slot: usize) -> Result<bool> {
        is_held(&self.id, EventUse::Token, slot)
    }

    /// Takes over the token of a dead participant until the result is dropped; `None` where it is not dead.
    pub(crate) fn seize(&self, slot: usize) -> Result<Option<OwnedHandle>> {
        make(&self.id, EventUse::Token, slot)
    }
}

fn make(id: &[u8; 16], of: EventUse, slot: usize) -> Result<Option<OwnedHandle>> {
    // The owner is named, as in all that this crate makes.
    let nobody = Descriptor::parse(&format!("O:{}D:P", User::current()?.sid), SecuredObject::Section)?;
    match event::make(&event::path(id, of, slot), SYNCHRONIZE, &nobody, Existing::Refuse) {
        Ok(event) => Ok(Some(event)),
        Err(STATUS_OBJECT_NAME_COLLISION | STATUS_OBJECT_TYPE_MISMATCH) => Ok(None),
        Err(status) => Err(error::of_status("hold", status)),
    }
}
