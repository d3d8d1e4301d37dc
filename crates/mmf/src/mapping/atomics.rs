//! Atomic operations on shared words, guarded.

use std::sync::atomic::Ordering;

use super::Mapping;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::guard::{Fault, Word};
use crate::types::FaultPolicy;

/// The integers that atomic operations work on: 8 to 64 bits, signed and unsigned. Sealed.
pub trait Atom: Copy + PartialEq + Sealed {}

mod private {
    use super::Word;

    // The layer below stays private: this trait cannot be named outside.
    #[allow(private_bounds)]
    pub trait Sealed: Copy {
        type Word: Word;
        fn to_word(self) -> Self::Word;
        fn from_word(word: Self::Word) -> Self;
        fn plus(self, other: Self) -> Self;
        fn negated(self) -> Self;
        fn bit_and(self, other: Self) -> Self;
        fn bit_or(self, other: Self) -> Self;
        fn bit_xor(self, other: Self) -> Self;
        fn bit_nand(self, other: Self) -> Self;
        fn larger(self, other: Self) -> Self;
        fn smaller(self, other: Self) -> Self;
    }
}
use private::Sealed;

macro_rules! atoms {
    ($($type:ty as $word:ty),*) => {$(
        impl Atom for $type {}
        impl Sealed for $type {
            type Word = $word;
            #[inline]
            fn to_word(self) -> $word { <$word>::from_ne_bytes(self.to_ne_bytes()) }
            #[inline]
            fn from_word(word: $word) -> Self { Self::from_ne_bytes(word.to_ne_bytes()) }
            #[inline]
            fn plus(self, other: Self) -> Self { self.wrapping_add(other) }
            #[inline]
            fn negated(self) -> Self { self.wrapping_neg() }
            #[inline]
            fn bit_and(self, other: Self) -> Self { self & other }
            #[inline]
            fn bit_or(self, other: Self) -> Self { self | other }
            #[inline]
            fn bit_xor(self, other: Self) -> Self { self ^ other }
            #[inline]
            fn bit_nand(self, other: Self) -> Self { !(self & other) }
            #[inline]
            fn larger(self, other: Self) -> Self { self.max(other) }
            #[inline]
            fn smaller(self, other: Self) -> Self { self.min(other) }
        }
    )*};
}
atoms!(u8 as u8, u16 as u16, u32 as u32, u64 as u64, i8 as u8, i16 as u16, i32 as u32, i64 as u64);

/// Atomic operations, as those of [`std::sync::atomic`], on aligned words of the mapping.
///
/// They are as strong as the ordering asked for, or stronger. Every process that uses atomic operations on the same word
/// takes part, whatever its language. Alignment counts from the object's start, as seen in memory.
///
/// # Errors
///
/// All of them: [`ErrorKind::OutOfBounds`]; [`ErrorKind::Misaligned`]; [`ErrorKind::Fault`], and then nothing was changed;
/// [`ErrorKind::ReadOnly`], except for `load`; [`ErrorKind::InvalidInput`] for an ordering that the operation
/// cannot have; [`ErrorKind::Unsupported`] under [`FaultPolicy::SystemCalls`].
impl Mapping {
    /// Loads a word.
    ///
    /// # Errors
    ///
    /// See [above](#impl-Mapping-1). `ordering` is not `Release` and not `AcqRel`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::atomic::Ordering;
    /// use mmf::Mapping;
    ///
    /// let map = Mapping::anonymous(4096)?;
    /// map.store(64, 7_u32, Ordering::Release)?;
    /// assert_eq!(map.fetch_add(64, 1_u32, Ordering::Relaxed)?, 7);
    /// assert_eq!(map.load::<u32>(64, Ordering::Acquire)?, 8);
    /// assert_eq!(map.compare_exchange(64, 8_u32, 9, Ordering::AcqRel, Ordering::Acquire)?, Ok(8));
    /// # Ok::<(), mmf::Error>(())
    /// ```
    #[inline]
    pub fn load<T: Atom>(&self, offset: usize, ordering: Ordering) -> Result<T> {
        if matches!(ordering, Ordering::Release | Ordering::AcqRel) {
            return Err(self.bad_ordering("load", ordering));
        }
        self.load_for(offset, "load")
    }

    #[inline]
    fn load_for<T: Atom>(&self, offset: usize, doing: &'static str) -> Result<T> {
        let src = self.locate(offset, size_of::<T>(), doing)?;
        let src = self.aligned::<T>(src, offset, doing)?;
        // SAFETY: `locate` and `word` checked that the word lies in the view and is aligned; a fault is reported.
        let loaded = unsafe { Word::load(src) };
        self.seen(loaded, offset, doing)
    }

    /// Stores a word.
    ///
    /// # Errors
    ///
    /// As [`load`](Mapping::load), and [`ErrorKind::ReadOnly`]. `ordering` is not `Acquire` and not `AcqRel`.
    #[inline]
    pub fn store<T: Atom>(&self, offset: usize, value: T, ordering: Ordering) -> Result<()> {
        let dst = self.writable_word::<T>(offset, "store")?;
        let stored = match ordering {
            // SAFETY: `writable_word` checked that the word lies in the view, is aligned and may be written.
            Ordering::SeqCst => unsafe { Word::store(dst, value.to_word()) },
            // SAFETY: as above.
            Ordering::Relaxed | Ordering::Release => unsafe { Word::store_release(dst, value.to_word()) },
            _ => return Err(self.bad_ordering("store", ordering)),
        };
        stored.map_err(|Fault| self.fault("store", offset, 0))
    }

