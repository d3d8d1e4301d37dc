//! Copies: bytes in, bytes out, guarded.

use std::mem::MaybeUninit;
use std::ops::RangeBounds;

use super::Mapping;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::mem;

impl Mapping {
    /// Copies `buf.len()` bytes at `offset` into `buf`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfBounds`]; [`ErrorKind::Fault`], and then `buf` holds the bytes before the page that is gone.
    // Always: what is around a small copy costs more than the copy, and the compiler finds it too long to inline.
    #[inline(always)]
    pub fn read_at(&self, offset: usize, buf: &mut [u8]) -> Result<()> {
        self.read_raw(offset, buf.as_mut_ptr(), buf.len())
    }

    /// Copies `len` bytes at `offset` into a new vector.
    ///
    /// # Errors
    ///
    /// As [`read_at`](Mapping::read_at); [`ErrorKind::NoSpace`] where this process has no memory for the copy.
    pub fn read_to_vec(&self, offset: usize, len: usize) -> Result<Vec<u8>> {
        // The length is checked against the mapping before anything is allocated.
        self.locate(offset, len, "read")?;
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(len).is_err() {
            return Err(self.name_error(Error::new(ErrorKind::NoSpace, "copy")));
        }
        let room: &mut [MaybeUninit<u8>] = bytes.spare_capacity_mut();
        self.read_raw(offset, room.as_mut_ptr().cast(), len)?;
        // SAFETY: `len` bytes were reserved, and `read_raw` has filled all of them.
        unsafe { bytes.set_len(len) };
        Ok(bytes)
    }

    /// `to` must be good for `len` bytes of writing, and be no part of a mapping that could lose them.
    #[inline(always)]
    pub(super) fn read_raw(&self, offset: usize, to: *mut u8, len: usize) -> Result<()> {
        let src = self.locate(offset, len, "read")?;
        // SAFETY: `locate` checked that the source lies in the view, which lives as long as `self`; a page of it that is
        // gone is what the guard is for. The callers own `to` for `len` bytes.
        let left = unsafe { mem::copy(self.policy, to, src, len, src.addr(), src.addr() + len) };
        if left == 0 { Ok(()) } else { Err(self.fault("read", offset, len - left)) }
    }

    /// Copies `data` into the mapping at `offset`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfBounds`]; [`ErrorKind::ReadOnly`]; [`ErrorKind::Fault`], and then the bytes before the page that is
    /// gone were written.
    #[inline(always)]
    pub fn write_at(&self, offset: usize, data: &[u8]) -> Result<()> {
        let dst = self.locate_writable(offset, data.len(), "write")?;
        let (src, len, end) = (data.as_ptr(), data.len(), dst.addr() + data.len());
        // SAFETY: `locate_writable` checked that the target lies in the view, which lives as long
        // as `self` and may be written; the source is a slice.
        let left = unsafe { mem::copy(self.policy, dst, src, len, dst.addr(), end) };
        #[cfg(test)]
        super::trace::stored(offset, data);
        if left == 0 { Ok(()) } else { Err(self.fault("write", offset, data.len() - left)) }
    }

    /// Sets every byte of the range to `value`.
    ///
    /// # Errors
    ///
    /// As [`write_at`](Mapping::write_at).
    pub fn fill(&self, range: impl RangeBounds<usize>, value: u8) -> Result<()> {
        let (offset, len) = self.resolve(range, "fill")?;
        let dst = self.locate_writable(offset, len, "fill")?;
        // SAFETY: as in `write_at`.
        let left = unsafe { mem::fill(self.policy, dst, value, len, dst.addr(), dst.addr() + len) };
        #[cfg(test)]
        super::trace::stored(offset, &vec![value; len]);
        if left == 0 { Ok(()) } else { Err(self.fault("fill", offset, len - left)) }
    }

    /// Copies the range to `offset` of another mapping, without a stop in this process's memory.
    ///
    /// Where both are views of the same bytes and the ranges overlap, the target's may end as any of the bytes that either
    /// range held.
    ///
    /// # Errors
    ///
    /// As [`read_at`](Mapping::read_at) and [`write_at`](Mapping::write_at); the error names the mapping whose page is gone.
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
        // One policy must guard both sides: the stricter.
        let policy = self.policy.stricter(target.policy);
        // SAFETY: both ranges were checked to lie in their views, the target's may be written, and a fault at
        // either address is one of ours. If they overlap, the mixture is what this function promises.
        let left = unsafe { mem::copy(policy, dst, src, len, 0, usize::MAX) };
        if left == 0 {
            return Ok(());
        }
        let done = len - left;
        // The source's fault shows again; if it does not, the target's page is the one that is gone. This mapping's own
        // policy may be the laxer.
        let (mut byte, at) = (0, src.wrapping_add(done));
        // SAFETY: at least one byte of the source was left, and `byte` is one.
        match unsafe { mem::copy(policy, &raw mut byte, at, 1, at.addr(), at.addr() + 1) } {
            0 => Err(target.fault("copy", offset, done)),
            _ => Err(self.fault("copy", from, done)),
        }
    }
}
