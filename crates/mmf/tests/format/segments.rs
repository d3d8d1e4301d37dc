//! Golden segments, made by an earlier build: what a reader and a writer get from a copy of each.
//!
//! [`Told`] reads them by `docs/format.md` alone, without the library's constants, and so tests
//! that document too.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use mmf::{Access, Error, ErrorKind, LockError, Region};
use testkit::TempDir;

macro_rules! golden {
    ($name:literal) => {
        include_bytes!(concat!("../golden/", $name, ".segment")).as_slice()
    };
}

/// A golden segment in a file of one's own.
struct Copy {
    dir: TempDir,
}

impl Copy {
    fn of(bytes: &[u8]) -> Copy {
        let dir = TempDir::new();
        fs::write(dir.join("copy"), bytes).unwrap();
        Copy { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("copy")
    }

    fn told(&self) -> Told {
        Told::read(&fs::read(self.path()).unwrap())
    }

    fn to_read(&self) -> Result<Region, Error> {
        let soon = Some(Duration::from_millis(50));
        Region::options().access(Access::ReadOnly).timeout(soon).open(self.path())
    }

    fn to_write(&self) -> Result<Region, Error> {
        Region::open(self.path())
    }
}

/// A segment, read as the document tells.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    version: u32,
    features: [u64; 3],
    kind: Vec<u8>,
    id: Vec<u8>,
    created: u64,
    capacity: u64,
    name: Vec<u8>,
    lock: Vec<u8>,
    machine: Vec<u8>,
    boot: Vec<u8>,
    writer: u64,
    poisoned: bool,
    change: u64,
    /// Process id and read locks of each slot in use.
    participants: Vec<(usize, u32, u32)>,
    contents: Vec<u8>,
}

impl Told {
    fn read(bytes: &[u8]) -> Told {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!(bytes[..8], [0x8D, 0x6D, 0x6D, 0x66, 0x0D, 0x0A, 0x1A, 0x0A]);
        let mut sum: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in &bytes[..1016] {
            sum ^= u64::from(*byte);
            sum = sum.wrapping_mul(0x0100_0000_01b3);
        }
        assert_eq!(u64_at(1016), sum, "the checksum");
        assert_eq!((u64_at(80), u32_at(88)), (20480, 256));
        let slot = |k: usize| 4096 + 64 * k;
        let occupied = |k: usize| u64_at(2176 + 8 * (k / 64)) >> (k % 64) & 1 == 1;
        let in_use = (0..256).filter(|k| occupied(*k));
        let participants = in_use.map(|k| (k, u32_at(slot(k) + 8), u32_at(slot(k) + 4))).collect();
        let len = usize::try_from(u64_at(2064)).unwrap();
        Told {
            version: u32_at(8),
            features: [u64_at(16), u64_at(24), u64_at(32)],
            kind: bytes[40..48].to_vec(),
            id: bytes[48..64].to_vec(),
            created: u64_at(64),
            capacity: u64_at(72),
            name: bytes[96..96 + u32_at(92) as usize].to_vec(),
            lock: bytes[352..384].iter().copied().take_while(|byte| *byte != 0).collect(),
            machine: bytes[1024..1040].to_vec(),
            boot: bytes[1040..1056].to_vec(),
            writer: u64_at(2048) & 0xffff,
            poisoned: u64_at(2048) >> 17 & 1 == 1,
            change: u64_at(2056),
            participants,
            contents: bytes[20480..20480 + len].to_vec(),
        }
    }

    /// What all of them have in common.
    fn plain() -> Told {
        Told {
            version: 1,
            features: [0; 3],
            kind: b"region\0\0".to_vec(),
            id: b"golden segment's".to_vec(),
            created: 1_700_000_000_000_000_000,
            capacity: 20480 + 64,
            name: Vec::new(),
            lock: Vec::new(),
            machine: vec![0x11; 16],
            boot: vec![0x22; 16],
            writer: 0,
            poisoned: false,
            change: 2,
            participants: Vec::new(),
            contents: b"golden".to_vec(),
        }
    }
}

