//! [`DictOptions`].

use std::time::Duration;

use crate::dict::format::layout::{Layout, MAX_CAPACITY, MIN_CAPACITY, at};
use crate::dict::handle::DictState;
use crate::dict::recovery::open_after_crash;
use crate::dict::store::work_limit::MIN_WORK_TIME;
use crate::dict::{Dict, Report};
use crate::error::{Error, Result};
use crate::name::Source;
use crate::segment::layout::PAYLOAD;
use crate::segment::{Segment, SegmentOptions, common_setters};
use crate::types::{Access, Permissions};

/// Options for creating or opening a [`Dict`].
#[derive(Clone, Debug)]
#[must_use]
pub struct DictOptions {
    segment: SegmentOptions,
    work_time: Duration,
}

impl Default for DictOptions {
    fn default() -> Self {
        DictOptions::new()
    }
}

impl DictOptions {
    /// Returns the defaults: read-write access, permissions for this user alone, a timeout of 10
    /// seconds.
    pub fn new() -> Self {
        DictOptions { segment: SegmentOptions::new(), work_time: MIN_WORK_TIME }
    }

    /// Sets the number of bytes that a created dict may grow to, its own structures included; at
    /// least [1 MiB](Dict::MIN_CAPACITY). Unused bytes cost only address space. A dict that exists
    /// must have at least this capacity.
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.segment.capacity = if bytes == 0 { 0 } else { bytes.max(MIN_CAPACITY) };
        self
    }

    common_setters!("Dict", "dict", "bounded-dict", MIN_CAPACITY);

    /// Sets the least time that a call may work once it has its lock, or needs none: to copy a long
    /// value or all entries, to find space, to verify. The default is 50 ms. A longer
    /// [timeout](Self::timeout) replaces it.
    ///
    /// It is for a program that must notice other events while it waits for a lock, such as a
    /// language runtime. Such a program sets a short timeout, and calls again after each
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout). [`Dict::set_work_time`] changes it later.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use mmf::{Dict, Name};
    ///
    /// let name = Name::local(format!("short-waits-{}", std::process::id()))?;
    /// let options = Dict::options().timeout(Some(Duration::from_millis(20))).work_time(Duration::from_secs(10));
    /// let dict = options.capacity(1 << 20).create_new(&name)?;
    /// assert_eq!(dict.entries()?.len(), 0);
    /// # Ok::<(), mmf::Error>(())
    /// ```
    pub fn work_time(mut self, time: Duration) -> Self {
        self.work_time = time.max(MIN_WORK_TIME);
        self
    }

    /// Creates an empty dict. Nothing of that name may exist yet.
    ///
    /// # Errors
    ///
    /// Those of [`MappingOptions::create_new`](crate::MappingOptions::create_new);
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) without a
    /// [`capacity`](Self::capacity), and for one of more than 8 TiB.
    pub fn create_new(&self, source: impl Into<Source>) -> Result<Dict> {
        let source = source.into();
        let size = self.first_size().map_err(|error| error.on(&source))?;
        self.dict(self.segment.create_new(&source, size)?, &source)
    }

    /// Opens a dict that exists.
    ///
    /// # Errors
    ///
    /// - Those of [`MappingOptions::open`](crate::MappingOptions::open).
    /// - [`ErrorKind::NotASegment`](crate::ErrorKind::NotASegment) for an object that is foreign,
    ///   damaged or of another format.
    /// - [`ErrorKind::Mismatch`](crate::ErrorKind::Mismatch) for another kind of segment, a smaller
    ///   capacity, or a larger one than [`max_capacity`](Self::max_capacity).
    /// - [`ErrorKind::Damaged`](crate::ErrorKind::Damaged) for a read-only handle, if a power cut
    ///   has interrupted changes; the next open for writing recovers the file. Also for a file
    ///   whose repair was interrupted.
    /// - [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) while another process recovers it.
    pub fn open(&self, source: impl Into<Source>) -> Result<Dict> {
        let source = source.into();
        self.dict(self.segment.open(&source)?, &source)
    }

    /// Opens a dict that exists, or creates it. If several processes do so at once, one of them
    /// creates it, and all get the same dict.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open) and [`create_new`](Self::create_new).
    pub fn open_or_create(&self, source: impl Into<Source>) -> Result<Dict> {
        let source = source.into();
        let size = self.first_size().map_err(|error| error.on(&source))?;
        self.dict(self.segment.open_or_create(&source, size)?, &source)
    }

    /// Repairs a dict as [`Dict::repair`] does, within these options: refuses a dict of a larger
    /// capacity than [`max_capacity`](Self::max_capacity), and waits for the lock up to the
    /// [`timeout`](Self::timeout).
    ///
    /// # Errors
    ///
    /// Those of [`Dict::repair`]; [`ErrorKind::Mismatch`](crate::ErrorKind::Mismatch) for a
    /// capacity that the options do not allow.
    pub fn repair(&self, source: impl Into<Source>) -> Result<Report> {
        let source = source.into();
        self.open_as_it_is(&source).and_then(|dict| dict.repair_in_place()).map_err(|error| error.on(&source))
    }

    /// Opens a dict that exists, without a rebuild, even if it is damaged.
    pub(in crate::dict) fn open_as_it_is(&self, source: &Source) -> Result<Dict> {
        Dict::of(self.segment.open(source)?, self.segment.timeout, self.work_time)
    }

    /// Returns the payload's first length: everything before the first span.
    fn first_size(&self) -> Result<u64> {
        if self.segment.capacity == 0 {
            return Ok(0);
        }
        let capacity = self.segment.capacity;
        match capacity.checked_add(PAYLOAD as u64).and_then(Layout::of) {
            Some(layout) => Ok((layout.first_span - PAYLOAD) as u64),
            None => {
                let most = (MAX_CAPACITY - PAYLOAD as u64).min(usize::MAX as u64 / 2 - PAYLOAD as u64);
                let reason = format!("a dict of {capacity} bytes; {most} is the most that it can have here");
                Err(Error::invalid("create", reason))
            }
        }
    }

    fn dict(&self, segment: Segment<DictState>, source: &Source) -> Result<Dict> {
        let opened = Dict::of(segment, self.segment.timeout, self.work_time).and_then(|mut dict| {
            open_after_crash::open_after_power_cut(&dict)?;
            if dict.is_file() {
                dict.verify_up_to = dict.segment.map.word(at::COMMIT)?;
            }
            Ok(dict)
        });
        opened.map_err(|error| error.on(source))
    }
}
