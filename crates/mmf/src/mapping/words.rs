//! Methods of [`Mapping`] that access words and bytes at offsets from structures in a segment.

use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Mapping;
use crate::error::{Error, ErrorKind, Result};
use crate::mem::{self, Accessor, AccessorMut, FastAccess, FastAccessMut};
use crate::sys::{self, guard::Fault};
use crate::types::{Access, FaultPolicy};

/// The number of bytes that are copied between two reads of the clock: about 1 ms if they are in
/// memory.
pub(crate) const COPY_CHUNK: usize = 4 << 20;

/// The least time that a call may work once it has its lock, however short its timeout is. It is 0
/// in the models, where a reader reads once and the clock decides nothing.
pub(crate) const MIN_WORK_TIME: Duration = Duration::from_millis(if sys::IS_MODEL { 0 } else { 50 });

/// Converts an offset. One that this process cannot address becomes the largest, which no mapping
/// reaches.
fn to_usize(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

// SAFETY: `locate` returns an address in a view, of a length that was checked; the alignment of
// words is checked here. All views stay mapped while the mapping is borrowed. The trap was armed
// before the first was made. No words are accessed under the policy of system calls: structures
// refuse such mappings, and so does `make_range_dirty`.
unsafe impl Accessor for &Mapping {
    type Error = Error;

    #[inline(always)]
    fn policy(self) -> FaultPolicy {
        self.policy
    }

    #[inline(always)]
    fn bytes(self, offset: usize, len: usize, doing: &'static str) -> Result<*mut u8> {
        self.locate(offset, len, doing)
    }

    #[inline(always)]
    fn words(self, offset: usize, count: usize, doing: &'static str) -> Result<*mut u8> {
        let at = self.locate(offset, size_of::<u64>() * count, doing)?;
        if at.addr() % 8 != 0 { Err(self.misaligned(offset)) } else { Ok(at) }
    }

    #[inline(always)]
    fn fault(self, doing: &'static str, offset: usize, done: usize) -> Error {
        Mapping::fault(self, doing, offset, done)
    }
}

// SAFETY: the conditions of `Accessor` hold, see its implementation. A view of a mapping that is
// not read-only may be written.
unsafe impl AccessorMut for &Mapping {
    #[inline(always)]
    fn require_writable(self, doing: &'static str) -> Result<()> {
        if self.access == Access::ReadOnly { Err(self.read_only(doing)) } else { Ok(()) }
    }
}

/// Operations for structures. Each structure has taken a `SharedWord` before, which fails for a
/// mapping whose words cannot be accessed.
impl Mapping {
    /// Loads the word at `offset`, sequentially consistent.
    ///
    /// # Errors
    ///
    /// `OutOfBounds`, `Misaligned`, `Fault`.
    #[inline(always)]
    pub(crate) fn word(&self, offset: usize) -> Result<u64> {
        Accessor::word(self, offset)
    }

    /// Loads four words that follow each other from `offset` on, in their order and each as
    /// [`word`](Mapping::word) does.
    ///
    /// # Errors
    ///
    /// Those of [`word`](Mapping::word).
    #[inline(always)]
    pub(crate) fn four_words(&self, offset: usize) -> Result<[u64; 4]> {
        Accessor::four_words(self, offset)
    }

    /// Stores the word at `offset`, with release ordering.
    ///
    /// # Errors
    ///
    /// Those of [`word`](Mapping::word), and `ReadOnly`.
    #[inline(always)]
    pub(crate) fn put_word(&self, offset: usize, value: u64) -> Result<()> {
        AccessorMut::put_word(self, offset, value)
    }

    /// Stores words from `offset` on as [`put_word`](Mapping::put_word) does, one after the other.
    ///
    /// # Errors
    ///
    /// Those of [`put_word`](Mapping::put_word).
    #[inline]
    pub(crate) fn put_words(&self, offset: usize, words: &[u64]) -> Result<()> {
        AccessorMut::put_words(self, offset, words)
    }

    /// Stores pairs of an offset and a word as [`put_word`](Mapping::put_word) does, in their
    /// order.
    ///
    /// # Errors
    ///
    /// Those of [`put_word`](Mapping::put_word). The pairs before the failed one are stored then.
    #[inline]
    pub(crate) fn put_pairs(&self, pairs: &[[u64; 2]]) -> Result<()> {
        let len = self.len();
        let base = self.locate_writable(0, 0, "write")?;
        let Some(last) = len.checked_sub(8).filter(|_| base.addr() % 8 == 0) else { return self.put_others(pairs) };
        // SAFETY: the view has `len` bytes, which were loaded before the address; it stays mapped
        // while `self` is borrowed, may be written and is aligned, as checked.
        match unsafe { mem::put_pairs(base, last as u64, pairs) } {
            Ok(done) if done == pairs.len() => Ok(()),
            // A peer may have grown the object. Otherwise `put_others` returns the pair's error.
            Ok(done) => self.put_others(&pairs[done..]),
            Err(Fault) => Err(self.lost(pairs)),
        }
    }

    #[cold]
    #[inline(never)]
    fn put_others(&self, pairs: &[[u64; 2]]) -> Result<()> {
        pairs.iter().try_for_each(|[offset, value]| self.put_word(to_usize(*offset), *value))
    }

    /// Returns the error for the page that is gone. It stores nothing again, since peers may have
    /// seen the last store already.
    #[cold]
    #[inline(never)]
    fn lost(&self, pairs: &[[u64; 2]]) -> Error {
        let gone = pairs.iter().map(|[offset, _]| to_usize(*offset)).find(|offset| self.word(*offset).is_err());
        self.fault("write", gone.unwrap_or(0), 0)
    }

    /// Returns access for a fast path, with bounds that are read once. Returns `None` for a mapping
    /// without a line of 64 bytes.
    #[inline(always)]
    pub(crate) fn fast_access(&self) -> Option<FastAccess<'_>> {
        // The length is loaded first, so the base is that of a view of at least this length.
        let len = self.len.load(Ordering::Acquire);
        let base = self.base.load(Ordering::Relaxed);
        // SAFETY: the views stay mapped while `self` is borrowed, and the trap was armed before the
        // first view was made. Only structures use this, and they refuse the policy of system
        // calls.
        unsafe { FastAccess::new(base, len, &self.policy) }
    }

    /// Returns [`fast_access`](Mapping::fast_access) for loads and stores, or `None` for a mapping
    /// that may not be written.
    #[inline(always)]
    pub(crate) fn fast_access_mut(&self) -> Option<FastAccessMut<'_>> {
        let access = self.fast_access()?;
        // SAFETY: a view of a mapping that is not read-only may be written.
        (self.access != Access::ReadOnly).then(|| unsafe { FastAccessMut::new(access) })
    }

    /// Copies words from `offset` on. Each of them may be torn if another process stores it
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// Those of [`read_at`](Mapping::read_at).
    #[inline(always)]
    pub(crate) fn read_words(&self, offset: usize, words: &mut [u64]) -> Result<()> {
        // SAFETY: `words` is a slice of that many bytes, and any bytes are words.
        unsafe { self.read_to(offset, words.as_mut_ptr().cast(), size_of_val(words)) }
    }

    /// Copies words like [`read_words`](Mapping::read_words), into memory that is not initialized.
    pub(crate) fn read_words_uninit<'b>(&self, offset: usize, room: &'b mut [MaybeUninit<u64>]) -> Result<&'b [u64]> {
        // SAFETY: `room` is a slice of that many bytes.
        unsafe { self.read_to(offset, room.as_mut_ptr().cast(), size_of_val(room)) }?;
        // SAFETY: `read_to` has filled all of it, and any bytes are words.
        Ok(unsafe { std::slice::from_raw_parts(room.as_ptr().cast(), room.len()) })
    }

    /// Copies `room.len()` bytes at `offset` into memory that is not initialized, and returns them.
    /// It serves for a string of another language, for example.
    ///
    /// # Errors
    ///
    /// Those of [`read_at`](Mapping::read_at).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::mem::MaybeUninit;
    ///
    /// let map = mmf::Mapping::anonymous(4096)?;
    /// map.write_at(10, b"hello")?;
    /// let mut room = [const { MaybeUninit::uninit() }; 5];
    /// assert_eq!(map.read_uninit(10, &mut room)?, b"hello");
    /// # Ok::<(), mmf::Error>(())
    /// ```
    #[inline(always)]
    pub fn read_uninit<'b>(&self, offset: usize, room: &'b mut [MaybeUninit<u8>]) -> Result<&'b [u8]> {
        // SAFETY: `room` is a slice of that many bytes.
        unsafe { self.read_to(offset, room.as_mut_ptr().cast(), room.len()) }?;
        // SAFETY: `read_to` has filled all of it.
        Ok(unsafe { std::slice::from_raw_parts(room.as_ptr().cast(), room.len()) })
    }

    /// Appends `len` bytes at `offset` to `bytes`.
    ///
    /// # Errors
    ///
    /// Those of [`read_to_vec`](Mapping::read_to_vec). The contents of `bytes` are unchanged then.
    #[inline]
    pub(crate) fn append_to(&self, offset: usize, len: usize, bytes: &mut Vec<u8>) -> Result<()> {
        // Checked before anything is allocated.
        self.locate(offset, len, "read")?;
        if bytes.capacity() - bytes.len() < len && bytes.try_reserve(len).is_err() {
            return Err(self.name_error(Error::new(ErrorKind::NoSpace, "copy")));
        }
        let room: &mut [MaybeUninit<u8>] = bytes.spare_capacity_mut();
        // SAFETY: there is room for `len` more.
        unsafe { self.read_to(offset, room.as_mut_ptr().cast(), len) }?;
        // SAFETY: there was room for `len` more bytes, and `read_to` has initialized all of them.
        unsafe { bytes.set_len(bytes.len() + len) };
        Ok(())
    }

    /// Appends `len` bytes at `offset` to `bytes`, in chunks of [`COPY_CHUNK`]. If there is more
    /// than one chunk, it calls `on_time` before each. An error of `on_time` ends the copy.
    ///
    /// # Errors
    ///
    /// Those of `append_to` and of `on_time`. `bytes` may then have got a part of the copy.
    pub(crate) fn append_pieces(
        &self,
        offset: usize,
        len: usize,
        bytes: &mut Vec<u8>,
        mut on_time: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        if len <= COPY_CHUNK {
            return self.append_to(offset, len, bytes);
        }
        // Checked before anything is allocated.
        self.locate(offset, len, "read")?;
        if bytes.try_reserve_exact(len).is_err() {
            return Err(self.name_error(Error::new(ErrorKind::NoSpace, "copy")));
        }
        let mut done = 0;
        while done < len {
            on_time()?;
            let piece = COPY_CHUNK.min(len - done);
            self.append_to(offset + done, piece, bytes)?;
            done += piece;
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn misaligned(&self, offset: usize) -> Error {
        if self.structured {
            return self.leads_nowhere(offset);
        }
        self.name_error(Error::new(ErrorKind::Misaligned { offset, align: 8 }, "use"))
    }
}
