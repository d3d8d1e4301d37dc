//! Pages that another process truncates while they are mapped.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;

use mmf::Access;
use testkit::Peer;

use super::*;
use crate::support::cases::assert_tells;

stories! {
    every_copy_reports_the_first_byte_that_is_gone_and_did_the_ones_before,
    every_atomic_operation_reports_a_word_that_is_gone,
    what_needs_no_page_works_while_they_are_gone,
    growing_brings_the_pages_back,
    only_the_bytes_that_exist_are_brought_in,
    readers_and_private_views_lose_pages_too,
    the_error_names_the_file_and_what_may_have_happened,
    threads_survive_pages_that_come_and_go,
}

/// Has another process set the file's length.
struct Truncater(Peer);

impl Truncater {
    fn of(path: &Path) -> Truncater {
        Truncater(Peer::spawn("truncater", &[path.to_str().unwrap()]))
    }

    fn set(&mut self, len: usize) {
        self.0.send(len);
        self.0.expect("set");
    }
}

/// How much of the file is left: every number of whole pages, and a byte more.
fn keeps() -> impl Iterator<Item = usize> {
    (0..PAGES).flat_map(|pages| [0, 1].map(|more| pages * page_size() + more))
}

/// What of `keep` bytes can be reached by a mapping from `from` on: to the end of their last page.
fn reached(keep: usize, from: usize) -> usize {
    keep.next_multiple_of(page_size()).saturating_sub(from)
}

/// The whole, and each page with and without its neighbour.
fn ranges(len: usize) -> Vec<(usize, usize)> {
    let page = page_size();
    let mut ranges = vec![(0, len), (1, len - 2)];
    for at in (0..len).step_by(page) {
        ranges.push((at, 1));
        ranges.push((at + 5, (page + 9).min(len - at - 5)));
    }
    ranges
}

fn each(mut story: impl FnMut(&Bench, &mut Truncater, usize, usize)) {
    let dir = TempDir::new();
    let path = file(&dir);
    let mut truncater = Truncater::of(&path);
    for (policy, from) in GUARDED.into_iter().flat_map(|policy| beginnings().map(|from| (policy, from))) {
        truncater.set(size());
        let bench = bench(&path, policy, from);
        for keep in keeps() {
            truncater.set(keep);
            story(&bench, &mut truncater, keep, from);
            truncater.set(size());
        }
    }
    truncater.0.finish();
}

fn every_copy_reports_the_first_byte_that_is_gone_and_did_the_ones_before() {
    each(|bench, truncater, keep, from| {
        for operation in &COPYING {
            for (at, len) in ranges(bench.len) {
                check(operation, bench, &pattern(5, len), at, len, reached(keep, from));
            }
            // Behind the end, the rest of its page was zeros when it was cut, and other processes' bytes do not show.
            truncater.set(size());
            check(operation, bench, &pattern(6, bench.len), 0, bench.len, bench.len);
            truncater.set(keep);
            let kept = keep.saturating_sub(from);
            let rest = bench.map.read_to_vec(kept, reached(keep, from) - kept).unwrap();
            assert!(rest.iter().all(|byte| *byte == 0), "{keep} {from}");
        }
    });
}

fn every_atomic_operation_reports_a_word_that_is_gone() {
    each(|bench, truncater, keep, from| {
        let words = || (0..PAGES).map(|page| (page + 1) * page_size() - 8 - from.next_multiple_of(8));
        for (name, run) in WORDS {
            for at in words() {
                // Aligned as seen from the object's start.
                check_word(name, run, bench, at + from.next_multiple_of(8) - from, reached(keep, from));
            }
        }
        truncater.set(size());
        for ((name, run), at) in WORDS.into_iter().zip(words().cycle()) {
            check_word(name, run, bench, at + from.next_multiple_of(8) - from, bench.len);
        }
    });
}

fn what_needs_no_page_works_while_they_are_gone() {
    each(|bench, _, keep, _| {
        for (name, run) in QUIET {
            run(bench).unwrap_or_else(|kind| panic!("{name}, {keep} kept: {kind:?}"));
        }
    });
}

fn growing_brings_the_pages_back() {
    let dir = TempDir::new();
    let path = file(&dir);
    let mut truncater = Truncater::of(&path);
    for policy in GUARDED {
        truncater.set(size());
        let bench = bench(&path, policy, 0);
        for keep in keeps() {
            bench.map.write_at(0, &pattern(7, bench.len)).unwrap();
            truncater.set(keep);
            bench.map.grow(bench.len).unwrap();
            assert_eq!(path.metadata().unwrap().len(), bench.len as u64, "the file is as long as was asked for");
            let mut bytes = pattern(7, bench.len);
            bytes[keep..].fill(0);
            assert_eq!(bench.map.read_to_vec(0, bench.len).unwrap(), bytes, "{keep} kept");
        }
    }
    truncater.0.finish();
}

