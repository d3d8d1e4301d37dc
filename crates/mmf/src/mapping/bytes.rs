//! Methods of [`Mapping`] that copy bytes, guarded.

use std::mem::MaybeUninit;
use std::ops::RangeBounds;

use super::Mapping;
use crate::error::{Error, ErrorKind, Result};
use crate::mem::{self, Accessor, AccessorMut, LostPage};

impl Mapping {
    /// Copies `buf.len()` bytes at `offset` into `buf`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfBounds`]; [`ErrorKind::Fault`], and then `buf` holds the bytes before the
    /// page that is gone.
    // Always inlined: a call would cost more than a small copy, and the compiler considers the
    // function too long.
    #[inline(always)]
    pub fn read_at(&self, offset: usize, buf: &mut [u8]) -> Result<()> {
        // SAFETY: `buf` is a slice of that many bytes.
        unsafe { self.read_to(offset, buf.as_mut_ptr(), buf.len()) }
    }

    /// Copies `len` bytes at `offset` into a new vector.
    ///
    /// # Errors
    ///
    /// Those of [`read_at`](Mapping::read_at); [`ErrorKind::NoSpace`] if this process has no memory
    /// for the copy.
    pub fn read_to_vec(&self, offset: usize, len: usize) -> Result<Vec<u8>> {
        // The length is checked against the mapping before anything is allocated.
        self.locate(offset, len, "read")?;
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(len).is_err() {
            return Err(self.name_error(Error::new(ErrorKind::NoSpace, "copy")));
        }
        let room: &mut [MaybeUninit<u8>] = bytes.spare_capacity_mut();
        // SAFETY: `len` bytes were reserved.
        unsafe { self.read_to(offset, room.as_mut_ptr().cast(), len) }?;
        // SAFETY: `len` bytes were reserved, and `read_to` has initialized all of them.
        unsafe { bytes.set_len(len) };
        Ok(bytes)
    }

    /// Copies `data` into the mapping at `offset`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfBounds`]; [`ErrorKind::ReadOnly`]; [`ErrorKind::Fault`], and then the
    /// bytes before the page that is gone were written.
    #[inline(always)]
    pub fn write_at(&self, offset: usize, data: &[u8]) -> Result<()> {
        self.write(offset, data)
    }

    /// Sets every byte of the range to `value`.
    ///
    /// # Errors
    ///
    /// Those of [`write_at`](Mapping::write_at).
    pub fn fill(&self, range: impl RangeBounds<usize>, value: u8) -> Result<()> {
        let (offset, len) = self.resolve(range, "fill")?;
        AccessorMut::fill(self, offset, len, value)
    }

    /// Copies the range to `offset` of another mapping, without an intermediate buffer.
    ///
    /// If both are views of the same bytes and the ranges overlap, each byte of the target may end
    /// as any byte that either range held.
    ///
    /// # Errors
    ///
    /// Those of [`read_at`](Mapping::read_at) and [`write_at`](Mapping::write_at). The error names
    /// the mapping whose page is gone.
    ///
    /// # Examples
    ///
    /// ```
    /// use mmf::Mapping;
    ///
    /// let (from, to) = (Mapping::anonymous(4096)?, Mapping::anonymous(4096)?);
    /// from.write_at(0, b"hello")?;
    /// from.copy_to(0..5, &to, 100)?;
    /// assert_eq!(to.read_to_vec(100, 5)?, b"hello");
    /// # Ok::<(), mmf::Error>(())
    /// ```
    pub fn copy_to(&self, range: impl RangeBounds<usize>, target: &Mapping, offset: usize) -> Result<()> {
        let (from, len) = self.resolve(range, "copy")?;
        let src = self.locate(from, len, "copy")?;
        let dst = target.locate_writable(offset, len, "copy")?;
        // The stricter of the two policies guards both sides.
        let policy = self.policy.stricter(target.policy);
        // SAFETY: both ranges were checked to lie in their views, the target's may be written, and
        // the policy guards both. If they overlap, the mixture is what this function promises.
        let copied = unsafe { mem::copy_between(policy, dst, src, len) };
        copied.map_err(|lost| match lost {
            LostPage::Source(done) => self.fault("copy", from, done),
            LostPage::Target(done) => target.fault("copy", offset, done),
        })
    }
}
