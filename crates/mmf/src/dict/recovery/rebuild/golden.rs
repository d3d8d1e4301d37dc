//! Makes the golden file of an interrupted rebuild, which `tests/format/dicts/rebuild.rs` reads:
//! replays the first half of the stores of a rebuild of another golden file. `MMF_GOLDEN=write`
//! keeps it.

#![allow(clippy::unwrap_used, reason = "a failed check is a failed test")]

#[path = "../../../../tests/support/packed.rs"]
mod packed;

use std::fs;

use crate::dict::Dict;
use crate::dict::format::layout::at;
use crate::dict::format::marks::REPAIRING;
use crate::dict::recovery::rebuild::tests::File;
use crate::dict::store::redo_log::was_cut_off;
use crate::mapping::Mapping;
use crate::mapping::trace::{self, TraceEvent};

#[test]
fn a_rebuild_of_the_golden_file_can_be_cut_off_half_way() {
    let file = File::new("golden rebuild");
    let path = file.0.as_path();
    let before = packed::unpack(include_bytes!("../../../../tests/golden/dict-power-cut.mmf"));
    fs::write(path, &before).unwrap();
    trace::start();
    drop(Dict::open(path).unwrap());
    let events = trace::stop();
    let stores: Vec<(usize, Vec<u8>)> = (events.into_iter())
        .filter_map(|event| match event {
            TraceEvent::Stored { offset, bytes } => Some((offset, bytes)),
            TraceEvent::Synced(_) | TraceEvent::Failed(_) => None,
        })
        .collect();
    let is_count = |(offset, _): &(usize, Vec<u8>)| *offset == at::BUCKETS;
    // From the store that removes the count of buckets to the one that restores it.
    let from = stores.iter().position(is_count).unwrap();
    let to = stores.iter().rposition(is_count).unwrap();
    let half = from + (to - from) / 2;
    assert!(to - from > 100, "{from}..{to}");
    let mut bytes = before;
    bytes.resize(usize::try_from(fs::metadata(path).unwrap().len()).unwrap(), 0);
    for (offset, stored) in &stores[..half] {
        bytes[*offset..*offset + stored.len()].copy_from_slice(stored);
    }
    // Clear the ids of machine and boot, so that the file belongs to no machine.
    bytes[1024..1056].fill(0);
    fs::write(path, &bytes).unwrap();
    let map = Mapping::open(path).unwrap();
    assert!(was_cut_off(&map).unwrap());
    assert_eq!([at::REDO_LEN, at::BOOT].map(|at| map.word(at).unwrap()), [REPAIRING, u64::MAX]);
    assert_eq!(map.word(at::BUCKETS).unwrap() & ((1 << 40) - 1), 0);
    if packed::is_written() {
        packed::keep("dict-rebuild.mmf", &bytes);
    }
}
