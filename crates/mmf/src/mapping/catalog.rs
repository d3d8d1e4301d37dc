//! Construction and removal of names, and the named objects of this machine.

use crate::error::Result;
use crate::name::{Name, Scope};
use crate::sys;
use crate::types::{Listed, Swept};

impl Name {
    /// Returns a name in a scope.
    ///
    /// # Errors
    ///
    /// [`InvalidName`](crate::ErrorKind::InvalidName) with the reason.
    pub fn new(scope: Scope, text: impl Into<String>) -> Result<Self> {
        Name::checked(scope, text.into(), sys::check_exact)
    }

    /// Returns a name that the programs of this user see.
    ///
    /// # Errors
    ///
    /// Those of [`Name::new`].
    pub fn local(text: impl Into<String>) -> Result<Self> {
        Name::new(Scope::Local, text)
    }

    /// Returns a name that the programs of every user see.
    ///
    /// # Errors
    ///
    /// Those of [`Name::new`].
    pub fn global(text: impl Into<String>) -> Result<Self> {
        Name::new(Scope::Global, text)
    }

    /// Returns a name in the system's own spelling.
    ///
    /// # Errors
    ///
    /// Those of [`Name::new`].
    pub fn exact(text: impl Into<String>) -> Result<Self> {
        Name::new(Scope::Exact, text)
    }

    /// Removes the name of an [`Exact`](Scope::Exact) object; processes that hold it open keep
    /// their memory (`shm_unlink`).
    ///
    /// In the other scopes an object's name ends with its last holder. There this function serves
    /// the owner of an object to which another user has given a second name
    /// ([`HardLinked`](crate::ErrorKind::HardLinked), Unix). It removes this name, and gives the
    /// object up for ever: no process opens it under any name. Processes that have it open keep
    /// their memory, and the next creation makes a new object. To keep the object instead, remove
    /// the other names.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](crate::ErrorKind::InvalidInput) in the other scopes for an object without
    ///   hard links.
    /// - [`Unsupported`](crate::ErrorKind::Unsupported) on Windows, where every name ends with its
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

/// Returns the living named objects in [`Scope::Local`] and [`Scope::Global`], sorted by scope and
/// name. Removes the objects of dead processes that it meets.
///
/// # Errors
///
/// The system's errors.
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

/// Removes the objects that dead processes left, and returns what it found. A program need not call
/// it: every creation removes a bounded number of them in its scope, and all of them in both scopes
/// if memory is short. On Windows the system removes them.
///
/// # Errors
///
/// The system's errors.
pub fn sweep() -> Result<Vec<Swept>> {
    sys::sweep()
}
