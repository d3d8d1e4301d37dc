//! An object of the system: a section of memory, or a file.

use std::ops::Range;
use std::os::windows::io::{AsRawHandle, BorrowedHandle, OwnedHandle};
use std::path::Path;

use windows_sys::Win32::Foundation::{HANDLE_FLAG_INHERIT, SetHandleInformation};

use super::error;
use super::file::File;
use super::names::{self, kernel_name};
use super::section::Section;
use super::security::{Descriptor, SecuredObject, Security, User, foreign};
use crate::error::{Error, Result};
use crate::name::{Name, Source};
use crate::types::{LargePages, ObjectInfo, Permissions, Spec};

pub(crate) enum Object {
    Memory(Section),
    File(File),
}

impl Object {
    pub(crate) fn create(source: &Source, spec: &Spec) -> Result<Object> {
        let object = match source {
            Source::Named(name) => {
                let user = User::current()?;
                Object::Memory(Section::create(Some(&kernel_name(name, &user)), &user, spec)?)
            }
            Source::File(path) => {
                refuse_large_pages(spec)?;
                Object::File(File::create(path, spec)?)
            }
        };
        object.inherit(spec)
    }

    pub(crate) fn open(source: &Source, spec: &Spec) -> Result<Object> {
        match source {
            Source::Named(name) => Object::open_named(name, spec),
            Source::File(path) => Object::open_file(path, spec),
        }
    }

    /// The directories in which all users may create files are few here, and a file in them is its
    /// creator's to protect.
    pub(crate) fn find(source: &Source, spec: &Spec) -> Result<Object> {
        Object::open(source, spec)
    }

    fn open_named(name: &Name, spec: &Spec) -> Result<Object> {
        let user = User::current()?;
        let (section, security) = Section::open(&kernel_name(name, &user), spec)?;
        if !spec.allow_other_owners {
            match &security {
                Some(security) => security.check_owner(&user)?,
                None => return Err(foreign("a user whose name cannot be read")),
            }
        }
        let object = Object::Memory(section);
        object.check_demands(spec, security.as_ref())?;
        object.inherit(spec)
    }

    fn open_file(path: &Path, spec: &Spec) -> Result<Object> {
        refuse_large_pages(spec)?;
        let object = Object::File(File::open(path, spec)?);
        object.check_demands(spec, None)?;
        object.inherit(spec)
    }

    pub(crate) fn anonymous(spec: &Spec) -> Result<Object> {
        Object::Memory(Section::create(None, &User::current()?, spec)?).inherit(spec)
    }

    /// Takes what [`handle`](Object::handle) gives, and what other programs have: a section's handle or a file's.
    pub(crate) fn from_handle(handle: OwnedHandle, spec: &Spec) -> Result<Object> {
        let object = match Section::from_handle(handle, spec)? {
            Ok(section) => Object::Memory(section),
            Err(handle) => {
                refuse_large_pages(spec)?;
                Object::File(File::from_handle(handle, spec)?)
            }
        };
        object.check_demands(spec, None)?;
        object.set_inheritable(spec.inheritable)
    }

    pub(crate) fn len(&self) -> Result<u64> {
        match self {
            Object::Memory(section) => section.len(),
            Object::File(file) => file.len(),
        }
    }

    /// Reads the first bytes before all of it is mapped: a file without a view, a section through
    /// the view by which its length is measured. `None` where they cannot be read.
    pub(crate) fn read_start(&self, bytes: &mut [u8]) -> Option<usize> {
        match self {
            Object::Memory(section) => section.read_start(bytes),
            Object::File(file) => file.read_start(bytes),
        }
    }

    /// Bytes that are known to be there without asking.
    pub(crate) fn known_len(&self) -> u64 {
        match self {
            Object::Memory(section) => section.known_len(),
            Object::File(_) => 0,
        }
    }

    pub(crate) fn max_len(&self) -> Option<u64> {
        match self {
            Object::Memory(section) => Some(section.size()),
            Object::File(_) => None,
        }
    }

    pub(crate) fn grow(&self, len: u64) -> Result<()> {
        match self {
            Object::Memory(section) => section.grow(len),
            Object::File(file) => file.grow(len),
        }
    }

    /// Which file this is.
    pub(crate) fn identity(&self) -> Result<u128> {
        match self {
            Object::Memory(_) => Ok(0),
            Object::File(file) => file.identity(),
        }
    }

    /// Whether another machine may have it open, whose events say nothing about the life of processes here.
    pub(crate) fn is_remote(&self) -> Result<bool> {
        Ok(match self {
            Object::Memory(_) => false,
            Object::File(file) => file.is_remote(),
        })
    }

