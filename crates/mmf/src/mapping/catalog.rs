//! Which named objects live on this machine.

use crate::error::Result;
use crate::spec::{Listed, Swept};

/// The named objects that live now, in [`Scope::Local`](crate::Scope::Local) and
/// [`Scope::Global`](crate::Scope::Global), sorted by scope and name. What dead processes left is removed on the way.
///
/// # Errors
///
/// What the system reports.
///
/// # Examples
///
/// ```
/// use mmf::{Mapping, Name};
///
/// let name = Name::local(format!("listed-{}", std::process::id()))?;
/// let map = Mapping::create_new(&name, 4096)?;
/// assert!(mmf::list()?.iter().any(|object| object.name == name && object.size == Some(4096)));
/// # Ok::<(), mmf::Error>(())
/// ```
pub fn list() -> Result<Vec<Listed>> {
    crate::sys::list()
}

/// Removes what dead processes left, and tells what it met. There is no need to call it: every
/// creation removes some of it in the scope that it creates in, and all of it in both scopes where
/// memory is short. On Windows the system leaves nothing.
///
/// # Errors
///
/// What the system reports.
pub fn sweep() -> Result<Vec<Swept>> {
    crate::sys::sweep()
}
