//! The names of the objects of this machine: which the system allows, which live, and removing
//! them.

use crate::error::Result;
use crate::name::{Name, Scope};
use crate::sys;
use crate::types::{Listed, Swept};

impl Name {
    /// A name in the given scope.
    ///
    /// # Errors
    ///
    /// [`InvalidName`](crate::ErrorKind::InvalidName) with the reason.
    pub fn new(scope: Scope, text: impl Into<String>) -> Result<Self> {
        Name::checked(scope, text.into(), sys::check_exact)
    }

    /// A name that this user's programs see.
    ///
    /// # Errors
    ///
    /// As [`Name::new`].
    pub fn local(text: impl Into<String>) -> Result<Self> {
        Name::new(Scope::Local, text)
    }

    /// A name that every user's programs see.
    ///
    /// # Errors
    ///
    /// As [`Name::new`].
    pub fn global(text: impl Into<String>) -> Result<Self> {
        Name::new(Scope::Global, text)
    }

    /// A name in the system's own spelling.
    ///
    /// # Errors
    ///
    /// As [`Name::new`].
    pub fn exact(text: impl Into<String>) -> Result<Self> {
        Name::new(Scope::Exact, text)
    }

    /// Removes the name of an [`Exact`](Scope::Exact) object; processes that hold it open keep
    /// their memory (`shm_unlink`).
    ///
    /// In the other scopes an object's name goes with its last holder. There this function is the
    /// way out for the owner of an object that another user has given a second name
    /// ([`HardLinked`](crate::ErrorKind::HardLinked), Unix): it removes this name, and gives the
    /// object up for ever. No process opens it any more, under whatever name; processes that hold
    /// it keep their memory; the next creation makes a new object. To keep the object instead,
    /// remove the other names.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](crate::ErrorKind::InvalidInput) in the other scopes for an object without
    ///   hard links.
    /// - [`Unsupported`](crate::ErrorKind::Unsupported) on Windows, where every name goes with its
    ///   last holder.
    /// - [`NotFound`](crate::ErrorKind::NotFound).
    /// - [`PermissionDenied`](crate::ErrorKind::PermissionDenied) for another user's object.
    pub fn unlink(&self) -> Result<()> {
        let unlinked = match self.scope() {
            Scope::Exact => sys::unlink_exact(self.as_str()),
            Scope::Local | Scope::Global => sys::give_up_linked(self),
        };
        unlinked.map_err(|error| error.on(self))
    }
}

/// The named objects that live now, in [`Scope::Local`] and
/// [`Scope::Global`], sorted by scope and name. What dead processes left is removed on the way.
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
    sys::list()
}

/// Removes what dead processes left, and tells what it met. There is no need to call it: every
/// creation removes some of it in the scope that it creates in, and all of it in both scopes where
/// memory is short. On Windows the system leaves nothing.
///
/// # Errors
///
/// What the system reports.
pub fn sweep() -> Result<Vec<Swept>> {
    sys::sweep()
}
