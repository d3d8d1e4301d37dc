//! The map, and what is done with it.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mmf::{Access, ErrorKind, LargePages, Mapping, MappingOptions, Name, Region, Scope};

use crate::error::{Error, Result};
use crate::latch::{Exclusive, Latch};
use crate::marshal::{self, Tree};
use crate::sys::{self, Semaphore};
use crate::wait::Wait;

/// What is opened or made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where it is.
    pub place: Place,
    /// Bytes that it shall have; of named memory that exists, bytes of it that are used. 0: as many as there are.
    pub size: u64,
    /// Whether it must exist.
    pub existing: bool,
    /// What may be done with it.
    pub access: Access,
    /// Whether it is opened for reading where writing is not allowed.
    pub or_read_only: bool,
    /// Whether it is made of large pages.
    pub large_pages: LargePages,
    /// Whether child processes inherit its handle.
    pub inheritable: bool,
    /// Where its first byte shall be.
    pub base_address: Option<usize>,
}

/// Where a map is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In memory that has no name, for this process and the children that it forks.
    Nameless,
    /// In memory of that name.
    Named(String),
    /// In a file.
    File(PathBuf),
}

/// The first window on the hash, which is mostly short while maps can be long.
const WINDOW: usize = 1024;
/// The least that is set aside for undoing: address space, no memory.
const LEAST_UNDO: u64 = 1 << 20;
/// As much for a file, which can become longer.
const FILE_UNDO: u64 = if cfg!(target_pointer_width = "64") { 1 << 32 } else { 1 << 26 };

/// A map that is open. What is done with it waits for its lock, if it [has one](Store::with_lock) and a [`Wait`] is given.
pub struct Store {
    map: Arc<Mapping>,
    size: AtomicU64,
    place: Place,
    /// What the lock of a map without a name is called.
    nonce: Arc<str>,
    latch: Option<Latch>,
    /// The process that opened the lock.
    process: u32,
    /// Keeps the name alive in a child after its parent's end.
    _anchor: Option<Mapping>,
}

impl Store {
    /// Opens what the plan says, without a lock.
    ///
    /// # Errors
    ///
    /// What `mmf` says.
    pub fn open(plan: &Plan) -> Result<Store> {
        let map = match try_open(plan, plan.access) {
            Err(Error::Mmf(error)) if plan.or_read_only && is_forbidden(&error) => {
                // The first error tells more, where there is nothing to read either.
                try_open(plan, Access::ReadOnly).map_err(|_| error)?
            }
            result => result?,
        };
        let len = map.len() as u64;
        let size = match (&plan.place, plan.size) {
            (Place::File(_), _) | (_, 0) => len,
            (_, size) => size.min(len),
        };
        let place = match &plan.place {
            // One lock for one file, however it is spelt.
            Place::File(path) => Place::File(path.canonicalize().map_err(Error::System)?),
            place => place.clone(),
        };
        let nonce = format!("win32-mmap.{}.{:016x}", std::process::id(), RandomState::new().hash_one(0)).into();
        let process = std::process::id();
        Ok(Store { map: Arc::new(map), size: size.into(), place, nonce, latch: None, process, _anchor: None })
    }

    /// The same map with its lock: at first, and again in a forked child, which cannot use its parent's.
    ///
    /// # Errors
    ///
    /// What `mmf` says.
    pub fn with_lock(&self) -> Result<Store> {
        let process = std::process::id();
        let anchor = match &self.place {
            Place::Named(name) if process != self.process => {
                Mapping::options().access(Access::ReadOnly).open(sys::named(name)?).ok()
            }
            _ => None,
        };
        Ok(Store {
            map: Arc::clone(&self.map),
            size: self.size().into(),
            place: self.place.clone(),
            nonce: Arc::clone(&self.nonce),
            latch: Some(self.open_lock()?),
            process,
            _anchor: anchor,
        })
    }

    /// Whether [`with_lock`](Store::with_lock) was called, and by this process.
    #[must_use]
    pub fn has_lock(&self) -> bool {
        self.latch.is_some() && self.process == std::process::id()
    }

