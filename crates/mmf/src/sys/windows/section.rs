//! Sections: what Windows calls memory that processes share.

use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_ALREADY_EXISTS, ERROR_FILE_INVALID, ERROR_FILE_NOT_FOUND, ERROR_INVALID_HANDLE,
    ERROR_PATH_NOT_FOUND, HANDLE, INVALID_HANDLE_VALUE, NTSTATUS, STATUS_OBJECT_TYPE_MISMATCH,
};
use windows_sys::Win32::Security::SECURITY_ATTRIBUTES;
use windows_sys::Win32::Storage::FileSystem::READ_CONTROL;
use windows_sys::Win32::System::Memory::{
    CreateFileMappingW, FILE_MAP, FILE_MAP_COPY, FILE_MAP_LARGE_PAGES, FILE_MAP_READ, FILE_MAP_WRITE,
    GetLargePageMinimum, OpenFileMappingW, PAGE_PROTECTION_FLAGS, PAGE_READONLY, PAGE_READWRITE, PAGE_WRITECOPY,
    SEC_COMMIT, SEC_FILE, SEC_IMAGE, SEC_LARGE_PAGES, SEC_RESERVE, SECTION_QUERY,
};

use super::security::{Descriptor, SecuredObject, Security, User};
use super::shared_view::SharedView;
use super::view::Mapped;
use super::{error, granularity, halves, page_size, privilege, wide};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{Access, LargePages, Spec};

/// Views for looking and committing are no longer than this: a 32-bit process has no room for a whole reserve.
const WINDOW: u64 = 256 << 20;

/// The DACL of a section whose first bytes are not committed yet: all may see that it is there, none may map it.
const UNFINISHED: &str = "D:P(A;;RC;;;WD)";

/// How long `open` waits for the maker of an unfinished section. It takes well under a millisecond for each GiB.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// `SECTION_BASIC_INFORMATION` of `NtQuerySection`, which no Windows header declares for programs.
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-ntquerysection>
#[repr(C)]
#[derive(Default)]
struct BasicInformation {
    base: usize,
    attributes: u32,
    size: i64,
}

const SECTION_BASIC_INFORMATION: i32 = 0;

#[link(name = "ntdll")]
unsafe extern "system" {
    /// # Safety
    ///
    /// `information` is writable for `len` bytes; `returned` is null or writable.
    fn NtQuerySection(
        section: HANDLE,
        class: i32,
        information: *mut BasicInformation,
        len: usize,
        returned: *mut usize,
    ) -> NTSTATUS;
}

pub(crate) struct Section {
    handle: OwnedHandle,
    size: u64,
    attributes: u32,
    access: Access,
    /// How much of a reserve was committed when somebody last looked.
    seen: AtomicU64,
    shared_view: SharedView,
}

impl Section {
    /// Named where `name` is given.
    pub(super) fn create(name: Option<&str>, user: &User, spec: &Spec) -> Result<Section> {
        let size = spec.size.unwrap_or(0);
        let growable = spec.reserve.is_some_and(|reserve| reserve > size);
        if size == 0 && !growable {
            return Err(Error::invalid("create", "Windows has no shared memory of 0 bytes; give a size"));
        }
        match (spec.large_pages, growable) {
            (LargePages::Require, true) => {
                return Err(Error::invalid("create", "memory of large pages cannot grow, so it takes no reserve"));
            }
            (LargePages::Require, false) => return Section::of_large_pages(name, size, user, spec),
            (LargePages::Prefer, false) => match Section::of_large_pages(name, size, user, spec) {
                Err(error) if *error.kind() != ErrorKind::AlreadyExists => {}
                result => return result,
            },
            (LargePages::Prefer, true) | (LargePages::Never, _) => {}
        }
        let permissions = spec.permissions.clone().unwrap_or_default();
        let descriptor = Descriptor::new(&permissions, user, SecuredObject::Section)?;
        let Some(reserve) = spec.reserve.filter(|_| growable) else {
            return Section::finished(size, SEC_COMMIT, &descriptor, name, spec);
        };
        // One granule more than asked for: see `commit`.
        let reserve = reserve.saturating_add(granularity() as u64);
        Section::finished(reserve, SEC_RESERVE, &descriptor, name, spec)
    }

