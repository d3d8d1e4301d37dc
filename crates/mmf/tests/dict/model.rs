//! Random operations against a map (proptest). Each step is done by this process, by a second
//! process, by one that has just opened the dict, or by one that is killed afterwards. A failing
//! sequence is shortened.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use mmf::{Access, Dict, ErrorKind};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use testkit::{DEADLINE, Peer, TempDir, Watchdog, peer};

testkit::peers! { user }

/// Does what it hears on a handle of its own.
fn user(args: &[&str]) {
    let mut handle = Handle::open(Path::new(args[0]));
    while let Some(line) = peer::hear() {
        peer::say(handle.act(&line));
    }
}

/// The number of sequences of operations if `MMF_CASES` is not set. They are the same in each run.
const CASES: u32 = 12;
/// Operations of one.
const STEPS: usize = 150;

/// Who does an operation.
#[derive(Clone, Copy, Debug)]
enum Who {
    Ours,
    Peer,
    /// Another, which has just opened it.
    Fresh,
    /// The other process, which is killed then, and another takes its place.
    Last,
}

/// What a key has: bytes, or a number.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Bytes(Vec<u8>),
    Number(i64),
}

type Model = BTreeMap<String, Value>;

/// A value that follows from two numbers, which fit into a line.
fn value(len: usize, fill: u64) -> Vec<u8> {
    (0..len as u64).map(|n| u8::try_from((n * 7 + fill * 31 + n / 256) % 256).unwrap()).collect()
}

/// What stands for a value in an answer.
fn told(value: Option<&Value>) -> String {
    match value {
        None => "none".to_owned(),
        Some(Value::Number(number)) => format!("{number}"),
        Some(Value::Bytes(bytes)) => {
            let sum = bytes.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
            format!("{} {sum:x}", bytes.len())
        }
    }
}

fn told_all(all: &Model) -> String {
    let whole: Vec<u8> =
        all.iter().flat_map(|(key, value)| format!("{key} {}", told(Some(value))).into_bytes()).collect();
    format!("{} {}", all.len(), told(Some(&Value::Bytes(whole))))
}

/// Keys of numbers.
fn is_number(key: &str) -> bool {
    key.starts_with('n')
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
        match self.try_act(line) {
            Ok(text) => text,
            Err(error) if *error.kind() == ErrorKind::Full => "full".to_owned(),
            Err(error) => format!("error: {error}"),
        }
    }

    fn try_act(&mut self, line: &str) -> mmf::Result<String> {
        let dict = &self.dict;
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<i64>().unwrap();
        let bytes = || value(words[2].parse().unwrap(), words[3].parse().unwrap());
        let get = |dict: &Dict, key: &str| -> mmf::Result<Option<Value>> {
            if is_number(key) {
                return Ok(dict.get(key)?.map(Value::Number));
            }
            Ok(dict.get_bytes(key)?.map(Value::Bytes))
        };
        Ok(match words[0] {
            "set" => dict.set_bytes(words[1], &bytes()).map(|_| "done".to_owned())?,
            "absent" => dict.insert_bytes_if_absent(words[1], &bytes())?.to_string(),
            "remove" => dict.remove(words[1])?.to_string(),
            "get" => told(get(dict, words[1])?.as_ref()),
            "glance" => told(get(&self.reader, words[1])?.as_ref()),
            "increment" => dict.increment(words[1], number(2))?.to_string(),
            "exchange" => dict.compare_and_set(words[1], &number(2), &number(3))?.to_string(),
            // Becomes twice as much, or goes where it is even.
            "update" => {
                let new = dict.update(words[1], |old: Option<i64>| doubled(old, number(2)))?;
                told(new.map(Value::Number).as_ref())
            }
            "swap" | "undone" => dict.transaction(|tx| {
                let (one, other) = (tx.get_bytes(words[1])?, tx.get_bytes(words[2])?);
                for (key, value) in [(words[2], one), (words[1], other)] {
                    match value {
                        Some(value) => tx.set_bytes(key, &value)?,
                        None => drop(tx.remove(key)?),
                    }
                }
                if words[0] == "undone" {
                    tx.abort();
                }
                Ok("done".to_owned())
            })?,
            "all" => {
                let mut all = Model::new();
                for entry in self.reader.entries()? {
                    let value =
                        if is_number(&entry.key) { Value::Number(entry.get()?) } else { Value::Bytes(entry.value) };
                    all.insert(entry.key, value);
                }
                assert_eq!(all.len(), dict.len()?);
                told_all(&all)
            }
            "clear" => dict.clear().map(|_| "done".to_owned())?,
            "flush" => dict.flush().map(|()| "done".to_owned())?,
            "check" => {
                let report = dict.check()?;
                format!("{} entries, whole: {}", report.entries, report.is_whole())
            }
            other => panic!("{other} is no operation"),
        })
    }
}

fn doubled(old: Option<i64>, first: i64) -> Option<i64> {
    match old {
        None => Some(first),
        Some(old) => (old % 2 != 0).then(|| old.wrapping_mul(2)),
    }
}

