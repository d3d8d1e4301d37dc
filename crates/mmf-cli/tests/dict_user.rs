//! Dicts as a new user meets them: files of yesterday, of other languages, damaged, or not there.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

mod common;
#[path = "../../mmf/tests/support/packed.rs"]
mod packed;

use std::fs;
use std::path::Path;

use common::{mmf, mmf_with, pattern};
use mmf::{Dict, Name};
use packed::unpack;
use testkit::{TempDir, unique_name};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Which boot a file was used in, as `docs/format.md` says.
const BOOT: usize = 20480 + 304;

#[test]
fn a_file_that_was_not_flushed_before_the_machine_stopped_is_read_as_ever() {
    let dir = TempDir::new();
    let file = dir.join("yesterday");
    mmf(["set", text(&file), "gain:=7", "lens=50 mm"]).exits(0);
    let mut bytes = fs::read(&file).unwrap();
    bytes[BOOT] ^= 1;
    let get = ["get", text(&file), "lens"];
    for (args, told) in [
        (&get[..], "50 mm\n"),
        (&["keys", text(&file)], "gain\nlens\n"),
        (&["stats", text(&file)], "keys "),
        (&["info", text(&file)], "keys "),
        (&["check", text(&file)], "2 keys are whole"),
        (&["export", text(&file)], "{\"key\":\"gain\",\"value\":7}\n"),
        (&["watch", text(&file), "--timeout", "0.1"], ""),
    ] {
        fs::write(&file, &bytes).unwrap();
        let shown = mmf(args).exits(0).text();
        assert!(shown.contains(told), "{args:?}: {shown}");
    }
}

