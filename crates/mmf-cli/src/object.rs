//! The rule by which what a user types is a path or a name, and how such an object is opened.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use mmf::{Access, Dict, DictOptions, ErrorKind, Mapping, Name, Region, Scope, Source};

use crate::failure::{Failure, Result};
use crate::system;

/// Part of the `--help` of every verb that takes an object.
pub(crate) const OBJECT_RULE: &str = "\
Objects: an argument with a `/` (on Windows also a `\\` or a drive such as `C:`) is the
path of a file; any other argument is a name for this user's programs. A prefix
always decides:
  file:PATH    a file
  name:TEXT    a name for this user's programs
  global:TEXT  a name for all users' programs
  exact:TEXT   the system's own spelling: exact:/psm_1234, exact:Local\\MumbleLink";

/// The first bytes of every segment, in every version of the format (`docs/format.md`).
const SEGMENT_MAGIC: [u8; 8] = *b"\x8Dmmf\r\n\x1A\n";

/// An open object, by its kind.
pub(crate) enum Opened {
    /// Bytes without a header.
    Raw(Box<Mapping>),
    Region(Box<Region>),
    Dict(Box<Dict>),
    /// A segment that this release cannot use, and why.
    Unusable(mmf::Error),
}

impl Opened {
    /// A word for people and programs.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Opened::Raw(_) => "raw",
            Opened::Region(_) => "region",
            Opened::Dict(_) => "dict",
            Opened::Unusable(_) => "segment",
        }
    }
}

/// Something to open or create: a named object or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object(Source);

impl Object {
    /// For clap.
    pub(crate) fn parser() -> impl TypedValueParser<Value = Object> {
        OsStringValueParser::new().try_map(|text| Object::parse(&text))
    }

    /// Reads an object by [`OBJECT_RULE`].
    fn parse(given: &OsStr) -> Result<Object, String> {
        if given.is_empty() {
            return Err("it is empty".to_owned());
        }
        let Some(text) = given.to_str() else {
            // Without its prefix, such an argument could be nothing but a path.
            return match system::is_path(&given.to_string_lossy()) && !has_prefix(&given.to_string_lossy()) {
                true => Ok(Object(Source::File(given.into()))),
                false => Err("names are UTF-8; give the path of a file with a `/` and no prefix".to_owned()),
            };
        };
        let named = |scope, text: &str| match Name::new(scope, text) {
            Ok(name) => Ok(Object(Source::Named(name))),
            Err(error) => Err(match error.kind() {
                ErrorKind::InvalidName { reason } => reason.clone(),
                _ => error.to_string(),
            }),
        };
        match text.split_once(':') {
            Some(("file", "")) => Err("the path is missing".to_owned()),
            Some(("file", path)) => Ok(Object(Source::File(path.into()))),
            Some(("name", name)) => named(Scope::Local, name),
            Some(("global", name)) => named(Scope::Global, name),
            Some(("exact", name)) => named(Scope::Exact, name),
            _ if system::is_path(text) => Ok(Object(Source::File(text.into()))),
            _ => named(Scope::Local, text),
        }
    }

    /// An object by its name.
    pub(crate) fn named(name: Name) -> Object {
        Object(Source::Named(name))
    }

    pub(crate) fn source(&self) -> &Source {
        &self.0
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.0 {
            Source::File(path) => Some(path),
            _ => None,
        }
    }

    pub(crate) fn name(&self) -> Option<&Name> {
        match &self.0 {
            Source::Named(name) => Some(name),
            _ => None,
        }
    }

    /// The argument by which a program in any directory names this object to `mmf`.
    pub(crate) fn absolute(&self) -> OsString {
        match &self.0 {
            Source::File(path) => {
                let mut text = OsString::from("file:");
                text.push(std::path::absolute(path).unwrap_or_else(|_| path.clone()));
                text
            }
            source => source.to_string().into(),
        }
    }

    /// As a user would type it.
    pub(crate) fn typed(&self) -> String {
        let text = match &self.0 {
            Source::Named(name) if name.scope() == Scope::Local => {
                let short = name.as_str().to_owned();
                if Object::parse(OsStr::new(&short)).as_ref() == Ok(self) { short } else { name.to_string() }
            }
            Source::File(path) if system::is_path(&path.to_string_lossy()) => path.display().to_string(),
            source => source.to_string(),
        };
        system::quote(text)
    }

    /// Opens the bytes of what exists, with advice where that fails.
    pub(crate) fn open(&self, access: Access, any_owner: bool) -> Result<Mapping> {
        self.open_bytes(access, any_owner).map_err(|error| self.advise_opener(error, "--size 1M"))
    }

    fn open_bytes(&self, access: Access, any_owner: bool) -> mmf::Result<Mapping> {
        Mapping::options().access(access).allow_other_owners(any_owner).open(&self.0)
    }

