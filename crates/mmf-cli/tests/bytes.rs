//! Bytes in, bytes out: `read`, `write`, `dump` and `cp` on objects that the test holds.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

mod common;

use std::fs;
use std::io::Read;
use std::process::Stdio;

use common::{mmf, mmf_with, pattern, program, wait};
use mmf::{Mapping, Name};
use testkit::{TempDir, unique_name};

/// More than the program copies at a time, and no whole pages.
const LONG: usize = (5 << 20) + 77;

fn hold(label: &str, size: usize) -> (String, Mapping) {
    let text = unique_name(label);
    let map = Mapping::create_new(Name::local(&*text).unwrap(), size as u64).unwrap();
    (text, map)
}

#[test]
fn what_is_written_is_read_in_chunks_and_parts() {
    let (name, map) = hold("chunks", LONG);
    let data = pattern(LONG);
    mmf_with(["write", &name], &data).exits(0);
    assert!(map.read_to_vec(0, LONG).unwrap() == data);
    let whole = mmf(["read", &name]).exits(0).stdout;
    assert!(whole.starts_with(&data) && whole.len() == map.len());
    let part = mmf(["read", &name, "--offset", "3M", "--length", "0x10"]).exits(0).stdout;
    assert_eq!(part, data[3 << 20..][..16]);
    mmf_with(["write", &name, "--offset", "1K"], b"in the middle").exits(0);
    assert_eq!(map.read_to_vec(1023, 15).unwrap(), [&data[1023..1024], b"in the middle", &data[1037..1038]].concat());
}

#[test]
fn what_does_not_fit_is_an_error_that_tells_how_much_does() {
    let (name, map) = hold("fit", 64 << 10);
    let size = map.len();
    let offset = (size - 10).to_string();
    mmf_with(["write", &name, "--offset", &offset], b"0123456789").exits(0);
    mmf_with(["write", &name, "--offset", &offset], b"abcdefghijk").exits(1).says("more than the 10 bytes that fit");
    assert_eq!(map.read_to_vec(size - 10, 10).unwrap(), b"abcdefghij");

    let dir = TempDir::new();
    let file = dir.join("eleven");
    fs::write(&file, "ABCDEFGHIJK").unwrap();
    let file = file.to_str().unwrap();
    mmf(["write", &name, "--offset", &offset, "-i", file]).exits(1).says("nothing was written");
    assert_eq!(map.read_to_vec(size - 10, 10).unwrap(), b"abcdefghij");

    let past = (size + 1).to_string();
    mmf_with(["write", &name, "--offset", &past], b"").exits(1).says(&format!("has {size} bytes"));
    mmf(["read", &name, "--offset", &past]).exits(1).says(&format!("has {size} bytes"));
    mmf(["read", &name, "--offset", &offset, "--length", "11"]).exits(1).says("10 from offset");
    assert_eq!(mmf(["read", &name, "--offset", &size.to_string()]).exits(0).stdout, b"");
}

#[test]
fn files_go_in_and_out_by_option() {
    let (name, map) = hold("options", LONG);
    let dir = TempDir::new();
    let (input, output) = (dir.join("in"), dir.join("out"));
    let data = pattern(LONG);
    fs::write(&input, &data).unwrap();
    fs::write(&output, vec![1; 2 * map.len()]).unwrap();
    mmf(["write", &name, "--flush", "-i", input.to_str().unwrap()]).exits(0);
    assert_eq!(mmf(["read", &name, "-o", output.to_str().unwrap()]).exits(0).stdout, b"");
    let copied = fs::read(&output).unwrap();
    assert!(copied.starts_with(&data) && copied.len() == map.len());
}

#[test]
fn a_file_is_not_read_onto_itself() {
    let dir = TempDir::new();
    let file = dir.join("data");
    fs::write(&file, "precious").unwrap();
    let path = file.to_str().unwrap();
    mmf(["read", path, "-o", path]).exits(2).says("by itself");
    assert_eq!(fs::read(&file).unwrap(), b"precious");
}

