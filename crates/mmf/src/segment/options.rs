//! How a segment of any kind is created or opened.

use std::time::Duration;

use super::layout::{Kind, PAYLOAD};
use super::{OwnLock, Segment};
use crate::error::{Error, ErrorKind, Result};
use crate::mapping::{Mapping, MappingOptions};
use crate::name::Source;
use crate::spec::{Access, Permissions};

/// What the options of every kind of segment have in common.
#[derive(Clone, Debug)]
pub(crate) struct SegmentOptions {
    /// Bytes of payload that it may grow to.
    pub(crate) capacity: u64,
    pub(crate) mapping: MappingOptions,
    pub(crate) permissions: Option<Permissions>,
    /// A lock of the user's own.
    pub(crate) lock: Option<OwnLock>,
    /// For how long locks are waited for.
    pub(crate) timeout: Option<Duration>,
}

impl SegmentOptions {
    /// Without a capacity, for this user alone, locks waited for 10 seconds.
    pub(crate) fn new() -> Self {
        SegmentOptions {
            capacity: 0,
            mapping: Mapping::options(),
            permissions: None,
            lock: None,
            timeout: Some(Duration::from_secs(10)),
        }
    }

    /// Creates a segment that does not exist yet, with `size` bytes of payload.
    pub(crate) fn create_new(&self, source: &Source, kind: Kind, size: u64) -> Result<Segment> {
        let create = || {
            if self.capacity == 0 {
                let error = Error::invalid("create", "it needs a capacity");
                return Err(error.with_help("give one with `capacity`"));
            }
            if self.mapping.asked_access() != Access::ReadWrite {
                return Err(Error::invalid("create", "what is created is for reading and writing"));
            }
            let (bytes, size, capacity) = Segment::birth(Some(source), kind, self.lock.as_ref(), size, self.capacity)?;
            let map = self.mapping().size(size).reserve(capacity).first_bytes(bytes).create_new(source)?;
            self.adopt(map, kind)
        };
        create().map_err(|error| error.on(source))
    }

    /// Opens a segment that exists.
    pub(crate) fn open(&self, source: &Source, kind: Kind) -> Result<Segment> {
        self.mapping().open(source).and_then(|map| self.adopt(map, kind)).map_err(|error| error.on(source))
    }

    /// Opens a segment that exists, or creates it. However many processes do so at once, one creates it.
    pub(crate) fn open_or_create(&self, source: &Source, kind: Kind, size: u64) -> Result<Segment> {
        let mut lost = None;
        // Each further round means that somebody else created and then removed it in between.
        for _ in 0..1000 {
            let found = self.mapping().find(source).and_then(|map| self.adopt(map, kind));
            match found.map_err(|error| error.on(source)) {
                Err(error) if *error.kind() == ErrorKind::NotFound => {}
                result => return result,
            }
            match self.create_new(source, kind, size) {
                Err(error) if *error.kind() == ErrorKind::AlreadyExists => lost = Some(error),
                result => return result,
            }
        }
        Err(lost.unwrap_or_else(|| Error::new(ErrorKind::Busy, "open").on(source)))
    }

    fn mapping(&self) -> MappingOptions {
        match &self.permissions {
            Some(permissions) => self.mapping.clone().permissions(permissions.clone()),
            None => self.mapping.clone(),
        }
    }

    fn adopt(&self, map: Mapping, kind: Kind) -> Result<Segment> {
        let segment = Segment::adopt(map, kind, self.lock.clone(), self.timeout)?;
        let capacity = segment.header.capacity - PAYLOAD as u64;
        if capacity < self.capacity {
            let wanted = format!("{} bytes at least", self.capacity);
            return Err(Error::mismatch("its capacity", wanted, format!("{capacity} bytes")));
        }
        Ok(segment)
    }
}
