//! The border to the system: the only place that asks which system this is.
//!
//! Every system implements the one contract below natively. Each function checks the system's return
//! codes once and gives [`Error`](crate::Error)s without the object's name, which the layer above adds.
//!
//! # The contract
//!
//! [`Object`]: something that the system can map. Dropping it gives up this process's hold on it.
//!
//! ```text
//! Object::create(&Source, &Spec) -> Result<Object>      AlreadyExists where there is one that lives
//! Object::open(&Source, &Spec) -> Result<Object>        NotFound where there is none that lives
//! Object::anonymous(&Spec) -> Result<Object>
//! Object::from_handle(OwnedHandle, &Spec) -> Result<Object>
//! Object::len(&self) -> Result<u64>                     asks the system: bytes there are now
//! Object::max_len(&self) -> Option<u64>                 what it can never grow past, where the system sets that
//! Object::grow(&self, len: u64) -> Result<()>           makes it at least `len` long, zeros behind the old end
//! Object::sync(&self) -> Result<()>                     what was flushed is on the disk when this returns
//! Object::info(&self) -> Result<ObjectInfo>             who owns it and may open it, for people to read
//! Object::handle(&self) -> BorrowedHandle<'_>           what can be passed to another process
//! Object::into_handle(self) -> OwnedHandle
//! ```
//!
//! - *Creation is atomic*: no process ever opens an object that has not its full size, also when the
//!   creator dies half-way. Space for `spec.size` bytes is allocated, zeroed, before `create` returns, so that
//!   exhausted memory is an error there and not a fault later. `spec.reserve` bytes cost nothing until `grow`.
//! - *What has a name lives while some process holds it*; what the dead left is never opened, and is swept
//!   by `create` and `list`. `Exact` names follow the system's rule instead and are never judged.
//! - *Opening makes demands*: least size, reserve, permissions (where given), large pages, owner.
//!   What is not met is [`Mismatch`](crate::ErrorKind::Mismatch) with both values, or `ForeignOwner`. Opening read-only needs
//!   only the right to read. A file is never truncated.
//! - A forked child's handles only close: they do not remove what the parent holds.
//!
//! [`View`]: a run of an object's bytes at an address of this process. Dropping it unmaps.
//!
//! ```text
//! View::map(&Object, &Place) -> Result<View>
//! View::base(&self) -> *mut u8                          the first byte asked for (never null; dangling when `reach` is 0)
//! View::reach(&self) -> usize                           bytes of address space from there on
//! View::flush(&self, offset: usize, len: usize) -> Result<()>
//! View::prefault(&self, len: usize) -> Result<()>       the pages are there when this returns; gone ones are an error
//! ```
//!
//! A view may reach past its object's end; those pages fault until `grow` makes them (on Windows `grow` of
//! pagefile memory commits them in every view). Alignment to the system's granularity is handled inside.
//! A view keeps what it needs of its object alive, so either may be dropped first. It is never executable.
//!
//! Names and limits:
//!
//! ```text
//! check_exact(&str) -> Result<(), String>               may this be the text of an exact name
//! unlink_exact(&str) -> Result<()>
//! list() -> Result<Vec<Listed>>                         the living objects in `Local` and `Global`; sweeps
//! sweep() -> Result<Vec<Swept>>                         removes what the dead left, and tells what it met
//! page_size() -> usize
//! ```
//!
//! [`guard`]: copies and atomic operations that return when a page is gone.

pub(crate) mod guard;

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
use unix as imp;
#[cfg(windows)]
use windows as imp;

/// What can be passed to another process: `OwnedFd` or `OwnedHandle`, and its borrowed kin.
pub use imp::{BorrowedHandle, OwnedHandle};
pub(crate) use imp::{Object, View, check_exact, impl_handle_traits, list, page_size, sweep, unlink_exact};

use crate::spec::{Access, LargePages};

/// Where a view shall be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Offset of its first byte in the object; any.
    pub(crate) offset: u64,
    /// Bytes of address space from there on; 0 maps nothing.
    pub(crate) reach: usize,
    pub(crate) access: Access,
    pub(crate) large_pages: LargePages,
    /// The address that the view's first byte must have, or the view is refused.
    pub(crate) base_address: Option<usize>,
}
