//! The verbs of regions: create, info, read, write, watch, and regions that a dead writer left.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{LIMIT, Running, mmf, mmf_with, pattern};
use mmf::{Mapping, Name, Region};
use testkit::{Peer, TempDir, unique_name};

testkit::peers! { dies_inside }

/// Changes half of what it means to, and waits for its end.
fn dies_inside(args: &[&str]) {
    let region = Region::open(Name::local(args[0]).unwrap()).unwrap();
    let mut guard = region.write().unwrap();
    guard.write_at(0, b"half").unwrap();
    testkit::peer::say("inside");
    testkit::peer::hear();
}

fn region(label: &str) -> (String, Region) {
    let text = unique_name(label);
    let region = Region::create_new(Name::local(&*text).unwrap(), 4 << 20).unwrap();
    (text, region)
}

/// A region left by a writer that died.
fn poisoned(label: &str) -> (String, Region) {
    let (name, region) = region(label);
    region.write().unwrap().set(b"whole").unwrap();
    let mut peer = Peer::spawn("dies_inside", &[name.as_str()]);
    peer.expect("inside");
    peer.kill();
    (name, region)
}

/// A region in a file, whose header says something else.
fn altered(dir: &TempDir, alter: impl FnOnce(&mut [u8])) -> PathBuf {
    let path = dir.join("altered");
    let region = Region::create_new(&*path, 1 << 16).unwrap();
    region.write().unwrap().set(b"contents").unwrap();
    drop(region);
    let mut bytes = fs::read(&path).unwrap();
    alter(&mut bytes);
    // The header's checksum, as `docs/format.md` tells it.
    let sum = bytes[..1016]
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    bytes[1016..1024].copy_from_slice(&sum.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    path
}

#[test]
fn hold_makes_a_region_and_its_contents_have_the_length_of_what_was_written() {
    let name = unique_name("made");
    let mut holder = Running::start(["hold", &name, "--region", "--capacity", "1M"]);
    assert!(holder.line().starts_with(&format!("holding name:{name} (a region of up to 1 MiB)")));
    mmf_with(["write", &name], b"hello").exits(0);
    mmf_with(["write", &name], b"hi").exits(0);
    assert_eq!(mmf(["read", &name]).exits(0).stdout, b"hi");
    mmf_with(["write", &name, "--offset", "1"], b"ello again").exits(0);
    assert_eq!(mmf(["read", &name, "--offset", "6", "--length", "5"]).exits(0).stdout, b"again");
    assert_eq!(
        mmf(["dump", &name, "--length", "5"]).exits(0).text(),
        "00000000  68 65 6c 6c 6f                                    |hello|\n00000005\n"
    );
    mmf(["read", &name, "--offset", "12"]).exits(1).says("has 11 bytes");
    mmf(["hold", &name, "--region", "--capacity", "1M"]).exits(4).says("see: mmf info");
    holder.child.kill().unwrap();
    holder.wait();
}

#[test]
fn a_region_has_a_capacity_and_raw_memory_a_size() {
    mmf(["hold", "x", "--region", "--size", "4K"]).exits(2).says("'--region' cannot be used with '--size");
    mmf(["hold", "x", "--region"]).exits(2).says("--capacity <N>");
    mmf(["hold", "x", "--capacity", "4K"]).exits(2).says("--region");
    mmf(["hold", "x", "--region", "--capacity", "4K", "--prefault"]).exits(2).says("--prefault");
    mmf(["hold", "x"]).exits(2).says("--size <N>");
    mmf(["hold", "x", "--region", "--capacity", "0"]).exits(2).says("needs a capacity");
}

#[test]
fn info_and_ls_tell_what_it_is_and_who_takes_part() {
    let (name, region) = region("info");
    region.write().unwrap().set(&[7; 2000]).unwrap();
    let guard = region.read().unwrap();
    let about = mmf(["info", &name, "--json"]).exits(0).json();
    let shown = mmf(["info", &name]).exits(0).text();
    drop(guard);
    assert_eq!(about["kind"], "region");
    let told = &about["region"];
    assert_eq!(told["length"], 2000);
    assert_eq!(told["capacity"], 4 << 20);
    assert_eq!(told["version"], region.version().unwrap());
    assert_eq!(told["poisoned"], false);
    let me = &told["participants"][0];
    assert_eq!(
        (&me["process"], &me["writing"], &me["reading"]),
        (&std::process::id().into(), &false.into(), &1.into())
    );
    assert!(me["since"].as_str() >= told["created"].as_str(), "{told}");
    for part in ["region", "2000 bytes", "4 MiB", "poisoned", &format!("{}  ", std::process::id()), "reading"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    let raw = unique_name("raw");
    let _map = Mapping::create_new(Name::local(&*raw).unwrap(), 4096).unwrap();
    let about = mmf(["info", &raw, "--json"]).exits(0).json();
    assert_eq!((&about["kind"], about.get("region")), (&"raw".into(), None));
    let listed = mmf(["ls", "--json"]).exits(0).json();
    let kind = |name: &str| {
        let wanted = format!("name:{name}");
        listed.as_array().unwrap().iter().find(|object| object["object"] == *wanted).unwrap()["kind"].clone()
    };
    assert_eq!((kind(&name), kind(&raw)), ("region".into(), "raw".into()));
    let shown = mmf(["ls"]).exits(0).text();
    let line = shown.lines().find(|line| line.contains(&name)).expect(&shown);
    assert_eq!(line.split_whitespace().nth(1), Some("region"));
}

/// Asks until the text says so.
#[track_caller]
fn comes_to_say(name: &str, part: &str) {
    let since = Instant::now();
    loop {
        let text = mmf(["info", name]).exits(0).text();
        if text.contains(part) {
            return;
        }
        assert!(since.elapsed() < LIMIT, "{part:?} is never said: {text}");
    }
}

#[test]
fn info_tells_who_waits_and_for_what() {
    let (name, region) = region("waits");
    let guard = region.write().unwrap();
    comes_to_say(&name, "0 for the lock, 0 for a change");
    comes_to_say(&name, "writing");
    let mut reader = Running::start(["read", &name, "--timeout", "60"]);
    comes_to_say(&name, "1 for the lock, 0 for a change");
    let about = mmf(["info", &name, "--json"]).exits(0).json();
    let waiting: Vec<_> =
        about["region"]["participants"].as_array().unwrap().iter().map(|one| one["waiting"].clone()).collect();
    assert_eq!(waiting, [0, 1]);
    drop(guard);
    assert_eq!(reader.wait(), Some(0));
    comes_to_say(&name, "0 for the lock, 0 for a change");

    let mut watcher = Running::start(["watch", &name, "--count", "1"]);
    comes_to_say(&name, "0 for the lock, 1 for a change");
    comes_to_say(&name, "waiting for a change");
    region.write().unwrap().set(b"news").unwrap();
    assert_eq!(watcher.wait(), Some(0));
    comes_to_say(&name, "0 for the lock, 0 for a change");
}

#[test]
fn what_passes_the_capacity_leaves_the_contents_alone() {
    let (name, region) = region("capacity");
    region.write().unwrap().set(b"before").unwrap();
    let long = vec![1; (4 << 20) + 1];
    mmf_with(["write", &name], &long).exits(1).says("nothing was written");
    mmf_with(["write", &name, "--offset", "1"], &long[1..]).exits(1).says("nothing was written");
    mmf_with(["write", &name, "--offset", "5M"], b"").exits(1).says("bytes of capacity");
    let dir = TempDir::new();
    let file = dir.join("long");
    fs::write(&file, &long).unwrap();
    mmf(["write", &name, "-i", file.to_str().unwrap()]).exits(1).says("nothing was written");
    mmf(["cp", file.to_str().unwrap(), &name]).exits(1).says("nothing was written");
    assert_eq!(region.to_vec().unwrap(), b"before");
    mmf_with(["write", &name], &long[1..]).exits(0);
    assert!(region.to_vec().unwrap() == long[1..]);
}

#[test]
fn cp_copies_contents_both_ways() {
    let (from, source) = region("cp-from");
    let (to, target) = region("cp-to");
    let data = pattern(3 << 20);
    source.write().unwrap().set(&data).unwrap();
    target.write().unwrap().set(&[1; 4 << 20]).unwrap();
    mmf(["cp", &from, &to]).exits(0).says("copied 3 MiB in ");
    assert!(target.to_vec().unwrap() == data);

    let dir = TempDir::new();
    let file = dir.join("file");
    let path = file.to_str().unwrap();
    mmf(["cp", &from, path]).exits(0);
    assert!(fs::read(&file).unwrap() == data);
    fs::write(&file, "short").unwrap();
    mmf(["cp", path, &to]).exits(0);
    assert_eq!(target.to_vec().unwrap(), b"short");

    // A region in a file is one too, and not overwritten as a file.
    let path = dir.join("region");
    let region = Region::create_new(&*path, 1 << 16).unwrap();
    mmf(["cp", &to, path.to_str().unwrap()]).exits(0);
    mmf_with(["write", path.to_str().unwrap(), "--flush", "--offset", "5"], b"er").exits(0);
    assert_eq!(region.to_vec().unwrap(), b"shorter");
}

#[test]
fn a_lock_is_waited_for_as_long_as_was_said_and_the_holder_named() {
    let (name, region) = region("timeout");
    let dir = TempDir::new();
    let file = dir.join("file");
    fs::write(&file, "file").unwrap();
    let me = format!("process {} has had the lock", std::process::id());
    let guard = region.write().unwrap();
    let started = Instant::now();
    for verb in ["read", "dump", "write"] {
        mmf([verb, &name, "--timeout", "0.2"]).exits(1).says(&me);
    }
    mmf(["cp", file.to_str().unwrap(), &name, "--timeout", "0.2"]).exits(1).says(&me);
    mmf(["cp", &name, file.to_str().unwrap(), "--timeout", "0.2"]).exits(1).says(&me);
    let took = started.elapsed();
    // Without a lock there is nothing to wait for.
    mmf(["read", &name, "--raw", "--timeout", "0"]).exits(0);
    drop(guard);
    assert!(took >= Duration::from_millis(1000) && took < Duration::from_secs(40), "{took:?}");
    assert_eq!(fs::read(&file).unwrap(), b"file");
    mmf(["read", &name, "--timeout", "soon"]).exits(2).says("number of seconds");
}

#[test]
fn poisoned_contents_are_shown_with_a_warning_and_replaced_as_a_whole() {
    let (name, region) = poisoned("poison");
    let read = mmf(["read", &name]).exits(1).says("is poisoned").says(&format!("mmf write {name}"));
    assert_eq!(read.stdout, b"halfe");
    let dump = mmf(["dump", &name]).exits(1).says("is poisoned").text();
    assert!(dump.contains("|halfe|\n00000005\n"), "{dump}");
    let about = mmf(["info", &name, "--json"]).exits(0).json();
    assert_eq!(about["region"]["poisoned"], true);
    let shown = mmf(["info", &name]).exits(0).text();
    assert!(shown.contains("yes: a writer left an incomplete change"), "{shown}");
    mmf_with(["write", &name, "--offset", "4"], b"!").exits(1).says("nothing was written");
    let dir = TempDir::new();
    let copy = dir.join("copy");
    mmf(["cp", &name, copy.to_str().unwrap()]).exits(1).says("in the middle of a change");
    assert!(!copy.exists());

    mmf_with(["write", &name], b"mended").exits(0);
    assert_eq!(mmf(["read", &name]).exits(0).stdout, b"mended");
    assert!(!region.is_poisoned().unwrap());
}

#[test]
fn cp_onto_a_poisoned_region_mends_it() {
    let (name, region) = poisoned("mend");
    let dir = TempDir::new();
    let file = dir.join("file");
    fs::write(&file, "mended").unwrap();
    mmf(["cp", file.to_str().unwrap(), &name]).exits(0);
    assert_eq!(region.to_vec().unwrap(), b"mended");
}

#[test]
fn raw_means_the_bytes_as_they_are() {
    let (name, region) = region("bytes");
    region.write().unwrap().set(b"contents").unwrap();
    let bytes = mmf(["read", &name, "--raw"]).exits(0).stdout;
    assert!(bytes.starts_with(b"\x8Dmmf") && bytes.len() > 4096, "{} bytes", bytes.len());
    let at = bytes.windows(8).position(|part| part == b"contents").expect("the contents are in it").to_string();
    mmf_with(["write", &name, "--raw", "--offset", &at], b"CONT").exits(0);
    assert_eq!(region.to_vec().unwrap(), b"CONTents");
    let dump = mmf(["dump", &name, "--raw", "--length", "4"]).exits(0).text();
    assert!(dump.starts_with("00000000  8d 6d 6d 66"), "{dump}");
}

#[test]
fn a_segment_of_another_release_is_not_trampled() {
    let dir = TempDir::new();
    // Its format's version, and what it is.
    for (at, value, reason) in [(8, 2, "version 2"), (40, b'q', "its kind is")] {
        let path = altered(&dir, |bytes| bytes[at] = value);
        let text = path.to_str().unwrap();
        let before = fs::read(&path).unwrap();
        mmf_with(["write", text], b"trampled").exits(1).says("--raw").says(reason);
        mmf(["read", text]).exits(1).says("--raw").says(reason);
        mmf(["dump", text]).exits(1).says("--raw");
        mmf(["watch", text]).exits(1).says(reason);
        let small = dir.join("small");
        fs::write(&small, "small").unwrap();
        mmf(["cp", small.to_str().unwrap(), text]).exits(1).says("mmf write --raw");
        mmf(["cp", text, small.to_str().unwrap()]).exits(1).says("mmf read --raw");
        assert!(fs::read(&path).unwrap() == before);
        let about = mmf(["info", text, "--json"]).exits(0).json();
        assert_eq!(about["kind"], "segment");
        assert!(about["problem"].as_str().unwrap().contains(reason), "{about}");

        assert!(mmf(["read", text, "--raw"]).exits(0).stdout == before);
        mmf_with(["write", text, "--raw"], b"trampled").exits(0);
        assert!(fs::read(&path).unwrap().starts_with(b"trampled"));
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_region_that_can_only_be_read_is_read() {
    // A feature that writers have to know, and a lock that the program does not have.
    let feature = |bytes: &mut [u8]| bytes[24] = 4;
    let lock = |bytes: &mut [u8]| {
        bytes[24] = 1;
        bytes[352..359].copy_from_slice(b"foreign");
    };
    for (alter, reason) in [(&feature as &dyn Fn(&mut [u8]), "0x4"), (&lock, "\"foreign\"")] {
        let dir = TempDir::new();
        let path = altered(&dir, alter);
        let text = path.to_str().unwrap();
        assert_eq!(mmf(["read", text]).exits(0).stdout, b"contents");
        assert_eq!(mmf(["read", text, "--offset", "3", "--length", "4"]).exits(0).stdout, b"tent");
        mmf_with(["write", text], b"x").exits(1).says("--raw").says(reason);
        assert_eq!(mmf(["read", text]).exits(0).stdout, b"contents");
    }
}

#[test]
fn watch_prints_a_line_for_each_change() {
    let (name, region) = region("watch");
    let mut watcher = Running::start(["watch", &name, "--count", "2", "--json"]);
    let pid = watcher.child.id();
    let started = Instant::now();
    while !region.status().unwrap().participants.iter().any(|participant| participant.process == pid) {
        assert!(started.elapsed() < LIMIT, "no process watches");
        std::thread::sleep(Duration::from_millis(2));
    }
    for text in ["hello", "hi"] {
        mmf_with(["write", &name], text.as_bytes()).exits(0);
        let line: serde_json::Value = serde_json::from_str(&watcher.line()).unwrap();
        assert_eq!(line["version"], region.version().unwrap());
        assert_eq!(line["length"], text.len());
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    }
    assert_eq!(watcher.wait(), Some(0));
    assert!(region.status().unwrap().participants.iter().all(|participant| participant.process != pid));
}

#[test]
fn watch_ends_in_time_and_tells_whether_it_saw_what_it_should() {
    let (name, region) = region("calm");
    assert_eq!(mmf(["watch", &name, "--timeout", "0.1"]).exits(0).text(), "");
    mmf(["watch", &name, "--timeout", "0.1", "--count", "1"]).exits(1).says("changed 0 times of 1");
    mmf(["watch", &name, "--count", "0"]).exits(2);
    drop(region);
    mmf(["watch", &name]).exits(3).says(&format!("mmf hold {name} --region --capacity 1M"));
    let raw = unique_name("calm");
    let _map = Mapping::create_new(Name::local(&*raw).unwrap(), 4096).unwrap();
    mmf(["watch", &raw]).exits(1).says("is raw memory");
}
