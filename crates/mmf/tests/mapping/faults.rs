//! Pages that another process removes: every operation reports the exact byte, and the process
//! lives on.

mod interface;

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};

use mmf::{Error, ErrorKind, FaultPolicy, Mapping, page_size};
use testkit::TempDir;

use crate::support::cases::pattern;
use crate::support::stories::stories;

#[test]
fn no_operation_of_the_interface_is_forgotten() {
    let mut known: Vec<&str> = Vec::new();
    known.extend(COPYING.iter().map(|operation| operation.name));
    known.extend(WORDS.iter().map(|(name, _)| *name));
    known.extend(QUIET.iter().map(|(name, _)| *name));
    known.extend(EXEMPT.iter().map(|(name, _)| *name));
    known.sort_unstable();
    // An operation may stand here in more than one use.
    known.dedup();
    assert_eq!(known, interface::operations());
}

/// What no truncation can reach, and why.
const EXEMPT: [(&str, &str); 16] = [
    ("Mapping::access", "tells a field"),
    ("Mapping::anonymous", "makes memory that nobody can shrink"),
    ("Mapping::as_mut_ptr", "an address; what is done with it is not guarded, and says so"),
    ("Mapping::as_mut_slice", "its caller promises that no page goes"),
    ("Mapping::as_ptr", "as as_mut_ptr"),
    ("Mapping::as_slice", "as as_mut_slice"),
    ("Mapping::create_new", "makes what nobody had before"),
    ("Mapping::cursor", "touches no byte"),
    ("Mapping::fault_policy", "tells a field"),
    ("Mapping::fmt", "touches no byte"),
    ("Mapping::handle", "touches no byte"),
    ("Mapping::into_handle", "touches no byte"),
    ("Mapping::name", "tells a field"),
    ("Mapping::open_or_create", "as open, or as create_new"),
    ("Mapping::options", "there is no mapping yet"),
    ("Mapping::source", "tells a field"),
];

type Outcome = Result<(), ErrorKind>;

fn plain<T>(result: mmf::Result<T>) -> Outcome {
    result.map(drop).map_err(|error| error.kind().clone())
}

/// What an operation works on.
struct Bench {
    map: Mapping,
    len: usize,
    /// The other side of copies.
    other: Mapping,
    /// What is read comes here; what is written comes from here.
    buffer: RefCell<Vec<u8>>,
}

type Arrived = fn(&Bench, usize, usize) -> Vec<u8>;

/// Moves bytes between the bench's mapping and somewhere else.
struct Copying {
    name: &'static str,
    run: fn(&Bench, usize, usize) -> Outcome,
    /// The bytes that it moved, as they arrived; `None` where they are lost with the error.
    arrived: Option<Arrived>,
    into_mapping: bool,
}

fn buffered(bench: &Bench, _: usize, len: usize) -> Vec<u8> {
    bench.buffer.borrow()[..len].to_vec()
}

fn mapped(bench: &Bench, at: usize, len: usize) -> Vec<u8> {
    bench.map.read_to_vec(at, len).unwrap()
}

fn in_other(bench: &Bench, at: usize, len: usize) -> Vec<u8> {
    bench.other.read_to_vec(at, len).unwrap()
}

/// The byte that `fill` sets.
const FILL: u8 = 0xa5;

const COPYING: [Copying; 9] = [
    Copying {
        name: "Mapping::read_at",
        run: |bench, at, len| plain(bench.map.read_at(at, &mut bench.buffer.borrow_mut()[..len])),
        arrived: Some(buffered),
        into_mapping: false,
    },
    Copying {
        name: "Mapping::read_to_vec",
        run: |bench, at, len| {
            plain(bench.map.read_to_vec(at, len).map(|bytes| bench.buffer.borrow_mut()[..len].copy_from_slice(&bytes)))
        },
        arrived: None,
        into_mapping: false,
    },
    Copying {
        name: "Mapping::read_uninit",
        run: |bench, at, len| {
            let mut room = vec![MaybeUninit::uninit(); len];
            let read = bench.map.read_uninit(at, &mut room);
            plain(read.map(|bytes| bench.buffer.borrow_mut()[..len].copy_from_slice(bytes)))
        },
        arrived: None,
        into_mapping: false,
    },
    Copying {
        name: "Mapping::write_at",
        run: |bench, at, len| plain(bench.map.write_at(at, &bench.buffer.borrow()[..len])),
        arrived: Some(mapped),
        into_mapping: true,
    },
    Copying {
        name: "Mapping::fill",
        run: |bench, at, len| {
            bench.buffer.borrow_mut().fill(FILL);
            plain(bench.map.fill(at..at + len, FILL))
        },
        arrived: Some(mapped),
        into_mapping: true,
    },
    Copying {
        name: "Mapping::copy_to",
        run: |bench, at, len| plain(bench.map.copy_to(at..at + len, &bench.other, at)),
        arrived: Some(in_other),
        into_mapping: false,
    },
    Copying {
        name: "Mapping::copy_to",
        run: |bench, at, len| {
            bench.other.write_at(0, &bench.buffer.borrow()[..len]).unwrap();
            plain(bench.other.copy_to(..len, &bench.map, at))
        },
        arrived: Some(mapped),
        into_mapping: true,
    },
    Copying {
        name: "Cursor::read",
        run: |bench, at, len| {
            let mut cursor = bench.map.cursor();
            cursor.seek(SeekFrom::Start(at as u64)).unwrap();
            let buffer = &mut bench.buffer.borrow_mut()[..len];
            in_two_calls(|from| cursor.read(&mut buffer[from..]), len)
        },
        arrived: Some(buffered),
        into_mapping: false,
    },
    Copying {
        name: "Cursor::write",
        run: |bench, at, len| {
            let mut cursor = bench.map.cursor();
            cursor.seek(SeekFrom::Start(at as u64)).unwrap();
            let buffer = &bench.buffer.borrow()[..len];
            in_two_calls(|from| cursor.write(&buffer[from..]), len)
        },
        arrived: Some(mapped),
        into_mapping: true,
    },
];