fn only_the_bytes_that_exist_are_brought_in() {
    let dir = TempDir::new();
    let path = file(&dir);
    let mut truncater = Truncater::of(&path);
    truncater.set(page_size() + 1);
    // The rest of the view has no pages yet, as if its file had been cut.
    let options = Mapping::options().prefault(true).reserve(size() as u64);
    let map = options.open(&path).unwrap();
    assert_eq!(map.read_to_vec(0, map.len()).unwrap(), vec![0; page_size() + 1]);
    truncater.set(0);
    assert_eq!(plain(map.read_to_vec(0, 1)), Err(ErrorKind::Fault { offset: 0, done: 0 }));
    assert!(options.open(&path).unwrap().is_empty());
    truncater.0.finish();
}

fn readers_and_private_views_lose_pages_too() {
    let dir = TempDir::new();
    let path = file(&dir);
    let mut truncater = Truncater::of(&path);
    for access in [Access::ReadOnly, Access::CopyOnWrite] {
        for policy in GUARDED {
            truncater.set(size());
            let map = Mapping::options().access(access).fault_policy(policy).open(&path).unwrap();
            if access == Access::CopyOnWrite {
                // A page that was changed is this view's own, and goes with the file all the same.
                map.write_at(size() - 1, b"x").unwrap();
            }
            for keep in keeps().collect::<Vec<_>>().into_iter().rev() {
                truncater.set(keep);
                let kept = reached(keep, 0);
                let mut buffer = vec![1; size()];
                let gone = ErrorKind::Fault { offset: kept, done: kept };
                let outcome = if kept < size() { Err(gone) } else { Ok(()) };
                assert_eq!(plain(map.read_at(0, &mut buffer)), outcome, "{access:?} {policy:?}");
                assert!(buffer[..keep].iter().all(|byte| *byte == 0), "{access:?} {policy:?}");
            }
        }
    }
    truncater.0.finish();
}

fn the_error_names_the_file_and_what_may_have_happened() {
    let dir = TempDir::new();
    let path = file(&dir);
    let mut truncater = Truncater::of(&path);
    let bench = bench(&path, FaultPolicy::Trap, 0);
    truncater.set(page_size());
    let name = format!("file:{}", path.display());
    let gone = format!("offset {} is gone", page_size());
    let error = bench.map.read_to_vec(1, bench.len - 1).unwrap_err();
    assert_tells(&error, &["cannot read", &name, &gone, "truncated"]);
    // Of two mappings the one whose page is gone.
    let error = bench.other.copy_to(.., &bench.map, 0).unwrap_err();
    assert_tells(&error, &["cannot copy", &name, &gone]);
    truncater.0.finish();
}

fn threads_survive_pages_that_come_and_go() {
    let dir = TempDir::new();
    let path = file(&dir);
    let shaken = AtomicBool::new(false);
    let benches = GUARDED.map(|policy| bench(&path, policy, 0));
    let counts = [Counts::default(), Counts::default()];
    let mut shaker = Peer::spawn("shaker", &[path.to_str().unwrap(), &size().to_string()]);
    thread::scope(|scope| {
        for (bench, counts) in benches.into_iter().zip(&counts) {
            scope.spawn(|| worry(bench, &shaken, counts));
        }
        let since = std::time::Instant::now();
        let (mut rounds, mut enough) = (0_u64, false);
        // Two seconds, and as much longer as a loaded machine needs for a race.
        while !enough && since.elapsed() < testkit::DEADLINE {
            shaker.send(2000);
            rounds += shaker.expect_line().parse::<u64>().unwrap();
            enough = rounds > 100 && counts.iter().all(Counts::are_a_race);
        }
        shaken.store(true, Relaxed);
        assert!(enough, "{rounds} cuts and {counts:?} are no race");
    });
    shaker.finish();
}

#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    /// What met a page that was gone.
    faults: AtomicU64,
}

impl Counts {
    fn are_a_race(&self) -> bool {
        self.done.load(Relaxed) > 100 && self.faults.load(Relaxed) > 10
    }
}

/// Runs every operation until told, and counts what was done.
fn worry(bench: Bench, told: &AtomicBool, counts: &Counts) {
    let count = |name: &str, outcome: Outcome| match outcome {
        Ok(()) => _ = counts.done.fetch_add(1, Relaxed),
        Err(ErrorKind::Fault { .. }) => _ = counts.faults.fetch_add(1, Relaxed),
        Err(ErrorKind::Unsupported { .. }) if name.starts_with("Mapping::") => {}
        Err(other) => panic!("{name}: {other:?}"),
    };
    while !told.load(Relaxed) {
        for (at, len) in ranges(bench.len) {
            for operation in &COPYING {
                count(operation.name, (operation.run)(&bench, at, len));
            }
            for (name, run) in WORDS {
                count(name, run(&bench.map, at - at % 8));
            }
            for (name, run) in QUIET {
                count(name, run(&bench));
            }
        }
    }
}
