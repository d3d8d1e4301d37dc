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
//! Object::find(&Source, &Spec) -> Result<Object>        as open, where the caller creates what is missing; see below
//! Object::anonymous(&Spec) -> Result<Object>
//! Object::from_handle(OwnedHandle, &Spec) -> Result<Object>
//! Object::len(&self) -> Result<u64>                     asks the system: bytes there are now
//! Object::known_len(&self) -> u64                       bytes that it is known to have had, without asking; 0: none
//! Object::max_len(&self) -> Option<u64>                 what it can never grow past, where the system sets that
//! Object::grow(&self, len: u64) -> Result<()>           makes it at least `len` long, zeros behind the old end
//! Object::read_start(&self, &mut [u8]) -> Option<usize> reads its first bytes without a view; None: the system cannot
//! Object::sync(&self) -> Result<()>                     what was flushed, and a file's name, are on the disk when this returns
//! Object::unwritten(&self, len: u64) -> Result<Vec<Range<u64>>>
//!     parts of the first `len` bytes that read as zeros once their pages have left memory, although
//!     a sync of them has succeeded
//! Object::allocated(&self, len: u64) -> Result<Vec<Range<u64>>>
//!     the first `len` bytes but for holes, where the system tells of them
//! Object::write_around(&self, offset, bytes) -> Result<()>
//!     writes whole pages to the disk, not to memory, which may lose them
//! Object::info(&self) -> Result<ObjectInfo>             who owns it and may open it, for people to read
//! Object::identity(&self) -> Result<u128>               tells a file from its copies, in this process; 0 for memory
//! Object::is_remote(&self) -> Result<bool>              whether other machines may share its file system
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
//! - *A file that an opener did not name as existing is not taken from another user*: `find`
//!   refuses one that another user put into a directory which all users may write to, where the
//!   system has such directories. `open` takes any file.
//! - *A name in `Local` or `Global` leads to an object that has this name alone*: `HardLinked`
//!   where the file has more.
//! - A forked child's handles only close: they do not remove what the parent holds.
//!
//! [`View`]: a run of an object's bytes at an address of this process. Dropping it unmaps.
//!
//! ```text
//! View::map(&Object, &ViewRequest) -> Result<View>
//! View::base(&self) -> *mut u8                          the first byte asked for (never null; dangling when `address_len` is 0)
//! View::address_len(&self) -> usize                     bytes of address space from there on
//! View::in_memory(&self, offset: usize, len: usize) -> Vec<Range<usize>>
//!     the parts of a range that may have pages in memory
//! View::flush(&self, offset: usize, len: usize) -> Result<()>
//! View::prefault(&self, len: usize) -> Result<()>       the pages are there when this returns; gone ones are an error
//! ```
//!
//! A view may reach past its object's end; those pages fault until `grow` makes them (on Windows `grow` of
//! pagefile memory commits them in every view). Alignment to the system's granularity is handled inside.
//! A view keeps the bytes that it shows, so either may be dropped first; a name is the object's alone to keep. It is never executable.
//!
//! Names and limits:
//!
//! ```text
//! check_exact(&str) -> Result<(), String>               may this be the text of an exact name
//! unlink_exact(&str) -> Result<()>
//! give_up_linked(&Name) -> Result<()>                   removes the name of a `Local` or `Global` object with hard links for good
//! list() -> Result<Vec<Listed>>                         the living objects in `Local` and `Global`; sweeps
//! sweep() -> Result<Vec<Swept>>                         removes what the dead left, and tells what it met
//! page_size() -> usize
//! ```
//!
//! [`LivenessTokens`]: which participants of a segment live, whatever user or namespace of process ids they run in.
//!
//! ```text
//! LivenessTokens::new(&Object, id: &[u8; 16]) -> Result<LivenessTokens> for one handle; `id` is the segment's; takes none yet; all that needs
//!                                                       the right to open the object happens here
//! LivenessTokens::take(&self, slot) -> Result<bool>     has it from now on; false: another process has it, or blocks it
//! LivenessTokens::give(&self, slot)
//! LivenessTokens::is_alive(&self, slot) -> Result<bool> a handle has it, this one or another
//! LivenessTokens::seize(&self, slot) -> Result<Option<Seized>>  has it until the result is dropped; None: another has it
//! token_is_held(&Object, id, slot) -> Result<bool>      somebody has it; asked by one who may take none
//! LivenessTokens::take_checked(&self, &Object, slot) -> Result<bool>   as `take`, for the second token of a slot
//! LivenessTokens::give_checked(&self, slot)
//! a_checked_token_is_held(&Object, id) -> Result<bool>         a process has one of any slot; a copy of the file has others
//! ```
//!
//! - *A token dies with its process*, at the latest when the system has released all that the process had, and with nothing
//!   less: a stopped process keeps it, and a process id that is used again proves nothing. Handles are apart from each
//!   other also within a process; a forked child has none of its parent's.
//! - *One has it*, or nobody. Two who seize at once may both be refused, and for that moment see life where there is none;
//!   neither is for long, and both ask again. Two may also both be let, but nobody takes it meanwhile.
//! - Every call but `new` works after the process has given up rights (`setuid`, `chroot`, a sandbox
//!   without `open`).
//! - `is_alive` needs no right but those that the handle has. That a peer may block a slot which nobody has is the
//!   system's to prevent where it can; it costs that slot, and on Windows what its dead owner held, no more.
//!
//! [`Parker`]: how a process wakes the threads of its peers that sleep on a segment's words.
//!
//! ```text
//! Parker::new(id: &[u8; 16]) -> Parker                  for one handle; asks the system nothing
//! Parker::register(&self, &Object, slot)                once, when the slot's token was taken: it can be unparked
//! Parker::prepare(&self) -> ParkToken                   taken before one makes it known that one may sleep
//! Parker::park(&self, word: *const u32, expected: u32, ParkToken, timeout)
//! Parker::unpark(&self, word: *const u32, slots: [u64; 4]) wakes the sleepers of these slots: a bit each
//! ```
//!
//! - *No wake-up is lost*: where `word` is not `expected` any more, or a peer unparked the sleeper's slot after its `prepare`,
//!   a sleep ends at once; one of the two is what the system looks at. So a waker moves the word before it unparks.
//! - A sleep also ends for no reason, and at the timeout at the latest, give or take the system's timer (16 ms on Windows).
//! - Where the system refuses an event, sleeps only end at their timeouts, which callers keep short.
//!
//! Who and where this is:
//!
//! ```text
//! forks() -> u32                                        moves in a forked child; handles made before are its parent's
//! watch_forks() -> u32                                  the same; from the first call or token on it moves
//! boot() -> Result<Boot>                                zeros only where the system has no id for it; not cached
//! random_id() -> Result<[u8; 16]>                       fit to be kept secret
//! ```
//!
//! [`guard`]: copies and atomic operations that return when a page is gone.

