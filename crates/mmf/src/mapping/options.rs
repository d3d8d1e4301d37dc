//! [`MappingOptions`]: options for creating or opening a mapping.

use std::ops::{Bound, RangeBounds};
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicUsize};

use super::{Growth, Mapping, Permissions};
use crate::error::{Error, ErrorKind, Result};
use crate::name::{Scope, Source};
use crate::sys::{self, Object, View, ViewRequest};
use crate::types::{Access, FaultPolicy, LargePages, Spec};

/// Options for creating or opening a [`Mapping`].
///
/// For an object that exists, the options are demands. If it does not meet one, the call returns
/// [`ErrorKind::Mismatch`] with both values.
///
/// # Examples
///
/// ```
/// use mmf::{Access, Mapping, Name, Permissions};
///
/// let name = Name::local(format!("options-{}", std::process::id()))?;
/// let map = Mapping::options().size(4096).reserve(1 << 30).permissions(Permissions::User).open_or_create(&name)?;
/// let view = Mapping::options().access(Access::ReadOnly).part(1000..2000).open(&name)?;
/// assert_eq!(view.len(), 1000);
/// # Ok::<(), mmf::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct MappingOptions {
    spec: Spec,
    policy: FaultPolicy,
    prefault: bool,
    base_address: Option<usize>,
    part: Option<(u64, Option<u64>)>,
}

impl MappingOptions {
    /// Returns the defaults: read-write access, the object's length, ordinary pages, permissions
    /// for this user alone.
    pub fn new() -> Self {
        MappingOptions::default()
    }

    /// Sets how the mapping may access the bytes. The default is [`Access::ReadWrite`].
    pub fn access(mut self, access: Access) -> Self {
        self.spec.access = access;
        self
    }

    /// Sets the length of a created object in bytes. They are zero, and their memory or disk space
    /// is allocated. An object that exists must have at least this length.
    pub fn size(mut self, bytes: u64) -> Self {
        self.spec.size = Some(bytes);
        self
    }

    /// Sets the number of bytes that memory may [grow](Mapping::grow) to. Until then they cost only
    /// address space.
    pub fn reserve(mut self, bytes: u64) -> Self {
        self.spec.reserve = Some(bytes);
        self
    }

    /// Sets which users may open a created object. The default is [`Permissions::User`].
    pub fn permissions(mut self, permissions: Permissions) -> Self {
        self.spec.permissions = Some(permissions);
        self
    }

    /// Sets whether the object consists of large pages. The default is [`LargePages::Never`]. With
    /// [`LargePages::Require`], sizes are rounded up to whole large pages.
    pub fn large_pages(mut self, large_pages: LargePages) -> Self {
        self.spec.large_pages = large_pages;
        self
    }

    /// Sets whether all pages are loaded before the mapping is returned, so that the first access
    /// to each is as fast as the next.
    pub fn prefault(mut self, prefault: bool) -> Self {
        self.prefault = prefault;
        self
    }

    /// Sets whether child processes inherit the [handle](Mapping::handle).
    pub fn inheritable(mut self, inheritable: bool) -> Self {
        self.spec.inheritable = inheritable;
        self
    }

    /// Sets the address of the first byte. If it is not available, the call fails.
    pub fn base_address(mut self, address: usize) -> Self {
        self.base_address = Some(address);
        self
    }

    /// Sets whether an object of another user may be opened. By default named memory must belong to
    /// this user or to the system (root; SYSTEM and Administrators), so that another user cannot
    /// substitute an object. For files it applies only to [`open_or_create`](Self::open_or_create).
    ///
    /// On Unix it also allows global names if the directory of all users (`/dev/shm`) lacks the
    /// sticky bit, so that other users can rename its files.
    pub fn allow_other_owners(mut self, allow: bool) -> Self {
        self.spec.allow_other_owners = allow;
        self
    }

