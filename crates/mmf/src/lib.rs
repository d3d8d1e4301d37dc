//! Memory shared between processes, by name or by file, on Windows, Linux and macOS.
//!
//! [`Mapping`] is a view of bytes that the operating system shares: by name, in a file, or through
//! a handle that one process passes to another.
//!
//! No change that another process or the disk makes to those bytes can crash this process. Every
//! access is checked against the end of the mapping, and guarded against pages that are gone. The
//! safe interface returns no reference to memory that a peer process can change.
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
//! # Faults that are caught
//!
//! A page of a mapping can disappear while it is mapped: its file is truncated, its memory is
//! exhausted, or a disk is removed. A plain access then ends the process (`SIGBUS`,
//! `EXCEPTION_IN_PAGE_ERROR`). This crate copies bytes and performs atomic operations in routines
//! that a fault handler can leave early. They return [`ErrorKind::Fault`]. [`FaultPolicy`] lists
//! the handling methods and their limits.
//!
//! On Unix, the default policy installs a handler for `SIGBUS` at the first mapping. The handler
//! passes on signals that it does not handle to the previous handler. In a thread that blocks
//! `SIGBUS`, the system ends the process without calling a handler.
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

/// Returns the size of a memory page in bytes. A page disappears as a whole, and Windows rounds
/// sizes up to it.
#[must_use]
pub fn page_size() -> usize {
    sys::page_size()
}