#[track_caller]
fn refused(result: Result<Region, Error>, part: &str) {
    let error = result.err().unwrap();
    let ErrorKind::NotASegment { reason } = error.kind() else { panic!("{error}") };
    assert!(reason.contains(part), "{reason}");
}

/// Contents can be read without a lock and with it, and changed.
#[track_caller]
fn good(copy: &Copy) {
    assert_eq!(copy.to_read().unwrap().to_vec().unwrap(), b"golden");
    let region = copy.to_write().unwrap();
    assert_eq!(region.capacity(), 64);
    assert_eq!(region.status().unwrap().created, SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    assert_eq!(region.read().unwrap().to_vec().unwrap(), b"golden");
    region.write().unwrap().set(b"changed").unwrap();
    assert_eq!(copy.to_read().unwrap().to_vec().unwrap(), b"changed");
    let version = region.version().unwrap();
    drop(region);
    let told = copy.told();
    assert_eq!((told.contents.as_slice(), told.change, told.writer), (b"changed".as_slice(), version, 0));
}

#[test]
fn a_plain_one_is_read_and_written() {
    let copy = Copy::of(golden!("plain"));
    assert_eq!(copy.told(), Told::plain());
    good(&copy);
}

#[test]
fn what_this_build_makes_reads_by_the_document_as_well() {
    let dir = TempDir::new();
    let path = dir.join("new");
    let region = Region::create_new(&*path, 64).unwrap();
    region.write().unwrap().set(b"golden").unwrap();
    let read_lock = region.read().unwrap();
    let told = Told::read(&fs::read(&path).unwrap());
    drop(read_lock);
    assert_eq!(told.participants, [(0, std::process::id(), 1)]);
    let alike = Told::plain();
    let made_elsewhere = Told {
        id: alike.id.clone(),
        created: alike.created,
        machine: alike.machine.clone(),
        boot: alike.boot.clone(),
        participants: Vec::new(),
        ..told
    };
    assert_eq!(made_elsewhere, alike);
}

#[test]
fn a_poisoned_one_tells_so_until_it_is_mended() {
    let copy = Copy::of(golden!("poisoned"));
    assert_eq!(copy.told(), Told { poisoned: true, change: 4, contents: b"halfen".to_vec(), ..Told::plain() });
    let reader = copy.to_read().unwrap();
    assert_eq!(*reader.to_vec().unwrap_err().kind(), ErrorKind::Poisoned);
    let region = copy.to_write().unwrap();
    let Err(LockError::Poisoned(mut guard)) = region.write() else { panic!("no poison") };
    assert_eq!(guard.to_vec().unwrap(), b"halfen");
    guard.set(b"golden").unwrap();
    region.clear_poison().unwrap();
    drop(guard);
    assert_eq!(reader.to_vec().unwrap(), b"golden");
    drop((reader, region));
    assert!(!copy.told().poisoned);
    good(&copy);
}

#[test]
fn one_left_by_a_machine_that_stopped_has_no_participants_and_poison() {
    let copy = Copy::of(golden!("dead"));
    let left =
        Told { writer: 1, change: 3, participants: vec![(0, 4321, 0)], contents: b"halfen".to_vec(), ..Told::plain() };
    assert_eq!(copy.told(), left);
    let reader = copy.to_read().unwrap();
    assert_eq!(*reader.to_vec().unwrap_err().kind(), ErrorKind::Poisoned);
    let status = reader.status().unwrap();
    assert!(status.participants.is_empty() && status.poisoned, "{status:?}");
    let region = copy.to_write().unwrap();
    let Err(LockError::Poisoned(guard)) = region.read() else { panic!("no poison") };
    assert_eq!(guard.to_vec().unwrap(), b"halfen");
    let processes: Vec<u32> = region.status().unwrap().participants.iter().map(|one| one.process).collect();
    assert_eq!(processes, [std::process::id()]);
    drop(guard);
    let Err(LockError::Poisoned(mut guard)) = region.write() else { panic!("no poison") };
    guard.set(b"golden").unwrap();
    region.clear_poison().unwrap();
    drop(guard);
    drop((region, reader));
    let told = copy.told();
    assert_eq!((told.writer, told.poisoned, told.participants), (0, false, Vec::new()));
    good(&copy);
}

#[test]
fn a_feature_that_may_be_ignored_is() {
    let copy = Copy::of(golden!("compatible"));
    let features = [1 << 63, 0, 0];
    assert_eq!(copy.told(), Told { features, ..Told::plain() });
    good(&copy);
    assert_eq!(copy.told().features, features);
}

#[test]
fn a_feature_that_writers_must_know_lets_readers_in() {
    let copy = Copy::of(golden!("read-compatible"));
    assert_eq!(copy.told(), Told { features: [0, 1 << 63, 0], ..Told::plain() });
    assert_eq!(copy.to_read().unwrap().to_vec().unwrap(), b"golden");
    refused(copy.to_write(), "it needs features 0x0 to be read and 0x8000000000000000 to be written");
}

#[test]
fn a_feature_that_all_must_know_lets_nobody_in() {
    let copy = Copy::of(golden!("incompatible"));
    assert_eq!(copy.told(), Told { features: [0, 0, 1 << 63], ..Told::plain() });
    for opened in [copy.to_read(), copy.to_write()] {
        refused(opened, "it needs features 0x8000000000000000 to be read and 0x0 to be written");
    }
}

#[test]
fn one_with_a_lock_that_nobody_here_has_is_read_only() {
    let copy = Copy::of(golden!("own-lock"));
    assert_eq!(copy.told(), Told { features: [0, 1, 0], lock: b"own/golden".to_vec(), ..Told::plain() });
    assert_eq!(copy.to_read().unwrap().to_vec().unwrap(), b"golden");
    let wanted = ErrorKind::Mismatch { what: "its lock", wanted: "mmf's own".into(), found: "\"own/golden\"".into() };
    assert_eq!(*copy.to_write().err().unwrap().kind(), wanted);
}

#[test]
fn one_of_a_later_version_is_refused() {
    let copy = Copy::of(golden!("future"));
    assert_eq!(copy.told(), Told { version: 2, ..Told::plain() });
    for opened in [copy.to_read(), copy.to_write()] {
        refused(opened, "its format has version 2, this release reads 1");
    }
}

#[test]
fn one_of_another_kind_is_refused() {
    let copy = Copy::of(golden!("kind"));
    assert_eq!(copy.told(), Told { kind: b"foreign\0".to_vec(), ..Told::plain() });
    for opened in [copy.to_read(), copy.to_write()] {
        let error = opened.err().unwrap();
        let wanted = ErrorKind::Mismatch { what: "its kind", wanted: "region".into(), found: "foreign".into() };
        assert_eq!(*error.kind(), wanted);
    }
}

#[test]
fn one_whose_header_is_damaged_is_refused() {
    let copy = Copy::of(golden!("checksum"));
    for opened in [copy.to_read(), copy.to_write()] {
        refused(opened, "the checksum differs");
    }
}

#[test]
fn a_torn_one_is_refused_wherever_it_is_torn() {
    let copy = Copy::of(golden!("torn"));
    for opened in [copy.to_read(), copy.to_write()] {
        refused(opened, "its size of 12288 does not fit");
    }
    for len in [1, 7, 8, 1000, 1023, 1024, 1030, 4095, 4096, 20479] {
        let copy = Copy::of(&golden!("plain")[..len]);
        let part = if len < 1024 { "too few for a header" } else { "does not fit" };
        refused(copy.to_read(), part);
        refused(copy.to_write(), part);
    }
    // Cut off behind the header, it is one whose contents are gone.
    let copy = Copy::of(&golden!("plain")[..20480]);
    for opened in [copy.to_read(), copy.to_write()] {
        let error = opened.unwrap().to_vec().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Damaged { .. }), "{error}");
    }
}
