//! Atomic operations on shared words: each type, each operation, between threads and processes.

use std::sync::atomic::Ordering::{self, AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::{fmt, thread};

use mmf::{Access, Atom, ErrorKind, FaultPolicy, Mapping, Name, page_size};
use testkit::{Peer, peer, unique_name};

use crate::support::cases::{Case, Kind, assert_tells, kind, pattern};
use crate::support::stories::stories;

stories! {
    every_operation_on_every_type_does_what_std_does,
    neighbours_are_untouched,
    alignment_counts_from_the_objects_start,
    the_bounds_are_those_of_the_word,
    orderings_that_make_no_sense_are_refused,
    a_reader_loads_and_nothing_else,
    under_system_calls_there_are_none,
    threads_of_two_mappings_lose_no_count,
    processes_lose_no_count,
    a_lock_made_of_words_excludes_other_processes,
    a_message_is_complete_when_its_flag_is_seen,
}

mod workers {
    use super::{counter, locker, sender};
    testkit::peers! { counter, locker, sender }
}

/// Under which words have atomic operations.
const POLICIES: [FaultPolicy; 2] = [FaultPolicy::Trap, FaultPolicy::Unguarded];
const ALL: [Ordering; 5] = [Relaxed, Acquire, Release, AcqRel, SeqCst];

/// The interesting values of a type, and pairs of them that meet its carries and signs.
macro_rules! values {
    ($type:ty) => {
        [0 as $type, 1, <$type>::MAX, <$type>::MIN, <$type>::MAX / 3, <$type>::MAX / 3 * 2, 85]
    };
}

macro_rules! check_type {
    ($map:expr, $at:expr, $type:ty) => {{
        let (map, at): (&Mapping, usize) = ($map, $at);
        let now = || map.load::<$type>(at, SeqCst).unwrap();
        // What an operation gives is what was there, and what it leaves is what std's would.
        let step = |was: $type, given: $type, left: $type, by: $type, what: &str| {
            assert_eq!((given, now()), (was, left), "{what} {was} by {by} as {}", stringify!($type));
        };
        for was in values!($type) {
            for by in values!($type) {
                for ordering in ALL {
                    let set = |value: $type| map.store(at, value, Release).unwrap();
                    set(was);
                    step(was, map.swap(at, by, ordering).unwrap(), by, by, "swap");
                    set(was);
                    step(was, map.fetch_add(at, by, ordering).unwrap(), was.wrapping_add(by), by, "add");
                    set(was);
                    step(was, map.fetch_sub(at, by, ordering).unwrap(), was.wrapping_sub(by), by, "sub");
                    set(was);
                    step(was, map.fetch_and(at, by, ordering).unwrap(), was & by, by, "and");
                    set(was);
                    step(was, map.fetch_or(at, by, ordering).unwrap(), was | by, by, "or");
                    set(was);
                    step(was, map.fetch_xor(at, by, ordering).unwrap(), was ^ by, by, "xor");
                    set(was);
                    step(was, map.fetch_nand(at, by, ordering).unwrap(), !(was & by), by, "nand");
                    set(was);
                    step(was, map.fetch_max(at, by, ordering).unwrap(), was.max(by), by, "max");
                    set(was);
                    step(was, map.fetch_min(at, by, ordering).unwrap(), was.min(by), by, "min");
                    set(was);
                    let exchanged = map.compare_exchange(at, was, by, ordering, Acquire).unwrap();
                    step(was, exchanged.unwrap(), by, by, "exchange");
                    set(was);
                    let other = was.wrapping_add(1);
                    let kept = map.compare_exchange(at, other, by, ordering, Relaxed).unwrap();
                    step(was, kept.unwrap_err(), was, by, "exchange of another");
                }
            }
            for ordering in [Relaxed, Release, SeqCst] {
                map.store(at, was, ordering).unwrap();
                assert_eq!(map.read_to_vec(at, size_of::<$type>()).unwrap(), was.to_ne_bytes());
                for ordering in [Relaxed, Acquire, SeqCst] {
                    assert_eq!(map.load::<$type>(at, ordering).unwrap(), was);
                }
            }
        }
    }};
}

fn every_operation_on_every_type_does_what_std_does() {
    for policy in POLICIES {
        let map = Mapping::options().fault_policy(policy).size(4096).anonymous().unwrap();
        check_type!(&map, 1, u8);
        check_type!(&map, 3, i8);
        check_type!(&map, 6, u16);
        check_type!(&map, 10, i16);
        check_type!(&map, 12, u32);
        check_type!(&map, 20, i32);
        check_type!(&map, 24, u64);
        check_type!(&map, 4088, i64);
    }
}

fn neighbours_are_untouched() {
    fn check<T: Atom + From<u8>>(map: &Mapping) {
        let before = pattern(1, 64);
        map.write_at(0, &before).unwrap();
        let at = 24;
        map.store(at, T::from(1), SeqCst).unwrap();
        map.store(at, T::from(2), Relaxed).unwrap();
        map.swap(at, T::from(3), SeqCst).unwrap();
        map.fetch_sub(at, T::from(200), SeqCst).unwrap();
        map.fetch_xor(at, T::from(0xff), SeqCst).unwrap();
        let mut after = before.clone();
        after[at..at + size_of::<T>()].copy_from_slice(&map.read_to_vec(at, size_of::<T>()).unwrap());
        assert_eq!(map.read_to_vec(0, 64).unwrap(), after);
        assert_ne!(after, before);
    }
    for policy in POLICIES {
        let map = Mapping::options().fault_policy(policy).size(64).anonymous().unwrap();
        check::<u8>(&map);
        check::<u16>(&map);
        check::<u32>(&map);
        check::<u64>(&map);
    }
}

fn guarded_cases() -> impl Iterator<Item = Case> {
    Case::all().into_iter().filter(|case| case.policy != FaultPolicy::SystemCalls)
}

fn alignment_counts_from_the_objects_start() {
    fn check<T: Atom + fmt::Debug>(case: &Case, map: &Mapping, from: usize) {
        let align = size_of::<T>();
        for offset in 0..16 {
            let loaded = map.load::<T>(offset, Relaxed);
            if (from + offset) % align == 0 {
                loaded.unwrap();
            } else {
                assert_eq!(kind(loaded), ErrorKind::Misaligned { offset, align }, "{case:?}");
            }
        }
    }
    for case in guarded_cases() {
        let made = case.make();
        check::<u8>(&case, &made.view, made.from());
        check::<i16>(&case, &made.view, made.from());
        check::<u32>(&case, &made.view, made.from());
        check::<i64>(&case, &made.view, made.from());
    }
    let map = Mapping::anonymous(64).unwrap();
    let misaligned = || ErrorKind::Misaligned { offset: 3, align: 2 };
    assert_eq!(kind(map.store(3, 1_u16, SeqCst)), misaligned());
    assert_eq!(kind(map.swap(3, 1_u16, SeqCst)), misaligned());
    assert_eq!(kind(map.fetch_add(3, 1_u16, SeqCst)), misaligned());
    assert_eq!(kind(map.fetch_sub(3, 1_u16, SeqCst)), misaligned());
    assert_eq!(kind(map.fetch_or(3, 1_u16, SeqCst)), misaligned());
    assert_eq!(kind(map.compare_exchange(3, 1_u16, 1, SeqCst, SeqCst)), misaligned());
}

fn the_bounds_are_those_of_the_word() {
    for case in guarded_cases() {
        let made = case.make();
        let (map, size) = (&made.view, made.view.len());
        let last = (made.from() + size) / 8 * 8 - 8 - made.from();
        map.fetch_add(last, 1_u64, SeqCst).unwrap();
        map.fetch_add(size - 1, 1_u8, SeqCst).unwrap();
        for offset in [last + 8, size, usize::MAX, isize::MAX as usize] {
            let out = ErrorKind::OutOfBounds { offset, len: 8, size };
            assert_eq!(kind(map.load::<u64>(offset, SeqCst)), out, "{case:?}");
            assert_eq!(kind(map.store(offset, 1_u64, SeqCst)), out, "{case:?}");
            assert_eq!(kind(map.swap(offset, 1_u64, SeqCst)), out, "{case:?}");
            assert_eq!(kind(map.fetch_add(offset, 1_i64, SeqCst)), out, "{case:?}");
            assert_eq!(kind(map.fetch_min(offset, 1_i64, SeqCst)), out, "{case:?}");
            assert_eq!(kind(map.compare_exchange(offset, 1_i64, 1, SeqCst, SeqCst)), out, "{case:?}");
        }
        assert_eq!(kind(map.load::<u8>(size, SeqCst)), ErrorKind::OutOfBounds { offset: size, len: 1, size });
    }
}

fn orderings_that_make_no_sense_are_refused() {
    let map = Mapping::anonymous(64).unwrap();
    for ordering in ALL {
        let refused = |result: mmf::Result<()>| match result {
            Ok(()) => false,
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
                assert_tells(&error, &[&format!("{ordering:?}")]);
                true
            }
        };
        let releases = matches!(ordering, Release | AcqRel);
        assert_eq!(refused(map.load::<u32>(0, ordering).map(drop)), releases);
        assert_eq!(refused(map.compare_exchange(0, 0_u32, 0, SeqCst, ordering).map(drop)), releases);
        assert_eq!(refused(map.store(0, 1_u32, ordering)), matches!(ordering, Acquire | AcqRel));
    }
}

