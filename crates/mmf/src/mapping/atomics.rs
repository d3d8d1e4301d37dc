//! Methods of [`Mapping`] for atomic operations on shared words, guarded.

use std::sync::atomic::Ordering;

use super::Mapping;
use crate::error::{Error, ErrorKind, Result};
use crate::mem::{AccessorMut, SharedWord, Word};
use crate::sys::guard::Fault;
use crate::types::FaultPolicy;

/// The integers that atomic operations work on: 8 to 64 bits, signed and unsigned. Sealed.
pub trait Atom: Copy + PartialEq + Sealed {}

mod private {
    use super::Word;

    // The layer below stays private: this trait cannot be named outside.
    #[allow(private_bounds)]
    pub trait Sealed: Copy {
        type Word: Word + PartialEq;
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
/// They have the requested ordering or a stronger one. They are atomic with respect to every
/// process that uses atomic operations on the same word, in any language. The word's address must
/// be a multiple of its size. The object's first byte lies at the start of a page.
///
/// # Errors
///
/// Each of them: [`ErrorKind::OutOfBounds`]; [`ErrorKind::Misaligned`]; [`ErrorKind::Fault`], and
/// then nothing was changed; [`ErrorKind::ReadOnly`], except for `load`;
/// [`ErrorKind::InvalidInput`] for an ordering that the operation cannot have;
/// [`ErrorKind::Unsupported`] under [`FaultPolicy::SystemCalls`].
impl Mapping {
    /// Loads a word.
    ///
    /// # Errors
    ///
    /// See [the errors of atomic operations](#impl-Mapping-1). `ordering` is not `Release` and not
    /// `AcqRel`.
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
        self.seen(self.atom::<T>(offset, "load")?.load(), offset, "load")
    }

    /// Stores a word.
    ///
    /// # Errors
    ///
    /// Those of [`load`](Mapping::load), and [`ErrorKind::ReadOnly`]. `ordering` is not `Acquire`
    /// and not `AcqRel`.
    #[inline]
    pub fn store<T: Atom>(&self, offset: usize, value: T, ordering: Ordering) -> Result<()> {
        let word = self.writable_atom::<T>(offset, "store")?;
        let stored = match ordering {
            Ordering::SeqCst => word.store_seq_cst(value.to_word()),
            Ordering::Relaxed | Ordering::Release => word.store(value.to_word()),
            _ => return Err(self.bad_ordering("store", ordering)),
        };
        stored.map_err(|Fault| self.fault("store", offset, 0))
    }

    /// Stores a word and returns the previous one.
    ///
    /// # Errors
    ///
    /// Those of [`store`](Mapping::store). Every ordering is valid.
    #[inline]
    pub fn swap<T: Atom>(&self, offset: usize, value: T, _ordering: Ordering) -> Result<T> {
        let word = self.writable_atom::<T>(offset, "swap")?;
        self.seen(word.swap(value.to_word()), offset, "swap")
    }

    /// Stores `new` if the word is `current`. Returns `Ok(Ok(previous))` if it was, and
    /// `Ok(Err(previous))` if not.
    ///
    /// # Errors
    ///
    /// Those of [`swap`](Mapping::swap). `failure` is not `Release` and not `AcqRel`.
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
        let doing = "compare and exchange";
        let word = self.writable_atom::<T>(offset, doing)?;
        let previous: T = self.seen(word.compare_exchange(current.to_word(), new.to_word()), offset, doing)?;
        Ok(if previous == current { Ok(previous) } else { Err(previous) })
    }

    /// Adds to the word, wrapping, and returns the previous one.
    ///
    /// # Errors
    ///
    /// Those of [`swap`](Mapping::swap).
    #[inline]
    pub fn fetch_add<T: Atom>(&self, offset: usize, value: T, _ordering: Ordering) -> Result<T> {
        let word = self.writable_atom::<T>(offset, "add to")?;
        self.seen(word.add(value.to_word()), offset, "add to")
    }

    /// Subtracts from the word, wrapping, and returns the previous one.
    ///
    /// # Errors
    ///
    /// Those of [`swap`](Mapping::swap).
    #[inline]
    pub fn fetch_sub<T: Atom>(&self, offset: usize, value: T, ordering: Ordering) -> Result<T> {
        self.fetch_add(offset, value.negated(), ordering)
    }

    fn fetch_with<T: Atom>(&self, offset: usize, change: impl Fn(T) -> T) -> Result<T> {
        let doing = "change";
        let word = self.writable_atom::<T>(offset, doing)?;
        self.seen(word.update(|word| change(T::from_word(word)).to_word()), offset, doing)
    }

    #[inline(always)]
    fn writable_atom<T: Atom>(&self, offset: usize, doing: &'static str) -> Result<SharedWord<T::Word>> {
        self.require_writable(doing)?;
        self.atom::<T>(offset, doing)
    }

    /// Returns the word at `offset`. The caller uses it while `self` is borrowed, and stores to it
    /// only if the mapping is not read-only.
    #[inline(always)]
    fn atom<T: Atom>(&self, offset: usize, doing: &'static str) -> Result<SharedWord<T::Word>> {
        let at = self.locate(offset, size_of::<T>(), doing)?;
        if at.addr() % size_of::<T>() != 0 || self.policy == FaultPolicy::SystemCalls {
            return Err(self.refused_atom(at, offset, size_of::<T>(), doing));
        }
        // SAFETY: `locate` has checked that the word lies in the view, and the alignment was
        // checked here; the callers use it while `self` is borrowed, and store to it only from
        // `writable_atom`; the trap was armed before the first view was made.
        Ok(unsafe { SharedWord::new(at) })
    }

    #[inline]
    fn seen<T: Atom>(&self, word: Result<T::Word, Fault>, offset: usize, doing: &'static str) -> Result<T> {
        match word {
            Ok(word) => Ok(T::from_word(word)),
            Err(Fault) => Err(self.fault(doing, offset, 0)),
        }
    }

    #[cold]
    #[inline(never)]
    fn refused_atom(&self, at: *mut u8, offset: usize, align: usize, doing: &'static str) -> Error {
        self.name_error(if at.addr() % align != 0 {
            Error::new(ErrorKind::Misaligned { offset, align }, doing)
        } else {
            Error::unsupported(doing, "atomic operations under the fault policy of system calls")
        })
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
            /// Those of [`swap`](Mapping::swap).
            pub fn $name<T: Atom>(&self, offset: usize, value: T, _ordering: Ordering) -> Result<T> {
                self.fetch_with(offset, |current: T| current.$change(value))
            }
        )*}
    };
}
fetches! {
    /// Clears the bits that are not set in `value`, and returns the previous word.
    fetch_and: bit_and;
    /// Sets the bits of `value`, and returns the previous word.
    fetch_or: bit_or;
    /// Flips the bits of `value`, and returns the previous word.
    fetch_xor: bit_xor;
    /// Stores the complement of the bits that are set in both, and returns the previous word.
    fetch_nand: bit_nand;
    /// Stores the larger of the word and `value`, and returns the previous word.
    fetch_max: larger;
    /// Stores the smaller of the word and `value`, and returns the previous word.
    fetch_min: smaller;
}