    /// Opens an existing object by its kind. A region and a dict wait for their locks up to
    /// `timeout`.
    pub(crate) fn open_as_is(&self, access: Access, any_owner: bool, timeout: Duration) -> mmf::Result<Opened> {
        let options = Region::options().access(access).allow_other_owners(any_owner).timeout(Some(timeout));
        match options.open(&self.0) {
            Ok(region) => Ok(Opened::Region(Box::new(region))),
            Err(error) => match error.kind() {
                ErrorKind::NotASegment { .. } => {
                    let map = self.open_bytes(access, any_owner)?;
                    let magic = SEGMENT_MAGIC.len();
                    let segment = map.len() >= magic && map.read_to_vec(0, magic)? == SEGMENT_MAGIC;
                    Ok(if segment { Opened::Unusable(error) } else { Opened::Raw(Box::new(map)) })
                }
                ErrorKind::Mismatch { what: "its kind", .. } => match self.open_dict(access, any_owner, timeout) {
                    Ok(dict) => Ok(Opened::Dict(Box::new(dict))),
                    Err(error) => match error.kind() {
                        ErrorKind::Mismatch { .. } | ErrorKind::NotASegment { .. } => Ok(Opened::Unusable(error)),
                        _ => Err(error),
                    },
                },
                // The options demand its kind and its lock only.
                ErrorKind::Mismatch { .. } => Ok(Opened::Unusable(error)),
                _ => Err(error),
            },
        }
    }

    fn open_dict(&self, access: Access, any_owner: bool, timeout: Duration) -> mmf::Result<Dict> {
        let options = Dict::options().allow_other_owners(any_owner).timeout(Some(timeout));
        match access {
            Access::ReadOnly => self.dict_to_read(&options),
            access => options.access(access).open(&self.0),
        }
    }

    /// Opens a dict to read from. A file whose last changes a power cut kept from the disk must be
    /// rebuilt first, which needs write access; then the dict is opened for writing.
    pub(crate) fn dict_to_read(&self, options: &DictOptions) -> mmf::Result<Dict> {
        let to_read = options.clone().access(Access::ReadOnly).open(&self.0);
        to_read.or_else(|error| match error.kind() {
            ErrorKind::Damaged { .. } => options.clone().access(Access::ReadWrite).open(&self.0).map_err(|_| error),
            _ => Err(error),
        })
    }

    /// Opens an existing object to read it; a region or a dict for writing if this user may, so
    /// that its lock can be taken.
    pub(crate) fn open_to_read(&self, any_owner: bool, timeout: Duration) -> mmf::Result<Opened> {
        let opened = self.open_as_is(Access::ReadOnly, any_owner, timeout)?;
        if let Opened::Region(_) | Opened::Dict(_) = opened {
            // An error of the opening for writing does not prevent reading.
            let writable = self.open_as_is(Access::ReadWrite, any_owner, timeout);
            if let Ok(writable @ (Opened::Region(_) | Opened::Dict(_))) = writable {
                return Ok(writable);
            }
        }
        Ok(opened)
    }

    /// Adds advice to an error of the opening. `holding` has the options of `hold` that create such
    /// an object.
    pub(crate) fn advise_opener(&self, error: mmf::Error, holding: &str) -> Failure {
        let foreign = matches!(error.kind(), ErrorKind::ForeignOwner { .. });
        let missing = *error.kind() == ErrorKind::NotFound;
        let failure = Failure::from(error);
        match &self.0 {
            Source::Named(_) if foreign => failure.hint("try: the same command with --any-owner"),
            Source::Named(name) if missing => {
                // The rule takes the argument for a name; the user may have meant a file.
                let file = PathBuf::from(name.as_str());
                if name.scope() == Scope::Local && file.is_file() {
                    let path = system::quote(format!("./{}", name.as_str()));
                    return failure.hint(format!("there is a file of that name here; try: {path}"));
                }
                failure.hint(format!("try: mmf hold {} {holding}", self.typed())).hint("see: mmf ls")
            }
            _ => failure,
        }
    }

    /// Adds advice to an error of the creation.
    pub(crate) fn advise_creator(&self, error: mmf::Error) -> Failure {
        let exists = *error.kind() == ErrorKind::AlreadyExists;
        let failure = Failure::from(error);
        match exists {
            true => failure.hint(format!("see: mmf info {}", self.typed())),
            false => failure,
        }
    }
}

fn has_prefix(text: &str) -> bool {
    matches!(text.split_once(':'), Some(("file" | "name" | "global" | "exact", _)))
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Object::parse(OsStr::new(text)).map_or_else(|reason| reason, |object| object.to_string())
    }

    #[test]
    fn a_slash_makes_a_path_and_a_prefix_always_decides() {
        for (given, meant) in [
            ("frames", "name:frames"),
            ("frames.bin", "name:frames.bin"),
            ("./frames", "file:./frames"),
            ("/tmp/frames", "file:/tmp/frames"),
            ("file:frames", "file:frames"),
            ("name:frames", "name:frames"),
            ("name:file:frames", "name:file:frames"),
            ("global:frames", "global:frames"),
            ("exact:frames", "exact:frames"),
            ("other:frames", "name:other:frames"),
        ] {
            assert_eq!(shown(given), meant);
        }
        for given in ["", "file:", "name:", "name:a/b", "global:a/b", "exact:"] {
            assert!(Object::parse(OsStr::new(given)).is_err(), "{given}");
        }
    }

    #[test]
    fn what_is_shown_to_be_typed_means_the_same() {
        for given in ["frames", "name:file:frames", "global:x", "file:frames", "./a b", "name:it's"] {
            let object = Object::parse(OsStr::new(given)).expect(given);
            let typed = object.typed();
            let unquoted = typed.trim_matches(['\'', '"']).replace(r"'\''", "'");
            assert_eq!(Object::parse(OsStr::new(&unquoted)).as_ref(), Ok(&object), "{typed}");
        }
        assert_eq!(Object::parse(OsStr::new("frames")).map(|object| object.typed()), Ok("frames".to_owned()));
    }
}