fn a_reader_loads_and_nothing_else() {
    for case in guarded_cases().filter(|case| case.kind != Kind::Anonymous) {
        let made = Case { access: Access::ReadOnly, ..case }.make();
        let (map, at) = (&made.view, made.from().next_multiple_of(8) - made.from());
        made.whole.store(made.from() + at, 42_u64, SeqCst).unwrap();
        assert_eq!(map.load::<u64>(at, Acquire).unwrap(), 42, "{case:?}");
        let refused = [
            kind(map.store(at, 1_u64, SeqCst)),
            kind(map.swap(at, 1_u64, SeqCst)),
            kind(map.compare_exchange(at, 42_u64, 1, SeqCst, SeqCst)),
            kind(map.compare_exchange(at, 41_u64, 1, SeqCst, SeqCst)),
            kind(map.fetch_add(at, 0_u64, SeqCst)),
            kind(map.fetch_sub(at, 0_u64, SeqCst)),
            kind(map.fetch_and(at, 42_u64, SeqCst)),
            kind(map.fetch_or(at, 0_u64, SeqCst)),
            kind(map.fetch_xor(at, 0_u64, SeqCst)),
            kind(map.fetch_nand(at, 0_u64, SeqCst)),
            kind(map.fetch_max(at, 0_u64, SeqCst)),
            kind(map.fetch_min(at, 99_u64, SeqCst)),
        ];
        assert!(refused.iter().all(|kind| *kind == ErrorKind::ReadOnly), "{case:?} {refused:?}");
        assert_eq!(map.load::<u64>(at, SeqCst).unwrap(), 42, "{case:?}");
    }
}