    pub(crate) fn sync(&self) -> Result<()> {
        match self {
            Object::Memory(section) if section.is_of_file() => {
                Err(Error::unsupported("sync", "a section of a file; that needs the file's own handle or path"))
            }
            Object::Memory(_) => Ok(()),
            Object::File(file) => file.sync(),
        }
    }

    /// No file system here takes data for written that it does not give back.
    #[allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "the contract of every system")]
    pub(crate) fn unwritten(&self, _len: u64) -> Result<Vec<Range<u64>>> {
        Ok(Vec::new())
    }

    #[allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "the contract of every system")]
    #[allow(clippy::single_range_in_vec_init, reason = "one range, and not as many numbers as it has")]
    pub(crate) fn allocated(&self, len: u64) -> Result<Vec<Range<u64>>> {
        Ok(vec![0..len])
    }

    #[allow(clippy::unused_self, reason = "the contract of every system")]
    pub(crate) fn write_around(&self, _offset: u64, _bytes: &[u8]) -> Result<()> {
        Err(Error::unsupported("write to", "writing around the cache"))
    }

    pub(crate) fn info(&self) -> Result<ObjectInfo> {
        // The system may have noted no owner, as of a section that was made so.
        let (owner, permissions) = match Security::of(self.handle())? {
            Some(security) => (security.owner_account()?, security.dacl()?),
            None => Default::default(),
        };
        Ok(ObjectInfo {
            owner,
            permissions,
            location: match self {
                Object::Memory(section) => names::of_object(section.handle()),
                Object::File(file) => file.path(),
            },
        })
    }

    /// A section's handle for memory, the file's for a file: a section of a file has no way to grow with it.
    pub(crate) fn handle(&self) -> BorrowedHandle<'_> {
        match self {
            Object::Memory(section) => section.handle(),
            Object::File(file) => file.handle(),
        }
    }

    pub(crate) fn into_handle(self) -> OwnedHandle {
        match self {
            Object::Memory(section) => section.into_handle(),
            Object::File(file) => file.into_handle(),
        }
    }

    fn kind(&self) -> SecuredObject {
        match self {
            Object::Memory(_) => SecuredObject::Section,
            Object::File(_) => SecuredObject::File,
        }
    }

    fn security(&self) -> Result<Security> {
        Security::of(self.handle())?.ok_or_else(|| {
            Error::unsupported("read the permissions of", "an object that the system has noted no owner of")
        })
    }

    /// Of an event that all who may write this object may set. Where it is not known who that is, its maker alone.
    pub(super) fn unpark_rights(&self) -> Result<Descriptor> {
        Descriptor::of_unpark_rights(self.handle())
            .or_else(|_| Descriptor::new(&Permissions::User, &User::current()?, SecuredObject::Section))
    }

    /// For a handle that was made here, which no child gets unless that is said.
    fn inherit(self, spec: &Spec) -> Result<Object> {
        if spec.inheritable { self.set_inheritable(true) } else { Ok(self) }
    }

    fn set_inheritable(self, inheritable: bool) -> Result<Object> {
        let flags = if inheritable { HANDLE_FLAG_INHERIT } else { 0 };
        // SAFETY: a handle that this object owns.
        match unsafe { SetHandleInformation(self.handle().as_raw_handle(), HANDLE_FLAG_INHERIT, flags) } {
            0 => Err(error::last("pass on")),
            _ => Ok(self),
        }
    }

    fn check_demands(&self, spec: &Spec, security: Option<&Security>) -> Result<()> {
        if let Some(wanted) = spec.size {
            let size = self.len()?;
            if wanted > size {
                let wanted = format!("{wanted} bytes at least");
                return Err(Error::mismatch("its size", wanted, format!("{size} bytes")));
            }
        }
        if let (Some(wanted), Some(most)) = (spec.reserve, self.max_len()) {
            if wanted > most {
                let wanted = format!("{wanted} bytes at least");
                return Err(Error::mismatch("its reserve", wanted, format!("{most} bytes")));
            }
        }
        if let Some(wanted) = &spec.permissions {
            let wanted = Descriptor::new(wanted, &User::current()?, self.kind())?;
            let own;
            let found = match security {
                Some(security) => security,
                None => {
                    own = self.security()?;
                    &own
                }
            };
            if !found.lets_in_as(&wanted)? {
                return Err(Error::mismatch("its DACL", wanted.dacl()?, found.dacl()?));
            }
        }
        match self {
            Object::Memory(section) if spec.large_pages == LargePages::Require && !section.has_large_pages() => {
                Err(Error::mismatch("its pages", "large ones", "ordinary ones"))
            }
            _ => Ok(()),
        }
    }
}

fn refuse_large_pages(spec: &Spec) -> Result<()> {
    if spec.large_pages == LargePages::Require {
        return Err(Error::unsupported("open", "large pages for a file; they are for named and anonymous memory"));
    }
    Ok(())
}
