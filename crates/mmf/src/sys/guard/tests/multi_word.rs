//! Stores of many words at once, on pages that are there and that are not, beside the same one by one.

use super::region::{Region, STEP};
use crate::sys::guard::{self, Fault, multi_word};

/// Words that tell where they come from.
fn words(count: u64) -> Vec<u64> {
    (1..=count).map(|nth| nth.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect()
}

#[test]
fn words_go_where_they_would_one_by_one() {
    for count in [0, 1, 2, 3, 7, 64, 1000] {
        let (region, other) = (Region::new(STEP, 0), Region::new(STEP, 0));
        let words = words(count);
        // SAFETY: there is room for 1000 words and more, aligned, and no other thread has the region.
        assert_eq!(unsafe { guard::store_words(region.base().wrapping_add(64), &words) }, Ok(()));
        // SAFETY: as above.
        assert_eq!(unsafe { multi_word::store_words(other.base().wrapping_add(64), &words) }, Ok(()));
        assert_eq!(region.bytes(STEP, STEP), other.bytes(STEP, STEP));
        let stored = region.bytes(STEP - 64, 8 * words.len());
        assert!(stored.chunks(8).zip(&words).all(|(bytes, word)| bytes == word.to_ne_bytes()), "{count}");
    }
}

#[test]
fn words_stop_where_a_page_is_gone() {
    guard::arm().unwrap();
    let region = Region::new(STEP, STEP);
    let words = words(5);
    // SAFETY: the words are aligned; those that are not there lie in the region too.
    assert_eq!(unsafe { guard::store_words(region.border().wrapping_sub(24), &words) }, Err(Fault));
    assert_eq!(region.bytes(24, 24), words[..3].iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>());
}

#[test]
fn pairs_are_stored_in_their_order_up_to_one_that_must_not_be() {
    const LAST: u64 = STEP as u64 - 8;
    let cases: [(&[[u64; 2]], usize); 7] = [
        (&[], 0),
        (&[[8, 1], [LAST, 2], [0, 3]], 3),
        (&[[8, 1], [8, 2], [8, 3]], 3),
        (&[[8, 1], [LAST + 8, 2], [16, 3]], 1),
        (&[[8, 1], [u64::MAX - 7, 2], [16, 3]], 1),
        (&[[8, 1], [24, 2], [20, 3], [32, 4]], 2),
        (&[[1, 1]], 0),
    ];
    for (pairs, expected) in cases {
        let (region, other) = (Region::new(STEP, 0), Region::new(STEP, 0));
        // SAFETY: words up to `LAST` lie in the region, aligned, and no other thread has it.
        assert_eq!(unsafe { guard::store_pairs(region.base(), LAST, pairs) }, Ok(expected), "{pairs:?}");
        // SAFETY: as above.
        assert_eq!(unsafe { multi_word::store_pairs(other.base(), LAST, pairs) }, Ok(expected), "{pairs:?}");
        assert_eq!(region.bytes(STEP, STEP), other.bytes(STEP, STEP), "{pairs:?}");
        if let Some([offset, value]) = expected.checked_sub(1).map(|last| pairs[last]) {
            let from = STEP - usize::try_from(offset).unwrap();
            assert_eq!(region.bytes(from, 8), value.to_ne_bytes(), "{pairs:?}");
        }
    }
}

#[test]
fn pairs_stop_where_a_page_is_gone() {
    guard::arm().unwrap();
    let region = Region::new(STEP, STEP);
    let gone = STEP as u64;
    let pairs = [[gone - 8, 1], [gone, 2], [gone - 16, 3]];
    // SAFETY: the words are aligned; those that are not there lie in the region too.
    assert_eq!(unsafe { guard::store_pairs(region.base(), 2 * gone - 8, &pairs) }, Err(Fault));
    assert_eq!((region.bytes(8, 8), region.bytes(16, 8)), (1_u64.to_ne_bytes().to_vec(), vec![0; 8]));
}