/// What a map makes of the line.
fn expected(model: &mut Model, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let key = || words[1].to_owned();
    let number = |at: usize| words[at].parse::<i64>().unwrap();
    let bytes = || Value::Bytes(value(words[2].parse().unwrap(), words[3].parse().unwrap()));
    let done = "done".to_owned();
    match words[0] {
        "set" => {
            model.insert(key(), bytes());
            done
        }
        "absent" => {
            let absent = !model.contains_key(words[1]);
            if absent {
                model.insert(key(), bytes());
            }
            absent.to_string()
        }
        "remove" => model.remove(words[1]).is_some().to_string(),
        "get" | "glance" => told(model.get(words[1])),
        "increment" => {
            let now = if let Some(Value::Number(now)) = model.get(words[1]) { *now } else { 0 };
            model.insert(key(), Value::Number(now + number(2)));
            (now + number(2)).to_string()
        }
        "exchange" => {
            let is_old = model.get(words[1]) == Some(&Value::Number(number(2)));
            if is_old {
                model.insert(key(), Value::Number(number(3)));
            }
            is_old.to_string()
        }
        "update" => {
            let old = if let Some(Value::Number(old)) = model.remove(words[1]) { Some(old) } else { None };
            let new = doubled(old, number(2)).map(Value::Number);
            new.clone().map(|new| model.insert(key(), new));
            told(new.as_ref())
        }
        "swap" => {
            let (one, other) = (model.remove(words[1]), model.remove(words[2]));
            one.map(|value| model.insert(words[2].to_owned(), value));
            other.map(|value| model.insert(words[1].to_owned(), value));
            done
        }
        "all" => told_all(model),
        "clear" => {
            model.clear();
            done
        }
        "check" => format!("{} entries, whole: true", model.len()),
        _ => done,
    }
}

/// Few keys, many keys so that buckets are split, and long ones.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        10 => (0..12_u16).prop_map(|nth| format!("k{nth}")),
        8 => (0..400_u16).prop_map(|nth| format!("k{nth}")),
        1 => (0..5_u8).prop_map(|nth| format!("{}{nth}", "long".repeat(200))),
    ]
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![10 => 0..500_usize, 10 => Just(64), 4 => 0..9000_usize, 1 => 0..120_000_usize]
}

fn line() -> impl Strategy<Value = String> {
    let number = || (0..4_u8).prop_map(|nth| format!("n{nth}"));
    prop_oneof![
        40 => (key(), len(), 0..256_u64).prop_map(|(key, len, fill)| format!("set {key} {len} {fill}")),
        5 => (key(), len(), 0..256_u64).prop_map(|(key, len, fill)| format!("absent {key} {len} {fill}")),
        12 => key().prop_map(|key| format!("remove {key}")),
        12 => key().prop_map(|key| format!("get {key}")),
        8 => key().prop_map(|key| format!("glance {key}")),
        5 => (number(), -9..9_i64).prop_map(|(key, by)| format!("increment {key} {by}")),
        3 => (number(), -9..9_i64, -9..9_i64).prop_map(|(key, old, new)| format!("exchange {key} {old} {new}")),
        3 => (number(), -9..9_i64).prop_map(|(key, first)| format!("update {key} {first}")),
        2 => number().prop_map(|key| format!("glance {key}")),
        5 => (key(), key()).prop_map(|(one, other)| format!("swap {one} {other}")),
        1 => (key(), key()).prop_map(|(one, other)| format!("undone {one} {other}")),
        3 => Just("all".to_owned()),
        1 => Just("clear".to_owned()),
        2 => Just("flush".to_owned()),
        2 => Just("check".to_owned()),
    ]
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![30 => Just(Who::Ours), 30 => Just(Who::Peer), 3 => Just(Who::Fresh), 1 => Just(Who::Last)]
}

/// Does them all, and gives up at the first that differs.
fn try_all(steps: &[(Who, String)]) -> Result<(), TestCaseError> {
    let dir = TempDir::new();
    let path = dir.join("dict");
    drop(Dict::create_new(path.as_path(), 1 << 20).unwrap());
    let spawn = || Peer::spawn("user", &[path.to_str().unwrap()]);
    let mut peer = spawn();
    let mut ours = Handle::open(&path);
    let mut model = Model::new();
    for (nth, (who, line)) in steps.iter().enumerate() {
        let given = match who {
            Who::Ours => ours.act(line),
            Who::Fresh => Handle::open(&path).act(line),
            Who::Peer | Who::Last => {
                peer.send(line);
                peer.expect_line_within(DEADLINE)
            }
        };
        if matches!(who, Who::Last) {
            peer.kill();
            peer = spawn();
        }
        // Nothing is lost then, which the next look at all shows.
        if given != "full" {
            prop_assert_eq!(given, expected(&mut model, line), "step {}, by {:?}: {}", nth, who, line);
        }
    }
    prop_assert_eq!(ours.act("all"), expected(&mut model, "all"));
    prop_assert_eq!(ours.act("check"), expected(&mut model, "check"));
    peer.finish();
    Ok(())
}

#[test]
fn processes_have_what_one_map_has() {
    let _watchdog = Watchdog::start(DEADLINE * 30);
    let cases = std::env::var("MMF_CASES").map_or(CASES, |cases| cases.parse().unwrap());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[5; 32]));
    let outcome = runner.run(&vec((who(), line()), STEPS / 2..STEPS), |steps| try_all(&steps));
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