fn under_system_calls_there_are_none() {
    let map = Mapping::options().fault_policy(FaultPolicy::SystemCalls).size(64).anonymous().unwrap();
    let unsupported = [
        kind(map.load::<u8>(0, SeqCst)),
        kind(map.store(0, 1_u8, SeqCst)),
        kind(map.swap(0, 1_u8, SeqCst)),
        kind(map.fetch_add(0, 1_u8, SeqCst)),
        kind(map.fetch_max(0, 1_u8, SeqCst)),
        kind(map.compare_exchange(0, 0_u8, 1, SeqCst, SeqCst)),
    ];
    assert!(unsupported.iter().all(|kind| matches!(kind, ErrorKind::Unsupported { .. })), "{unsupported:?}");
    assert_eq!(map.read_to_vec(0, 1).unwrap(), [0]);
}

const ROUNDS: u64 = 20_000;

fn threads_of_two_mappings_lose_no_count() {
    let name = Name::local(unique_name("count")).unwrap();
    let one = Mapping::create_new(&name, page_size() as u64).unwrap();
    let two = Mapping::open(&name).unwrap();
    thread::scope(|scope| {
        for map in [&one, &two, &one] {
            scope.spawn(|| count(map));
        }
    });
    assert_counted(&one, 3);
}

/// Where each operation that counts has its word.
fn count(map: &Mapping) {
    for round in 0..ROUNDS {
        map.fetch_add(0, 1_u64, Relaxed).unwrap();
        map.fetch_sub(8, 1_i32, Relaxed).unwrap();
        map.fetch_max(16, round, Relaxed).unwrap();
        map.fetch_xor(24, 1_u16, Relaxed).unwrap();
        let mut seen = map.load::<u32>(32, Relaxed).unwrap();
        while let Err(now) = map.compare_exchange(32, seen, seen + 1, AcqRel, Relaxed).unwrap() {
            seen = now;
        }
    }
}

