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
/// The bytes have a [name](Name), lie in a file, or have neither and are passed on as a handle. A
/// mapping has no header and no format: it opens an object of any other program, and any other
/// program opens its object.
///
/// Every other process that has the object open may change the bytes at any moment. So this
/// interface offers copies and atomic operations, never references. All of them are guarded: if a
/// page is gone (its file was truncated, its memory is exhausted, its disk fails), the call returns
/// [`ErrorKind::Fault`] and the process lives. Offsets are in bytes from the start of the mapping.
/// An access past the end returns [`ErrorKind::OutOfBounds`] and does nothing.
///
/// A copy is not atomic as a whole: a reader may get any mixture of a writer's old and new bytes.
/// Coordinate with the [atomic operations](#method.load), whose effects order the copies around
/// them.
///
/// A named object lives as long as a process has it open, on every system. A file lives on.
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
    /// The address of the first byte. It moves only to a view that reaches farther. Old pointers
    /// stay valid, since every view stays until the drop. It is stored before `len`, so a thread
    /// that loads a length also loads a base that reaches it.
    base: AtomicPtr<u8>,
    /// The number of bytes known to exist. Stored with `Release` in `adopt`, loaded with `Acquire`
    /// in `locate` and `len`.
    len: AtomicUsize,
    access: Access,
    policy: FaultPolicy,
    source: Option<Source>,
    /// The limit of growth through this handle.
    growth: Growth,
    /// The end of the farthest view, however long a peer makes the object: the capacity of a
    /// segment.
    limit: usize,
    /// Whether offsets come from structures in the object, so that an invalid one is damage.
    structured: bool,
    /// The request for the first view, from which later ones are derived.
    request: ViewRequest,
    /// Whether a sync through this handle has failed, and the turn of the thread that syncs.
    syncs: SyncState,
    /// All views, the newest last. They are dropped before the object, whose name must outlive
    /// them.
    views: Mutex<Vec<View>>,
    object: Object,
}

/// The limit of a mapping's growth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Growth {
    /// None: the mapping is a part of an object.
    Fixed,
    /// Memory grows up to its reserve.
    UpTo(usize),
    /// A file grows as far as its disk.
    Unlimited,
}

impl Mapping {
    /// Returns options for creating or opening a mapping, with their defaults.
    pub fn options() -> MappingOptions {
        MappingOptions::new()
    }

    /// Creates an object of `size` zero bytes and maps it for reading and writing. Only this user
    /// may open it.
    ///
    /// # Errors
    ///
    /// Those of [`MappingOptions::create_new`].
    pub fn create_new(source: impl Into<Source>, size: u64) -> Result<Mapping> {
        Mapping::options().size(size).create_new(source)
    }

    /// Opens an object that exists for reading and writing, with its present length.
    ///
    /// # Errors
    ///
    /// Those of [`MappingOptions::open`].
    pub fn open(source: impl Into<Source>) -> Result<Mapping> {
        Mapping::options().open(source)
    }

    /// Opens an object that exists and has at least `size` bytes, or creates it with that size.
    ///
    /// # Errors
    ///
    /// Those of [`MappingOptions::open_or_create`].
    pub fn open_or_create(source: impl Into<Source>, size: u64) -> Result<Mapping> {
        Mapping::options().size(size).open_or_create(source)
    }

    /// Creates memory of `size` zero bytes without a name. Another process inherits it, or gets its
    /// [handle](Mapping::handle).
    ///
    /// # Errors
    ///
    /// Those of [`MappingOptions::anonymous`].
    pub fn anonymous(size: u64) -> Result<Mapping> {
        Mapping::options().size(size).anonymous()
    }

    /// Returns the length that this mapping knows: the one at opening, the one that it has
    /// [grown](Mapping::grow) to, or the one that [`refresh`](Mapping::refresh) found.
    ///
    /// The system may round sizes up: on Windows memory comes in whole pages. Every process sees
    /// the same length.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Returns whether the mapping has no bytes, as for an empty file.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the name or path by which it was opened, or `None` for memory without a name.
    #[must_use]
    pub fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    /// Returns the object's name, or `None` if it has none.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        match &self.source {
            Some(Source::Named(name)) => Some(name),
            _ => None,
        }
    }

    /// Returns how this mapping may access the bytes.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// Returns how this mapping survives a page that is gone.
    #[must_use]
    pub fn fault_policy(&self) -> FaultPolicy {
        self.policy
    }

    /// Returns the owner of the object, and the users that may open it.
    ///
    /// # Errors
    ///
    /// The system's errors.
    pub fn info(&self) -> Result<ObjectInfo> {
        self.object.info().map_err(|error| self.name_error(error))
    }

    /// Declares that offsets come from structures in the object, so that an invalid one is damage.
    pub(crate) fn set_structured(&mut self) {
        self.structured = true;
    }

    pub(crate) fn object(&self) -> &Object {
        &self.object
    }

    /// Installs the trap for faults again if another handler has replaced it. The query costs one
    /// system call, so callers use this beside other system calls. A failure leaves the other
    /// handler; the next opening reports it.
    pub(crate) fn rearm(&self) {
        if self.policy == FaultPolicy::Trap {
            let _ = sys::guard::arm();
        }
    }

    /// Returns the handle that another process can pass to [`MappingOptions::from_handle`]: a file
    /// descriptor, or on Windows the handle of a section.
    #[must_use]
    pub fn handle(&self) -> sys::BorrowedHandle<'_> {
        self.object.handle()
    }

    /// Drops the mapping and returns its handle. A name ends with its last mapping, so this is for
    /// memory without a name.
    #[must_use]
    pub fn into_handle(self) -> sys::OwnedHandle {
        drop(self.views);
        self.object.into_handle()
    }

    fn views(&self) -> MutexGuard<'_, Vec<View>> {
        // A panic cannot leave the list half changed, since its only change is `push`.
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the address of `len` bytes at `offset`. This is the one place that checks a range.
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
        let reason = format!("corrupt offset {offset}: outside the mapping");
        self.name_error(Error::new(ErrorKind::Damaged { reason }, "use"))
    }

    /// Refuses a range that does not lie in the object, before memory is reserved for a copy of it.
    ///
    /// # Errors
    ///
    /// Those of [`read_at`](Mapping::read_at).
    pub(crate) fn require(&self, offset: usize, len: usize) -> Result<()> {
        self.locate(offset, len, "read").map(drop)
    }

    /// Returns the address of `len` bytes at `offset` to be written.
    #[inline(always)]
    fn locate_writable(&self, offset: usize, len: usize, doing: &'static str) -> Result<*mut u8> {
        self.require_writable(doing)?;
        self.locate(offset, len, doing)
    }

    /// Returns the error for a read-only mapping. It is not inlined, so that its callers can be.
    #[cold]
    #[inline(never)]
    fn read_only(&self, doing: &'static str) -> Error {
        self.name_error(Error::new(ErrorKind::ReadOnly, doing))
    }

    /// Converts a range to an offset and a length, and checks that it lies in the mapping.
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