/// A cursor's first call does what can be done, and the second one fails: as one error, like other operations.
fn in_two_calls(mut call: impl FnMut(usize) -> io::Result<usize>, len: usize) -> Outcome {
    let inner = |error: io::Error| error.into_inner().unwrap().downcast::<Error>().unwrap().kind().clone();
    let first = call(0).map_err(inner)?;
    if first == len {
        return Ok(());
    }
    match call(first).map_err(inner) {
        Err(ErrorKind::Fault { offset, done: 0 }) => Err(ErrorKind::Fault { offset, done: first }),
        // In a race, the page may be back.
        outcome => outcome.map(drop),
    }
}

type Word = fn(&Mapping, usize) -> Outcome;

const WORDS: [(&str, Word); 13] = [
    ("Mapping::load", |map, at| plain(map.load::<u64>(at, Acquire))),
    ("Mapping::store", |map, at| plain(map.store(at, 1_u64, Relaxed))),
    ("Mapping::store", |map, at| plain(map.store(at, 1_u8, SeqCst))),
    ("Mapping::swap", |map, at| plain(map.swap(at, 1_i32, AcqRel))),
    ("Mapping::compare_exchange", |map, at| plain(map.compare_exchange(at, 0_u16, 1, AcqRel, Acquire))),
    ("Mapping::fetch_add", |map, at| plain(map.fetch_add(at, 1_u64, Relaxed))),
    ("Mapping::fetch_sub", |map, at| plain(map.fetch_sub(at, 1_i8, Relaxed))),
    ("Mapping::fetch_and", |map, at| plain(map.fetch_and(at, 1_u32, Relaxed))),
    ("Mapping::fetch_or", |map, at| plain(map.fetch_or(at, 1_u64, Relaxed))),
    ("Mapping::fetch_xor", |map, at| plain(map.fetch_xor(at, 1_u16, Relaxed))),
    ("Mapping::fetch_nand", |map, at| plain(map.fetch_nand(at, 1_i64, Relaxed))),
    ("Mapping::fetch_max", |map, at| plain(map.fetch_max(at, 1_i16, Relaxed))),
    ("Mapping::fetch_min", |map, at| plain(map.fetch_min(at, 1_u8, Relaxed))),
];

type Quiet = fn(&Bench) -> Outcome;

/// What meets pages that are gone, but needs none of them.
const QUIET: [(&str, Quiet); 11] = [
    ("Mapping::len", |bench| same(bench.map.len(), bench.len)),
    ("Mapping::is_empty", |bench| same(usize::from(bench.map.is_empty()), 0)),
    ("Mapping::info", |bench| plain(bench.map.info())),
    ("Mapping::refresh", |bench| same(bench.map.refresh().unwrap(), bench.len)),
    ("Mapping::flush", |bench| plain(bench.map.flush(..))),
    ("Mapping::sync", |bench| plain(bench.map.sync(..))),
    ("Mapping::open", |bench| plain(Mapping::options().prefault(true).open(bench.map.source().unwrap()))),
    ("Mapping::grow", |bench| match plain(bench.map.grow(1)) {
        // A part.
        Err(ErrorKind::Unsupported { .. }) => Ok(()),
        outcome => outcome,
    }),
    ("Cursor::flush", |bench| {
        bench.map.cursor().flush().unwrap();
        Ok(())
    }),
    ("Cursor::position", |bench| same(usize::try_from(bench.map.cursor().position()).unwrap(), 0)),
    ("Cursor::seek", |bench| {
        same(usize::try_from(bench.map.cursor().seek(SeekFrom::End(0)).unwrap()).unwrap(), bench.len)
    }),
];

