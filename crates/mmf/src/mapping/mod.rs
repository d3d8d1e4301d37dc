//! [`Mapping`]: a view of bytes that the operating system shares.

mod atomics;
mod bytes;
mod catalog;
mod cursor;
mod growth;
mod options;
mod raw;
mod shared_word;
mod sync;
mod words;

pub use atomics::Atom;
pub use catalog::{list, sweep};
pub use cursor::Cursor;
pub use options::MappingOptions;
pub(crate) use options::open_or_create;
pub(crate) use words::{COPY_CHUNK, MIN_WORK_TIME};

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::mem::AccessorMut;
pub(crate) use crate::mem::SharedWord;
#[cfg(test)]
pub(crate) use crate::mem::trace;
use crate::name::{Name, Source};
use crate::sys::{self, Object, View, ViewRequest};
use crate::types::{Access, FaultPolicy, ObjectInfo, Permissions};
use sync::SyncState;

/// A view of bytes that the operating system shares between processes.
///
/// The bytes have a [name](Name), lie in a file, or have neither and are passed on as a handle. There is no header and
/// no format: a mapping opens what any other program made, and any other program opens what it made.
///
/// Every other process that has the object open may change the bytes at any moment, so this interface hands out
/// copies and atomic operations, never references. All of them are guarded: where a page is gone (its file was
/// truncated, the memory for it is exhausted, its disk fails) the call returns [`ErrorKind::Fault`] and the process
/// lives. Offsets are in bytes from the start of the mapping; what passes its end is [`ErrorKind::OutOfBounds`],
/// and then nothing was done.
///
/// A copy is not atomic as a whole: a reader may meet a writer's bytes in any mixture. Coordinate with the
/// [atomic operations](#method.load), whose effects order the copies around them.
///
/// What has a name lives as long as some process holds it open, on every system; what has a file lives in the file.
///
/// # Examples
///
/// Two mappings of one object, as two processes would have them:
///
/// ```
/// use mmf::{Mapping, Name};
///
/// let name = Name::local(format!("example-{}", std::process::id()))?;
/// let ours = Mapping::create_new(&name, 4096)?;
/// let theirs = Mapping::open(&name)?;
///
/// ours.write_at(100, b"hello")?;
/// let mut seen = [0; 5];
/// theirs.read_at(100, &mut seen)?;
/// assert_eq!(&seen, b"hello");
/// # Ok::<(), mmf::Error>(())
/// ```
pub struct Mapping {
    /// The first byte. It moves only to views that reach farther, which old pointers need not follow: every view stays until
    /// the drop. Stored before `len`, so that who sees a length also sees a base that reaches it.
    base: AtomicPtr<u8>,
    /// Bytes known to exist. Stored with `Release` in `adopt`, loaded with `Acquire` in `locate` and `len`.
    len: AtomicUsize,
    access: Access,
    policy: FaultPolicy,
    source: Option<Source>,
    /// How it may grow.
    growth: Growth,
    /// No view reaches farther, however long a peer makes the object: the capacity of a segment.
    limit: usize,
    /// Offsets come from what lies in it: one that leads nowhere is damage.
    structured: bool,
    /// Where the views are; `address_len` is that of the newest.
    request: ViewRequest,
    /// Whether a sync through this handle has failed, and which thread's turn it is to sync.
    syncs: SyncState,
    /// The newest view is the last. Dropped before the object, whose name must outlive them.
    views: Mutex<Vec<View>>,
    object: Object,
}

/// How far a mapping may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Growth {
    /// A part stays as it is.
    Fixed,
    /// Memory grows to what was reserved.
    UpTo(usize),
    /// A file grows as far as its disk.
    Unlimited,
}

impl Mapping {
    /// Options for everything that the functions below choose for you.
    pub fn options() -> MappingOptions {
        MappingOptions::new()
    }

    /// Creates an object of `size` zero bytes and maps it for reading and writing. This user alone may open it.
    ///
    /// # Errors
    ///
    /// As [`MappingOptions::create_new`].
    pub fn create_new(source: impl Into<Source>, size: u64) -> Result<Mapping> {
        Mapping::options().size(size).create_new(source)
    }

    /// Opens what exists, as large as it is, for reading and writing.
    ///
    /// # Errors
    ///
    /// As [`MappingOptions::open`].
    pub fn open(source: impl Into<Source>) -> Result<Mapping> {
        Mapping::options().open(source)
    }

    /// Opens what exists, which must have `size` bytes at least, or creates it with that size.
    ///
    /// # Errors
    ///
    /// As [`MappingOptions::open_or_create`].
    pub fn open_or_create(source: impl Into<Source>, size: u64) -> Result<Mapping> {
        Mapping::options().size(size).open_or_create(source)
    }

    /// Creates memory of `size` zero bytes that has no name. Another process gets it by inheritance, or
    /// is passed the [handle](Mapping::handle).
    ///
    /// # Errors
    ///
    /// As [`MappingOptions::anonymous`].
    pub fn anonymous(size: u64) -> Result<Mapping> {
        Mapping::options().size(size).anonymous()
    }

