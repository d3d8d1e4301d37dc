//! Views: address ranges that show a section's bytes.

use std::os::windows::io::AsRawHandle;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use windows_sys::Win32::Foundation::ERROR_INVALID_ADDRESS;
use windows_sys::Win32::System::Memory::{
    FlushViewOfFile, MEM_COMMIT, MEMORY_BASIC_INFORMATION, MEMORY_MAPPED_VIEW_ADDRESS, MapViewOfFileEx, PAGE_READWRITE,
    PrefetchVirtualMemory, UnmapViewOfFile, VirtualAlloc, VirtualQuery, WIN32_MEMORY_RANGE_ENTRY,
};
use windows_sys::Win32::System::Threading::GetCurrentProcess;

use super::object::Object;
use super::section::Section;
use super::{error, halves, page_size};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{ViewRequest, guard};
use crate::types::{Access, FaultPolicy, LargePages};

/// What was mapped, from its granule's first byte on. Unmapped when dropped.
pub(super) struct Mapped {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: it is an address range that this value owns; any thread may use and unmap it.
unsafe impl Send for Mapped {}
// SAFETY: its methods change no state that a second thread's call could meet half done: each is one system call.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// `offset` is a multiple of the section's granularity, and so is `address`; the range lies in the section.
    pub(super) fn new(
        section: &Section,
        access: Access,
        offset: u64,
        len: usize,
        address: Option<usize>,
    ) -> Result<Mapped> {
        let (high, low) = halves(offset);
        let wanted = address.map_or(ptr::null(), ptr::without_provenance);
        let handle = section.handle().as_raw_handle();
        // SAFETY: a new range of the system's choosing, or at an address where nothing is, else the call fails.
        let view = unsafe { MapViewOfFileEx(handle, section.map_rights(access), high, low, len, wanted) };
        match NonNull::new(view.Value) {
            Some(base) => Ok(Mapped { base: base.cast(), len }),
            None => Err(error::last("map")),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes from the start to the first page that is not committed, of which `known` are before it.
    pub(super) fn committed(&self, known: usize) -> Result<usize> {
        let mut done = known - known % page_size();
        while done < self.len {
            let mut region = MEMORY_BASIC_INFORMATION::default();
            let at = self.base.as_ptr().wrapping_add(done);
            // SAFETY: `region` is writable for the bytes that the call is told; the address is only looked up.
            let filled = unsafe { VirtualQuery(at.cast(), &raw mut region, size_of::<MEMORY_BASIC_INFORMATION>()) };
            if filled == 0 {
                return Err(error::last("measure"));
            }
            if region.State != MEM_COMMIT || region.RegionSize == 0 {
                break;
            }
            done = done.saturating_add(region.RegionSize);
        }
        Ok(done.min(self.len))
    }

    /// Makes the pages of this range, which lies in the view, be there.
    pub(super) fn commit(&self, offset: usize, len: usize) -> Result<()> {
        let start = self.base.as_ptr().wrapping_add(offset);
        // SAFETY: pages of this view, which is of a section of the pagefile and can be written; committing those
        // that are there already changes nothing.
        let done = unsafe { VirtualAlloc(start.cast(), len, MEM_COMMIT, PAGE_READWRITE) };
        if done.is_null() { Err(error::last("get memory for")) } else { Ok(()) }
    }

    /// Copies the first bytes of the view to `bytes`, as many as both have, and returns how many.
    /// `None`: one of their pages is not there.
    pub(super) fn read_start(&self, bytes: &mut [u8]) -> Option<usize> {
        let (start, len) = (self.base.as_ptr(), bytes.len().min(self.len));
        // SAFETY: both runs have `len` bytes; `bytes` is this process's own and no part of the view.
        let left =
            unsafe { guard::copy(copying(), bytes.as_mut_ptr(), start, len, start.addr(), start.addr() + self.len) };
        (left == 0).then_some(len)
    }

    /// Copies `bytes`, no more than there are, to the start of a view that can be written and that nobody else has yet.
    pub(super) fn begin_with(&self, bytes: &[u8]) -> Result<()> {
        let (start, len) = (self.base.as_ptr(), bytes.len().min(self.len));
        // SAFETY: the bytes lie in this view, which is no part of `bytes`; no reference points into it.
        match unsafe { guard::copy(copying(), start, bytes.as_ptr(), len, start.addr(), start.addr() + self.len) } {
            0 => Ok(()),
            left => Err(Error::new(ErrorKind::Fault { offset: len - left, done: len - left }, "create")),
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let view = MEMORY_MAPPED_VIEW_ADDRESS { Value: self.base.as_ptr().cast() };
        // SAFETY: this value mapped it, and nobody else unmaps it; who uses its bytes borrows from an owner of it.
        unsafe { UnmapViewOfFile(view) };
    }
}

pub(crate) struct View {
    /// The first byte asked for.
    base: NonNull<u8>,
    address_len: usize,
    /// Held for its drop; `None` where `address_len` is 0.
    _mapped: Option<Arc<Mapped>>,
    /// Whether there is something to flush, and a file to flush it to.
    flushes: bool,
}

// SAFETY: `base` points into what `_mapped` owns; see there.
unsafe impl Send for View {}
// SAFETY: as above; the bytes themselves are only reached through raw pointers.
unsafe impl Sync for View {}

impl View {
    pub(crate) fn map(object: &Object, request: &ViewRequest) -> Result<View> {
        match object {
            Object::Memory(section) => View::of_section(section, request),
            Object::File(_) if request.address_len == 0 => Ok(View::empty()),
            Object::File(file) => match file.section(request.access)? {
                Some(section) => View::of_section(&section, request),
                None => Ok(View::empty()),
            },
        }
    }

    fn empty() -> View {
        // Aligned for every word, and in no page that anybody can map.
        let base = NonNull::<u64>::dangling().cast();
        View { base, address_len: 0, _mapped: None, flushes: false }
    }

    fn of_section(section: &Section, request: &ViewRequest) -> Result<View> {
        if request.large_pages == LargePages::Require && !section.has_large_pages() {
            return Err(Error::unsupported("map", "large pages, in memory that was not created of them"));
        }
        let address_len = section.size().saturating_sub(request.offset).min(request.address_len as u64);
        let granule = section.granularity();
        let before = request.offset % granule as u64;
        let too_long = |_| Error::new(ErrorKind::NoSpace, "map").with_help("this process has too few addresses for it");
        let (address_len, before) =
            (usize::try_from(address_len).map_err(too_long)?, usize::try_from(before).map_err(too_long)?);
        if address_len == 0 {
            return Ok(View::empty());
        }
        let mut len = before.saturating_add(address_len);
        if section.has_large_pages() {
            len = len.checked_next_multiple_of(granule).unwrap_or(usize::MAX);
        }
        let address = request.base_address.map(|wanted| start_of(wanted, before, granule)).transpose()?;
        let mapped = if request.offset == 0 && address.is_none() {
            section.view_from_start(request.access, len)
        } else {
            section.part(request.access, request.offset - before as u64, len, address)
        };
        let mapped = mapped.map_err(|error| match request.base_address {
            Some(wanted) if error::code_of(&error) == ERROR_INVALID_ADDRESS => {
                refused(wanted, "something is there already, or no program may have it")
            }
            _ => error,
        })?;
        // SAFETY: `before` is less than what was mapped.
        let base = unsafe { mapped.base.add(before) };
        let flushes = section.is_of_file() && request.access == Access::ReadWrite;
        Ok(View { base, address_len, _mapped: Some(mapped), flushes })
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    pub(crate) fn address_len(&self) -> usize {
        self.address_len
    }

    /// Parts of a range that may have pages in memory; all of it, since the system does not tell.
    #[allow(clippy::unused_self, reason = "other systems look")]
    pub(crate) fn in_memory(&self, offset: usize, len: usize) -> Vec<std::ops::Range<usize>> {
        std::iter::once(offset..offset + len).collect()
    }

    pub(crate) fn flush(&self, offset: usize, len: usize) -> Result<()> {
        let len = len.min(self.address_len.saturating_sub(offset));
        // A length of 0 would mean all.
        if len == 0 || !self.flushes {
            return Ok(());
        }
        // SAFETY: the range lies in this view; flushing changes no contents.
        match unsafe { FlushViewOfFile(self.base().wrapping_add(offset).cast(), len) } {
            0 => Err(error::last("flush")),
            _ => Ok(()),
        }
    }

    pub(crate) fn prefault(&self, len: usize) -> Result<()> {
        let len = len.min(self.address_len);
        if len == 0 {
            return Ok(());
        }
        // Reads a file in large pieces, but neither maps the pages nor makes memory's: so each is touched after it.
        let range = WIN32_MEMORY_RANGE_ENTRY { VirtualAddress: self.base().cast(), NumberOfBytes: len };
        // SAFETY: gives a constant that stands for this process.
        let process = unsafe { GetCurrentProcess() };
        // SAFETY: one entry, which lies in this view. It is advice: it fails, and does no harm, where it cannot be taken.
        unsafe { PrefetchVirtualMemory(process, 1, &raw const range, 0) };
        // Without routines for this processor the system looks at the pages.
        let policy = if guard::arm().is_ok() { FaultPolicy::Trap } else { FaultPolicy::SystemCalls };
        let start = self.base().addr();
        let (end, page) = (start + len, page_size());
        let (mut offset, mut byte) = (0, 0);
        while offset < len {
            let at = self.base().wrapping_add(offset);
            // SAFETY: a byte of this view, whose page may be gone, and one on the stack.
            if unsafe { guard::copy(policy, &raw mut byte, at, 1, start, end) } != 0 {
                return Err(Error::new(ErrorKind::Fault { offset, done: offset }, "bring in the pages of"));
            }
            offset += page - (at.addr() % page);
        }
        Ok(())
    }
}

/// By what the first bytes are copied: without routines for this processor the system copies.
fn copying() -> FaultPolicy {
    if guard::arm().is_ok() { FaultPolicy::Trap } else { FaultPolicy::SystemCalls }
}

/// Where the view has to begin for its first byte to be at `wanted`.
fn start_of(wanted: usize, before: usize, granule: usize) -> Result<usize> {
    match wanted.checked_sub(before).filter(|start| *start != 0 && start % granule == 0) {
        Some(start) => Ok(start),
        None => {
            Err(refused(wanted, &format!("this offset's addresses are {before} more than a multiple of {granule}")))
        }
    }
}

fn refused(wanted: usize, why: &str) -> Error {
    Error::invalid("map", format!("it cannot be mapped at address {wanted:#x}: {why}"))
}
