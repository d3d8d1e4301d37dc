//! Any operations, each by one of two processes or by one that has just opened the dict: what they give is what a map gives.

#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use mmf::{Access, Dict, ErrorKind};
use testkit::{DEADLINE, Peer, TempDir, Watchdog, peer};

testkit::peers! { user }

/// Does what it hears on a handle of its own.
fn user(args: &[&str]) {
    let mut handle = Handle::open(Path::new(args[0]));
    while let Some(line) = peer::hear() {
        peer::say(handle.act(&line));
    }
}

/// Seeds that once failed stay here.
const SEEDS: [u64; 6] = [1, 2, 3, 0x5eed, 0xfeed_beef, 88_172_645_463_325_252];
const STEPS: usize = 600;

struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % end
    }
}

/// A value that follows from two numbers, which fit into a line.
fn value(len: usize, fill: u64) -> Vec<u8> {
    (0..len as u64).map(|n| u8::try_from((n * 7 + fill * 31 + n / 256) % 256).unwrap()).collect()
}

/// What stands for a value in an answer.
fn told(value: Option<&[u8]>) -> String {
    value.map_or_else(
        || "none".to_owned(),
        |value| {
            let sum = value.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
            format!("{} {sum:x}", value.len())
        },
    )
}

struct Handle {
    dict: Dict,
    reader: Dict,
}

impl Handle {
    fn open(path: &Path) -> Handle {
        let reader = Dict::options().access(Access::ReadOnly).timeout(Some(Duration::from_secs(10)));
        Handle { dict: Dict::open(path).unwrap(), reader: reader.open(path).unwrap() }
    }

    /// Does what the line says and tells what came of it, both in words that a model has too.
    fn act(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let bytes = |at: usize| value(usize::try_from(number(at)).unwrap(), number(at + 1));
        let done = match words[0] {
            "set" => self.dict.set_bytes(words[1], &bytes(2)).map(|_| "done".to_owned()),
            "absent" => self.dict.insert_bytes_if_absent(words[1], &bytes(2)).map(|set| set.to_string()),
            "remove" => self.dict.remove(words[1]).map(|removed| removed.to_string()),
            "get" => self.dict.get_bytes(words[1]).map(|value| told(value.as_deref())),
            "glance" => self.reader.get_bytes(words[1]).map(|value| told(value.as_deref())),
            "swap" => self.dict.transaction(|tx| {
                let (one, other) = (tx.get_bytes(words[1])?, tx.get_bytes(words[2])?);
                for (key, value) in [(words[2], one), (words[1], other)] {
                    match value {
                        Some(value) => tx.set_bytes(key, &value)?,
                        None => drop(tx.remove(key)?),
                    }
                }
                Ok("done".to_owned())
            }),
            "all" => self.reader.entries().and_then(|entries| {
                let all: BTreeMap<String, Vec<u8>> = entries.map(|entry| (entry.key, entry.value)).collect();
                Ok(format!("{} {}", self.dict.len()?, told_all(&all)))
            }),
            "clear" => self.dict.clear().map(|_| "done".to_owned()),
            _ => self.dict.flush().map(|()| "done".to_owned()),
        };
        match done {
            Ok(text) => text,
            Err(error) if *error.kind() == ErrorKind::Full => "full".to_owned(),
            Err(error) => format!("error: {error}"),
        }
    }
}

fn told_all(all: &BTreeMap<String, Vec<u8>>) -> String {
    let whole: Vec<u8> =
        all.iter().flat_map(|(key, value)| key.bytes().chain(told(Some(value)).into_bytes())).collect();
    format!("{} {}", all.len(), told(Some(&whole)))
}

/// What a map makes of the line.
fn expected(model: &mut BTreeMap<String, Vec<u8>>, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    let bytes = |at: usize| value(usize::try_from(number(at)).unwrap(), number(at + 1));
    match words[0] {
        "set" => {
            model.insert(words[1].to_owned(), bytes(2));
            "done".to_owned()
        }
        "absent" => {
            let absent = !model.contains_key(words[1]);
            if absent {
                model.insert(words[1].to_owned(), bytes(2));
            }
            absent.to_string()
        }
        "remove" => model.remove(words[1]).is_some().to_string(),
        "get" | "glance" => told(model.get(words[1]).map(Vec::as_slice)),
        "swap" => {
            let (one, other) = (model.remove(words[1]), model.remove(words[2]));
            one.map(|value| model.insert(words[2].to_owned(), value));
            // A key swapped with itself stays.
            other.map(|value| model.insert(words[1].to_owned(), value));
            "done".to_owned()
        }
        "all" => format!("{} {}", model.len(), told_all(model)),
        "clear" => {
            model.clear();
            "done".to_owned()
        }
        _ => "done".to_owned(),
    }
}

fn line(numbers: &mut Numbers) -> String {
    // Many keys now and then, so that buckets are split; some of them long.
    let mut key = || match numbers.below(20) {
        0 => format!("{}{}", "long".repeat(200), numbers.below(5)),
        1..6 => format!("k{}", numbers.below(700)),
        _ => format!("k{}", numbers.below(40)),
    };
    let (one, other) = (key(), key());
    let len = match numbers.below(40) {
        0 => numbers.below(120_000),
        1..5 => numbers.below(9000),
        5..15 => 64,
        _ => numbers.below(500),
    };
    let fill = numbers.below(256);
    match numbers.below(100) {
        0..45 => format!("set {one} {len} {fill}"),
        45..50 => format!("absent {one} {len} {fill}"),
        50..65 => format!("remove {one}"),
        65..80 => format!("get {one}"),
        80..90 => format!("glance {one}"),
        90..95 if one != other => format!("swap {one} {other}"),
        95..98 => "all".to_owned(),
        98 if numbers.below(4) == 0 => "clear".to_owned(),
        _ => "flush".to_owned(),
    }
}

#[test]
fn two_processes_have_what_one_map_has() {
    let _watchdog = Watchdog::start(DEADLINE * 6);
    let dir = TempDir::new();
    for seed in SEEDS {
        let mut numbers = Numbers(seed);
        let path = dir.join(format!("{seed}"));
        drop(Dict::create_new(&path, 1 << 20).unwrap());
        let mut peer = Peer::spawn("user", &[path.to_str().unwrap()]);
        let mut ours = Handle::open(&path);
        let mut model = BTreeMap::new();
        for step in 0..STEPS {
            let line = line(&mut numbers);
            let given = match numbers.below(16) {
                0..8 => ours.act(&line),
                8 => Handle::open(&path).act(&line),
                _ => {
                    peer.send(&line);
                    peer.expect_line_within(DEADLINE)
                }
            };
            if given == "full" {
                // Nothing is lost, which the next look at all shows.
                continue;
            }
            let wanted = expected(&mut model, &line);
            assert_eq!(given, wanted, "seed {seed}, step {step}: {line}");
        }
        assert_eq!(ours.act("all"), expected(&mut model, "all"), "seed {seed}");
        peer.finish();
    }
}