    /// A new section, which nobody may open before its first bytes are there. If this process dies first, it is gone.
    fn finished(
        size: u64,
        flags: PAGE_PROTECTION_FLAGS,
        descriptor: &Descriptor,
        name: Option<&str>,
        spec: &Spec,
    ) -> Result<Section> {
        // In whole pages, so that what the system will tell of its size is known already.
        let size = size.checked_next_multiple_of(page_size() as u64).unwrap_or(u64::MAX);
        if flags & SEC_RESERVE == 0 && spec.first_bytes.is_empty() {
            return Ok(Section::with(make(name, size, flags, descriptor)?, size, flags, spec.access));
        }
        let unfinished = Descriptor::parse(&format!("{}{UNFINISHED}", descriptor.owner()?), SecuredObject::Section)?;
        let handle = make(name, size, flags, &unfinished)?;
        let section = Section::with(handle, size, flags, Access::ReadWrite);
        let first = Arc::new(section.window(Access::ReadWrite, 0)?);
        let section = Section { shared_view: SharedView::of(first.clone()), ..section };
        if flags & SEC_RESERVE != 0 {
            section.commit(0, spec.size.unwrap_or(0))?;
        }
        first.begin_with(&spec.first_bytes)?;
        descriptor.replace_dacl(&section.handle)?;
        let shared_view =
            if spec.access == Access::ReadWrite { section.shared_view } else { SharedView::new(spec.access) };
        Ok(Section { access: spec.access, shared_view, ..section })
    }

    fn of_large_pages(name: Option<&str>, size: u64, user: &User, spec: &Spec) -> Result<Section> {
        let doing = "get large pages for";
        privilege::enable_lock_memory()?;
        let large = large_page() as u64;
        if large == 0 {
            return Err(Error::unsupported(doing, "large pages, on this processor"));
        }
        let Some(size) = size.checked_next_multiple_of(large) else {
            return Err(Error::new(ErrorKind::NoSpace, doing));
        };
        let permissions = spec.permissions.clone().unwrap_or_default();
        let descriptor = Descriptor::new(&permissions, user, SecuredObject::Section)?;
        Section::finished(size, SEC_COMMIT | SEC_LARGE_PAGES, &descriptor, name, spec).map_err(privilege::explain)
    }

    /// With its owner and permissions, where it has any that this user may read.
    pub(super) fn open(name: &str, spec: &Spec) -> Result<(Section, Option<Security>)> {
        let name_wide = wide(name);
        let rights = SECTION_QUERY | rights(spec.access);
        let (start, mut finished) = (Instant::now(), false);
        loop {
            let refused = match open_with(&name_wide, rights | READ_CONTROL) {
                Ok(handle) => {
                    let security = Security::of(handle.as_handle())?;
                    return Ok((Section::new(handle, spec.access)?, security));
                }
                Err(error) if error::code_of(&error) == ERROR_ACCESS_DENIED => error,
                Err(error) => return Err(explain(error, name)),
            };
            if is_unfinished(&name_wide) {
                if start.elapsed() > BUSY_TIMEOUT {
                    return Err(Error::new(ErrorKind::Busy, "open"));
                }
                thread::sleep(Duration::from_millis(1));
            } else if finished {
                return match open_with(&name_wide, rights) {
                    Ok(handle) => Ok((Section::new(handle, spec.access)?, None)),
                    Err(_) => Err(refused),
                };
            } else {
                // It may have become so after the refusal.
                finished = true;
            }
        }
    }

    /// A handle that somebody passed on. `None`: it is no section's.
    pub(super) fn from_handle(handle: OwnedHandle, spec: &Spec) -> Result<Result<Section, OwnedHandle>> {
        if query(handle.as_handle()).err() == Some(STATUS_OBJECT_TYPE_MISMATCH) {
            return Ok(Err(handle));
        }
        let section = Section::new(handle, spec.access)?;
        // Nothing but trying tells whether a handle has the rights.
        let len = section.size.min(section.granularity() as u64);
        match Mapped::new(&section, spec.access, 0, usize::try_from(len).unwrap_or(0), None) {
            Ok(_) => Ok(Ok(section)),
            Err(error) => Err(error.with_help("was the handle passed on with the rights for this access?")),
        }
    }

