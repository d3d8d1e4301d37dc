//! Parts of a file that a file system takes for written although their data is not reachable.
//!
//! Space that was allocated and never written is an *unwritten extent*, which reads as zeros. The
//! first write of its data converts it. Where that write fails, ext4 keeps the page's buffers as
//! those of a block that has its place, so that a second write of the page writes the block,
//! succeeds, and converts nothing (`mpage_map_and_submit_extent` in `fs/ext4/inode.c`, seen with
//! Linux 6.18). The bytes are right until their page leaves memory, and zeros from then on.
//!
//! `FS_IOC_FIEMAP` shows such extents. A write with `O_DIRECT` goes around the page and converts
//! them.

use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// What the ioctl takes and gives (`linux/fiemap.h`).
#[repr(C)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    room: u32,
    reserved: u32,
    extents: [Extent; MAX_EXTENTS],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    more_reserved: [u32; 3],
}

/// Extents asked for in one call.
const MAX_EXTENTS: usize = 64;

/// `_IOWR('f', 11, struct fiemap)`, whose size is that without extents, as x86 and ARM encode it.
const FIEMAP: u32 = 0xc020_660b;
const LAST: u32 = 0x1;
const UNWRITTEN: u32 = 0x800;

const _: () = assert!(size_of::<Extent>() == 56 && size_of::<Fiemap>() == 32 + 56 * MAX_EXTENTS);

/// The unwritten extents among the first `len` bytes; none where the file system does not tell.
pub(super) fn unwritten(fd: BorrowedFd<'_>, len: u64) -> Result<Vec<Range<u64>>, Errno> {
    Ok(extents(fd, len, UNWRITTEN)?.unwrap_or_default())
}

/// The extents among the first `len` bytes: all but holes. Without the file system's help all of
/// them.
pub(super) fn allocated(fd: BorrowedFd<'_>, len: u64) -> Result<Vec<Range<u64>>, Errno> {
    // One range, and not as many numbers as it has.
    #[allow(clippy::single_range_in_vec_init, reason = "as said")]
    Ok(extents(fd, len, 0)?.unwrap_or_else(|| vec![0..len]))
}

/// The extents that have these flags; `None` where the file system does not tell.
fn extents(fd: BorrowedFd<'_>, len: u64, flags: u32) -> Result<Option<Vec<Range<u64>>>, Errno> {
    let mut found = Vec::new();
    let mut start = 0;
    while start < len {
        let mut map = Fiemap {
            start,
            length: len - start,
            flags: 0,
            mapped: 0,
            room: 64,
            reserved: 0,
            extents: [Extent::default(); MAX_EXTENTS],
        };
        // The type of the request differs between the C libraries.
        #[allow(clippy::cast_possible_wrap, clippy::unnecessary_cast, trivial_numeric_casts, reason = "as said")]
        let request = FIEMAP as _;
        // SAFETY: the request takes a pointer to such a structure with `room` extents behind its
        // head, and writes no more.
        let done = unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut map) };
        if done == -1 {
            return match std::io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR) => continue,
                Some(libc::EOPNOTSUPP | libc::ENOTTY | libc::EINVAL | libc::ENOSYS) => Ok(None),
                Some(code) => Err(Errno::from_raw_os_error(code)),
                None => Err(Errno::IO),
            };
        }
        let extents = map.extents.get(..map.mapped as usize).unwrap_or(&map.extents);
        for extent in extents.iter().filter(|extent| extent.flags & flags == flags) {
            let end = extent.logical.saturating_add(extent.length).min(len);
            found.push(extent.logical..end);
        }
        match extents.last() {
            // Each round begins behind the one before.
            Some(last) if last.flags & LAST == 0 && last.logical.saturating_add(last.length) > start => {
                start = last.logical.saturating_add(last.length);
            }
            _ => break,
        }
    }
    Ok(Some(found))
}

/// A byte for each page of a range, 0 for those that are not in memory; `None` where the system
/// does not tell.
///
/// # Safety
///
/// `start` is the beginning of a page of `page` bytes, and all `len` bytes from there on are mapped.
pub(super) unsafe fn in_memory(start: *mut u8, len: usize, page: usize) -> Option<Vec<u8>> {
    let mut pages = vec![1; len.div_ceil(page)];
    // SAFETY: by the caller's promise the range is mapped, which the system checks as well; it
    // writes a byte for each page that begins in it, for which there is room.
    let done = unsafe { libc::mincore(start.cast(), len, pages.as_mut_ptr()) };
    (done == 0).then_some(pages)
}

/// A description of an open file whose writes go around the pages in memory.
pub(super) fn around(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::open(path, OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty())
}
