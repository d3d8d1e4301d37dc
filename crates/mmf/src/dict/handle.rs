//! [`Dict`]: an open handle, with what its methods need: the segment, the layout, the timeouts.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::dict::format::layout::Layout;
use crate::dict::format::record;
use crate::dict::format::record::KEY_MAX;
use crate::dict::store::storage::Storage;
use crate::dict::store::write_batch;
use crate::error::{Error, Result};
use crate::mapping::Mapping;
use crate::segment::layout::SegmentKind;
use crate::segment::{Container, Deadline, Segment};

/// Keys and values that processes share, by name or by file.
///
/// Keys are UTF-8 of up to [1 KiB](Dict::KEY_MAX). Values are any type that
/// [`serde`](https://serde.rs) serializes, stored as `MessagePack` so that every language reads
/// them, or raw bytes. Once a call of [`set`](Dict::set) has returned, every process
/// [gets](Dict::get) the new value.
///
/// A reader of a key takes no lock and no participant's slot, and may use a read-only handle. A
/// slow, stopped or dead writer does not delay it. It returns the value before a change or the
/// value after it, never a mixture. A writer takes the segment's lock. If a writer dies, the next
/// writer completes its committed change, so a dict is never poisoned.
///
/// # Examples
///
/// ```
/// use mmf::{Dict, Name};
///
/// let name = Name::local(format!("settings-{}", std::process::id()))?;
/// let ours = Dict::create_new(&name, 16 << 20)?;
/// let theirs = Dict::open(&name)?;
///
/// ours.set("greeting", "hello")?;
/// assert_eq!(theirs.get::<String>("greeting")?.as_deref(), Some("hello"));
///
/// theirs.increment("visits", 1)?;
/// assert_eq!(ours.get("visits")?, Some(1));
/// # Ok::<(), mmf::Error>(())
/// ```
pub struct Dict {
    pub(in crate::dict) segment: Segment<DictState>,
    pub(in crate::dict) layout: Layout,
    /// The seed of key hashes and checksums: the first 8 bytes of the segment's id.
    pub(in crate::dict) seed: u64,
    /// For a file: COMMIT when it was opened. Records up to this version were on the disk, so each
    /// read verifies their checksums. Newer records have been in memory since they were written.
    pub(in crate::dict) verify_up_to: u64,
    /// The largest version that a flush of this handle has found. A smaller one means that the page
    /// of the words has gone back to an older state.
    pub(in crate::dict) seen: AtomicU64,
    pub(in crate::dict) timeout: Option<Duration>,
    /// The least time in nanoseconds that a call may work, however short the timeout is. It is
    /// atomic because threads share a handle.
    pub(in crate::dict) work_time: AtomicU64,
}

/// The state that a dict keeps beside its segment: none, since the redo log completes the change of
/// a writer that died.
pub(crate) struct DictState;

impl Container for DictState {
    const KIND: SegmentKind = SegmentKind::DICT;

    unsafe fn new(_map: &Mapping) -> Result<DictState> {
        Ok(DictState)
    }
}

impl Dict {
    /// Builds the handle of an open segment of this kind.
    pub(in crate::dict) fn of(
        mut segment: Segment<DictState>,
        timeout: Option<Duration>,
        work_time: Duration,
    ) -> Result<Dict> {
        write_batch::prepare();
        segment.map.set_structured();
        segment.has_more_checks();
        let Some(layout) = Layout::of(segment.header.capacity) else {
            return Err(Error::mismatch("its capacity", "one that a dict can have", segment.header.capacity));
        };
        let mut seed = [0; 8];
        seed.copy_from_slice(&segment.header.id[..8]);
        let (seen, work_time) = (AtomicU64::new(0), AtomicU64::new(nanos(work_time)));
        Ok(Dict { segment, layout, seed: u64::from_le_bytes(seed), verify_up_to: 0, seen, timeout, work_time })
    }

    #[inline]
    pub(in crate::dict) fn storage(&self) -> Storage<'_> {
        Storage { map: &self.segment.map, layout: &self.layout, seed: self.seed, verify_up_to: self.verify_up_to }
    }

    /// Returns the deadline for a wait for the lock.
    #[inline]
    pub(in crate::dict) fn lock_deadline(&self) -> Deadline {
        self.timeout.map_or(Deadline::Never, Deadline::After)
    }

    /// Returns the deadline for the work of a call that has its lock, or needs none.
    #[inline]
    pub(in crate::dict) fn work_deadline(&self) -> Deadline {
        self.timeout.map_or(Deadline::Never, |timeout| Deadline::After(timeout.max(self.work_time())))
    }

    pub(in crate::dict) fn is_file(&self) -> bool {
        self.segment.is_file()
    }

    /// Returns a key's hash, or an error if the key is too long.
    // Always inlined: a call would take longer than the hash of a short key.
    #[inline(always)]
    pub(in crate::dict) fn hash(&self, key: &str, doing: &'static str) -> Result<u64> {
        if key.len() > KEY_MAX {
            return Err(self.key_too_long(key.len(), doing));
        }
        Ok(record::hash(self.seed, key.as_bytes()))
    }

    #[cold]
    pub(in crate::dict) fn key_too_long(&self, len: usize, doing: &'static str) -> Error {
        self.segment.name_error(Error::invalid(doing, format!("a key of {len} bytes; {KEY_MAX} is the most")))
    }
}

/// Returns a duration in nanoseconds, or `u64::MAX` (584 years) if it is longer.
pub(in crate::dict) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
