//! Fragmentation: how much of a dict changes of all sizes leave unused, and how full the dict can
//! be made after them.
//!
//! `MMF_CHANGES=N` makes more changes; `--nocapture` shows the figures.

use mmf::{Dict, ErrorKind};
use testkit::TempDir;

const CAPACITY: u64 = 8 << 20;
/// So many values of the sizes below are about half of it.
const KEYS: u64 = 12_000;

/// Numbers that look random and are the same in every run.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// Mostly small, and at times of several spans: twice as large is half as frequent.
fn size(state: &mut u64) -> usize {
    let doublings = next(state).trailing_ones().min(10);
    let least = 32_u64 << doublings;
    usize::try_from(least + next(state) % least).unwrap()
}

#[test]
fn changes_of_all_sizes_leave_little_idle() {
    let changes: u64 = std::env::var("MMF_CHANGES").map_or(20_000, |changes| changes.parse().unwrap());
    let dir = TempDir::new();
    for flushes in [false, true] {
        let dict = Dict::create_new(dir.join(format!("dict {flushes}")), CAPACITY).unwrap();
        let (mut state, mut worst) = (1, 0.0_f64);
        for change in 0..changes {
            let key = format!("{}", next(&mut state) % KEYS);
            let len = size(&mut state);
            dict.set_bytes(&key, &vec![1; len]).unwrap_or_else(|error| panic!("{change} {flushes}: {error}"));
            if change % 1000 == 999 {
                worst = worst.max(dict.stats().unwrap().fragmentation);
                if flushes {
                    dict.flush().unwrap();
                }
            }
        }
        let stats = dict.stats().unwrap();
        // Then with as much as it takes.
        let error = (0..).find_map(|nth| dict.set_bytes(&format!("more {nth}"), &vec![2; size(&mut state)]).err());
        assert_eq!(error.map(|error| error.kind().clone()), Some(ErrorKind::Full));
        let values: usize = dict.entries().unwrap().map(|entry| entry.value.len() + entry.key.len()).sum();
        #[allow(clippy::cast_precision_loss, reason = "shares for people")]
        let (used, full) = (stats.used as f64 / CAPACITY as f64, values as f64 / CAPACITY as f64);
        println!(
            "{changes} changes, flushes {flushes}: {used:.3} used, {worst:.3} idle at worst; {full:.3} keys and values when full"
        );
        assert!(worst < 0.2 && full > 0.6, "{worst} idle, {full} when full: {stats:?}");
        assert!(dict.check().unwrap().is_whole());
    }
}