    /// Sets how the mapping survives a page that is gone. The default is [`FaultPolicy::Trap`].
    pub fn fault_policy(mut self, policy: FaultPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Maps only a part of the object: any range of bytes, beyond 4 GiB as well. A part does not
    /// grow.
    pub fn part(mut self, range: impl RangeBounds<u64>) -> Self {
        let from = match range.start_bound() {
            Bound::Included(&from) => from,
            Bound::Excluded(&from) => from.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(&to) => Some(to.saturating_add(1)),
            Bound::Excluded(&to) => Some(to),
            Bound::Unbounded => None,
        };
        self.part = Some((from, to));
        self
    }

    /// Sets the first bytes of a created object. They are written before any process can open it.
    pub(crate) fn first_bytes(mut self, bytes: Vec<u8>) -> Self {
        self.spec.first_bytes = bytes;
        self
    }

    pub(crate) fn asked_access(&self) -> Access {
        self.spec.access
    }

    /// Creates an object that does not exist yet and maps it. No process ever sees it with less
    /// than its full size.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AlreadyExists`]; [`ErrorKind::InvalidInput`] for memory without a
    /// [`size`](Self::size) or [`reserve`](Self::reserve), and for options that contradict each
    /// other; [`ErrorKind::NoSpace`]; [`ErrorKind::PermissionDenied`]; [`ErrorKind::ForeignOwner`]
    /// if a dead object of another user cannot be removed; [`ErrorKind::Busy`] if a process that
    /// creates or removes an object of that name does not finish; [`ErrorKind::Unsupported`] for
    /// options that this system does not have.
    pub fn create_new(&self, source: impl Into<Source>) -> Result<Mapping> {
        let source = source.into();
        self.check_creation(Some(&source))
            .and_then(|()| self.rehearse(matches!(source, Source::File(_))))
            .and_then(|()| Object::create(&source, &self.spec))
            .and_then(|object| self.map(object, Some(source.clone())))
            .map_err(|error| error.on(&source))
    }

    /// Opens an object that exists and maps it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Mismatch`] if it does not meet the options;
    /// [`ErrorKind::PermissionDenied`]; [`ErrorKind::ForeignOwner`]; [`ErrorKind::HardLinked`] for
    /// memory that has a second name, which another user may have given it;
    /// [`ErrorKind::InvalidInput`]; [`ErrorKind::Busy`] if a process that creates or removes it
    /// does not finish; [`ErrorKind::Unsupported`] for a directory or a device.
    pub fn open(&self, source: impl Into<Source>) -> Result<Mapping> {
        let source = source.into();
        self.check()
            .and_then(|()| Object::open(&source, &self.spec))
            .and_then(|object| self.map(object, Some(source.clone())))
            .map_err(|error| error.on(&source))
    }

    /// Opens an object with `open`: [`Object::open`], or [`Object::find`] for a caller that creates
    /// a missing object. `examine` gets the object and its length before any of it is mapped.
    pub(crate) fn open_examined<T>(
        &self,
        source: &Source,
        open: fn(&Source, &Spec) -> Result<Object>,
        examine: impl FnOnce(&Object, u64) -> Result<T>,
    ) -> Result<(Mapping, T)> {
        self.check()?;
        let object = open(source, &self.spec)?;
        let len = known_or_asked_len(&object)?;
        let found = examine(&object, len)?;
        Ok((self.map_len(object, Some(source.clone()), len)?, found))
    }

    /// Opens the object, or creates it if there is none. If several processes do so at once, one of
    /// them creates it, and all get the same object.
    ///
    /// A caller that expects to create a file must not get another user's. So on Unix additional
    /// conditions hold in a directory that every user may write to, or that is sticky and that a
    /// group may write to (`/tmp`):
    ///
    /// - The file must belong to this user, to root or to the owner of the directory.
    /// - It must have no hard links.
    /// - A symbolic link there must belong to one of these users.
    ///
    /// Elsewhere, and with [`allow_other_owners`](Self::allow_other_owners), only the permissions
    /// of the file system decide, as in [`open`](Self::open).
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open) and [`create_new`](Self::create_new);
    /// [`ErrorKind::ForeignOwner`] and [`ErrorKind::HardLinked`] for files under these conditions.
    pub fn open_or_create(&self, source: impl Into<Source>) -> Result<Mapping> {
        let source = source.into();
        self.check_creation(Some(&source))
            .and_then(|()| self.find_or_create(&source))
            .and_then(|object| self.map(object, Some(source.clone())))
            .map_err(|error| error.on(&source))
    }