#[test]
fn what_other_languages_write_is_shown_and_exported_to_the_byte() {
    let dir = TempDir::new();
    let (file, lines, copy) = (dir.join("golden"), dir.join("lines"), dir.join("copy"));
    fs::write(&file, unpack(include_bytes!("../../mmf/tests/golden/dict-more-types.mmf"))).unwrap();
    for (key, shown) in [
        ("time of 32 bits", r#"{"$ext":[-1,"69219c40"]}"#),
        ("time of 64 bits", r#"{"$ext":[-1,"1d6f345469219c40"]}"#),
        ("time of 96 bits", r#"{"$ext":[-1,"075bcd15ffffffffffffffff"]}"#),
        ("ext of 1 byte", r#"{"$ext":[5,"01"]}"#),
        ("ext of 16 bytes", r#"{"$ext":[-128,"0102030405060708090a0b0c0d0e0f10"]}"#),
        ("ext of no bytes", r#"{"$ext":[127,""]}"#),
        ("not a number", r#"{"$f64":"7ff8000000000000"}"#),
        ("infinity of 32 bits", r#"{"$f32":"7f800000"}"#),
        ("map with other keys", r#"{"$map":[[1,true],[[null],false],[{"$ext":[1,"00"]},""]]}"#),
        ("time in a list", r#"[{"$ext":[-1,"00000001"]},{"$bin":"ff"}]"#),
        ("struct", r#"{"gain":-3,"lens":["ä",50]}"#),
        ("variant", r#"{"Circle":0.5}"#),
        ("tuple", r#"[1,"two",[3.0]]"#),
    ] {
        for args in [&["get", text(&file), key][..], &["get", "--json", text(&file), key]] {
            assert_eq!(mmf(args).exits(0).text(), format!("{shown}\n"), "{args:?}");
        }
    }
    for (key, raw, json) in [("unit variant", "Point\n", "\"Point\"\n"), ("char", "ß\n", "\"ß\"\n")] {
        assert_eq!(mmf(["get", text(&file), key]).exits(0).text(), raw);
        assert_eq!(mmf(["get", "--json", text(&file), key]).exits(0).text(), json);
    }
    assert_eq!(mmf(["get", text(&file), "bin 16"]).exits(0).stdout, [0; 300]);
    assert_eq!(mmf(["get", text(&file), "str 16"]).exits(0).text(), "\0".repeat(300) + "\n");

    mmf(["export", text(&file), "-o", text(&lines)]).exits(0);
    let exported = fs::read_to_string(&lines).unwrap();
    for line in [
        r#"{"key":"time of 32 bits","value":{"$ext":[-1,"69219c40"]}}"#,
        r#"{"key":"infinity of 32 bits","value":{"$f32":"7f800000"}}"#,
        r#"{"key":"wider than it need be","value":{"$msgpack":"d200000007"}}"#,
        r#"{"key":"no UTF-8","value":{"$msgpack":"a2c328"}}"#,
    ] {
        assert!(exported.lines().any(|exported| exported == line), "{line}");
    }
    mmf(["import", text(&copy), "-i", text(&lines)]).exits(0);
    let all = |path: &Path| {
        let mut all: Vec<_> = Dict::open(path).unwrap().entries().unwrap().collect();
        all.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        all.into_iter().map(|entry| (entry.key, entry.encoding, entry.value)).collect::<Vec<_>>()
    };
    assert!(all(&copy) == all(&file));
}

#[test]
fn a_number_that_no_language_holds_is_refused_and_not_rounded() {
    let name = unique_name("numbers");
    let dict = Dict::create_new(Name::local(&*name).unwrap(), 1 << 20).unwrap();
    for number in ["18446744073709551616", "-9223372036854775809", "[1, 123456789012345678901234567890]"] {
        mmf(["set", &name, &format!("n:={number}")]).exits(2).says("has more than 64 bits").says("for text: n=");
        let line = format!("{{\"key\": \"n\", \"value\": {number}}}");
        mmf_with(["import", &name], line.as_bytes()).exits(1).says("line 1").says("has more than 64 bits");
    }
    assert!(dict.is_empty().unwrap());
    mmf(["set", &name, "n:=18446744073709551615", "t=18446744073709551616", "f:=1e29"]).exits(0);
    assert_eq!(mmf(["get", &name, "n"]).exits(0).text(), "18446744073709551615\n");
    mmf(["incr", &name, "n"]).exits(1).says("is not an integer from -2^63 to 2^63 - 1");
}

#[test]
fn what_is_missing_is_named() {
    let dir = TempDir::new();
    let (file, none) = (dir.join("dict"), dir.join("none"));
    let beyond = none.join("dict");
    for verb in ["set", "get", "del"] {
        let pair = if verb == "set" { "key=text" } else { "key" };
        mmf([verb, text(&beyond), pair]).exits(3).says(&format!("there is no directory {}", none.display()));
    }
    mmf(["get", text(&file), "key"]).exits(3).says(&format!("to create it: mmf set {} KEY=TEXT", text(&file)));
    mmf(["set", text(&file), "key@"]).exits(2).says("the path of the file is missing");
    assert!(!file.exists());
    let name = unique_name("unheld");
    let advice = format!("mmf hold {name} --dict --capacity 64M");
    mmf(["watch", &name]).exits(3).says(&advice).says(&format!("or: mmf hold {name} --region"));
    mmf(["watch", &name, "key"]).exits(3).says(&advice);
    let long = "k".repeat(1025);
    mmf(["set", text(&file), "key=text"]).exits(0);
    mmf(["watch", text(&file), &long]).exits(2).says("1025 bytes; 1024 is the most");
}

#[test]
fn of_a_file_that_was_cut_off_what_is_left_is_kept() {
    let dir = TempDir::new();
    let (file, value) = (dir.join("dict"), dir.join("value"));
    let written = pattern(3000);
    fs::write(&value, &written).unwrap();
    mmf(["set", text(&file), "first=1", "--capacity", "1M"]).exits(0);
    for nth in 0..20 {
        mmf(["set", text(&file), &format!("{nth}@{}", text(&value))]).exits(0);
    }
    let bytes = fs::read(&file).unwrap();
    let last = bytes.windows(3000).rposition(|part| part == written).unwrap();
    fs::write(&file, &bytes[..last + 100]).unwrap();
    mmf(["check", text(&file)]).exits(1).says(&format!("mmf repair {}", text(&file)));
    assert!(mmf(["repair", text(&file)]).exits(0).text().ends_with("20 keys are whole and kept\n"));
    mmf(["check", text(&file)]).exits(0);
    assert!(mmf(["get", text(&file), "0"]).exits(0).stdout == written);
    mmf(["set", text(&file), "more=1"]).exits(0);

    let mut bytes = bytes;
    bytes[50] ^= 1;
    fs::write(&file, &bytes).unwrap();
    mmf(["repair", text(&file)]).exits(1).says("without its header");
}