    /// Stores a word and gives the one that was there.
    ///
    /// # Errors
    ///
    /// As [`store`](Mapping::store); every ordering will do.
    #[inline]
    pub fn swap<T: Atom>(&self, offset: usize, value: T, _ordering: Ordering) -> Result<T> {
        let dst = self.writable_word::<T>(offset, "swap")?;
        // SAFETY: `writable_word` checked that the word lies in the view, is aligned and may be written.
        let swapped = unsafe { Word::swap(dst, value.to_word()) };
        self.seen(swapped, offset, "swap")
    }

    /// Stores `new` if the word is `current`. `Ok(Ok(previous))` if it was, `Ok(Err(previous))` if not.
    ///
    /// # Errors
    ///
    /// As [`swap`](Mapping::swap). `failure` is not `Release` and not `AcqRel`.
    #[inline]
    pub fn compare_exchange<T: Atom>(
        &self,
        offset: usize,
        current: T,
        new: T,
        _success: Ordering,
        failure: Ordering,
    ) -> Result<Result<T, T>> {
        if matches!(failure, Ordering::Release | Ordering::AcqRel) {
            return Err(self.bad_ordering("compare and exchange", failure));
        }
        self.exchange_for(offset, current, new, "compare and exchange")
    }

    #[inline]
    fn exchange_for<T: Atom>(&self, offset: usize, current: T, new: T, doing: &'static str) -> Result<Result<T, T>> {
        let dst = self.writable_word::<T>(offset, doing)?;
        // SAFETY: `writable_word` checked that the word lies in the view, is aligned and may be written.
        let previous = unsafe { Word::compare_exchange(dst, current.to_word(), new.to_word()) };
        let previous: T = self.seen(previous, offset, doing)?;
        Ok(if previous == current { Ok(previous) } else { Err(previous) })
    }

    /// Adds to the word, wrapping, and gives what was there.
    ///
    /// # Errors
    ///
    /// As [`swap`](Mapping::swap).
    #[inline]
    pub fn fetch_add<T: Atom>(&self, offset: usize, value: T, _ordering: Ordering) -> Result<T> {
        let dst = self.writable_word::<T>(offset, "add to")?;
        // SAFETY: `writable_word` checked that the word lies in the view, is aligned and may be written.
        let previous = unsafe { Word::add(dst, value.to_word()) };
        self.seen(previous, offset, "add to")
    }

    /// Subtracts from the word, wrapping, and gives what was there.
    ///
    /// # Errors
    ///
    /// As [`swap`](Mapping::swap).
    #[inline]
    pub fn fetch_sub<T: Atom>(&self, offset: usize, value: T, ordering: Ordering) -> Result<T> {
        self.fetch_add(offset, value.negated(), ordering)
    }

    fn fetch_with<T: Atom>(&self, offset: usize, change: impl Fn(T) -> T) -> Result<T> {
        let doing = "change";
        let mut current = self.load_for::<T>(offset, doing)?;
        loop {
            match self.exchange_for(offset, current, change(current), doing)? {
                Ok(previous) => return Ok(previous),
                Err(previous) => current = previous,
            }
        }
    }

    #[inline]
    fn writable_word<T: Atom>(&self, offset: usize, doing: &'static str) -> Result<*mut T::Word> {
        let dst = self.locate_writable(offset, size_of::<T>(), doing)?;
        self.aligned::<T>(dst, offset, doing)
    }

    #[inline]
    fn aligned<T: Atom>(&self, at: *mut u8, offset: usize, doing: &'static str) -> Result<*mut T::Word> {
        if at.addr() % size_of::<T>() != 0 {
            let kind = ErrorKind::Misaligned { offset, align: size_of::<T>() };
            return Err(self.name_error(Error::new(kind, doing)));
        }
        if self.policy == FaultPolicy::SystemCalls {
            let what = "atomic operations under the fault policy of system calls";
            return Err(self.name_error(Error::unsupported(doing, what)));
        }
        Ok(at.cast())
    }

    #[inline]
    fn seen<T: Atom>(&self, word: Result<T::Word, Fault>, offset: usize, doing: &'static str) -> Result<T> {
        match word {
            Ok(word) => Ok(T::from_word(word)),
            Err(Fault) => Err(self.fault(doing, offset, 0)),
        }
    }

    #[cold]
    fn bad_ordering(&self, doing: &'static str, ordering: Ordering) -> Error {
        self.name_error(Error::invalid(doing, format!("it cannot have the ordering {ordering:?}")))
    }
}

macro_rules! fetches {
    ($($(#[doc = $doc:literal])+ $name:ident: $change:ident;)*) => {
        impl Mapping {$(
            $(#[doc = $doc])+
            ///
            /// # Errors
            ///
            /// As [`swap`](Mapping::swap).
            pub fn $name<T: Atom>(&self, offset: usize, value: T, _ordering: Ordering) -> Result<T> {
                self.fetch_with(offset, |current: T| current.$change(value))
            }
        )*}
    };
}
fetches! {
    /// Keeps the bits that are set in `value` too, and gives what was there.
    fetch_and: bit_and;
    /// Sets the bits of `value`, and gives what was there.
    fetch_or: bit_or;
    /// Flips the bits of `value`, and gives what was there.
    fetch_xor: bit_xor;
    /// Stores the complement of the bits that are set in both, and gives what was there.
    fetch_nand: bit_nand;
    /// Stores the larger of the word and `value`, and gives what was there.
    fetch_max: larger;
    /// Stores the smaller of the word and `value`, and gives what was there.
    fetch_min: smaller;
}
