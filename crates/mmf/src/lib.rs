//! Memory shared between processes, by name or by file, on Windows, Linux and macOS.

mod error;
mod mapping;
mod name;
mod spec;
mod sys;

pub use error::{Error, ErrorKind, Result};
pub use mapping::{Atom, Cursor, Mapping, MappingOptions};
pub use name::{Name, Scope, Source};
pub use spec::{Access, FaultPolicy, LargePages, Permissions};
