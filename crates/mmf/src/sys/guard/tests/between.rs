//! Several looks in a row, on pages that are there and that are not, beside the same one by one.

use std::ptr;

use super::region::{Region, STEP};
use crate::sys::guard::{self, Fault, Matches, between};

/// As [`guard::copy_between`].
type Way = unsafe fn([*const u64; 2], *const u8, [*mut [u8]; 2]) -> Result<Option<[u64; 2]>, Fault>;

const WAYS: [Way; 2] = [guard::copy_between, between::copy_between];

/// The place of the word at so many bytes.
fn word(region: &Region, at: usize) -> *mut u64 {
    region.base().wrapping_add(at).cast()
}

fn place(bytes: &mut [u8]) -> *mut [u8] {
    ptr::from_mut(bytes)
}

#[test]
fn four_words_are_those_that_follow_each_other() {
    let region = Region::new(STEP, 0);
    region.number(3);
    let bytes = region.bytes(STEP - 64, 32);
    let expected: Vec<u64> = bytes.chunks(8).map(|bytes| u64::from_ne_bytes(bytes.try_into().unwrap())).collect();
    for way in [guard::load_four, between::load_four] {
        // SAFETY: they lie in the region, aligned.
        assert_eq!(unsafe { way(word(&region, 64).cast()) }.unwrap().to_vec(), expected);
    }
}

#[test]
fn words_of_which_one_is_gone_are_a_fault() {
    guard::arm().unwrap();
    let region = Region::new(STEP, STEP);
    for here in 0..4 {
        for way in [guard::load_four, between::load_four] {
            // SAFETY: they are aligned; those that are not there lie in the region too.
            assert_eq!(unsafe { way(region.border().wrapping_sub(8 * here)) }, Err(Fault));
        }
    }
    for here in 0..8 {
        let src = region.border().wrapping_sub(8 * here);
        // SAFETY: as above.
        assert_eq!(unsafe { guard::match_eight(src, 1, 1) }, Err(Fault));
        // SAFETY: as above.
        assert_eq!(unsafe { between::match_eight(src, 1, 1) }, Err(Fault));
    }
}

#[test]
fn of_eight_words_those_match_that_have_the_bits() {
    const MASK: u32 = 0xffff_ff00;
    let region = Region::new(STEP, 0);
    let store = |words: [u64; 8]| {
        for (nth, value) in words.into_iter().enumerate() {
            // SAFETY: the word lies in the region, aligned, and no other thread has it.
            unsafe { word(&region, 8 * nth).write(value) };
        }
    };
    for wanted in [0, 0x1234_5600, 0x8000_0000, 0xffff_ff00] {
        for pattern in 0..256_u64 {
            let other = wanted ^ 0x100 << (pattern % 24);
            let words = std::array::from_fn(|nth| {
                let upper = if pattern >> nth & 1 == 1 { wanted } else { other };
                // What the mask has not is anything.
                u64::from(upper) << 32 | (0x35 * nth as u64 % 256) << 32 | 0xdead_0000 | nth as u64
            });
            store(words);
            let first = (pattern.trailing_zeros() as usize).min(7);
            let expected = Ok(Matches { bits: pattern, word: words[first] });
            // SAFETY: the eight lie in the region, aligned.
            assert_eq!(unsafe { guard::match_eight(region.base(), MASK, wanted) }, expected, "{wanted:x} {words:x?}");
            // SAFETY: as above.
            assert_eq!(unsafe { between::match_eight(region.base(), MASK, wanted) }, expected, "{wanted:x} {words:x?}");
        }
    }
}

#[test]
fn what_is_copied_comes_with_the_words_around_it() {
    guard::arm().unwrap();
    let region = Region::new(STEP, 0);
    region.number(1);
    let lens = || (16..200).chain([0, 255, 256, 257, 1000, 1088]);
    for (one, other) in lens().flat_map(|one| lens().map(move |other| (one, other))) {
        for way in WAYS {
            let (mut first, mut second) = (vec![0; one + 2], vec![0; other + 2]);
            let words = [word(&region, 8), word(&region, 24)];
            let to = [place(&mut first[1..=one]), place(&mut second[1..=other])];
            // SAFETY: all of it lies in the region, the words aligned; the places are this thread's.
            let found = unsafe { way(words.map(<*mut u64>::cast_const), region.base().wrapping_add(101), to) };
            // SAFETY: the word lies in the region, aligned, and nobody writes to it.
            assert_eq!(found, Ok(Some(words.map(|word| unsafe { word.read() }))), "{one} {other}");
            assert_eq!(first[1..=one], region.bytes(STEP - 101, one), "{one} {other}");
            assert_eq!(second[1..=other], region.bytes(STEP - 101 - one, other), "{one} {other}");
            assert_eq!([first[0], first[one + 1], second[0], second[other + 1]], [0; 4], "{one} {other}");
        }
    }
}

#[test]
fn a_word_that_changes_meanwhile_is_told() {
    guard::arm().unwrap();
    let region = Region::new(STEP, 0);
    for way in WAYS {
        // The copy itself is what changes it: it goes to where one of the words lies.
        for (first, second, same) in
            [(128, 8, false), (8, 128, false), (128, 128, false), (8, 160, false), (8, 16, true)]
        {
            region.number(5);
            let words = [word(&region, first).cast_const(), word(&region, second).cast_const()];
            let place = |at: usize| ptr::slice_from_raw_parts_mut(region.base().wrapping_add(at), 20);
            // SAFETY: all of it lies in the region, which no other thread has, and the words are aligned.
            let found = unsafe { way(words, region.base().wrapping_add(1000), [place(120), place(150)]) };
            assert_eq!(found.unwrap().is_some(), same, "{first} {second}");
        }
    }
}

#[test]
fn a_page_that_is_gone_is_a_fault_wherever_it_is_missed() {
    guard::arm().unwrap();
    let region = Region::new(STEP, STEP);
    let (mut room, mut more) = (vec![0_u8; 1100], vec![0_u8; 200]);
    let (here, gone): (*const u64, *const u64) = (region.base().cast(), region.border().cast());
    for (nth, way) in WAYS.into_iter().enumerate() {
        for (one, other) in [(16, 0), (0, 16), (20, 16), (40, 40), (64, 64), (65, 100), (1000, 200)] {
            let from = region.base().cast_const();
            for (from, words) in [
                (from, [gone, here]),
                (from, [here, gone]),
                (region.border().wrapping_sub(one + other - 1), [here, here]),
                (region.border().wrapping_sub(one.saturating_sub(1)), [here, here]),
                (region.border(), [here, here]),
            ] {
                let to = [place(&mut room[..one]), place(&mut more[..other])];
                // SAFETY: all of it lies in the region, there or not, and the words are aligned; the places are this thread's.
                let outcome = unsafe { way(words, from, to) };
                assert_eq!(outcome, Err(Fault), "{one} {other} from {from:?}, {words:?}, by {nth}");
            }
        }
    }
}