    fn open_lock(&self) -> Result<Latch> {
        let least = if matches!(self.place, Place::File(_)) { FILE_UNDO } else { LEAST_UNDO };
        let options = Region::options().capacity((self.map.len() as u64).max(least) + LEAST_UNDO);
        match &self.place {
            Place::Nameless => Ok(Latch::taking(options.open_or_create(Name::local(&*self.nonce)?)?, None)),
            Place::Named(name) => {
                let region = reopen(|| Region::open(beside(name)?), || options.create_new(beside(name)?))?;
                Ok(Latch::taking(region, Semaphore::open(name)?))
            }
            Place::File(path) => {
                let mut beside = path.clone().into_os_string();
                beside.push(".ruby_lock");
                let beside = Path::new(&beside);
                let options = match sys::rights_like(path) {
                    Some(rights) => options.permissions(rights),
                    None => options,
                };
                match reopen(|| Region::open(beside), || options.create_new(beside)) {
                    Err(error) if self.map.access() == Access::ReadOnly && is_forbidden(&error) => {
                        match Region::options().access(Access::ReadOnly).open(beside) {
                            Ok(region) => Ok(Latch::watching(region)),
                            Err(error) if *error.kind() == ErrorKind::NotFound => Ok(Latch::missing()),
                            Err(error) => Err(error.into()),
                        }
                    }
                    region => Ok(Latch::taking(region?, None)),
                }
            }
        }
    }

    /// How many bytes are used.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Uses that many bytes from now on.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`].
    pub fn set_size(&self, size: u64) -> Result<()> {
        let len = self.map.len() as u64;
        if size > len {
            return Err(Error::TooLong { end: size, size: len });
        }
        self.size.store(size, Ordering::Relaxed);
        Ok(())
    }

    /// What may be done with it.
    #[must_use]
    pub fn access(&self) -> Access {
        self.map.access()
    }

    /// Where its first byte is.
    #[must_use]
    pub fn address(&self) -> usize {
        self.map.as_ptr().addr()
    }

    /// The hash of attributes; `None` in a map that was never written.
    ///
    /// # Errors
    ///
    /// All of [`Error`]'s.
    pub fn attributes(&self, wait: Option<Wait<'_>>) -> Result<Option<Tree>> {
        self.read(wait, || self.hash())
    }

    /// Sets an attribute to a value that is one Marshal string. All others stay, whoever set them.
    ///
    /// # Errors
    ///
    /// All of [`Error`]'s; whichever it is, the old value stays.
    pub fn assign(&self, key: &str, value: &[u8], wait: Option<Wait<'_>>) -> Result<()> {
        let value = marshal::read(value.to_vec())?;
        let mut held = self.hold(wait)?;
        let hash = marshal::assign(self.hash()?.as_ref(), key.as_bytes(), &value)?;
        held.replace(&hash)
    }

    /// The first `len` bytes.
    ///
    /// # Errors
    ///
    /// All of [`Error`]'s.
    pub fn read_string(&self, len: u64, wait: Option<Wait<'_>>) -> Result<Vec<u8>> {
        let len = self.fits(len)?;
        self.read(wait, || Ok(self.map.read_to_vec(0, len)?))
    }

    /// Puts `bytes` at the start.
    ///
    /// # Errors
    ///
    /// All of [`Error`]'s; whichever it is, the old bytes stay.
    pub fn write_string(&self, bytes: &[u8], wait: Option<Wait<'_>>) -> Result<()> {
        self.fits(bytes.len() as u64)?;
        self.hold(wait)?.replace(bytes)
    }

    /// Writes the first `len` bytes, or all of them, to the file's disk.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`]; what the system says.
    pub fn flush(&self, len: u64) -> Result<()> {
        match self.fits(len)? {
            0 => Ok(self.map.sync(..)?),
            len => Ok(self.map.sync(..len)?),
        }
    }