pub(crate) mod guard;

#[cfg(unix)]
#[cfg_attr(all(test, loom), allow(dead_code, unused_imports, reason = "the models have their own"))]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(target_endian = "big")]
compile_error!("words in shared memory are little-endian");

/// What loom's models replace: shared memory, sleeping and waking, liveness tokens, fences and the
/// clock. This is the one seam between the real ones and those of the models.
#[cfg(not(all(test, loom)))]
mod platform {
    pub(crate) use std::sync::atomic::fence;
    use std::time::Instant;

    pub(crate) use super::guard as memory;
    pub(crate) use super::imp::{LivenessTokens, ParkToken, Parker};

    /// Whether this is loom's.
    pub(crate) const IS_MODEL: bool = false;

    /// The clock by which waits are measured.
    #[inline]
    pub(crate) fn now() -> Instant {
        Instant::now()
    }
}
// Two attributes: clippy takes a module for a test by `cfg(test)` alone.
#[cfg(test)]
#[cfg(loom)]
pub(crate) mod model;

#[cfg(all(test, loom))]
use model as platform;
#[cfg(unix)]
use unix as imp;
#[cfg(windows)]
use windows as imp;

/// What can be passed to another process: `OwnedFd` or `OwnedHandle`, and its borrowed kin.
pub use imp::{BorrowedHandle, OwnedHandle};
pub(crate) use imp::{
    Object, View, boot, check_exact, forks, give_up_linked, impl_handle_traits, is_any_checked_token_held,
    is_token_held, list, page_size, random_id, sweep, unlink_exact, watch_forks,
};
pub(crate) use platform::{IS_MODEL, LivenessTokens, ParkToken, Parker, fence, memory, now};

use crate::types::{Access, LargePages};

/// Which start of which machine: of 16 bytes each, zeros where the system does not tell. `boot` by itself tells each start of
/// each machine from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Boot {
    pub(crate) machine: [u8; 16],
    pub(crate) boot: [u8; 16],
}

/// Where a view shall be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ViewRequest {
    /// Offset of its first byte in the object; any.
    pub(crate) offset: u64,
    /// Bytes of address space from there on; 0 maps nothing.
    pub(crate) address_len: usize,
    pub(crate) access: Access,
    pub(crate) large_pages: LargePages,
    /// The address that the view's first byte must have, or the view is refused.
    pub(crate) base_address: Option<usize>,
}