#[track_caller]
fn same(found: usize, wanted: usize) -> Outcome {
    assert_eq!(found, wanted);
    Ok(())
}

const PAGES: usize = 6;
const GUARDED: [FaultPolicy; 2] = [FaultPolicy::Trap, FaultPolicy::SystemCalls];

/// A file of so many pages.
fn file(dir: &TempDir) -> PathBuf {
    let path = dir.join("file");
    File::create(&path).unwrap().set_len(size() as u64).unwrap();
    path
}

fn size() -> usize {
    PAGES * page_size()
}

/// A mapping of a file from `from` on, and what an operation needs besides.
fn bench(path: &Path, policy: FaultPolicy, from: usize) -> Bench {
    let options = Mapping::options().fault_policy(policy);
    let options = if from == 0 { options } else { options.part(from as u64..) };
    let map = options.open(path).unwrap();
    let other = Mapping::anonymous(size() as u64).unwrap();
    let len = map.len();
    Bench { map, len, other, buffer: RefCell::new(vec![0; len]) }
}

/// Where a mapping begins in its file: at a page, and not.
fn beginnings() -> [usize; 2] {
    [0, page_size() / 2 + 3]
}

mod always {
    use super::*;

    stories! { every_operation_works_while_all_pages_are_there }

    fn every_operation_works_while_all_pages_are_there() {
        let dir = TempDir::new();
        let path = file(&dir);
        for (policy, from) in GUARDED.into_iter().flat_map(|policy| beginnings().map(|from| (policy, from))) {
            let bench = bench(&path, policy, from);
            for operation in &COPYING {
                check(operation, &bench, &pattern(3, bench.len), 0, bench.len, bench.len);
            }
            for (name, run) in WORDS {
                check_word(name, run, &bench, 8_usize.wrapping_sub(from) % 8, bench.len);
            }
            for (name, run) in QUIET {
                run(&bench).unwrap_or_else(|kind| panic!("{name}: {kind:?}"));
            }
        }
    }
}

/// Runs it over a range of which only the bytes before `kept` are there, and which begins with the bytes `before`.
fn check(operation: &Copying, bench: &Bench, before: &[u8], at: usize, len: usize, kept: usize) {
    let story = format!("{} of {len} at {at}, {kept} kept, {:?}", operation.name, bench.map);
    let there = (at + len).min(kept).saturating_sub(at);
    bench.map.write_at(at, &before[..there]).unwrap();
    bench.buffer.borrow_mut().copy_from_slice(&pattern(4, bench.len));
    let outcome = (operation.run)(bench, at, len);
    if there == len {
        assert_eq!(outcome, Ok(()), "{story}");
    } else {
        assert_eq!(outcome, Err(ErrorKind::Fault { offset: at + there, done: there }), "{story}");
    }
    let moved = if operation.into_mapping { bench.buffer.borrow()[..there].to_vec() } else { before[..there].to_vec() };
    if let Some(arrived) = operation.arrived {
        assert_eq!(arrived(bench, at, there), moved, "{story}: what was there must be moved");
    } else if outcome.is_ok() {
        assert_eq!(bench.buffer.borrow()[..len], moved, "{story}");
    }
}

fn check_word(name: &str, run: Word, bench: &Bench, at: usize, kept: usize) {
    let outcome = run(&bench.map, at);
    let story = format!("{name} at {at}, {kept} kept, {:?}", bench.map);
    match bench.map.fault_policy() {
        FaultPolicy::SystemCalls => assert!(matches!(outcome, Err(ErrorKind::Unsupported { .. })), "{story}"),
        _ if at < kept => assert_eq!(outcome, Ok(()), "{story}"),
        _ => assert_eq!(outcome, Err(ErrorKind::Fault { offset: at, done: 0 }), "{story}"),
    }
}

#[cfg(windows)]
mod windows {
    use super::*;

    stories! { what_is_mapped_cannot_be_truncated }

    fn what_is_mapped_cannot_be_truncated() {
        const ERROR_USER_MAPPED_FILE: i32 = 1224;
        let dir = TempDir::new();
        let path = file(&dir);
        for policy in GUARDED {
            let bench = bench(&path, policy, 0);
            let shorter = File::options().write(true).open(&path).unwrap();
            for keep in [0, 1, page_size(), size() - 1] {
                let refused = shorter.set_len(keep as u64).unwrap_err();
                assert_eq!(refused.raw_os_error(), Some(ERROR_USER_MAPPED_FILE), "{refused}");
            }
            assert_eq!(bench.map.refresh().unwrap(), size());
        }
    }
}

#[cfg(unix)]
mod truncation;

#[cfg(target_os = "linux")]
mod full_tmpfs;
