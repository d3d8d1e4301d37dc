//! How a segment of any kind is created or opened.

use std::time::Duration;

use super::layout::{Header, PAYLOAD};
use super::{Container, CustomLock, Segment};
use crate::error::{Error, ErrorKind, Result};
use crate::mapping::{Mapping, MappingOptions};
use crate::name::Source;
use crate::sys;
use crate::types::{Access, Permissions, Spec};

/// What the options of every kind of segment have in common.
#[derive(Clone, Debug)]
pub(crate) struct SegmentOptions {
    /// Bytes of payload that it may grow to.
    pub(crate) capacity: u64,
    /// Of a segment that exists, more capacity than this is refused.
    pub(crate) max_capacity: Option<u64>,
    pub(crate) mapping: MappingOptions,
    pub(crate) permissions: Option<Permissions>,
    /// A lock of the user's own.
    pub(crate) lock: Option<CustomLock>,
    /// For how long locks are waited for.
    pub(crate) timeout: Option<Duration>,
}

impl SegmentOptions {
    /// Without a capacity, for this user alone, locks waited for 10 seconds.
    pub(crate) fn new() -> Self {
        SegmentOptions {
            capacity: 0,
            max_capacity: None,
            mapping: Mapping::options(),
            permissions: None,
            lock: None,
            timeout: Some(Duration::from_secs(10)),
        }
    }

    /// Creates a segment that does not exist yet, with `size` bytes of payload.
    pub(crate) fn create_new<C: Container>(&self, source: &Source, size: u64) -> Result<Segment<C>> {
        let create = || {
            if self.capacity == 0 {
                let error = Error::invalid("create", "it needs a capacity");
                return Err(error.with_help("give one with `capacity`"));
            }
            if let Some(most) = self.max_capacity.filter(|most| *most < self.capacity) {
                let reason =
                    format!("its capacity of {} bytes passes the `max_capacity` of {most} bytes", self.capacity);
                return Err(Error::invalid("create", reason).with_help("raise `max_capacity`"));
            }
            if self.mapping.asked_access() != Access::ReadWrite {
                return Err(Error::invalid("create", "what is created is for reading and writing"));
            }
            let (bytes, size, capacity) =
                Segment::<C>::initial_bytes(Some(source), self.lock.as_ref(), size, self.capacity)?;
            let map = self.mapping().size(size).reserve(capacity).first_bytes(bytes).create_new(source)?;
            Segment::from_mapping(map, self.lock.clone(), self.timeout)
        };
        create().map_err(|error| error.on(source))
    }

    /// Opens a segment that exists.
    pub(crate) fn open<C: Container>(&self, source: &Source) -> Result<Segment<C>> {
        self.try_open(source, sys::Object::open).map_err(|error| error.on(source))
    }

    /// Opens a segment that exists, or creates it. However many processes do so at once, one creates it.
    pub(crate) fn open_or_create<C: Container>(&self, source: &Source, size: u64) -> Result<Segment<C>> {
        let mut lost = None;
        // Each further round means that somebody else created and then removed it in between.
        for _ in 0..1000 {
            match self.try_open(source, sys::Object::find).map_err(|error| error.on(source)) {
                Err(error) if *error.kind() == ErrorKind::NotFound => {}
                result => return result,
            }
            match self.create_new(source, size) {
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

    /// The header is read and checked before the object is mapped, whose length a peer may have
    /// chosen.
    fn try_open<C: Container>(
        &self,
        source: &Source,
        open: fn(&Source, &Spec) -> Result<sys::Object>,
    ) -> Result<Segment<C>> {
        let access = self.mapping.asked_access();
        let (map, header) = self.mapping().open_examined(source, open, |object, len| {
            let header = Segment::<C>::examine(object, len, access)?;
            header.iter().try_for_each(|header| self.check_capacity(header))?;
            Ok(header)
        })?;
        match header {
            Some(header) => Segment::with_header(map, header, self.lock.clone(), self.timeout),
            None => {
                let segment = Segment::from_mapping(map, self.lock.clone(), self.timeout)?;
                self.check_capacity(&segment.header)?;
                Ok(segment)
            }
        }
    }

    fn check_capacity(&self, header: &Header) -> Result<()> {
        let capacity = header.capacity - PAYLOAD as u64;
        let failure = |wanted: String| Err(Error::mismatch("its capacity", wanted, format!("{capacity} bytes")));
        if capacity < self.capacity {
            return failure(format!("{} bytes at least", self.capacity));
        }
        match self.max_capacity {
            Some(most) if capacity > most => failure(format!("{most} bytes at most"))
                .map_err(|error| error.with_help("raise `max_capacity` if that much may be mapped and copied")),
            _ => Ok(()),
        }
    }
}
