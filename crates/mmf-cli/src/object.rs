//! The rule by which what a user types is a path or a name, and how such an object is opened.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use mmf::{Access, Dict, DictOptions, ErrorKind, Mapping, Name, Region, Scope, Source};

use crate::failure::{Failure, Result};
use crate::system;

/// Told by the `--help` of every verb that takes an object.
pub(crate) const OBJECT_RULE: &str = "\
Objects: what contains a `/` (on Windows also a `\\` or a drive such as `C:`) is the
path of a file; anything else is a name that this user's programs share. A prefix
always decides:
  file:PATH    a file
  name:TEXT    a name among this user's programs
  global:TEXT  a name among all users' programs
  exact:TEXT   the system's own spelling: exact:/psm_1234, exact:Local\\MumbleLink";

/// What every segment of mmf's begins with, whatever its version, as `docs/format.md` has it.
const SEGMENT_MAGIC: [u8; 8] = *b"\x8Dmmf\r\n\x1A\n";

/// What an object turned out to be.
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
            // What is no text has no prefix that could be cut off and still be anything but a path.
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

    /// A name that was found.
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

    /// What another program, in whatever directory, can give to `mmf` to mean the same object.
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

    /// Opens what exists as what it is. A region and a dict wait for their locks as long as `timeout`.
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
                // Nothing but its kind and its lock was asked for.
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

    /// Opens a dict to read from. Where the machine was stopped before its last changes were on the disk, only who may write
    /// to the file makes it whole again, and nobody need know that who comes to read.
    pub(crate) fn dict_to_read(&self, options: &DictOptions) -> mmf::Result<Dict> {
        let to_read = options.clone().access(Access::ReadOnly).open(&self.0);
        to_read.or_else(|error| match error.kind() {
            ErrorKind::Damaged { .. } => options.clone().access(Access::ReadWrite).open(&self.0).map_err(|_| error),
            _ => Err(error),
        })
    }

    /// Opens what exists to read it: a region or a dict so that its lock can be taken, if this user may write to it.
    pub(crate) fn open_to_read(&self, any_owner: bool, timeout: Duration) -> mmf::Result<Opened> {
        let opened = self.open_as_is(Access::ReadOnly, any_owner, timeout)?;
        if let Opened::Region(_) | Opened::Dict(_) = opened {
            // Whatever stands against writing does not stand against reading.
            let writable = self.open_as_is(Access::ReadWrite, any_owner, timeout);
            if let Ok(writable @ (Opened::Region(_) | Opened::Dict(_))) = writable {
                return Ok(writable);
            }
        }
        Ok(opened)
    }

    /// Adds advice to what was said when this was opened; `holding` are the options of `hold` that would make one.
    pub(crate) fn advise_opener(&self, error: mmf::Error, holding: &str) -> Failure {
        let foreign = matches!(error.kind(), ErrorKind::ForeignOwner { .. });
        let missing = *error.kind() == ErrorKind::NotFound;
        let failure = Failure::from(error);
        match &self.0 {
            Source::Named(_) if foreign => failure.hint("try: the same with --any-owner"),
            Source::Named(name) if missing => {
                // The rule makes a name of what was meant as a file here.
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

    /// Adds advice to what was said when this was created.
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
