//! Every container with capacities that are no whole pages, in memory and in files, from two
//! processes: what one of them writes up to the capacity, the other opens and reads.

use mmf::{Access, Dict, ErrorKind, Mapping, Name, Region, Source};
use testkit::{Peer, TempDir, Watchdog, peer, unique_name};

testkit::peers!(opens);

/// Around whole pages, and around 64 KiB, by which Windows places views.
const CAPACITIES: [u64; 16] =
    [1, 7, 64, 1000, 4095, 4096, 4097, 5000, 8191, 8193, 12_288, 20_481, 65_535, 65_536, 65_537, 1_000_003];

/// What dicts have beyond the least that they can have.
const MORE: [u64; 6] = [0, 1, 1000, 4095, 4097, 70_001];

fn contents(len: u64, seed: u8) -> Vec<u8> {
    (0..len).map(|nth| u8::try_from(nth % 251).unwrap() ^ seed).collect()
}

/// Asks another process, which opens the object anew.
struct Other(Peer);

impl Other {
    fn ask(&mut self, what: &str, place: &str, text: &str, capacity: u64) {
        self.0.send(format!("{what} {place} {capacity} {text}"));
        self.0.expect("done");
    }
}

fn source(place: &str, text: &str) -> Source {
    match place {
        "name" => Source::from(Name::local(text).unwrap()),
        _ => Source::from(std::path::PathBuf::from(text)),
    }
}

fn opens(_: &[&str]) {
    while let Some(line) = peer::hear() {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap();
        let (what, place, capacity) = (word(), word(), word().parse::<u64>().unwrap());
        let source = source(place, word());
        match what {
            "region" => region(source, capacity),
            "mapping" => mapping(source, capacity),
            _ => dict(source, capacity),
        }
        peer::say("done");
    }
}

/// Reads what the first process wrote, and fills the region.
fn region(source: Source, capacity: u64) {
    let region = Region::open(source.clone()).unwrap();
    assert_eq!(region.capacity(), capacity);
    assert_eq!(region.to_vec().unwrap(), contents(capacity.min(3), 1));
    let reader = Region::options().access(Access::ReadOnly).open(source).unwrap();
    region.write().unwrap().set(&contents(capacity, 2)).unwrap();
    let too_much = region.write().unwrap().set(&contents(capacity + 1, 3)).unwrap_err();
    assert!(matches!(too_much.kind(), ErrorKind::InvalidInput { .. } | ErrorKind::Full), "{too_much}");
    assert_eq!(reader.to_vec().unwrap(), contents(capacity, 2));
}

fn mapping(source: Source, capacity: u64) {
    let map = Mapping::open(source).unwrap();
    let len = usize::try_from(capacity).unwrap();
    assert!(map.len() >= len);
    assert_eq!(map.read_to_vec(0, len).unwrap(), contents(capacity, 1));
    map.write_at(0, &contents(capacity, 2)).unwrap();
}

fn dict(source: Source, capacity: u64) {
    let dict = Dict::open(source.clone()).unwrap();
    assert_eq!(dict.capacity(), capacity);
    assert_eq!(dict.get_bytes("first").unwrap().unwrap(), contents(3, 1));
    for nth in 0.. {
        if let Err(error) = dict.set_bytes(&format!("filler {nth}"), &contents(30_000, 2)) {
            assert_eq!(*error.kind(), ErrorKind::Full, "{error}");
            assert!(nth > 10);
            break;
        }
    }
    let reader = Dict::options().access(Access::ReadOnly).open(source).unwrap();
    assert_eq!(reader.get_bytes("filler 3").unwrap().unwrap(), contents(30_000, 2));
}

/// Has a story told of a name and of a file, with a peer that opens them.
fn everywhere(mut story: impl FnMut(&mut Other, &str, &str)) {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let dir = TempDir::new();
    let mut other = Other(Peer::spawn("opens", &[]));
    story(&mut other, "name", &unique_name("capacities"));
    story(&mut other, "file", dir.join("capacities").to_str().unwrap());
    other.0.finish();
}

#[test]
fn a_region_of_any_capacity_is_opened_by_others_whatever_was_written() {
    everywhere(|other, place, text| {
        for (nth, capacity) in CAPACITIES.into_iter().enumerate() {
            let text = format!("{text}{nth}");
            let ours = Region::create_new(source(place, &text), capacity).unwrap();
            assert_eq!(ours.capacity(), capacity);
            ours.write().unwrap().set(&contents(capacity.min(3), 1)).unwrap();
            other.ask("region", place, &text, capacity);
            assert_eq!(ours.to_vec().unwrap(), contents(capacity, 2), "{place} {capacity}");
            // Once more, with all of it in use.
            ours.write().unwrap().set(&contents(capacity.min(3), 1)).unwrap();
            other.ask("region", place, &text, capacity);
            assert_eq!(ours.status().unwrap().len, capacity, "{place} {capacity}");
        }
    });
}

#[test]
fn a_mapping_of_any_length_is_opened_by_others() {
    everywhere(|other, place, text| {
        for (nth, capacity) in CAPACITIES.into_iter().enumerate() {
            let text = format!("{text}{nth}");
            let len = usize::try_from(capacity).unwrap();
            let mut options = Mapping::options().size(1);
            if place == "name" {
                options = options.reserve(capacity);
            }
            let ours = options.create_new(source(place, &text)).unwrap();
            ours.grow(len).unwrap();
            ours.write_at(0, &contents(capacity, 1)).unwrap();
            other.ask("mapping", place, &text, capacity);
            assert_eq!(ours.read_to_vec(0, len).unwrap(), contents(capacity, 2), "{place} {capacity}");
        }
    });
}

#[test]
fn a_dict_of_any_capacity_is_opened_by_others_also_when_it_is_full() {
    everywhere(|other, place, text| {
        for (nth, more) in MORE.into_iter().enumerate() {
            let (text, capacity) = (format!("{text}{nth}"), Dict::MIN_CAPACITY + more);
            let ours = Dict::create_new(source(place, &text), capacity).unwrap();
            ours.set_bytes("first", &contents(3, 1)).unwrap();
            other.ask("dict", place, &text, capacity);
            assert_eq!(ours.get_bytes("filler 3").unwrap().unwrap(), contents(30_000, 2), "{place} {capacity}");
            assert!(ours.check().unwrap().is_whole(), "{place} {capacity}");
            ours.clear().unwrap();
            ours.set_bytes("first", &contents(3, 1)).unwrap();
            other.ask("dict", place, &text, capacity);
        }
    });
}