    fn find_or_create(&self, source: &Source) -> Result<Object> {
        open_or_create(
            || Object::find(source, &self.spec),
            || {
                self.rehearse(matches!(source, Source::File(_)))?;
                Object::create(source, &self.spec)
            },
        )
    }

    /// Creates memory that has no name.
    ///
    /// # Errors
    ///
    /// Those of [`create_new`](Self::create_new).
    pub fn anonymous(&self) -> Result<Mapping> {
        self.check_creation(None)
            .and_then(|()| Object::anonymous(&self.spec))
            .and_then(|object| self.map(object, None))
            .map_err(|error| error.on("anonymous memory"))
    }

    /// Maps the object of a handle that another process passed on: a file descriptor of memory or
    /// of a file, on Windows the handle of a section.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    ///
    /// # Examples
    ///
    /// ```
    /// use mmf::Mapping;
    ///
    /// let ours = Mapping::anonymous(4096)?;
    /// let passed_on = ours.handle().try_clone_to_owned()?;
    /// let theirs = Mapping::options().from_handle(passed_on)?;
    /// ours.write_at(0, b"by hand")?;
    /// assert_eq!(theirs.read_to_vec(0, 7)?, b"by hand");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[allow(clippy::wrong_self_convention)] // it opens from one, it does not convert one
    pub fn from_handle(&self, handle: sys::OwnedHandle) -> Result<Mapping> {
        self.check()
            .and_then(|()| Object::from_handle(handle, &self.spec))
            .and_then(|object| self.map(object, None))
            .map_err(|error| error.on("the memory passed on"))
    }

    fn check(&self) -> Result<()> {
        if let Some((from, Some(to))) = self.part.filter(|(from, to)| to.is_some_and(|to| to < *from)) {
            return Err(Error::invalid("open", format!("the part ends at {to}, before it begins at {from}")));
        }
        if let (Some(size), Some(reserve)) = (self.spec.size, self.spec.reserve) {
            if reserve < size {
                return Err(Error::invalid(
                    "open",
                    format!("the reserve of {reserve} is less than the size of {size}"),
                ));
            }
        }
        // This comes before the creation of an object, which a failure would leave behind.
        match self.policy {
            FaultPolicy::Trap => sys::guard::arm(),
            FaultPolicy::SystemCalls => sys::guard::probe_system_calls(),
            FaultPolicy::Unguarded => Ok(()),
        }
    }

    fn check_creation(&self, source: Option<&Source>) -> Result<()> {
        self.check()?;
        let spec = &self.spec;
        if let Some(Source::File(_)) = source {
            return Ok(());
        }
        if spec.size.unwrap_or(0) == 0 && spec.reserve.unwrap_or(0) == 0 {
            return Err(Error::invalid("create", "memory needs a size").with_help("give one with `size`"));
        }
        if let Some(Source::Named(name)) = source {
            if name.scope() == Scope::Local && spec.permissions == Some(Permissions::Everyone) {
                let reason = "a local name is this user's own, so not everyone can open it";
                return Err(Error::invalid("create", reason).with_help("give it a global name"));
            }
        }
        Ok(())
    }

    /// Maps a view of memory without a name, like that of the object to be created, to test whether
    /// the system can. A failure after the object has its name would leave it behind.
    fn rehearse(&self, is_file: bool) -> Result<()> {
        let large = self.spec.reserve.is_some_and(|reserve| reserve >= MIN_TRIED_RESERVE);
        if self.part.is_none() && self.base_address.is_none() && !large {
            return Ok(());
        }
        let request = self.geometry(self.spec.size.unwrap_or(0), None, is_file)?.request;
        // The view has the same offset within the system's allocation granule.
        let request = ViewRequest { offset: request.offset % GRANULE, large_pages: LargePages::Never, ..request };
        let reserve = Some((request.address_len as u64).saturating_add(GRANULE));
        let stand_in = Object::anonymous(&Spec { access: self.spec.access, reserve, ..Spec::default() })?;
        match View::map(&stand_in, &request) {
            Err(error) if *error.kind() == ErrorKind::NoSpace => Err(error
                .with_help("this process has no room for so many bytes at its addresses; ask for less, or map a part")),
            tried => tried.map(drop),
        }
    }

