//! Words and bytes at offsets that structures in a segment lead to.

use std::mem::MaybeUninit;

use super::Mapping;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::guard::{self, Word};

/// For structures: whoever uses them has taken a [`Cell`](super::Cell) before, which refuses mappings whose words cannot be
/// reached.
impl Mapping {
    /// Loads the word at `offset`, sequentially consistent.
    ///
    /// # Errors
    ///
    /// `OutOfBounds`, `Misaligned`, `Fault`.
    #[inline(always)]
    pub(crate) fn word(&self, offset: usize) -> Result<u64> {
        let at = self.locate(offset, 8, "read")?;
        if at.addr() % 8 != 0 {
            return Err(self.misaligned(offset));
        }
        // SAFETY: `locate` checked the place, and the alignment was checked here; the view lives as long as `self`.
        let loaded = unsafe { u64::load(at.cast_const().cast()) };
        loaded.map_err(|guard::Fault| self.fault("read", offset, 0))
    }

    /// Stores the word at `offset`: a release.
    ///
    /// # Errors
    ///
    /// As [`word`](Mapping::word), and `ReadOnly`.
    #[inline(always)]
    pub(crate) fn put_word(&self, offset: usize, value: u64) -> Result<()> {
        let at = self.locate_writable(offset, 8, "write")?;
        if at.addr() % 8 != 0 {
            return Err(self.misaligned(offset));
        }
        // SAFETY: as in `word`; it may be written.
        let stored = unsafe { u64::store_release(at.cast(), value) };
        #[cfg(test)]
        super::trace::stored(offset, &value.to_le_bytes());
        stored.map_err(|guard::Fault| self.fault("write", offset, 0))
    }

    /// Copies words, little-endian, to `offset`.
    ///
    /// # Errors
    ///
    /// As [`write_at`](Mapping::write_at).
    #[inline]
    pub(crate) fn put_words(&self, offset: usize, words: &[u64]) -> Result<()> {
        let len = size_of_val(words);
        let dst = self.locate_writable(offset, len, "write")?;
        #[cfg(target_endian = "big")]
        compile_error!("words in shared memory are little-endian");
        // SAFETY: `locate_writable` checked that the target lies in the view, which lives as long as `self` and may be
        // written; the source is a slice of `len` bytes.
        let left = unsafe { guard::copy(self.policy, dst, words.as_ptr().cast(), len, dst.addr(), dst.addr() + len) };
        #[cfg(test)]
        words.iter().zip(0..).for_each(|(word, nth)| super::trace::stored(offset + 8 * nth, &word.to_le_bytes()));
        if left == 0 { Ok(()) } else { Err(self.fault("write", offset, len - left)) }
    }

    /// Copies words, little-endian, from `offset`; each of them may be half of what others are writing.
    ///
    /// # Errors
    ///
    /// As [`read_at`](Mapping::read_at).
    #[inline(always)]
    pub(crate) fn read_words(&self, offset: usize, words: &mut [u64]) -> Result<()> {
        self.read_raw(offset, words.as_mut_ptr().cast(), size_of_val(words))
    }

    /// Copies as many bytes at `offset` as `room` has, and gives them.
    ///
    /// # Errors
    ///
    /// As [`read_at`](Mapping::read_at).
    #[inline(always)]
    pub(crate) fn read_uninit<'b>(&self, offset: usize, room: &'b mut [MaybeUninit<u8>]) -> Result<&'b [u8]> {
        self.read_raw(offset, room.as_mut_ptr().cast(), room.len())?;
        // SAFETY: `read_raw` has filled all of it.
        Ok(unsafe { std::slice::from_raw_parts(room.as_ptr().cast(), room.len()) })
    }

    /// Copies `len` bytes at `offset` behind what is in `bytes`.
    ///
    /// # Errors
    ///
    /// As [`read_to_vec`](Mapping::read_to_vec); `bytes` is then as it was.
    #[inline]
    pub(crate) fn append_to(&self, offset: usize, len: usize, bytes: &mut Vec<u8>) -> Result<()> {
        // Checked before anything is allocated.
        self.locate(offset, len, "read")?;
        if bytes.capacity() - bytes.len() < len && bytes.try_reserve(len).is_err() {
            return Err(self.name_it(Error::new(ErrorKind::NoSpace, "copy")));
        }
        let room: &mut [MaybeUninit<u8>] = bytes.spare_capacity_mut();
        self.read_raw(offset, room.as_mut_ptr().cast(), len)?;
        // SAFETY: there is room for `len` more, and `read_raw` has filled all of them.
        unsafe { bytes.set_len(bytes.len() + len) };
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn misaligned(&self, offset: usize) -> Error {
        self.name_it(Error::new(ErrorKind::Misaligned { offset, align: 8 }, "use"))
    }
}
