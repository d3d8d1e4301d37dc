//! Words and bytes at offsets that structures in a segment lead to.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;

use super::Mapping;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::guard::{Fault, Matches};
use crate::sys::reach::{self, Word};

/// A mapping as it is now, for those who are in a hurry and have another way, which tells what is wrong: all that is not as
/// usual is `None`.
#[derive(Clone, Copy)]
pub(crate) struct Glance<'a> {
    /// At a multiple of 8.
    base: *const u8,
    /// From where on there are so many bytes at the most as a line has.
    last_line: usize,
    of: PhantomData<&'a Mapping>,
}

/// Bytes of a line, the unit in which a glance looks whether something is there.
const LINE: usize = 64;

impl Glance<'_> {
    /// The address of an offset that is a multiple of 8, with a line behind it.
    #[inline(always)]
    fn line(self, offset: usize) -> Option<*const u8> {
        (offset <= self.last_line && offset % 8 == 0).then(|| self.base.wrapping_add(offset))
    }

    /// The word at `offset`, loaded as [`Mapping::word`] does.
    #[inline(always)]
    pub(crate) fn word(self, offset: usize) -> Option<u64> {
        let at = self.line(offset)?;
        // SAFETY: the place and the alignment were checked; the view lives as long as its mapping.
        unsafe { u64::load(at.cast()) }.ok()
    }

    /// Has the line of an offset fetched into the caches.
    #[inline(always)]
    pub(crate) fn prefetch(self, offset: usize) {
        reach::prefetch(self.base.wrapping_add(offset));
    }

    /// Four words that follow each other, loaded in their order.
    #[inline(always)]
    pub(crate) fn four_words(self, offset: usize) -> Option<[u64; 4]> {
        let at = self.line(offset)?;
        // SAFETY: as in `word`.
        unsafe { reach::load_four(at) }.ok()
    }

    /// See [`guard::match_eight`].
    #[inline(always)]
    pub(crate) fn match_eight(self, offset: usize, mask: u32, wanted: u32) -> Option<Matches> {
        let at = self.line(offset)?;
        // SAFETY: as in `word`.
        unsafe { reach::match_eight(at, mask, wanted) }.ok()
    }

    /// Fills `room`, and then `more`, from `offset` on, and gives what is in the first with the words at `words`, if these are the same
    /// before and after. Each of the two has at least 16 bytes, or none.
    #[inline(always)]
    pub(crate) fn read_between<'b>(
        self,
        [first, second]: [usize; 2],
        offset: usize,
        room: &'b mut [MaybeUninit<u8>],
        more: &mut [MaybeUninit<u8>],
    ) -> Option<([u64; 2], &'b [u8])> {
        let words = [self.line(first)?.cast(), self.line(second)?.cast()];
        // Neither is longer than memory, so the sum does not pass the end.
        let end = offset.checked_add(room.len() + more.len())?;
        if end > self.last_line {
            return None;
        }
        let to = [&raw mut *room as *mut [u8], &raw mut *more as *mut [u8]];
        // SAFETY: the places and the alignment were checked; the view lives as long as its mapping; both places are this
        // function's.
        let words = unsafe { reach::copy_between(words, self.base.wrapping_add(offset), to) }.ok()??;
        // SAFETY: all of it was copied to.
        Some((words, unsafe { std::slice::from_raw_parts(room.as_ptr().cast(), room.len()) }))
    }
}

/// An offset as this process counts.
fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// For structures: whoever uses them has taken a `Cell` before, which refuses mappings whose words cannot be
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
        let loaded = unsafe { reach::load_four(at) };
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
        let stored = unsafe { reach::store_words(dst, words) };
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
        match unsafe { reach::store_pairs(base, last as u64, pairs) } {
            Ok(done) => {
                #[cfg(test)]
                for [offset, value] in &pairs[..done] {
                    super::trace::stored(place(*offset), &value.to_le_bytes());
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
        pairs.iter().try_for_each(|[offset, value]| self.put_word(place(*offset), *value))
    }

    /// Tells which page is gone. Nothing is stored again: others may follow what was stored last.
    #[cold]
    #[inline(never)]
    fn lost(&self, pairs: &[[u64; 2]]) -> Error {
        let gone = pairs.iter().map(|[offset, _]| place(*offset)).find(|offset| self.word(*offset).is_err());
        self.fault("write", gone.unwrap_or(0), 0)
    }

    /// For several looks in a row; `None` for what has no words at all.
    #[inline(always)]
    pub(crate) fn glance(&self) -> Option<Glance<'_>> {
        // In this order: the base is that of a view of this length at least.
        let len = self.len.load(Ordering::Acquire);
        let base = self.base.load(Ordering::Relaxed).cast_const();
        let last_line = len.checked_sub(LINE)?;
        (base.addr() % 8 == 0).then_some(Glance { base, last_line, of: PhantomData })
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
        if self.structured {
            return self.leads_nowhere(offset);
        }
        self.name_it(Error::new(ErrorKind::Misaligned { offset, align: 8 }, "use"))
    }
}
