//! Views: `mmap`, never executable.

use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr;

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use super::object::Object;
use super::{extents, native, page_size, system};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::ViewRequest;
use crate::types::{Access, LargePages};

pub(crate) struct View {
    /// The first byte asked for.
    base: *mut u8,
    address_len: usize,
    /// Bytes mapped before it, to begin at a page.
    before: usize,
    access: Access,
}

// SAFETY: a view is an address range that this value owns; it may be used and unmapped from any thread.
unsafe impl Send for View {}
// SAFETY: no method of a shared view changes the view itself; its bytes are only reached through raw pointers.
unsafe impl Sync for View {}

impl View {
    pub(crate) fn map(object: &Object, requested: &ViewRequest) -> Result<View> {
        let page = page_size();
        let before = usize::try_from(requested.offset % page as u64).unwrap_or(0);
        if requested.address_len == 0 {
            let base = ptr::without_provenance_mut(page);
            return Ok(View { base, address_len: 0, before: 0, access: requested.access });
        }
        let total =
            requested.address_len.checked_add(before).ok_or_else(|| Error::system("map", Errno::OVERFLOW.into()))?;
        let request = Request { object, requested, offset: requested.offset - before as u64, total };
        let address = match requested.base_address {
            Some(wanted) => request.at(wanted, before)?,
            None if requested.large_pages == LargePages::Never => request.anywhere()?,
            None => request.aligned(native::LARGE_PAGE)?,
        };
        // SAFETY: `before` is less than a page, and a page at least was mapped at `address`.
        let base = unsafe { address.add(before) };
        let view = View { base, address_len: requested.address_len, before, access: requested.access };
        match requested.large_pages {
            LargePages::Never => {}
            LargePages::Prefer => native::prefer_large_pages(address, total),
            // Dropped on failure, the view unmaps.
            LargePages::Require => {
                // What is reserved has no pages yet that could be made large.
                let there = usize::try_from(object.len()?.saturating_sub(request.offset)).unwrap_or(usize::MAX);
                native::require_large_pages(address, total.min(there))?;
            }
        }
        Ok(view)
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.base
    }

    pub(crate) fn address_len(&self) -> usize {
        self.address_len
    }

    /// The pages that hold this range, as the system wants them.
    fn pages(&self, offset: usize, len: usize) -> (*mut u8, usize) {
        let in_page = (self.before + offset) % page_size();
        (self.base.wrapping_add(offset).wrapping_sub(in_page), len + in_page)
    }

    /// Parts of a range that may have pages in memory; all of it where the system does not tell.
    pub(crate) fn in_memory(&self, offset: usize, len: usize) -> Vec<Range<usize>> {
        let end = self.address_len.min(offset.saturating_add(len));
        let len = end.saturating_sub(offset);
        let (start, whole) = self.pages(offset, len);
        let page = page_size();
        // SAFETY: these pages hold a range of this view, which stays mapped while it is borrowed.
        let Some(pages) = (unsafe { extents::in_memory(start, whole, page) }) else {
            // One range, and not as many numbers as it has.
            #[allow(clippy::single_range_in_vec_init, reason = "as said")]
            return vec![offset..end];
        };
        // The first page may begin before the range.
        let at = |nth: usize| (offset + nth * page).saturating_sub(whole - len).clamp(offset, end);
        let mut parts: Vec<Range<usize>> = Vec::new();
        for (nth, _) in pages.iter().enumerate().filter(|(_, there)| **there != 0) {
            match parts.last_mut() {
                Some(last) if last.end == at(nth) => last.end = at(nth + 1),
                _ => parts.push(at(nth)..at(nth + 1)),
            }
        }
        parts
    }

    pub(crate) fn flush(&self, offset: usize, len: usize) -> Result<()> {
        if len == 0 || self.access != Access::ReadWrite {
            return Ok(());
        }
        let (start, len) = self.pages(offset, len);
        // SAFETY: the range lies in this view; flushing changes no contents.
        unsafe { rustix::mm::msync(start.cast(), len, native::FLUSH) }.map_err(system("flush"))
    }

