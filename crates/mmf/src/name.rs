//! Names of shared objects, and the sources from which an object is opened.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// The set of programs that can reach an object by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Programs of this user. On Windows, programs of this user in this login session (`Local\`).
    Local,
    /// Programs of every user of the machine, as far as the object's
    /// [`Permissions`](crate::Permissions) allow. On Windows (`Global\`), creating an object needs
    /// the privilege `SeCreateGlobalPrivilege`, which services and administrators have. Opening
    /// needs no privilege.
    Global,
    /// The system's own form of a name, for objects that other programs create or open. On Windows
    /// it is a name that `CreateFileMapping` takes (`Local\MumbleLink`). On other systems it is a
    /// name that `shm_open` takes (`/psm_1234`). The system's rule decides how long such an object
    /// lives: on Unix until a program [unlinks](Name::unlink) it.
    Exact,
}

/// The name of a shared object: a [`Scope`] and a text.
///
/// A name in `Local` or `Global` has 1 to 200 bytes of UTF-8, and contains none of `/`, `\` and
/// control characters. A name that is valid on one system is therefore valid on all systems. An
/// `Exact` name follows the rules of the system. mmf refuses an invalid name and never shortens it.
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
    /// The maximum length of a text in [`Scope::Local`] and [`Scope::Global`], in bytes.
    pub const MAX_LEN: usize = 200;

    /// Returns the name if its text is valid in the scope. `check_exact` checks a text by the
    /// system's rules for [`Scope::Exact`], and returns the rule that it breaks.
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

    /// Returns the scope.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Returns the text, exactly as the caller passed it.
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
        return Err(format!("it has {} bytes, and the limit is {}", text.len(), Name::MAX_LEN));
    }
    match text.chars().find(|c| matches!(c, '/' | '\\') || c.is_control()) {
        Some(c) => Err(format!("it contains {c:?}, which some systems do not allow")),
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

/// The source of an object: a name or a file.
///
/// A [`Name`] and every kind of path convert into it. A string does not, since it could mean
/// either.
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