fn assert_counted(map: &Mapping, counters: u64) {
    let total = counters * ROUNDS;
    assert_eq!(map.load::<u64>(0, SeqCst).unwrap(), total);
    assert_eq!(map.load::<i32>(8, SeqCst).unwrap(), -i32::try_from(total).unwrap());
    assert_eq!(map.load::<u64>(16, SeqCst).unwrap(), ROUNDS - 1);
    assert_eq!(u64::from(map.load::<u16>(24, SeqCst).unwrap()), total % 2);
    assert_eq!(u64::from(map.load::<u32>(32, SeqCst).unwrap()), total);
}

fn counter(args: &[&str]) {
    let map = Mapping::open(Name::local(args[0]).unwrap()).unwrap();
    peer::line_up("start");
    count(&map);
}

fn processes_lose_no_count() {
    let text = unique_name("count");
    let map = Mapping::create_new(Name::local(&*text).unwrap(), page_size() as u64).unwrap();
    let mut peers: Vec<Peer> = (0..3).map(|_| Peer::spawn("counter", &[&text])).collect();
    testkit::release("start", &mut peers);
    peers.into_iter().for_each(Peer::finish);
    assert_counted(&map, 3);
}

/// Counts under a lock, by plain reads and writes.
fn locker(args: &[&str]) {
    let map = Mapping::open(Name::local(args[0]).unwrap()).unwrap();
    peer::line_up("start");
    for _ in 0..ROUNDS / 10 {
        while map.compare_exchange(0, 0_u32, 1, Acquire, Relaxed).unwrap().is_err() {
            thread::yield_now();
        }
        let mut bytes = [0; 8];
        map.read_at(101, &mut bytes).unwrap();
        map.write_at(101, &(u64::from_ne_bytes(bytes) + 1).to_ne_bytes()).unwrap();
        map.store(0, 0_u32, Release).unwrap();
    }
}

fn a_lock_made_of_words_excludes_other_processes() {
    let text = unique_name("lock");
    let map = Mapping::create_new(Name::local(&*text).unwrap(), page_size() as u64).unwrap();
    let mut peers: Vec<Peer> = (0..2).map(|_| Peer::spawn("locker", &[&text])).collect();
    testkit::release("start", &mut peers);
    peers.into_iter().for_each(Peer::finish);
    assert_eq!(map.read_to_vec(101, 8).unwrap(), (2 * (ROUNDS / 10)).to_ne_bytes());
}

const MESSAGES: u64 = 5_000;

/// Writes a message, raises the flag, and waits until it was taken.
fn sender(args: &[&str]) {
    let map = Mapping::open(Name::local(args[0]).unwrap()).unwrap();
    for number in 1..=MESSAGES {
        let seed = u8::try_from(number % 251).unwrap();
        map.write_at(64, &pattern(seed, 1000)).unwrap();
        map.store(0, number, Release).unwrap();
        while map.load::<u64>(8, Acquire).unwrap() != number {
            thread::yield_now();
        }
    }
}

fn a_message_is_complete_when_its_flag_is_seen() {
    let text = unique_name("message");
    let map = Mapping::create_new(Name::local(&*text).unwrap(), page_size() as u64).unwrap();
    let sender = Peer::spawn("sender", &[&text]);
    for number in 1..=MESSAGES {
        while map.load::<u64>(0, Acquire).unwrap() != number {
            thread::yield_now();
        }
        assert_eq!(map.read_to_vec(64, 1000).unwrap(), pattern(u8::try_from(number % 251).unwrap(), 1000));
        map.store(8, number, Release).unwrap();
    }
    sender.finish();
}