    /// For one view of a file as long as it is now; `None` where that is empty.
    pub(super) fn over_file(file: BorrowedHandle<'_>, access: Access) -> Result<Option<Section>> {
        let protection = match access {
            Access::ReadOnly => PAGE_READONLY,
            Access::ReadWrite => PAGE_READWRITE,
            Access::CopyOnWrite => PAGE_WRITECOPY,
        };
        match create_mapping(file.as_raw_handle(), ptr::null(), protection, 0, None) {
            Ok(handle) => Section::new(handle, access).map(Some),
            Err(error) if error::code_of(&error) == ERROR_FILE_INVALID => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn new(handle: OwnedHandle, access: Access) -> Result<Section> {
        let information = query(handle.as_handle()).map_err(|status| error::of_status("measure", status))?;
        if information.attributes & SEC_IMAGE != 0 {
            return Err(Error::unsupported("open", "sharing a program's image"));
        }
        let size = u64::try_from(information.size).unwrap_or(0);
        Ok(Section::with(handle, size, information.attributes, access))
    }

    fn with(handle: OwnedHandle, size: u64, attributes: u32, access: Access) -> Section {
        Section { handle, size, attributes, access, seen: AtomicU64::new(0), shared_view: SharedView::new(access) }
    }

    pub(super) fn handle(&self) -> BorrowedHandle<'_> {
        self.handle.as_handle()
    }

    pub(super) fn into_handle(self) -> OwnedHandle {
        self.handle
    }

    /// Bytes that a view can reach.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn is_of_file(&self) -> bool {
        self.attributes & SEC_FILE != 0
    }

    pub(super) fn has_large_pages(&self) -> bool {
        self.attributes & SEC_LARGE_PAGES != 0
    }

    /// What a view's address and offset are multiples of.
    pub(super) fn granularity(&self) -> usize {
        if self.has_large_pages() { large_page().max(granularity()) } else { granularity() }
    }

    /// What `MapViewOfFileEx` is told.
    pub(super) fn map_rights(&self, access: Access) -> FILE_MAP {
        let large = if self.has_large_pages() { FILE_MAP_LARGE_PAGES } else { 0 };
        large | if access == Access::CopyOnWrite { FILE_MAP_COPY } else { rights(access) }
    }

    /// Bytes that were there when this handle made it, or last looked; 0 if neither.
    pub(super) fn known_len(&self) -> u64 {
        if self.is_growable() { self.seen.load(Ordering::Relaxed) } else { self.size }
    }

    fn is_growable(&self) -> bool {
        self.attributes & SEC_RESERVE != 0 && !self.is_of_file()
    }

    /// Bytes that are there: all, or of a reserve those from its start to the first that is not committed.
    pub(super) fn len(&self) -> Result<u64> {
        if !self.is_growable() {
            return Ok(self.size);
        }
        // What was committed stays so.
        let mut len = self.seen.load(Ordering::Relaxed);
        let shared_view = self.shared_view.get(|| self.window(self.access, 0))?;
        let mut all = false;
        if let Some((shared_view, known)) =
            shared_view.zip(usize::try_from(len).ok()).filter(|(shared_view, known)| *known < shared_view.len())
        {
            let committed = shared_view.committed(known)?;
            len = committed as u64;
            all = committed < shared_view.len();
        }
        while !all && len < self.size {
            let start = len - len % WINDOW;
            let window = self.window(Access::ReadOnly, start)?;
            let committed = window.committed(usize::try_from(len - start).unwrap_or(0))?;
            len = start + committed as u64;
            all = committed < window.len();
        }
        self.seen.fetch_max(len, Ordering::Relaxed);
        Ok(len)
    }

    /// A view of the bytes from `start` on, as many as a window has or the section.
    fn window(&self, access: Access, start: u64) -> Result<Mapped> {
        let len = WINDOW.min(self.size.saturating_sub(start));
        Mapped::new(self, access, start, usize::try_from(len).unwrap_or(0), None)
    }

