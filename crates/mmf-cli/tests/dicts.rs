//! The verbs of dicts: set, get, count, watch, export and import keys, in several processes.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use common::{LIMIT, Running, mmf, mmf_with, pattern};
use mmf::{Access, Dict, Encoding, Mapping, Name, Region};
use testkit::{TempDir, unique_name};

fn dict(label: &str) -> (String, Dict) {
    let text = unique_name(label);
    let dict = Dict::create_new(Name::local(&*text).unwrap(), 4 << 20).unwrap();
    (text, dict)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Everything, to the byte.
fn contents(dict: &Dict) -> BTreeMap<String, (Encoding, Vec<u8>)> {
    dict.entries().unwrap().map(|entry| (entry.key, (entry.encoding, entry.value))).collect()
}

#[test]
fn the_first_set_makes_a_file_and_what_is_in_it_stays() {
    let dir = TempDir::new();
    let (path, bytes) = (dir.join("made"), dir.join("bytes"));
    let path = text(&path);
    fs::write(&bytes, pattern(3000)).unwrap();
    mmf(["get", path, "ver"]).exits(3).says("mmf set");
    mmf(["del", path, "ver"]).exits(3).says("mmf set");
    let bin = format!("bin@{}", text(&bytes));
    mmf(["set", path, "ver=1.10", "n:=42", r#"all:={"z": [1, 2.5, null], "a": "ü"}"#, &bin]).exits(0);
    assert_eq!(mmf(["get", path, "ver"]).exits(0).text(), "1.10\n");
    assert_eq!(mmf(["get", path, "ver", "--json"]).exits(0).text(), "\"1.10\"\n");
    assert_eq!(mmf(["get", path, "n"]).exits(0).text(), "42\n");
    assert_eq!(mmf(["get", path, "all"]).exits(0).text(), "{\"z\":[1,2.5,null],\"a\":\"ü\"}\n");
    assert!(mmf(["get", path, "bin"]).exits(0).stdout == pattern(3000));
    assert!(mmf(["get", path, "bin", "--json"]).exits(0).json()["$bytes"].as_str().unwrap().len() == 6000);
    let copy = dir.join("copy");
    mmf(["get", path, "bin", "-o", text(&copy)]).exits(0);
    assert!(fs::read(&copy).unwrap() == pattern(3000));
    mmf(["get", path, "nothing"]).exits(1).says("has no key \"nothing\"");
    assert_eq!(mmf(["keys", path]).exits(0).text(), "all\nbin\nn\nver\n");
    assert_eq!(mmf(["keys", path, "--json"]).exits(0).json(), serde_json::json!(["all", "bin", "n", "ver"]));
    // A created dict has the given capacity, and the default otherwise.
    assert_eq!(Dict::open(Path::new(path)).unwrap().capacity(), 1 << 30);
    let small = dir.join("small");
    mmf(["set", text(&small), "a=1", "--capacity", "2M", "--flush"]).exits(0);
    assert_eq!(Dict::open(&*small).unwrap().capacity(), 2 << 20);
    mmf(["set", text(&small), "a=2", "--capacity", "4M"]).exits(1).says("its capacity");
    mmf(["set", text(&small), "a=2", "--capacity", "1M"]).exits(0);
}

#[test]
fn what_is_wrong_with_a_pair_changes_nothing() {
    let (name, dict) = dict("wrong");
    for pair in ["a", "=1", "a:=x", ":=1"] {
        mmf(["set", &name, "b=1", pair]).exits(2);
    }
    mmf(["set", &name, "b=1", "a@/there/is/none"]).exits(3).says("/there/is/none");
    mmf(["set", &name, "b=1", &format!("{}=1", "a".repeat(1025))]).exits(2).says("1025 bytes");
    assert!(dict.is_empty().unwrap());
    let dir = TempDir::new();
    let path = dir.join("not-made");
    mmf(["set", text(&path), "a@/there/is/none"]).exits(3);
    assert!(!path.exists());
}

#[test]
fn a_peers_control_characters_reach_no_line() {
    let (name, dict) = dict("controls");
    let odd = "\u{1b}]0;title\u{7}\u{9b}2J\nplain";
    for key in ["plain", odd, "\"quoted\"", "größer \\ \"x\""] {
        dict.set(key, key).unwrap();
    }
    let lines = mmf(["keys", &name]).exits(0).text();
    assert!(!lines.contains(|c: char| c.is_control() && c != '\n'), "{lines:?}");
    let read = |line: &str| match line.starts_with('"') {
        true => serde_json::from_str(line).unwrap(),
        false => line.to_owned(),
    };
    let mut keys = dict.keys().unwrap();
    keys.sort_unstable();
    assert_eq!(lines.lines().map(read).collect::<Vec<String>>(), keys);
    assert!(lines.lines().any(|line| line == "plain") && lines.lines().any(|line| line == "größer \\ \"x\""));
    // For scripts, as they are.
    let raw = mmf(["keys", &name, "-0"]).exits(0).text();
    assert_eq!(raw.split_terminator('\0').collect::<Vec<_>>(), keys);
    let json = mmf(["keys", &name, "--json"]).exits(0);
    assert!(!json.text().contains(|c: char| c.is_control() && c != '\n'), "{}", json.text());
    assert_eq!(json.json(), serde_json::json!(keys));
    mmf(["keys", &name, "-0", "--json"]).exits(2);
    // A pipe gets a value as it is; JSON says the same with escapes.
    assert_eq!(mmf(["get", &name, odd]).exits(0).text(), format!("{odd}\n"));
    for verb in [&["get", &name, odd, "--json"][..], &["export", &name], &["check", &name]] {
        let text = mmf(verb).exits(0).text();
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    }
    mmf(["get", &name, "not \u{1b}[2J"]).exits(1).says("has no key");
    mmf(["del", &name, "not \u{9b}2J"]).exits(1);
}

#[test]
fn keys_are_removed_together_and_counted_by_any_number() {
    let (name, dict) = dict("count");
    mmf(["set", &name, "a=1", "b=2", "c=3"]).exits(0);
    mmf(["del", &name, "a", "x", "b"]).exits(1).says("has no key \"x\"");
    assert_eq!(dict.keys().unwrap(), ["c"]);
    mmf(["del", &name, "c"]).exits(0);
    for (args, sum) in [(&[][..], "1\n"), (&["41"], "42\n"), (&["-50"], "-8\n"), (&["0"], "-8\n")] {
        assert_eq!(mmf([&["incr", &name, "n"], args].concat()).exits(0).text(), sum);
    }
    mmf(["set", &name, "t=text", "f:=1.5", &format!("m:={}", i64::MAX)]).exits(0);
    mmf(["incr", &name, "t"]).exits(1).says("is not an integer");
    mmf(["incr", &name, "f"]).exits(1).says("is not an integer");
    mmf(["incr", &name, "m"]).exits(2).says("more than fits");
    mmf(["incr", &name, "n", "x"]).exits(2);
    let dir = TempDir::new();
    assert_eq!(mmf(["incr", text(&dir.join("made")), "n", "-1"]).exits(0).text(), "-1\n");
}

#[test]
fn increments_of_many_processes_are_all_there() {
    let (name, dict) = dict("many");
    let mut running: Vec<Running> = (0..8).map(|_| Running::start(["incr", &name, "n", "3"])).collect();
    for process in &mut running {
        assert_eq!(process.wait(), Some(0));
    }
    assert_eq!(dict.get("n").unwrap(), Some(24));
}

#[test]
fn hold_makes_a_dict_and_is_advised_where_there_is_none() {
    let name = unique_name("held");
    let advice = format!("try: mmf hold {name} --dict --capacity 64M");
    for args in [&["set", &name, "a=1"][..], &["get", &name, "a"], &["incr", &name, "a"], &["watch", &name, "a"]] {
        mmf(args).exits(3).says(&advice);
    }
    mmf(["hold", &name, "--dict"]).exits(2).says("--capacity <N>");
    mmf(["hold", &name, "--dict", "--region", "--capacity", "1M"]).exits(2).says("cannot be used with");
    mmf(["hold", &name, "--dict", "--capacity", "1M", "--size", "1M"]).exits(2).says("cannot be used with");
    let mut holder = Running::start(["hold", &name, "--dict", "--capacity", "4M"]);
    assert!(holder.line().starts_with(&format!("holding name:{name} (a dict of up to 4 MiB)")));
    mmf(["set", &name, "a=1"]).exits(0);
    assert_eq!(mmf(["get", &name, "a"]).exits(0).text(), "1\n");
    mmf(["hold", &name, "--dict", "--capacity", "4M"]).exits(4).says("see: mmf info");
    holder.child.kill().unwrap();
    holder.wait();
}

#[test]
fn what_is_exported_and_imported_has_the_same_bytes() {
    let dir = TempDir::new();
    let (lines, again, file) = (dir.join("lines"), dir.join("again"), dir.join("dict"));
    let (name, ours) = dict("export");
    // Encodings that JSON has no words for, and some that this release's encoder would not choose.
    let encoded: [(&str, &[u8]); 15] = [
        ("nan", &[0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 1]),
        ("infinity", &[0xca, 0xff, 0x80, 0, 0]),
        ("tenth of 32 bits", &[0xca, 0x3d, 0xcc, 0xcc, 0xcd]),
        ("tenth of 64 bits", &[0xcb, 0x3f, 0xb9, 0x99, 0x99, 0x99, 0x99, 0x99, 0x9a]),
        ("large", &[0xcf, 255, 255, 255, 255, 255, 255, 255, 255]),
        ("small", &[0xd3, 128, 0, 0, 0, 0, 0, 0, 0]),
        ("wide", &[0xd2, 0, 0, 0, 7]),
        ("numbers as keys", &[0x82, 1, 0xc3, 0xff, 0x81, 0xc0, 0xc2]),
        ("nested", &[0x92, 0x81, 0xa1, b'a', 0x92, 0x80, 0x90, 0xc4, 2, 0, 255]),
        ("key with $", &[0x81, 0xa4, b'$', b'b', b'i', b'n', 0xa0]),
        ("no text", &[0xa2, 0xc3, 0x28]),
        ("time", &[0xd6, 0xff, 1, 2, 3, 4]),
        ("no value", &[]),
        ("nonsense", &[0xc1]),
        ("two values", &[1, 2]),
    ];
    for (key, bytes) in encoded {
        ours.set_encoded(key, Encoding::MessagePack, bytes).unwrap();
    }
    ours.set_encoded("levels", Encoding::MessagePack, &[&[0x91; 119][..], &[0xc0]].concat()).unwrap();
    ours.set_encoded("deep", Encoding::MessagePack, &[&[0x91; 3000][..], &[0xc0]].concat()).unwrap();
    ours.set_bytes("bytes", &pattern(70_000)).unwrap();
    ours.set_bytes("", &[]).unwrap();
    ours.set("strange\n\"key\" ü\u{0}", "text\r\n\u{1F980}").unwrap();
    for nth in 0..500 {
        ours.set(&format!("entry {nth}"), &(nth, f64::from(nth) / 7.0, vec![Some("x"); 3])).unwrap();
    }

    mmf(["export", &name, "-o", text(&lines)]).exits(0);
    mmf(["import", text(&file), "-i", text(&lines), "--capacity", "16M"]).exits(0).says("set 520 keys");
    let theirs = Dict::open(&*file).unwrap();
    assert!(contents(&theirs) == contents(&ours));
    // By way of pipes, and from lines that end as Windows has it.
    let exported = mmf(["export", text(&file)]).exits(0).stdout;
    assert!(exported == fs::read(&lines).unwrap());
    let sorted: Vec<serde_json::Value> =
        exported.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!(sorted.len(), 520);
    assert!(sorted.is_sorted_by_key(|line| line["key"].as_str().unwrap().to_owned()));
    let windows = String::from_utf8(exported).unwrap().replace('\n', "\r\n");
    mmf_with(["import", text(&again)], windows.as_bytes()).exits(0);
    assert!(contents(&Dict::open(&*again).unwrap()) == contents(&ours));
    // For people.
    assert_eq!(mmf(["get", &name, "tenth of 32 bits"]).exits(0).text(), "0.1\n");
    assert_eq!(mmf(["get", &name, "key with $"]).exits(0).text(), "{\"$bin\":\"\"}\n");

    mmf(["export", text(&file), "-o", text(&file)]).exits(2).says("by itself");
    assert!(contents(&theirs) == contents(&ours));
}

#[test]
fn a_line_that_is_wrong_is_told_and_those_before_it_are_set() {
    let (name, dict) = dict("lines");
    for (wrong, reason) in [
        ("nonsense", "expected"),
        (r#"{"key": "a"}"#, "value"),
        (r#"{"key": "a", "value": 1, "more": 2}"#, "more"),
        (r#"{"key": "a", "value": {"$bin": "0"}}"#, "hexadecimal"),
        (r#"{"key": "a", "value": {"$else": 0}}"#, "`$else`"),
    ] {
        dict.clear().unwrap();
        let lines = format!("{{\"key\": \"x\", \"value\": 1}}\n\n{wrong}\n{{\"key\": \"y\", \"value\": 2}}\n");
        mmf_with(["import", &name], lines.as_bytes()).exits(1).says("line 3 of standard input").says(reason);
        assert_eq!(dict.keys().unwrap(), ["x"], "{wrong}");
    }
    let full = format!("{{\"key\": \"x\", \"value\": \"{}\"}}", "x".repeat(5 << 20));
    mmf_with(["import", &name], full.as_bytes()).exits(1).says("more capacity");
    assert_eq!(dict.get("x").unwrap(), Some(1));
}

#[test]
fn other_verbs_say_what_it_is_and_do_not_trample_it() {
    let dir = TempDir::new();
    let (path, other) = (dir.join("dict"), dir.join("other"));
    let (path, other) = (text(&path), text(&other));
    mmf(["set", path, "a=1"]).exits(0);
    fs::write(other, "other").unwrap();
    let before = fs::read(path).unwrap();
    mmf_with(["write", path], b"trampled").exits(1).says("mmf set").says("--raw");
    mmf(["cp", other, path]).exits(1).says("mmf import").says("mmf write --raw");
    mmf(["cp", path, other]).exits(1).says("mmf export");
    mmf(["read", path]).exits(1).says("mmf export").says("--raw");
    mmf(["dump", path]).exits(1).says("mmf get");
    assert!(mmf(["read", path, "--raw"]).exits(0).stdout == before);
    assert_eq!(fs::read(other).unwrap(), b"other");

    let (name, dict) = dict("told");
    dict.set("a", &1).unwrap();
    for object in [path, &name] {
        let about = mmf(["info", object, "--json"]).exits(0).json();
        assert_eq!((&about["kind"], &about["dict"]["entries"]), (&"dict".into(), &1.into()));
        let shown = mmf(["info", object]).exits(0).text();
        assert!(shown.lines().any(|line| line.starts_with("keys ") && line.ends_with(" 1")), "{shown}");
    }
    let listed = mmf(["ls", "--json"]).exits(0).json();
    let mut listed = listed.as_array().unwrap().iter();
    assert_eq!(listed.find(|object| object["object"] == format!("name:{name}")).unwrap()["kind"], "dict");
}

#[test]
fn what_is_no_dict_is_told() {
    let (raw, region) = (unique_name("raw"), unique_name("region"));
    let _map = Mapping::create_new(Name::local(&*raw).unwrap(), 4096).unwrap();
    let _region = Region::create_new(Name::local(&*region).unwrap(), 4096).unwrap();
    mmf(["set", &raw, "a=1"]).exits(1).says("is raw memory, not a dict");
    mmf(["get", &region, "a"]).exits(1).says("is a region, not a dict");
    mmf(["watch", &region, "a"]).exits(2).says("is a region, which has no keys");
    let dir = TempDir::new();
    let file = dir.join("file");
    fs::write(&file, "file").unwrap();
    mmf(["set", text(&file), "a=1"]).exits(1).says("is a file of another kind");
    assert_eq!(fs::read(&file).unwrap(), b"file");
}

#[test]
fn what_can_only_be_read_is_read() {
    let dir = TempDir::new();
    let path = dir.join("dict");
    let dict = Dict::create_new(&*path, 1 << 20).unwrap();
    dict.set("a", "text").unwrap();
    drop(dict);
    // A feature that writers have to know, and the checksum of the header, as `docs/format.md` has
    // them.
    let mut bytes = fs::read(&path).unwrap();
    bytes[24] = 128;
    let sum = bytes[..1016]
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    bytes[1016..1024].copy_from_slice(&sum.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    assert!(Dict::open(&*path).is_err());
    assert!(Dict::options().access(Access::ReadOnly).open(&*path).is_ok());
    let path = text(&path);
    assert_eq!(mmf(["get", path, "a"]).exits(0).text(), "text\n");
    assert_eq!(mmf(["keys", path]).exits(0).text(), "a\n");
    assert_eq!(mmf(["export", path]).exits(0).text(), "{\"key\":\"a\",\"value\":\"text\"}\n");
    mmf(["set", path, "a=1"]).exits(1);
    assert_eq!(mmf(["watch", path, "--timeout", "0.1"]).exits(0).text(), "");
}

#[test]
fn damage_is_told_and_what_is_whole_is_kept() {
    let dir = TempDir::new();
    let path = dir.join("dict");
    let object = text(&path);
    mmf(["set", object, "good=whole", "bad=this is what a disk spoils", "gone=x", "--capacity", "4M"]).exits(0);
    mmf(["del", object, "gone"]).exits(0);
    assert_eq!(mmf(["check", object]).exits(0).text(), "2 keys are whole; nothing is damaged\n");
    let told = mmf(["check", object, "--json"]).exits(0).json();
    assert_eq!((&told["whole"], &told["entries"]), (&true.into(), &2.into()));
    let before = fs::read(&path).unwrap();
    assert_eq!(mmf(["repair", object]).exits(0).text(), "2 keys are whole and kept; nothing is damaged\n");

    let mut bytes = before;
    let at = bytes.windows(6).position(|part| part == b"spoils").expect("the value is in the file");
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let told = mmf(["check", object]).exits(1).says(&format!("mmf repair {object}"));
    assert!(told.text().contains("\"bad\": "), "{}", told.text());
    let told = mmf(["check", object, "--json"]).exits(1).json();
    assert_eq!((&told["whole"], &told["problems"][0]["key"]), (&false.into(), &"bad".into()), "{told}");
    assert_eq!(mmf(["get", object, "good"]).exits(0).text(), "whole\n");

    let told = mmf(["repair", object, "--json"]).exits(0).json();
    assert_eq!((&told["whole"], &told["entries"]), (&false.into(), &1.into()), "{told}");
    assert_eq!(mmf(["check", object]).exits(0).text(), "1 key is whole; nothing is damaged\n");
    assert_eq!(mmf(["keys", object]).exits(0).text(), "good\n");
    mmf(["set", object, "bad=again"]).exits(0);

    fs::write(&path, &bytes[..4096]).unwrap();
    mmf(["check", object]).exits(1);
    mmf(["repair", object]).exits(1);
    let absent = dir.join("absent");
    mmf(["repair", text(&absent)]).exits(3);
    assert!(!absent.exists());
}

#[test]
fn a_dict_that_others_write_to_is_not_repaired() {
    let (name, dict) = dict("busy");
    dict.set("a", &1).unwrap();
    mmf(["repair", &name]).exits(1).says("open for writing");
    assert_eq!(dict.get("a").unwrap(), Some(1));
}

#[test]
fn stats_tell_what_is_used_and_by_how_many() {
    let (name, dict) = dict("stats");
    let stats = || mmf(["stats", &name, "--json"]).exits(0).json();
    let number = |stats: &serde_json::Value, what: &str| stats[what].as_u64().expect(what);
    let empty = stats();
    assert_eq!((number(&empty, "entries"), number(&empty, "capacity")), (0, 4 << 20));
    for nth in 0..100 {
        dict.set_bytes(&format!("key {nth}"), &[0; 1000]).unwrap();
    }
    let filled = stats();
    assert_eq!(number(&filled, "entries"), 100);
    assert_eq!(number(&filled, "version"), 100);
    assert_eq!(number(&filled, "participants"), 1);
    assert!(number(&filled, "used") >= 100_000 + number(&empty, "used"), "{filled}");
    assert!(number(&filled, "free") + 100_000 <= number(&empty, "free"), "{filled}");
    assert!((0.0..1.0).contains(&filled["fragmentation"].as_f64().unwrap()), "{filled}");
    let shown = mmf(["stats", &name]).exits(0).text();
    for part in ["keys ", "4194304 bytes (4 MiB)", "fragmentation", "never", "participants"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    mmf(["set", &name, "a=1", "--flush"]).exits(0);
    let about = mmf(["info", &name, "--json"]).exits(0).json();
    assert_eq!((&about["dict"]["version"], &about["dict"]["participants"]), (&101.into(), &1.into()));
}

/// Sets `mark` until the watcher tells of it: from then on it tells of everything.
fn wait_until_it_watches(watcher: &Running, dict: &Dict) {
    let started = Instant::now();
    while watcher.try_line().is_none() {
        assert!(started.elapsed() < LIMIT, "no process watches");
        dict.set("mark", &0).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn next(watcher: &Running) -> serde_json::Value {
    loop {
        let told: serde_json::Value = serde_json::from_str(&watcher.line()).unwrap();
        if told["key"] != "mark" {
            return told;
        }
    }
}

#[test]
fn watch_prints_a_line_for_each_change() {
    let (name, dict) = dict("watch");
    let watcher = Running::start(["watch", &name, "--json"]);
    let people = Running::start(["watch", &name]);
    wait_until_it_watches(&watcher, &dict);
    wait_until_it_watches(&people, &dict);
    mmf(["set", &name, "camera=on", "gain:=[1, 2]"]).exits(0);
    mmf(["del", &name, "camera"]).exits(0);
    dict.set_bytes("two words", &[255; 3]).unwrap();
    dict.clear().unwrap();

    let mut version = 0;
    for (what, key) in
        [("set", "camera".into()), ("set", "gain".into()), ("removed", "camera".into()), ("set", "two words".into())]
    {
        let told = next(&watcher);
        assert_eq!((&told["what"], &told["key"]), (&what.into(), &key), "{told}");
        assert!(told["version"].as_u64() > Some(version), "{told}");
        version = told["version"].as_u64().unwrap();
        assert!(told["time"].as_str().unwrap().ends_with('Z'), "{told}");
    }
    assert_eq!(next(&watcher)["what"], "cleared");
    let mut lines = std::iter::repeat_with(|| people.line()).filter(|line| !line.ends_with("  set      mark  0"));
    let mut line = |parts: &[&str]| {
        let line = lines.next().unwrap();
        assert!(parts.iter().all(|part| line.contains(part)), "{line}: {parts:?}");
    };
    line(&["Z  version ", "  set      camera"]);
    line(&["  set      gain"]);
    line(&["  removed  camera"]);
    line(&["  set      \"two words\""]);
    line(&["  cleared"]);
}

#[test]
fn watch_tells_of_a_key_or_a_prefix_alone() {
    let (name, dict) = dict("some");
    let key = Running::start(["watch", &name, "mark", "--json"]);
    let prefix = Running::start(["watch", &name, "--prefix", "ma", "--json"]);
    wait_until_it_watches(&key, &dict);
    wait_until_it_watches(&prefix, &dict);
    dict.set("other", &2).unwrap();
    dict.set("many", &1).unwrap();
    let told = next(&prefix);
    assert_eq!((&told["key"], &told["value"]), (&"many".into(), &1.into()), "{told}");
    // Neither of the two is told of before this.
    dict.set("mark", "last").unwrap();
    loop {
        let told: serde_json::Value = serde_json::from_str(&key.line()).unwrap();
        assert_eq!(told["key"], "mark", "{told}");
        if told["value"] == "last" {
            break;
        }
    }
    mmf(["watch", &name, "mark", "--prefix", "ma"]).exits(2);
}

#[test]
fn watch_ends_in_time() {
    let (name, dict) = dict("calm");
    mmf(["watch", &name, "--timeout", "0.1"]).exits(0);
    mmf(["watch", &name, "key", "--timeout", "0.1", "--count", "1"]).exits(1).says("changed 0 times of 1");
    let mut watcher = Running::start(["watch", &name, "mark", "--count", "1"]);
    wait_until_it_watches(&watcher, &dict);
    assert_eq!(watcher.wait(), Some(0));
}