    /// Returns the place of the view of an object of this size, and the limit of its growth.
    fn geometry(&self, size: u64, max_len: Option<u64>, is_file: bool) -> Result<ViewGeometry> {
        let (offset, len, growth) = match self.part {
            Some((from, to)) => {
                let to = to.unwrap_or(size.max(from));
                if to > size {
                    let wanted = format!("{to} bytes at least");
                    return Err(Error::mismatch("its size", wanted, format!("{size} bytes")));
                }
                (from, to - from, Growth::Fixed)
            }
            None if is_file => (0, size, Growth::Unlimited),
            None => {
                let most = self.spec.reserve.unwrap_or(size).min(max_len.unwrap_or(u64::MAX));
                (0, size, Growth::UpTo(address_space(most)?))
            }
        };
        let len = address_space(len)?;
        let reserve = match growth {
            Growth::Fixed => 0,
            Growth::UpTo(_) | Growth::Unlimited => address_space(self.spec.reserve.unwrap_or(0))?,
        };
        let request = ViewRequest {
            offset,
            address_len: reserve.max(len),
            access: self.spec.access,
            large_pages: self.spec.large_pages,
            base_address: self.base_address,
        };
        Ok(ViewGeometry { len, growth, request })
    }

    fn map(&self, object: Object, source: Option<Source>) -> Result<Mapping> {
        let len = known_or_asked_len(&object)?;
        self.map_len(object, source, len)
    }

    /// Maps an object of `len` bytes.
    fn map_len(&self, object: Object, source: Option<Source>, len: u64) -> Result<Mapping> {
        let is_file = matches!(source, Some(Source::File(_)));
        let ViewGeometry { len, growth, request } = self.geometry(len, object.max_len(), is_file)?;
        let view = View::map(&object, &request)?;
        if self.prefault {
            view.prefault(len)?;
        }
        Ok(Mapping {
            base: AtomicPtr::new(view.base()),
            len: AtomicUsize::new(len.min(view.address_len())),
            access: self.spec.access,
            policy: self.policy,
            source,
            growth,
            limit: usize::MAX,
            structured: false,
            request,
            syncs: super::SyncState::new(),
            views: Mutex::new(vec![view]),
            object,
        })
    }
}

/// The number of times that an object may disappear and appear again while [`open_or_create`]
/// tries.
const MAX_ROUNDS: u32 = 1000;

/// Tries to open the object, and to create it if it is absent, until one of them succeeds or fails
/// with another error. Each further round means that another process has created and removed the
/// object between the two calls.
pub(crate) fn open_or_create<T>(open: impl Fn() -> Result<T>, create: impl Fn() -> Result<T>) -> Result<T> {
    let mut lost = None;
    for _ in 0..MAX_ROUNDS {
        match open() {
            Err(error) if *error.kind() == ErrorKind::NotFound => {}
            opened => return opened,
        }
        match create() {
            Err(error) if *error.kind() == ErrorKind::AlreadyExists => lost = Some(error),
            created => return created,
        }
        std::thread::yield_now();
    }
    Err(lost.unwrap_or_else(|| Error::new(ErrorKind::Busy, "open")))
}

/// The allocation granule: on every supported system a view may begin at a multiple of it.
const GRANULE: u64 = 64 << 10;
/// The smallest reserve that is tried before an object is created with it. A smaller one fails only
/// if every mapping fails.
const MIN_TRIED_RESERVE: u64 = 1 << 30;

struct ViewGeometry {
    len: usize,
    growth: Growth,
    request: ViewRequest,
}

/// Returns the known length, or asks the system if it is not known.
pub(super) fn known_or_asked_len(object: &Object) -> Result<u64> {
    match object.known_len() {
        0 => object.len(),
        known => Ok(known),
    }
}

/// Converts a length, or returns an error if this process cannot address it.
pub(super) fn address_space(bytes: u64) -> Result<usize> {
    usize::try_from(bytes).ok().filter(|bytes| *bytes <= isize::MAX as usize).ok_or_else(|| {
        let reason = format!("{bytes} bytes are more than this process can address");
        Error::invalid("map", reason).with_help("map a part of it")
    })
}