    /// A view of this length at least from the start on.
    pub(super) fn view_from_start(&self, access: Access, len: usize) -> Result<Arc<Mapped>> {
        let map = || Mapped::new(self, access, 0, len, None);
        if access != self.access || access == Access::CopyOnWrite {
            return map().map(Arc::new);
        }
        self.shared_view.of_len(len, self.granularity(), map)
    }

    /// Reads the first bytes, as many as there are, through a view of a window at the most. `None`
    /// where they cannot be read.
    pub(super) fn read_start(&self, bytes: &mut [u8]) -> Option<usize> {
        match self.shared_view.get(|| self.window(self.access, 0)).ok()? {
            Some(view) => view.read_start(bytes),
            None => self.window(Access::ReadOnly, 0).ok()?.read_start(bytes),
        }
    }

    /// A view of these bytes, elsewhere than at the start or at an address that is asked for.
    pub(super) fn part(&self, access: Access, offset: u64, len: usize, address: Option<usize>) -> Result<Arc<Mapped>> {
        self.shared_view.give_up();
        Mapped::new(self, access, offset, len, address).map(Arc::new)
    }

    pub(super) fn grow(&self, len: u64) -> Result<()> {
        let now = self.len()?;
        if len <= now {
            return Ok(());
        }
        if len > self.size {
            let reason =
                format!("it can hold {} bytes at most, and not {len}; reserve more when creating it", self.size);
            return Err(Error::invalid("grow", reason));
        }
        if self.access != Access::ReadWrite {
            return Err(Error::new(ErrorKind::ReadOnly, "grow"));
        }
        self.commit(now, len)
    }

    /// Makes the bytes from `from` to `to` be there, in every view of every process. Those that are stay as they are.
    fn commit(&self, from: u64, to: u64) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        let mut start = from - from % WINDOW;
        if let Some(view) = self.shared_view.get(|| self.window(self.access, 0))? {
            // See below for why the view goes on.
            if to.saturating_add(granularity() as u64) <= view.len() as u64 {
                view.commit(usize::try_from(from).unwrap_or(0), usize::try_from(to - from).unwrap_or(0))?;
                start = to;
            }
        }
        while start < to {
            let end = to.min(start + WINDOW);
            // Wine forgets a commit that ends where its view ends: so the view goes on where there is more to map,
            // and a section is made longer than it has to grow.
            let len = (end - start + granularity() as u64).min(self.size - start);
            let view = Mapped::new(self, Access::ReadWrite, start, usize::try_from(len).unwrap_or(0), None)?;
            let skip = from.saturating_sub(start);
            view.commit(usize::try_from(skip).unwrap_or(0), usize::try_from(end - start - skip).unwrap_or(0))?;
            start = end;
        }
        self.seen.fetch_max(to.next_multiple_of(page_size() as u64), Ordering::Relaxed);
        Ok(())
    }
}

/// The least rights for an access. Copies on write are this process's own, so they only read.
fn rights(access: Access) -> FILE_MAP {
    match access {
        Access::ReadWrite => FILE_MAP_READ | FILE_MAP_WRITE,
        Access::ReadOnly | Access::CopyOnWrite => FILE_MAP_READ,
    }
}

/// 0 where the processor has none.
fn large_page() -> usize {
    // SAFETY: no arguments; it only tells a number.
    unsafe { GetLargePageMinimum() }
}

fn query(section: BorrowedHandle<'_>) -> Result<BasicInformation, NTSTATUS> {
    let mut information = BasicInformation::default();
    let len = size_of::<BasicInformation>();
    // SAFETY: `information` has the layout and the length that this class writes; the length is not asked back.
    let status = unsafe {
        NtQuerySection(section.as_raw_handle(), SECTION_BASIC_INFORMATION, &raw mut information, len, ptr::null_mut())
    };
    if status < 0 { Err(status) } else { Ok(information) }
}

