//! Refuses liveness tokens on systems whose byte locks belong to processes and not to open files.
//! There, closing one handle would release the tokens of all other handles of its process.

use std::convert::Infallible;

use super::object::Object;
use crate::error::{Error, Result};

pub(crate) struct LivenessTokens(Infallible);

impl LivenessTokens {
    pub(crate) fn new(_object: &Object, _id: &[u8; 16]) -> Result<LivenessTokens> {
        let what =
            "taking part in a segment, which needs locks on bytes that belong to open files, as Linux and macOS have";
        Err(Error::unsupported("attach to", what))
    }

    pub(crate) fn take(&self, _slot: usize) -> Result<bool> {
        match self.0 {}
    }

    pub(crate) fn give(&self, _slot: usize) {
        match self.0 {}
    }

    pub(crate) fn take_checked(&self, _object: &Object, _slot: usize) -> Result<bool> {
        match self.0 {}
    }

    pub(crate) fn give_checked(&self, _slot: usize) {
        match self.0 {}
    }

    pub(crate) fn is_alive(&self, _slot: usize) -> Result<bool> {
        match self.0 {}
    }

    pub(crate) fn seize(&self, _slot: usize) -> Result<Option<Infallible>> {
        match self.0 {}
    }
}

/// Returns `false`: no process has a token on these systems.
#[allow(clippy::unnecessary_wraps, reason = "other systems are asked")]
pub(crate) fn is_token_held(_object: &Object, _id: &[u8; 16], _slot: usize) -> Result<bool> {
    Ok(false)
}

/// Returns `false`, as [`is_token_held`] does.
#[allow(clippy::unnecessary_wraps, reason = "other systems are asked")]
pub(crate) fn is_any_checked_token_held(_object: &Object, _id: &[u8; 16]) -> Result<bool> {
    Ok(false)
}

/// Returns a constant: no handle on these systems has a resource that a forked child could take
/// from its parent.
#[inline]
pub(crate) fn forks() -> u32 {
    0
}

/// Returns the constant of [`forks`].
pub(crate) fn watch_forks() -> u32 {
    forks()
}
