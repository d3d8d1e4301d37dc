//! The set-up of the stories about a second user of the machine: the first user, the owner, is
//! [`NOBODY`](system::NOBODY), and the second is [`INTRUDER`].

use mmf::ErrorKind;

use super::{actor, system};

pub(crate) const INTRUDER: u32 = 65533;
/// Bytes of the objects that the stories create.
pub(crate) const SIZE: usize = 8192;

/// The refusal of a file with further links, whatever their number.
pub(crate) fn linked_error() -> ErrorKind {
    ErrorKind::HardLinked { links: 0 }
}

/// The refusal of another user's object, whichever user that is.
pub(crate) fn foreign() -> ErrorKind {
    ErrorKind::ForeignOwner { owner: String::new() }
}

/// A peer that has become the owner.
pub(crate) fn owner() -> actor::Actor {
    actor::Actor::who(&format!("become {}", system::NOBODY))
}
