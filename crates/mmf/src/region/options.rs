//! [`RegionOptions`].

use std::sync::Arc;
use std::time::Duration;

use super::Region;
use crate::error::{Error, ErrorKind, Result};
use crate::lock::RawLock;
use crate::mapping::{Mapping, MappingOptions};
use crate::name::Source;
use crate::segment::layout::Kind;
use crate::segment::{OwnLock, Segment};
use crate::spec::{Access, Permissions};

/// How a [`Region`] is created or opened.
#[derive(Clone, Debug)]
#[must_use]
pub struct RegionOptions {
    capacity: u64,
    mapping: MappingOptions,
    permissions: Option<Permissions>,
    timeout: Option<Duration>,
    lock: Option<OwnLock>,
}

impl Default for RegionOptions {
    fn default() -> Self {
        RegionOptions::new()
    }
}

impl RegionOptions {
    /// Read-write, for this user alone, locks waited for 10 seconds.
    pub fn new() -> Self {
        RegionOptions {
            capacity: 0,
            mapping: Mapping::options(),
            permissions: None,
            timeout: Some(Region::DEFAULT_TIMEOUT),
            lock: None,
        }
    }

    /// Bytes that the contents of a created region may grow to. They cost address space only until they are used.
    /// Of a region that exists it is the least.
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = bytes;
        self
    }

    /// [`Access::ReadWrite`] unless said. A read-only handle takes no lock and no place among the participants.
    pub fn access(mut self, access: Access) -> Self {
        self.mapping = self.mapping.access(access);
        self
    }

    /// Who may open a region that is created.
    pub fn permissions(mut self, permissions: Permissions) -> Self {
        self.permissions = Some(permissions);
        self
    }

    /// Whether a region of another user may be opened, as [`MappingOptions::allow_other_owners`].
    pub fn allow_other_owners(mut self, allow: bool) -> Self {
        self.mapping = self.mapping.allow_other_owners(allow);
        self
    }

    /// How long this handle waits for locks; `None` is for ever.
    pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// Uses a lock of one's own in place of mmf's, see [`RawLock`]. Whoever else writes to the region must do so too; who only reads needs none.
    /// All handles that these options make share the value.
    pub fn lock(mut self, lock: impl RawLock) -> Self {
        self.lock = Some(OwnLock(Arc::new(lock)));
        self
    }

    /// Creates a region that does not exist yet, empty.
    ///
    /// # Errors
    ///
    /// As [`MappingOptions::create_new`]; [`ErrorKind::InvalidInput`] without a [`capacity`](Self::capacity).
    pub fn create_new(&self, source: impl Into<Source>) -> Result<Region> {
        let source = source.into();
        self.creation(&source)?.create_new(&source).and_then(|map| self.region(map)).map_err(|error| error.on(&source))
    }

    /// Opens a region that exists.
    ///
    /// # Errors
    ///
    /// As [`MappingOptions::open`]; [`ErrorKind::NotASegment`] for what is foreign, damaged or of another format;
    /// [`ErrorKind::Mismatch`] for another kind of segment, another lock or a smaller capacity.
    pub fn open(&self, source: impl Into<Source>) -> Result<Region> {
        let source = source.into();
        self.opening().open(&source).and_then(|map| self.region(map)).map_err(|error| error.on(&source))
    }

    /// Opens a region that exists, or creates it. However many processes do so at once, one creates it.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`create_new`](Self::create_new).
    pub fn open_or_create(&self, source: impl Into<Source>) -> Result<Region> {
        let source = source.into();
        let mut lost = None;
        // Each further round means that somebody else created and then removed it in between.
        for _ in 0..1000 {
            match self.open(&source) {
                Err(error) if *error.kind() == ErrorKind::NotFound => {}
                result => return result,
            }
            match self.create_new(&source) {
                Err(error) if *error.kind() == ErrorKind::AlreadyExists => lost = Some(error),
                result => return result,
            }
        }
        Err(lost.unwrap_or_else(|| Error::new(ErrorKind::Busy, "open").on(&source)))
    }

    fn opening(&self) -> MappingOptions {
        match &self.permissions {
            Some(permissions) => self.mapping.clone().permissions(permissions.clone()),
            None => self.mapping.clone(),
        }
    }

    fn creation(&self, source: &Source) -> Result<MappingOptions> {
        if self.capacity == 0 {
            let error = Error::invalid("create", "a region needs a capacity").with_help("give one with `capacity`");
            return Err(error.on(source));
        }
        if self.mapping.asked_access() != Access::ReadWrite {
            return Err(Error::invalid("create", "a region is created for reading and writing").on(source));
        }
        let (bytes, size, capacity) = Segment::birth(Some(source), Kind::REGION, self.lock.as_ref(), 0, self.capacity)
            .map_err(|error| error.on(source))?;
        Ok(self.opening().size(size).reserve(capacity).first_bytes(bytes))
    }

    fn region(&self, map: Mapping) -> Result<Region> {
        let segment = Segment::adopt(map, Kind::REGION, self.lock.clone())?;
        let region = Region { segment, timeout: self.timeout };
        if region.capacity() < self.capacity {
            let wanted = format!("{} bytes at least", self.capacity);
            return Err(Error::mismatch("its capacity", wanted, format!("{} bytes", region.capacity())));
        }
        Ok(region)
    }
}
