//! Shared memory of which the last pages are gone.

pub(super) struct Region {
    base: *mut u8,
    here: usize,
    whole: usize,
}

/// What the tests count in: the largest page of any system here.
pub(super) const STEP: usize = 16384;

impl Region {
    /// Memory whose first `here` bytes exist, followed by `gone` bytes that do not. Both are multiples of [`STEP`].
    pub(super) fn new(here: usize, gone: usize) -> Self {
        let whole = here + gone;
        Region { base: map(here, whole), here, whole }
    }

    /// The first byte.
    pub(super) fn base(&self) -> *mut u8 {
        self.base
    }

    /// The first byte that is gone.
    pub(super) fn border(&self) -> *mut u8 {
        self.base.wrapping_add(self.here)
    }

    /// The addresses of all of it.
    pub(super) fn range(&self) -> (usize, usize) {
        (self.base.addr(), self.base.addr() + self.whole)
    }

    /// Numbers the bytes that exist.
    pub(super) fn number(&self, salt: usize) {
        for at in 0..self.here {
            // SAFETY: within the bytes that exist.
            unsafe { self.base.wrapping_add(at).write_volatile(number(at, salt)) };
        }
    }

    /// The bytes that exist, `distance` before the border and `len` long.
    pub(super) fn bytes(&self, distance: usize, len: usize) -> Vec<u8> {
        assert!(len <= distance && distance <= self.here);
        let from = self.border().wrapping_sub(distance);
        // SAFETY: within the bytes that exist; no other thread has the region.
        unsafe { std::slice::from_raw_parts(from, len) }.to_vec()
    }
}

/// A byte that tells where it stands.
#[allow(clippy::cast_possible_truncation, reason = "any eight bits will do")]
pub(super) fn number(at: usize, salt: usize) -> u8 {
    ((at + salt).wrapping_mul(0x9e37_79b9) >> 13) as u8
}

#[cfg(unix)]
fn map(here: usize, whole: usize) -> *mut u8 {
    use std::os::fd::AsRawFd;

    let path = std::env::temp_dir().join(format!("mmf-guard-{}-{:p}", std::process::id(), &raw const here));
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file.set_len(here as u64).unwrap();
    let (access, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: a new mapping at an address that the system chooses.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), whole, access, shared, file.as_raw_fd(), 0) };
    assert_ne!(base, libc::MAP_FAILED);
    base.cast()
}

#[cfg(unix)]
impl Region {
    /// Forbids writing.
    pub(super) fn make_read_only(&self) {
        // SAFETY: the region is ours.
        assert_eq!(unsafe { libc::mprotect(self.base.cast(), self.whole, libc::PROT_READ) }, 0);
    }
}

#[cfg(unix)]
impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the region is ours, and nobody uses it after.
        unsafe { libc::munmap(self.base.cast(), self.whole) };
    }
}

#[cfg(windows)]
use windows_sys::Win32::System::Memory as memory;

// Wine and Windows both refuse to truncate a mapped file, so that what is gone is forbidden instead.
#[cfg(windows)]
fn map(here: usize, whole: usize) -> *mut u8 {
    let kind = memory::MEM_RESERVE | memory::MEM_COMMIT;
    // SAFETY: new memory at an address that the system chooses.
    let base = unsafe { memory::VirtualAlloc(std::ptr::null(), whole, kind, memory::PAGE_READWRITE) };
    assert!(!base.is_null());
    let mut old = 0;
    // SAFETY: the memory is ours.
    let done = unsafe {
        memory::VirtualProtect(base.wrapping_byte_add(here), whole - here, memory::PAGE_NOACCESS, &raw mut old)
    };
    assert!(whole == here || done != 0);
    base.cast()
}

#[cfg(windows)]
impl Region {
    /// Forbids writing.
    pub(super) fn make_read_only(&self) {
        let mut old = 0;
        // SAFETY: the region is ours.
        let done = unsafe { memory::VirtualProtect(self.base.cast(), self.here, memory::PAGE_READONLY, &raw mut old) };
        assert_ne!(done, 0);
    }
}

#[cfg(windows)]
impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the memory is ours, and nobody uses it after.
        unsafe { memory::VirtualFree(self.base.cast(), 0, memory::MEM_RELEASE) };
    }
}