#[test]
fn files_are_objects_and_keep_their_length() {
    let dir = TempDir::new();
    let file = dir.join("data");
    fs::write(&file, "0123456789").unwrap();
    let path = file.to_str().unwrap();
    mmf_with(["write", path, "--offset", "4", "--flush"], b"abc").exits(0);
    assert_eq!(fs::read(&file).unwrap(), b"0123abc789");
    mmf_with(["write", path, "--offset", "9"], b"xyz").exits(1).says("1 bytes that fit");
    assert_eq!(fs::read(&file).unwrap(), b"0123abc78x");
    assert_eq!(mmf(["read", &format!("file:{path}")]).exits(0).stdout, b"0123abc78x");
    fs::write(&file, "").unwrap();
    assert_eq!(mmf(["read", path]).exits(0).stdout, b"");
    assert_eq!(mmf(["dump", path]).exits(0).text(), "00000000\n");
}

#[test]
fn a_dump_squeezes_what_repeats_and_ends_where_it_was_told() {
    let (name, map) = hold("dump", 64 << 10);
    map.write_at(0x20, b"between zeros").unwrap();
    map.write_at(0x8000, b"far").unwrap();
    let text = mmf(["dump", &name, "--length", "0x8003"]).exits(0).text();
    let expected = "\
00000000  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
*
00000020  62 65 74 77 65 65 6e 20  7a 65 72 6f 73 00 00 00  |between zeros...|
00000030  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
*
00008000  66 61 72                                          |far|
00008003
";
    assert_eq!(text, expected);
    let text = mmf(["dump", &name, "--offset", "0x28", "--length", "5"]).exits(0).text();
    assert_eq!(text, "00000028  7a 65 72 6f 73                                    |zeros|\n0000002d\n");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (name, map) = hold("pipe", LONG);
    map.fill(.., 7).unwrap();
    for verb in ["read", "dump"] {
        map.write_at(0, &pattern(LONG)).unwrap();
        let mut child = program()
            .args([verb, &name])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 100]).unwrap();
        drop(stdout);
        assert_eq!(wait(&mut child, verb), Some(0));
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "");
    }
}

#[test]
fn cp_copies_both_ways_and_makes_files() {
    let (name, map) = hold("cp", LONG);
    let dir = TempDir::new();
    let (input, output) = (dir.join("in"), dir.join("out"));
    let data = pattern(LONG);
    fs::write(&input, &data).unwrap();
    mmf(["cp", input.to_str().unwrap(), &name]).exits(0).says("copied 5.0 MiB in ");
    let quiet = mmf(["cp", "--quiet", &name, output.to_str().unwrap()]).exits(0);
    assert_eq!(quiet.stderr, "");
    let copied = fs::read(&output).unwrap();
    assert!(copied.starts_with(&data) && copied.len() == map.len());

    // A shorter file grows, a longer one is left alone.
    fs::write(&output, "short").unwrap();
    mmf(["cp", input.to_str().unwrap(), output.to_str().unwrap()]).exits(0);
    assert!(fs::read(&output).unwrap() == data);
    fs::write(&input, "shorter").unwrap();
    mmf(["cp", input.to_str().unwrap(), output.to_str().unwrap()]).exits(4).says("nothing was written");
    assert!(fs::read(&output).unwrap() == data);
}

#[test]
fn cp_needs_a_target_that_is_there_and_large_enough() {
    let (name, map) = hold("small", 4096);
    let dir = TempDir::new();
    let file = dir.join("large");
    fs::write(&file, vec![1; map.len() + 1]).unwrap();
    let path = file.to_str().unwrap();
    mmf(["cp", path, &name]).exits(1).says("nothing was written");
    assert_eq!(map.read_to_vec(0, 1).unwrap(), [0]);
    let missing = unique_name("missing");
    let size = map.len() + 1;
    mmf(["cp", path, &missing]).exits(3).says(&format!("try: mmf hold {missing} --size {size}"));
    let absent = dir.join("absent");
    mmf(["cp", &missing, absent.to_str().unwrap()]).exits(3);
    assert!(!absent.exists());
}