    /// The lock for changing the map, where it has one.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`], [`Error::Cancelled`], [`Error::HalfWritten`]; what `mmf` says.
    pub fn hold(&self, wait: Option<Wait<'_>>) -> Result<Held<'_>> {
        let lock = match (&self.latch, wait) {
            (Some(latch), Some(wait)) => Some(latch.exclusive(&self.map, wait)?),
            _ => None,
        };
        Ok(Held { store: self, lock })
    }

    fn read<R>(&self, wait: Option<Wait<'_>>, mut body: impl FnMut() -> Result<R>) -> Result<R> {
        match (&self.latch, wait) {
            (Some(latch), Some(wait)) => latch.read(&self.map, wait, body),
            _ => body(),
        }
    }

    fn hash(&self) -> Result<Option<Tree>> {
        let mut window = WINDOW;
        loop {
            let len = match self.map.len() {
                // An empty file that has become longer since.
                0 => self.map.refresh()?,
                len => len,
            };
            let here = window.min(len);
            let bytes = self.map.read_to_vec(0, here)?;
            match bytes.first() {
                None | Some(0) => return Ok(None),
                Some(4) => {}
                Some(_) => return Err(Error::NoAttributes),
            }
            match marshal::read(bytes) {
                // The file may have become longer.
                Err(marshal::Error::Truncated) if here < len || self.map.refresh()? > len => {
                    window = window.saturating_mul(4);
                }
                Ok(tree) if !tree.is_hash() => return Err(Error::NoAttributes),
                tree => return Ok(Some(tree?)),
            }
        }
    }

    fn fits(&self, end: u64) -> Result<usize> {
        let size = self.size();
        usize::try_from(end).ok().filter(|_| end <= size).ok_or(Error::TooLong { end, size })
    }
}

/// A map that nobody else changes meanwhile, if all take the lock.
pub struct Held<'a> {
    store: &'a Store,
    lock: Option<Exclusive<'a>>,
}

impl Held<'_> {
    /// All bytes; none in a map that was never written.
    ///
    /// # Errors
    ///
    /// What `mmf` says.
    pub fn contents(&self) -> Result<Vec<u8>> {
        let map = &self.store.map;
        let bytes = map.read_to_vec(0, map.len())?;
        Ok(if bytes.first().is_none_or(|first| *first == 0) { Vec::new() } else { bytes })
    }

    /// Puts `bytes` at the start.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`]; what `mmf` says. Whichever it is, the old bytes stay.
    pub fn replace(&mut self, bytes: &[u8]) -> Result<()> {
        self.store.fits(bytes.len() as u64)?;
        match &mut self.lock {
            Some(lock) => lock.replace(&self.store.map, bytes),
            None => Ok(self.store.map.write_at(0, bytes)?),
        }
    }
}

fn try_open(plan: &Plan, access: Access) -> Result<Mapping> {
    let mut options = Mapping::options().access(access).large_pages(plan.large_pages).inheritable(plan.inheritable);
    if let Some(address) = plan.base_address {
        options = options.base_address(address);
    }
    let may_make = !plan.existing && access == Access::ReadWrite;
    match &plan.place {
        Place::Nameless => Ok(options.size(plan.size).anonymous()?),
        Place::Named(name) => {
            let name = sys::named(name)?;
            if !may_make {
                return Ok(options.open(name)?);
            }
            // Without a size, since what exists may be smaller.
            Ok(reopen(|| options.open(&name), || options.clone().size(plan.size).create_new(&name))?)
        }
        Place::File(path) => open_file(&options, path, may_make, plan.size),
    }
}

fn open_file(options: &MappingOptions, path: &Path, may_make: bool, size: u64) -> Result<Mapping> {
    if !may_make {
        return Ok(options.open(path)?);
    }
    let map = reopen(|| options.open(path), || options.clone().size(size).create_new(path))?;
    if size > map.len() as u64 {
        // It fits: nothing longer can be mapped.
        map.grow(usize::try_from(size).unwrap_or(usize::MAX))?;
    }
    Ok(map)
}

/// Opens what exists and else makes it, where others do the same at the same time.
fn reopen<T>(open: impl Fn() -> mmf::Result<T>, make: impl Fn() -> mmf::Result<T>) -> mmf::Result<T> {
    let mut turns = 0;
    loop {
        match open() {
            Err(error) if *error.kind() == ErrorKind::NotFound => {}
            result => return result,
        }
        turns += 1;
        match make() {
            Err(error) if *error.kind() == ErrorKind::AlreadyExists && turns < 1000 => {}
            result => return result,
        }
    }
}

fn is_forbidden(error: &mmf::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnly)
}

/// What the lock of named memory is called.
fn beside(name: &str) -> mmf::Result<Name> {
    let (scope, text) = match name.strip_prefix("Global\\") {
        Some(text) => (Scope::Global, text),
        None => (Scope::Local, name.strip_prefix("Local\\").unwrap_or(name)),
    };
    Name::new(scope, format!("{text}.ruby_lock")).or_else(|_| {
        // Too long, or spelt as only Windows can: any text that is always the same does.
        let hash =
            |seed: u64| text.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        Name::new(scope, format!("{:016x}{:016x}.ruby_lock", hash(0xcbf2_9ce4_8422_2325), hash(0x9e37_79b9_7f4a_7c15)))
    })
}
