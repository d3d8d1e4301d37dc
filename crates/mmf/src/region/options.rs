//! [`RegionOptions`].

use std::sync::Arc;
use std::time::Duration;

use super::Region;
use super::change::Segment;
use crate::error::Result;
use crate::lock::RawLock;
use crate::name::Source;
use crate::segment::{CustomLock, SegmentOptions};
use crate::types::{Access, Permissions};

/// How a [`Region`] is created or opened.
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
    /// Read-write, for this user alone, locks waited for 10 seconds.
    pub fn new() -> Self {
        RegionOptions { segment: SegmentOptions::new() }
    }

    /// Bytes that the contents of a created region may grow to. They cost address space only until they are used.
    /// Of a region that exists it is the least.
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.segment.capacity = bytes;
        self
    }

    /// Refuses a region that exists and has a larger capacity; any is opened unless said.
    ///
    /// The capacity bounds what this handle maps, reserves and returns, however long a peer makes
    /// the object. It stands in the object, so the process that made the object chose it: where
    /// that process is not trusted, say here how much may be mapped, and copied by one call.
    ///
    /// # Examples
    ///
    /// ```
    /// use mmf::{ErrorKind, Name, Region};
    ///
    /// let name = Name::local(format!("bounded-{}", std::process::id()))?;
    /// let _made = Region::create_new(&name, 1 << 20)?;
    /// let refused = Region::options().max_capacity(4096).open(&name).map(drop).unwrap_err();
    /// assert!(matches!(refused.kind(), ErrorKind::Mismatch { .. }));
    /// # Ok::<(), mmf::Error>(())
    /// ```
    pub fn max_capacity(mut self, bytes: u64) -> Self {
        self.segment.max_capacity = Some(bytes);
        self
    }

    /// [`Access::ReadWrite`] unless said. A read-only handle takes no lock and no place among the participants.
    pub fn access(mut self, access: Access) -> Self {
        self.segment.mapping = self.segment.mapping.access(access);
        self
    }

    /// Who may open a region that is created.
    pub fn permissions(mut self, permissions: Permissions) -> Self {
        self.segment.permissions = Some(permissions);
        self
    }

    /// Whether a region of another user may be opened, as
    /// [`MappingOptions::allow_other_owners`](crate::MappingOptions::allow_other_owners).
    pub fn allow_other_owners(mut self, allow: bool) -> Self {
        self.segment.mapping = self.segment.mapping.allow_other_owners(allow);
        self
    }

    /// How long this handle waits for locks; `None` is for ever.
    pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.segment.timeout = timeout;
        self
    }

    /// Uses a lock of one's own in place of mmf's, see [`RawLock`]. Whoever else writes to the region must do so too; who
    /// only reads needs none. All handles that these options make share the value.
    pub fn lock(mut self, lock: impl RawLock) -> Self {
        self.segment.lock = Some(CustomLock(Arc::new(lock)));
        self
    }

    /// Creates a region that does not exist yet, empty.
    ///
    /// # Errors
    ///
    /// As [`MappingOptions::create_new`](crate::MappingOptions::create_new);
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) without a [`capacity`](Self::capacity).
    pub fn create_new(&self, source: impl Into<Source>) -> Result<Region> {
        Ok(self.region(self.segment.create_new(&source.into(), 0)?))
    }

    /// Opens a region that exists.
    ///
    /// # Errors
    ///
    /// As [`MappingOptions::open`](crate::MappingOptions::open);
    /// [`ErrorKind::NotASegment`](crate::ErrorKind::NotASegment) for what is foreign, damaged or of another format;
    /// [`ErrorKind::Mismatch`](crate::ErrorKind::Mismatch) for another kind of segment, another
    /// lock, a smaller capacity, or a larger one than [`max_capacity`](Self::max_capacity).
    pub fn open(&self, source: impl Into<Source>) -> Result<Region> {
        Ok(self.region(self.segment.open(&source.into())?))
    }

    /// Opens a region that exists, or creates it. However many processes do so at once, one creates it.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`create_new`](Self::create_new).
    pub fn open_or_create(&self, source: impl Into<Source>) -> Result<Region> {
        Ok(self.region(self.segment.open_or_create(&source.into(), 0)?))
    }

    fn region(&self, segment: Segment) -> Region {
        Region { segment, timeout: self.segment.timeout }
    }
}
