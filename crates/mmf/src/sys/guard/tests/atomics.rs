//! Atomic operations of every width, on pages that are there and that are not.

use std::fmt::Debug;

use super::region::{Region, STEP};
use crate::sys::guard::{self, Fault, Word};

trait Number: Word + Debug + PartialEq + Default {
    const MAX: Self;
    fn of(value: u8) -> Self;
}
macro_rules! number {
    ($($word:ty)*) => {$(
        impl Number for $word {
            const MAX: Self = <$word>::MAX;
            fn of(value: u8) -> Self { value.into() }
        }
    )*};
}
number!(u8 u16 u32 u64);

/// An aligned word of a region that no reference covers.
#[derive(Clone, Copy)]
struct At<T>(*mut T);

impl<T: Number> At<T> {
    fn load(self) -> Result<T, Fault> {
        // SAFETY: see the type.
        unsafe { T::load(self.0) }
    }
    fn store(self, value: T) -> Result<(), Fault> {
        // SAFETY: see the type.
        unsafe { T::store(self.0, value) }
    }
    fn store_release(self, value: T) -> Result<(), Fault> {
        // SAFETY: see the type.
        unsafe { T::store_release(self.0, value) }
    }
    fn swap(self, value: T) -> Result<T, Fault> {
        // SAFETY: see the type.
        unsafe { T::swap(self.0, value) }
    }
    fn add(self, value: T) -> Result<T, Fault> {
        // SAFETY: see the type.
        unsafe { T::add(self.0, value) }
    }
    fn compare_exchange(self, current: T, new: T) -> Result<T, Fault> {
        // SAFETY: see the type.
        unsafe { T::compare_exchange(self.0, current, new) }
    }
}

fn on_words_that_are_there<T: Number>() {
    let region = Region::new(STEP, STEP);
    // The word in the middle of three: the others show that no more than it is touched.
    let before = At(region.base().cast::<T>());
    let (word, after) = (At(before.0.wrapping_add(1)), At(before.0.wrapping_add(2)));
    before.store(T::MAX).unwrap();
    after.store(T::MAX).unwrap();
    assert_eq!(word.load(), Ok(T::default()));
    assert_eq!(word.store(T::of(7)), Ok(()));
    assert_eq!(word.load(), Ok(T::of(7)));
    assert_eq!(word.swap(T::MAX), Ok(T::of(7)));
    assert_eq!(word.add(T::of(3)), Ok(T::MAX));
    assert_eq!(word.load(), Ok(T::of(2)));
    assert_eq!(word.compare_exchange(T::of(1), T::of(9)), Ok(T::of(2)));
    assert_eq!(word.load(), Ok(T::of(2)));
    assert_eq!(word.compare_exchange(T::of(2), T::MAX), Ok(T::of(2)));
    assert_eq!(word.compare_exchange(T::MAX, T::of(4)), Ok(T::MAX));
    assert_eq!(word.store_release(T::of(5)), Ok(()));
    // SAFETY: the word is there, and this thread's.
    assert_eq!(unsafe { word.0.read() }, T::of(5));
    assert_eq!((before.load(), after.load()), (Ok(T::MAX), Ok(T::MAX)));
}

fn on_words_that_are_gone<T: Number>() {
    guard::arm().unwrap();
    let region = Region::new(STEP, STEP);
    let word = At(region.border().cast::<T>());
    assert_eq!(word.load(), Err(Fault));
    assert_eq!(word.store(T::of(7)), Err(Fault));
    assert_eq!(word.store_release(T::of(7)), Err(Fault));
    assert_eq!(word.swap(T::of(7)), Err(Fault));
    assert_eq!(word.add(T::of(7)), Err(Fault));
    assert_eq!(word.compare_exchange(T::of(0), T::of(7)), Err(Fault));
    let last = At(word.0.wrapping_sub(1));
    assert_eq!(last.swap(T::of(9)), Ok(T::default()));
    assert_eq!(last.load(), Ok(T::of(9)));
}

fn on_pages_that_are_read_only<T: Number>() {
    let region = Region::new(STEP, 0);
    let word = At(region.base().cast::<T>());
    word.store(T::of(5)).unwrap();
    region.make_read_only();
    assert_eq!(word.load(), Ok(T::of(5)));
}

fn counted_by_many<T: Number + Into<u64>>() {
    let region = Region::new(STEP, 0);
    let address = region.base().expose_provenance();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || {
                let count = At(std::ptr::with_exposed_provenance_mut::<T>(address));
                let flag = At(count.0.wrapping_add(1));
                for _ in 0..5000 {
                    // A lock made of the two operations that the count alone does not test.
                    while flag.compare_exchange(T::of(0), T::of(1)) != Ok(T::of(0)) {
                        std::hint::spin_loop();
                    }
                    let plain = At(count.0.wrapping_add(2));
                    let twice = plain.load().unwrap();
                    plain.store_release(twice).unwrap();
                    plain.add(T::of(1)).unwrap();
                    assert_eq!(flag.swap(T::of(0)), Ok(T::of(1)));
                    count.add(T::of(1)).unwrap();
                }
            });
        }
    });
    let (count, plain) = (At(region.base().cast::<T>()), At(region.base().cast::<T>().wrapping_add(2)));
    assert_eq!(count.load().unwrap().into(), 20_000 & T::MAX.into());
    assert_eq!(plain.load(), count.load());
}

/// A processor of 32 bits has other instructions for the width that is not its own.
#[test]
fn a_word_of_64_bits_is_never_seen_half_written() {
    let region = Region::new(STEP, 0);
    let address = region.base().expose_provenance();
    let word = move || At(std::ptr::with_exposed_provenance_mut::<u64>(address));
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let word = word();
            // Values with equal halves.
            for _ in 0..300_000 {
                word.store_release(u64::MAX).unwrap();
                assert_eq!(word.add(1), Ok(u64::MAX));
                assert_eq!(word.swap(u64::MAX), Ok(0));
                assert_eq!(word.compare_exchange(u64::MAX, 0), Ok(u64::MAX));
            }
        });
        let word = word();
        while !writer.is_finished() {
            let seen = word.load().unwrap();
            assert!([0, u64::MAX].contains(&seen), "{seen:#x}");
        }
    });
}

macro_rules! every_width {
    ($($test:ident)*) => {$(
        #[test]
        fn $test() {
            super::$test::<u8>();
            super::$test::<u16>();
            super::$test::<u32>();
            super::$test::<u64>();
        }
    )*};
}

mod every_width {
    every_width!(on_words_that_are_there on_words_that_are_gone on_pages_that_are_read_only counted_by_many);
}
