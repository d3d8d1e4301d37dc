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

fn on_words_that_are_there<T: Number>() {
    let region = Region::new(STEP, STEP);
    // The word in the middle of three: the others show that no more than it is touched.
    let base = region.base().cast::<T>();
    let word = base.wrapping_add(1);
    // SAFETY: the words are there, aligned, and this thread's.
    unsafe {
        base.write(T::MAX);
        base.add(2).write(T::MAX);
        assert_eq!(T::load(word), Ok(T::default()));
        assert_eq!(T::store(word, T::of(7)), Ok(()));
        assert_eq!(T::load(word), Ok(T::of(7)));
        assert_eq!(T::swap(word, T::MAX), Ok(T::of(7)));
        assert_eq!(T::add(word, T::of(3)), Ok(T::MAX));
        assert_eq!(T::load(word), Ok(T::of(2)));
        assert_eq!(T::compare_exchange(word, T::of(1), T::of(9)), Ok(T::of(2)));
        assert_eq!(T::load(word), Ok(T::of(2)));
        assert_eq!(T::compare_exchange(word, T::of(2), T::MAX), Ok(T::of(2)));
        assert_eq!(T::compare_exchange(word, T::MAX, T::of(4)), Ok(T::MAX));
        assert_eq!(T::store_release(word, T::of(5)), Ok(()));
        assert_eq!(word.read(), T::of(5));
        assert_eq!((base.read(), base.add(2).read()), (T::MAX, T::MAX));
    }
}

fn on_words_that_are_gone<T: Number>() {
    guard::arm().unwrap();
    let region = Region::new(STEP, STEP);
    let word = region.border().cast::<T>();
    // SAFETY: the words are aligned; none is there, which is caught.
    unsafe {
        assert_eq!(T::load(word), Err(Fault));
        assert_eq!(T::store(word, T::of(7)), Err(Fault));
        assert_eq!(T::store_release(word, T::of(7)), Err(Fault));
        assert_eq!(T::swap(word, T::of(7)), Err(Fault));
        assert_eq!(T::add(word, T::of(7)), Err(Fault));
        assert_eq!(T::compare_exchange(word, T::of(0), T::of(7)), Err(Fault));
        let last = word.sub(1);
        assert_eq!(T::swap(last, T::of(9)), Ok(T::default()));
        assert_eq!(T::load(last), Ok(T::of(9)));
    }
}

fn on_pages_that_are_read_only<T: Number>() {
    let region = Region::new(STEP, 0);
    let word = region.base().cast::<T>();
    // SAFETY: the word is there, aligned, and this thread's.
    unsafe { word.write(T::of(5)) };
    region.make_read_only();
    // SAFETY: the word is there and aligned.
    assert_eq!(unsafe { T::load(word) }, Ok(T::of(5)));
}

fn counted_by_many<T: Number + Into<u64>>() {
    let region = Region::new(STEP, 0);
    let address = region.base().addr();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || {
                let word = std::ptr::with_exposed_provenance_mut::<T>(address);
                for _ in 0..5000 {
                    // SAFETY: the word is there, aligned, and used by atomic operations alone.
                    unsafe { T::add(word, T::of(1)) }.unwrap();
                    loop {
                        // SAFETY: as above.
                        let old = unsafe { T::load(word) }.unwrap();
                        // SAFETY: as above; one more is stored as the sum of itself, which `add` has tested.
                        let seen = unsafe { T::compare_exchange(word, old, old) }.unwrap();
                        if seen == old {
                            break;
                        }
                    }
                }
            });
        }
    });
    // SAFETY: as above.
    let count: u64 = unsafe { T::load(region.base().cast()) }.unwrap().into();
    assert_eq!(count, 20_000 & T::MAX.into());
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
