use super::*;
use crate::dict::store::redo_log::replay;
use crate::dict::store::write_batch::indexed_stores::{Key, mixed};
use crate::error::ErrorKind;
use crate::segment::layout::PAYLOAD;

fn segment() -> (Mapping, Layout) {
    let layout = Layout::of((PAYLOAD as u64) + (1 << 20)).unwrap();
    (Mapping::anonymous(layout.first_span as u64).unwrap(), layout)
}

/// Stores the batch in the redo log, and performs the first `done` of its stores.
fn begin(map: &Mapping, stores: &[(usize, u64)], done: usize) {
    for (nth, (offset, value)) in stores.iter().enumerate() {
        map.put_word(at::REDO_LOG + 16 * nth, *offset as u64).unwrap();
        map.put_word(at::REDO_LOG + 16 * nth + 8, *value).unwrap();
    }
    map.put_word(at::REDO_LEN, stores.len() as u64).unwrap();
    stores[..done].iter().for_each(|(offset, value)| map.put_word(*offset, *value).unwrap());
}

#[test]
fn of_many_stores_the_newest_of_each_word_is_what_it_will_be() {
    let (map, _) = segment();
    for expected in [0, 5, 1000] {
        let mut batch = WriteBatch::new();
        batch.reserve(expected);
        for nth in 0..3000_usize {
            batch.push(at::REDO_LOG + 8 * (nth % 700), nth as u64 + 1);
            // A lookup does not see a blind store.
            batch.push_blind(at::CLASSES + 8 * (nth % 3), nth as u64);
        }
        for word in 0..800 {
            // The last of the 3000 numbers with this remainder.
            let newest = (word < 700).then(|| (2999 - (2999 - word) % 700 + 1) as u64);
            assert_eq!(batch.lookup(at::REDO_LOG + 8 * word), newest, "{word}");
            assert_eq!(batch.get(&map, at::REDO_LOG + 8 * word).unwrap(), newest.unwrap_or(0));
        }
        assert_eq!(batch.len(), 6000);
        batch.clear();
        assert_eq!(batch.lookup(at::REDO_LOG), None);
    }
}

#[test]
fn words_have_places_of_their_own_however_few_bits_a_process_counts_with() {
    let homes: std::collections::HashSet<usize> =
        (0..1000).map(|nth| Key::get().home(at::REDO_LOG as u64 + 64 * nth, 4095)).collect();
    assert!(homes.len() > 700, "{}", homes.len());
}

/// A peer knows how offsets are mixed, but not the key of this process. All of these offsets would
/// go to one place if they were mixed without the key.
#[test]
fn offsets_that_a_peer_chooses_take_no_more_probes_than_others() {
    const STORES: usize = 1000;
    let forged = |word: &usize| mixed(*word as u64) & 0xfff == 0;
    let chosen: Vec<usize> = (0..).filter(forged).take(STORES).map(|word| 8 * word).collect();
    let others: Vec<usize> = (0..STORES).map(|nth| at::REDO_LOG + 64 * nth).collect();
    for offsets in [chosen, others] {
        let mut batch = WriteBatch::new();
        for offset in &offsets {
            batch.push(*offset, 1);
            batch.push_or_replace(*offset, 2);
            assert_eq!(batch.lookup(*offset), Some(2));
        }
        // Three probes for each offset, and those of the table's growth.
        let probes = batch.indexed.as_ref().unwrap().probes.get();
        assert!(probes < 20 * STORES as u64, "{probes} probes for {STORES} offsets");
    }
}

#[test]
fn what_a_dead_writer_began_is_done_to_the_end_from_wherever_it_died() {
    let stores = [(at::LEN, 1), (at::CLASSES, 2), (at::COMMIT, 7), (at::LEN, 3), (at::FREE, 4)];
    for done in 0..=stores.len() {
        let (map, layout) = segment();
        begin(&map, &stores, done);
        assert!(replay(&map, &layout).unwrap());
        let words = [at::LEN, at::CLASSES, at::COMMIT, at::FREE, at::REDO_LEN].map(|at| map.word(at).unwrap());
        assert_eq!(words, [3, 2, 7, 4, 0], "died after {done}");
        assert!(!replay(&map, &layout).unwrap());
    }
}

#[test]
fn what_readers_follow_does_not_go_back_when_a_redo_log_is_replayed_again() {
    for point in [at::COMMIT, at::BUCKETS] {
        let (map, layout) = segment();
        // The writer died after three stores. A store after the point has since replaced the word
        // that the store before the point made.
        begin(&map, &[(at::CLASSES, 1), (point, 7), (at::LEN, 2), (at::CLASSES + 8, 3)], 3);
        map.put_word(at::CLASSES, 9).unwrap();
        assert!(replay(&map, &layout).unwrap());
        assert_eq!([at::CLASSES, at::CLASSES + 8].map(|at| map.word(at).unwrap()), [9, 3]);
    }
}

#[test]
fn a_redo_log_that_leads_elsewhere_changes_nothing() {
    let (map, layout) = segment();
    for wrong in [0, 4096, at::LEN + 1, at::REDO_LEN, at::REDO_LOG + 16, map.len(), !7] {
        begin(&map, &[(at::LEN, 5), (wrong, 1)], 0);
        assert!(matches!(replay(&map, &layout).unwrap_err().kind(), ErrorKind::Damaged { .. }));
        assert_eq!(map.word(at::LEN).unwrap(), 0);
    }
    map.put_word(at::REDO_LEN, u64::MAX).unwrap();
    assert!(matches!(replay(&map, &layout).unwrap_err().kind(), ErrorKind::Damaged { .. }));
}
