//! [`RegionOptions`]: options for creating or opening a region.

use std::sync::Arc;
use std::time::Duration;

use super::Region;
use super::change::Segment;
use crate::error::Result;
use crate::lock::RawLock;
use crate::name::Source;
use crate::segment::{CustomLock, SegmentOptions, common_setters};
use crate::types::{Access, Permissions};

/// Options for creating or opening a [`Region`].
#[derive(Clone, Debug)]
#[must_use]
pub struct RegionOptions {
    segment: SegmentOptions,
}

impl Default for RegionOptions {
    fn default() -> Self {
        RegionOptions::new()
    }
}

impl RegionOptions {
    /// Returns the defaults: read-write access, permissions for this user alone, a timeout of 10
    /// seconds.
    pub fn new() -> Self {
        RegionOptions { segment: SegmentOptions::new() }
    }

    /// Sets the number of bytes that the contents of a created region may grow to. Unused bytes
    /// cost only address space. A region that exists must have at least this capacity.
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.segment.capacity = bytes;
        self
    }

    common_setters!("Region", "region", "bounded", 0);

    /// Uses a custom lock in place of mmf's, see [`RawLock`]. Every handle that writes to the
    /// region must use it; a read-only handle needs none. All handles that these options make share
    /// the value.
    pub fn lock(mut self, lock: impl RawLock) -> Self {
        self.segment.lock = Some(CustomLock(Arc::new(lock)));
        self
    }

    /// Creates an empty region. Nothing of that name may exist yet.
    ///
    /// # Errors
    ///
    /// Those of [`MappingOptions::create_new`](crate::MappingOptions::create_new);
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) without a
    /// [`capacity`](Self::capacity).
    pub fn create_new(&self, source: impl Into<Source>) -> Result<Region> {
        Ok(self.region(self.segment.create_new(&source.into(), 0)?))
    }

    /// Opens a region that exists.
    ///
    /// # Errors
    ///
    /// Those of [`MappingOptions::open`](crate::MappingOptions::open);
    /// [`ErrorKind::NotASegment`](crate::ErrorKind::NotASegment) for an object that is foreign,
    /// damaged or of another format;
    /// [`ErrorKind::Mismatch`](crate::ErrorKind::Mismatch) for another kind of
    /// segment, another lock, a smaller capacity, or a larger one than
    /// [`max_capacity`](Self::max_capacity).
    pub fn open(&self, source: impl Into<Source>) -> Result<Region> {
        Ok(self.region(self.segment.open(&source.into())?))
    }

    /// Opens a region that exists, or creates it. If several processes do so at once, one of them
    /// creates it, and all get the same region.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open) and [`create_new`](Self::create_new).
    pub fn open_or_create(&self, source: impl Into<Source>) -> Result<Region> {
        Ok(self.region(self.segment.open_or_create(&source.into(), 0)?))
    }

    fn region(&self, segment: Segment) -> Region {
        Region { segment, timeout: self.segment.timeout }
    }
}
