//! How a segment of any kind is created or opened, and the setters that the options of all
//! containers have.

use std::time::Duration;

use super::layout::{Header, PAYLOAD};
use super::{Container, CustomLock, Segment};
use crate::error::{Error, Result};
use crate::mapping::{Mapping, MappingOptions, open_or_create};
use crate::name::Source;
use crate::sys;
use crate::types::{Access, Spec};

/// How long a lock is waited for unless the options or the call say otherwise.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// What the options of every kind of segment have in common.
#[derive(Clone, Debug)]
pub(crate) struct SegmentOptions {
    /// Bytes of payload that it may grow to.
    pub(crate) capacity: u64,
    /// Of a segment that exists, more capacity than this is refused.
    pub(crate) max_capacity: Option<u64>,
    pub(crate) mapping: MappingOptions,
    /// A lock of the user's own.
    pub(crate) lock: Option<CustomLock>,
    /// For how long locks are waited for.
    pub(crate) timeout: Option<Duration>,
}

impl SegmentOptions {
    /// Without a capacity, for this user alone, with the default timeout.
    pub(crate) fn new() -> Self {
        SegmentOptions {
            capacity: 0,
            max_capacity: None,
            mapping: Mapping::options(),
            lock: None,
            timeout: Some(DEFAULT_TIMEOUT),
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
                return Err(Error::invalid("create", "an object that is created is opened for reading and writing"));
            }
            let (bytes, size, capacity) =
                Segment::<C>::initial_bytes(Some(source), self.lock.as_ref(), size, self.capacity)?;
            let map = self.mapping.clone().size(size).reserve(capacity).first_bytes(bytes).create_new(source)?;
            Segment::from_mapping(map, self.lock.clone(), self.timeout)
        };
        create().map_err(|error| error.on(source))
    }

    /// Opens a segment that exists.
    pub(crate) fn open<C: Container>(&self, source: &Source) -> Result<Segment<C>> {
        self.try_open(source, sys::Object::open).map_err(|error| error.on(source))
    }

    /// Opens a segment that exists, or creates it. However many processes do so at once, one
    /// creates it.
    pub(crate) fn open_or_create<C: Container>(&self, source: &Source, size: u64) -> Result<Segment<C>> {
        let open = || self.try_open(source, sys::Object::find).map_err(|error| error.on(source));
        open_or_create(open, || self.create_new(source, size)).map_err(|error| error.on(source))
    }

    /// The header is read and checked before the object is mapped, whose length a peer may have
    /// chosen.
    fn try_open<C: Container>(
        &self,
        source: &Source,
        open: fn(&Source, &Spec) -> Result<sys::Object>,
    ) -> Result<Segment<C>> {
        let access = self.mapping.asked_access();
        let (map, header) = self.mapping.open_examined(source, open, |object, len| {
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

/// Writes the setters that the options of all containers have, into the `impl` of a type whose
/// field `segment` is a [`SegmentOptions`].
///
/// `$type` is the container's type, `$noun` what its documentation calls it, `$example` the name of
/// an object in an example, `$least` the smallest capacity that it can have.
macro_rules! common_setters {
    ($type:literal, $noun:literal, $example:literal, $least:expr) => {
        #[doc = concat!("Refuses a ", $noun, " that exists and has a larger capacity. Unless set, any is opened.")]
        ///
        /// The capacity bounds what this handle maps, reserves and returns, however long a peer
        /// makes the object. It is stored in the object, so the process that created the object
        /// chose it. If that process is not trusted, this bounds how much is mapped, and copied by
        /// one call. A file may be sparse, so its use of the disk is no measure of that.
        ///
        /// # Examples
        ///
        /// ```
        #[doc = concat!("use mmf::{", $type, ", ErrorKind, Name};")]
        ///
        #[doc = concat!("let name = Name::local(format!(\"", $example, "-{}\", std::process::id()))?;")]
        #[doc = concat!("let _created = ", $type, "::create_new(&name, 16 << 20)?;")]
        #[doc = concat!("let refused = ", $type, "::options().max_capacity(1 << 20).open(&name).map(drop).unwrap_err();")]
        /// assert!(matches!(refused.kind(), ErrorKind::Mismatch { .. }));
        /// # Ok::<(), mmf::Error>(())
        /// ```
        pub fn max_capacity(mut self, bytes: u64) -> Self {
            self.segment.max_capacity = Some(bytes.max($least));
            self
        }

        /// Sets what the handle may do; [`Access::ReadWrite`] unless set. A read-only handle takes
        /// no lock and no place among the participants.
        pub fn access(mut self, access: Access) -> Self {
            self.segment.mapping = self.segment.mapping.access(access);
            self
        }

        #[doc = concat!("Sets which users may open a ", $noun, " that is created;")]
        /// [`Permissions::User`] unless set.
        pub fn permissions(mut self, permissions: Permissions) -> Self {
            self.segment.mapping = self.segment.mapping.permissions(permissions);
            self
        }

        #[doc = concat!("Sets whether a ", $noun, " of another user may be opened, as")]
        /// [`MappingOptions::allow_other_owners`](crate::MappingOptions::allow_other_owners) does.
        pub fn allow_other_owners(mut self, allow: bool) -> Self {
            self.segment.mapping = self.segment.mapping.allow_other_owners(allow);
            self
        }

        /// Sets how long this handle waits for a lock, and repeats a read that writers disturb; 10
        /// seconds unless set. `None` sets no limit.
        pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
            self.segment.timeout = timeout;
            self
        }
    };
}
pub(crate) use common_setters;