    /// How many bytes there are, as far as this mapping knows: what it was opened with, what it has
    /// [grown](Mapping::grow) to, or what [`refresh`](Mapping::refresh) found.
    ///
    /// The system may round sizes up: on Windows memory comes in whole pages. Every process sees the same length.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Whether there are no bytes, as in an empty file.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it was opened by; `None` for memory without a name.
    #[must_use]
    pub fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    /// Its name, where it has one.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        match &self.source {
            Some(Source::Named(name)) => Some(name),
            _ => None,
        }
    }

    /// What this mapping may do with the bytes.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// How this mapping survives a page that is gone.
    #[must_use]
    pub fn fault_policy(&self) -> FaultPolicy {
        self.policy
    }

    /// Who owns the object and who may open it, as the system tells it.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn info(&self) -> Result<ObjectInfo> {
        self.object.info().map_err(|error| self.name_error(error))
    }

    /// From now on offsets come from what lies in it, not from a caller.
    pub(crate) fn set_structured(&mut self) {
        self.structured = true;
    }

    pub(crate) fn object(&self) -> &Object {
        &self.object
    }

    /// Takes up the trap for faults again if a handler that was installed since has replaced it. To
    /// ask costs one system call, so this stands where others are made anyway. A failure leaves the
    /// handler that is there; the next opening reports it.
    pub(crate) fn rearm(&self) {
        if self.policy == FaultPolicy::Trap {
            let _ = sys::guard::arm();
        }
    }

    /// What can be passed to another process, which gives it to
    /// [`MappingOptions::from_handle`]: a file descriptor, or on Windows the handle of a section.
    #[must_use]
    pub fn handle(&self) -> sys::BorrowedHandle<'_> {
        self.object.handle()
    }

    /// Gives up the mapping and keeps what can be passed on. A name goes with its last mapping, so
    /// this is for memory without one.
    #[must_use]
    pub fn into_handle(self) -> sys::OwnedHandle {
        drop(self.views);
        self.object.into_handle()
    }

    fn views(&self) -> MutexGuard<'_, Vec<View>> {
        // A panic cannot leave the list half changed: it is only pushed to.
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address of `len` bytes at `offset`, checked once, here.
    #[inline(always)]
    fn locate(&self, offset: usize, len: usize, doing: &'static str) -> Result<*mut u8> {
        let size = self.len.load(Ordering::Acquire);
        if offset <= size && len <= size - offset {
            return Ok(self.base.load(Ordering::Relaxed).wrapping_add(offset));
        }
        self.locate_beyond(offset, len, doing)
    }

    #[cold]
    fn leads_nowhere(&self, offset: usize) -> Error {
        let reason = format!("something in it leads to {offset}, where nothing is");
        self.name_error(Error::new(ErrorKind::Damaged { reason }, "use"))
    }

    /// Refuses a range that does not lie in the object, before memory is reserved for a copy of it.
    ///
    /// # Errors
    ///
    /// As [`read_at`](Mapping::read_at).
    pub(crate) fn require(&self, offset: usize, len: usize) -> Result<()> {
        self.locate(offset, len, "read").map(drop)
    }

    /// As `locate`, for those who will write.
    #[inline(always)]
    fn locate_writable(&self, offset: usize, len: usize, doing: &'static str) -> Result<*mut u8> {
        self.require_writable(doing)?;
        self.locate(offset, len, doing)
    }

    /// Apart, so that the way past it stays short enough to be inlined.
    #[cold]
    #[inline(never)]
    fn read_only(&self, doing: &'static str) -> Error {
        self.name_error(Error::new(ErrorKind::ReadOnly, doing))
    }

    /// A range as offset and length, within the mapping.
    fn resolve(&self, range: impl RangeBounds<usize>, doing: &'static str) -> Result<(usize, usize)> {
        let from = match range.start_bound() {
            Bound::Included(&from) => from,
            Bound::Excluded(&from) => from.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(&to) => to.saturating_add(1),
            Bound::Excluded(&to) => to,
            Bound::Unbounded => self.len().max(from),
        };
        let Some(len) = to.checked_sub(from) else {
            let reason = format!("the range ends at {to}, before it begins at {from}");
            return Err(self.name_error(Error::invalid(doing, reason)));
        };
        self.locate(from, len, doing)?;
        Ok((from, len))
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn fault(&self, doing: &'static str, offset: usize, done: usize) -> Error {
        let error = Error::new(ErrorKind::Fault { offset: offset + done, done }, doing);
        self.name_error(error).with_help("was its file truncated, or the memory or disk behind it exhausted?")
    }

    #[cold]
    pub(crate) fn name_error(&self, error: Error) -> Error {
        match &self.source {
            Some(source) => error.on(source),
            None => error.on("anonymous memory"),
        }
    }
}

sys::impl_handle_traits!(Mapping);

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("source", &self.source)
            .field("len", &self.len())
            .field("access", &self.access)
            .field("fault_policy", &self.policy)
            .finish_non_exhaustive()
    }
}
