//! Two users of one machine: the owner of the objects is [`NOBODY`](system::NOBODY), and the second
//! user is [`INTRUDER`].

use mmf::ErrorKind;

use super::{actor, system};

pub(crate) const INTRUDER: u32 = 65533;
/// Size of the objects that the tests create, in bytes.
pub(crate) const SIZE: usize = 8192;

/// Returns the error that refuses a file with several hard links, without their number.
pub(crate) fn linked_error() -> ErrorKind {
    ErrorKind::HardLinked { links: 0 }
}

/// Returns the error that refuses another user's object, without that user.
pub(crate) fn foreign() -> ErrorKind {
    ErrorKind::ForeignOwner { owner: String::new() }
}

/// Starts a peer that becomes the owner.
pub(crate) fn owner() -> actor::Actor {
    actor::Actor::who(&format!("become {}", system::NOBODY))
}
