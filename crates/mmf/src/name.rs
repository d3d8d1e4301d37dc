//! Names of shared objects, and what else an object can be reached by.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// Who can reach an object of a given name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Programs of this user. On Windows: of this user in this login session (`Local\`).
    Local,
    /// Programs of every user of the machine, as far as the object's [`Permissions`](crate::Permissions)
    /// let them. On Windows (`Global\`) creating needs the privilege `SeCreateGlobalPrivilege`, which
    /// services and administrators have; opening does not.
    Global,
    /// The system's own spelling, for objects that other programs make or open: on Windows what
    /// `CreateFileMapping` takes (`Local\MumbleLink`), elsewhere what `shm_open` takes (`/psm_1234`).
    /// Such an object lives by the system's rule: on Unix until it is [unlinked](Name::unlink).
    Exact,
}

/// A [`Scope`] and a text: the name of a shared object.
///
/// A name in `Local` or `Global` has 1 to 200 bytes of UTF-8 and holds none of `/`, `\` and control
/// characters, so that one that works on one system works on all. An `Exact` name has the rules of the
/// system. A name that does not fit is refused, never cut.
///
/// It displays as `name:frames`, `global:frames` or `exact:/frames`.
///
/// # Examples
///
/// ```
/// use mmf::Name;
///
/// let name = Name::local("frames")?;
/// assert_eq!(name.to_string(), "name:frames");
/// assert!(Name::local("a/b").is_err());
/// # Ok::<(), mmf::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    scope: Scope,
    text: String,
}

impl Name {
    /// The longest text in [`Scope::Local`] and [`Scope::Global`], in bytes.
    pub const MAX_LEN: usize = 200;

    /// Returns the name if its text fits the scope. `check_exact` has the system's rules for
    /// [`Scope::Exact`], and returns why a text breaks them.
    pub(crate) fn checked(
        scope: Scope,
        text: String,
        check_exact: impl FnOnce(&str) -> Result<(), String>,
    ) -> Result<Name> {
        let name = Name { scope, text };
        let checked = match scope {
            Scope::Local | Scope::Global => check_portable(&name.text),
            Scope::Exact => check_exact(&name.text),
        };
        match checked {
            Ok(()) => Ok(name),
            Err(reason) => Err(Error::new(ErrorKind::InvalidName { reason }, "use").on(&name)),
        }
    }

    /// Who can reach it.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// The text, as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn check_portable(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.len() > Name::MAX_LEN {
        return Err(format!("it has {} bytes, and {} is the most", text.len(), Name::MAX_LEN));
    }
    match text.chars().find(|c| matches!(c, '/' | '\\') || c.is_control()) {
        Some(c) => Err(format!("it holds {c:?}, which not every system can hold")),
        None => Ok(()),
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self.scope {
            Scope::Local => "name:",
            Scope::Global => "global:",
            Scope::Exact => "exact:",
        };
        write!(f, "{prefix}{}", self.text)
    }
}

/// What an object is reached by: a name or a file.
///
/// A [`Name`] and every kind of path convert into it. A bare string does not, since it could mean either.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// Named memory.
    Named(Name),
    /// A file.
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Named(name) => name.fmt(f),
            Source::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl From<Name> for Source {
    fn from(name: Name) -> Source {
        Source::Named(name)
    }
}

impl From<&Name> for Source {
    fn from(name: &Name) -> Source {
        Source::Named(name.clone())
    }
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Source {
        Source::File(path)
    }
}

impl From<&PathBuf> for Source {
    fn from(path: &PathBuf) -> Source {
        Source::File(path.clone())
    }
}

impl From<&Path> for Source {
    fn from(path: &Path) -> Source {
        Source::File(path.to_owned())
    }
}

impl From<&Source> for Source {
    fn from(source: &Source) -> Source {
        source.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portable_names_are_checked_and_never_cut() {
        for good in ["a", "frames", "Ümläut ☃", ".", "..", ".hidden", &"x".repeat(Name::MAX_LEN)] {
            assert_eq!(Name::local(good).expect(good).as_str(), good);
        }
        for bad in ["", "a/b", "a\\b", "nul\0", "tab\t", "line\n", &"x".repeat(Name::MAX_LEN + 1)] {
            let error = Name::global(bad).expect_err(bad);
            assert!(matches!(error.kind(), ErrorKind::InvalidName { .. }), "{error}");
        }
    }
}