    pub(crate) fn prefault(&self, len: usize) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let (start, len) = self.pages(0, len.min(self.address_len));
        native::populate(start, len, self.access != Access::ReadOnly).map_err(|errno| match errno {
            Errno::FAULT => {
                let gone = ErrorKind::Fault { offset: 0, done: 0 };
                system("bring in the pages of")(errno).with_kind(gone)
            }
            errno => system("bring in the pages of")(errno),
        })
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if self.address_len == 0 {
            return;
        }
        let start = self.base.wrapping_sub(self.before);
        // SAFETY: this view mapped exactly this range and nobody else unmaps it; its users borrow from its owner.
        let _ = unsafe { rustix::mm::munmap(start.cast(), self.address_len + self.before) };
    }
}

struct Request<'a> {
    object: &'a Object,
    requested: &'a ViewRequest,
    offset: u64,
    total: usize,
}

impl Request<'_> {
    fn map(&self, address: *mut u8, extra: MapFlags) -> Result<*mut u8, Errno> {
        let (prot, sharing) = match self.requested.access {
            Access::ReadOnly => (ProtFlags::READ, MapFlags::SHARED),
            Access::ReadWrite => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED),
            Access::CopyOnWrite => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE),
        };
        let fd = self.object.handle();
        let (address, flags) = (address.cast(), sharing | extra);
        // SAFETY: a new mapping of the kernel's choosing, or at an address that `extra` forbids to
        // replace or that the caller has reserved for it.
        let mapped = unsafe { rustix::mm::mmap(address, self.total, prot, flags, fd.as_fd(), self.offset) };
        mapped.map(|start| start.cast())
    }

    fn anywhere(&self) -> Result<*mut u8> {
        self.map(ptr::null_mut(), MapFlags::empty()).map_err(system("map"))
    }

    /// At the one address asked for, or not at all.
    fn at(&self, wanted: usize, before: usize) -> Result<*mut u8> {
        let refused = |why: &str| {
            let reason = format!("it cannot be mapped at address {wanted:#x}: {why}");
            Error::invalid("map", reason)
        };
        let start = wanted.checked_sub(before).filter(|start| *start != 0 && start % page_size() == 0);
        let Some(start) = start else {
            return Err(refused(&format!("its place in a page of {} bytes differs from the offset's", page_size())));
        };
        let start: *mut u8 = ptr::with_exposed_provenance_mut(start);
        let got = self.map(start, native::FIXED).map_err(|errno| match errno {
            Errno::EXIST => refused("something is there already"),
            errno => system("map")(errno),
        })?;
        if got == start {
            return Ok(got);
        }
        // A system that takes the address as a hint.
        // SAFETY: just mapped, with this length, and given to nobody.
        let _ = unsafe { rustix::mm::munmap(got.cast(), self.total) };
        Err(refused("the system would put it elsewhere"))
    }

    /// At an address that large pages can begin at.
    fn aligned(&self, align: usize) -> Result<*mut u8> {
        let room = self.total.checked_add(align).ok_or_else(|| system("map")(Errno::OVERFLOW))?;
        // SAFETY: reserves address space of the kernel's choosing.
        let reserved =
            unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), room, ProtFlags::empty(), MapFlags::PRIVATE) };
        let reserved: *mut u8 = reserved.map_err(system("map"))?.cast();
        let skip = reserved.align_offset(align);
        let start = reserved.wrapping_add(skip);
        let mapped = self.map(start, MapFlags::FIXED);
        let used = if mapped.is_ok() { self.total.next_multiple_of(page_size()) } else { 0 };
        for (from, len) in [(reserved, skip), (start.wrapping_add(used), room - skip - used)] {
            if len > 0 {
                // SAFETY: what the reservation has beside the mapping; nobody else knows it.
                let _ = unsafe { rustix::mm::munmap(from.cast(), len) };
            }
        }
        mapped.map_err(system("map"))
    }
}
