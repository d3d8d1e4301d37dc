//! Memory shared between processes, by name or by file, on Windows, Linux and macOS.
//!
//! [`Mapping`] is a view of bytes that the operating system shares: named, in a file, or passed on as a handle. Nothing
//! that another process or the disk does to those bytes can crash this one: every access is guarded against pages that
//! are gone and checked against the end, and the safe interface hands out no reference to memory that a peer can change.
//!
//! ```
//! use mmf::{Mapping, Name};
//!
//! let name = Name::local(format!("greeting-{}", std::process::id()))?;
//! // One process:
//! let map = Mapping::open_or_create(&name, 4096)?;
//! map.write_at(0, b"hello")?;
//! // Another:
//! let map = Mapping::open(&name)?;
//! assert_eq!(map.read_to_vec(0, 5)?, b"hello");
//! # Ok::<(), mmf::Error>(())
//! ```
//!
//! # What is caught, and how
//!
//! A page of a mapping can go away while it is mapped: its file is truncated, the memory behind it is exhausted, a disk is
//! removed. Plain access then kills the process (`SIGBUS`, `EXCEPTION_IN_PAGE_ERROR`). This crate's copies and atomic
//! operations run in routines that the system's fault handling can leave early, and return
//! [`ErrorKind::Fault`]. [`FaultPolicy`] tells the ways and their limits. On Unix the default installs a handler for
//! `SIGBUS` at the first mapping; what is not its own goes on to the handler that was there before. In a thread that
//! blocks `SIGBUS` the system kills the process instead of asking any handler.
//!
//! # Features
//!
//! Both are on by default, and each works without the other.
//!
//! - `dict`: `Dict`, keys and values. It brings the crate `xxhash-rust`.
//! - `serde`: values of a `Dict` of any type that serde can serialize, as MessagePack. It brings
//!   the crates `serde` and `rmp-serde`.

#![cfg_attr(
    not(feature = "dict"),
    allow(dead_code, unused_imports, reason = "some parts of the lower layers serve dicts alone")
)]

#[cfg(feature = "dict")]
mod dict;
mod error;
mod lock;
mod mapping;
mod mem;
mod name;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "other processors need no tuning"))]
mod once;
mod region;
mod segment;
mod sys;
mod types;
mod wait;

#[cfg(feature = "dict")]
pub use dict::{
    Change, Changes, Dict, DictOptions, Encoding, Entries, Entry, Problem, Report, Snapshot, Stats, Transaction,
    Watched,
};
pub use error::{Error, ErrorKind, Holder, Result};
pub use lock::{LockWord, LockWords, RawLock};
pub use mapping::{Atom, Cursor, Mapping, MappingOptions, list, sweep};
pub use name::{Name, Scope, Source};
pub use region::{
    LockError, LockGuard, Participant, Plain, ReadGuard, Region, RegionOptions, RegionStatus, WriteGuard,
};
pub use sys::{BorrowedHandle, OwnedHandle};
pub use types::{Access, FaultPolicy, LargePages, Listed, ObjectInfo, Permissions, Swept};

/// The size of a page of memory, in bytes: what a page that is gone takes with it, and what Windows rounds sizes up to.
#[must_use]
pub fn page_size() -> usize {
    sys::page_size()
}