/// Memory of the pagefile, as `CreateFileMapping` makes it; never one that exists.
fn make(name: Option<&str>, size: u64, flags: PAGE_PROTECTION_FLAGS, descriptor: &Descriptor) -> Result<OwnedHandle> {
    let attributes = descriptor.attributes();
    let name_wide = name.map(wide);
    let made =
        create_mapping(INVALID_HANDLE_VALUE, &raw const attributes, PAGE_READWRITE | flags, size, name_wide.as_deref());
    let (Err(error), Some(name), Some(name_wide)) = (&made, name, &name_wide) else { return made };
    if error::code_of(error) == ERROR_ACCESS_DENIED {
        // It is there and not for this user, or else this user may make none there.
        return match open_with(name_wide, READ_CONTROL) {
            Err(found) if error::code_of(&found) == ERROR_FILE_NOT_FOUND => made.map_err(|error| match name {
                name if name.starts_with("Global\\") => error.with_help(
                    "to make an object in `Global\\` takes the privilege SeCreateGlobalPrivilege, which services and \
                     administrators have; to open one takes none",
                ),
                _ => error,
            }),
            _ => made.map_err(|error| error.with_kind(ErrorKind::AlreadyExists)),
        };
    }
    made.map_err(|error| explain(error, name))
}

/// Refuses a size that passes every offset once it is rounded up, which the system would call an invalid argument.
pub(super) fn check_countable(size: u64, doing: &'static str) -> Result<()> {
    match size.checked_add(granularity() as u64).map(i64::try_from) {
        Some(Ok(_)) => Ok(()),
        _ => Err(Error::new(ErrorKind::NoSpace, doing)),
    }
}

/// `size` 0 is a file's own. What a name had before is given up again, and reported.
pub(super) fn create_mapping(
    file: HANDLE,
    attributes: *const SECURITY_ATTRIBUTES,
    protection: PAGE_PROTECTION_FLAGS,
    size: u64,
    name: Option<&[u16]>,
) -> Result<OwnedHandle> {
    let doing = if file == INVALID_HANDLE_VALUE { "create" } else { "map" };
    check_countable(size, doing)?;
    let (high, low) = halves(size);
    let name_ptr = name.map_or(ptr::null(), <[u16]>::as_ptr);
    // SAFETY: the file is open or the constant for none; attributes are null or valid, as all callers see to; the name
    // is null or ends in a zero.
    let handle = unsafe { CreateFileMappingW(file, attributes, protection, high, low, name_ptr) };
    let outcome = error::last(doing);
    if handle.is_null() {
        return Err(outcome);
    }
    // SAFETY: just opened, and owned by nobody else.
    let handle = unsafe { OwnedHandle::from_raw_handle(handle) };
    if name.is_some() && error::code_of(&outcome) == ERROR_ALREADY_EXISTS {
        return Err(outcome);
    }
    Ok(handle)
}

fn open_with(name: &[u16], rights: u32) -> Result<OwnedHandle> {
    // SAFETY: the name ends in a zero.
    let handle = unsafe { OpenFileMappingW(rights, 0, name.as_ptr()) };
    if handle.is_null() {
        return Err(error::last("open"));
    }
    // SAFETY: just opened, and owned by nobody else.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

/// Whether somebody is making it right now: see [`UNFINISHED`].
fn is_unfinished(name: &[u16]) -> bool {
    let seen = || -> Result<bool> {
        let handle = open_with(name, READ_CONTROL)?;
        let unfinished = Descriptor::parse(UNFINISHED, SecuredObject::Section)?;
        match Security::of(handle.as_handle())? {
            Some(seen) => seen.lets_in_as(&unfinished),
            None => Ok(false),
        }
    };
    seen().unwrap_or(false)
}

/// What the codes mean where a name is concerned.
fn explain(error: Error, name: &str) -> Error {
    match error::code_of(&error) {
        ERROR_FILE_NOT_FOUND => error.with_help("no process holds it; start the one that creates it"),
        ERROR_PATH_NOT_FOUND => error.with_kind(ErrorKind::InvalidName {
            reason: format!(
                "{name:?} names a directory of kernel objects, by what stands before a \\, that is not there; \
                 Local\\, Global\\ and Session\\1\\ are such"
            ),
        }),
        ERROR_INVALID_HANDLE => error.with_kind(ErrorKind::Mismatch {
            what: "what has this name",
            wanted: "shared memory".to_owned(),
            found: "another kind of object (event, mutex, semaphore, timer or job)".to_owned(),
        }),
        _ => error,
    }
}
