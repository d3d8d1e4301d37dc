//! Words and bytes at offsets that structures in a segment lead to.

use std::mem::MaybeUninit;
use std::time::Duration;

use super::Mapping;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::guard::Fault;
use crate::sys::mem::{self, Word};

/// Bytes that are copied between two looks at the clock: about a millisecond's worth where they are
/// in memory.
pub(crate) const COPY_CHUNK: usize = 4 << 20;

/// How long a call may work once it has its lock, however short its timeout is.
/// In the models nothing: a reader without time looks once there, and the clock decides nothing.
pub(crate) const MIN_WORK_TIME: Duration = Duration::from_millis(if cfg!(all(test, loom)) { 0 } else { 50 });

/// An offset as this process counts.
fn to_usize(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// For structures: whoever uses them has taken a `SharedWord` before, which refuses mappings whose
/// words cannot be reached.
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
        loaded.map_err(|Fault| self.fault("read", offset, 0))
    }

    /// Loads four words that follow each other from `offset` on, in their order and each as [`word`](Mapping::word) does.
    ///
    /// # Errors
    ///
    /// As [`word`](Mapping::word).
    #[inline(always)]
    pub(crate) fn four_words(&self, offset: usize) -> Result<[u64; 4]> {
        let at = self.locate(offset, 32, "read")?;
        if at.addr() % 8 != 0 {
            return Err(self.misaligned(offset));
        }
        // SAFETY: as in `word`, for each of the four.
        let loaded = unsafe { mem::load_four(at) };
        loaded.map_err(|Fault| self.fault("read", offset, 0))
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
        stored.map_err(|Fault| self.fault("write", offset, 0))
    }

    /// Stores words from `offset` on as [`put_word`](Mapping::put_word) does, one after the other. A copy would load them in
    /// larger pieces, which is slow where they have just been made.
    ///
    /// # Errors
    ///
    /// As [`put_word`](Mapping::put_word).
    #[inline]
    pub(crate) fn put_words(&self, offset: usize, words: &[u64]) -> Result<()> {
        let dst = self.locate_writable(offset, size_of_val(words), "write")?;
        if dst.addr() % 8 != 0 {
            return Err(self.misaligned(offset));
        }
        // SAFETY: `locate_writable` checked that the words lie in the view, which lives as long as `self` and may be written, and
        // the alignment was checked here.
        let stored = unsafe { mem::store_words(dst, words) };
        #[cfg(test)]
        words.iter().zip(0..).for_each(|(word, nth)| super::trace::stored(offset + 8 * nth, &word.to_le_bytes()));
        stored.map_err(|Fault| self.fault("write", offset, 0))
    }

    /// Stores pairs of an offset and a word as [`put_word`](Mapping::put_word) does, in their order.
    ///
    /// # Errors
    ///
    /// As [`put_word`](Mapping::put_word), and then those before it are stored.
    #[inline]
    pub(crate) fn put_pairs(&self, pairs: &[[u64; 2]]) -> Result<()> {
        let len = self.len();
        let base = self.locate_writable(0, 0, "write")?;
        let Some(last) = len.checked_sub(8).filter(|_| base.addr() % 8 == 0) else { return self.put_others(pairs) };
        // SAFETY: the view has `len` bytes, as it had before the address was asked for; it lives as long as `self`, may be written
        // and is aligned, as checked.
        match unsafe { mem::store_pairs(base, last as u64, pairs) } {
            Ok(done) => {
                #[cfg(test)]
                for [offset, value] in &pairs[..done] {
                    super::trace::stored(to_usize(*offset), &value.to_le_bytes());
                }
                // Somebody may have made the mapping longer; else what cannot be stored shows why by itself.
                if done == pairs.len() { Ok(()) } else { self.put_others(&pairs[done..]) }
            }
            Err(Fault) => Err(self.lost(pairs)),
        }
    }

    #[cold]
    #[inline(never)]
    fn put_others(&self, pairs: &[[u64; 2]]) -> Result<()> {
        pairs.iter().try_for_each(|[offset, value]| self.put_word(to_usize(*offset), *value))
    }

    /// Tells which page is gone. Nothing is stored again: others may follow what was stored last.
    #[cold]
    #[inline(never)]
    fn lost(&self, pairs: &[[u64; 2]]) -> Error {
        let gone = pairs.iter().map(|[offset, _]| to_usize(*offset)).find(|offset| self.word(*offset).is_err());
        self.fault("write", gone.unwrap_or(0), 0)
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

    /// As [`read_words`](Mapping::read_words), for words that need not be cleared first.
    pub(crate) fn read_words_uninit<'b>(&self, offset: usize, room: &'b mut [MaybeUninit<u64>]) -> Result<&'b [u64]> {
        self.read_raw(offset, room.as_mut_ptr().cast(), size_of_val(room))?;
        // SAFETY: `read_raw` has filled all of it, and any bytes are words.
        Ok(unsafe { std::slice::from_raw_parts(room.as_ptr().cast(), room.len()) })
    }

    /// Copies as many bytes at `offset` as `room` has, and gives them. For memory that need not be cleared first: another
    /// language's string, say.
    ///
    /// # Errors
    ///
    /// As [`read_at`](Mapping::read_at).
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
            return Err(self.name_error(Error::new(ErrorKind::NoSpace, "copy")));
        }
        let room: &mut [MaybeUninit<u8>] = bytes.spare_capacity_mut();
        self.read_raw(offset, room.as_mut_ptr().cast(), len)?;
        // SAFETY: there is room for `len` more, and `read_raw` has filled all of them.
        unsafe { bytes.set_len(bytes.len() + len) };
        Ok(())
    }

    /// As `append_to`; before each [`COPY_CHUNK`] of a copy that has more than one it calls
    /// `on_time`, whose error ends the copy.
    ///
    /// # Errors
    ///
    /// As `append_to`, and those of `on_time`; `bytes` may then have some more bytes than before.
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
