//! `ls`, `info`, `rm`, and the rule that takes an argument for a name or a path.

mod common;

use std::fs;

use common::{mmf, program, run};
use mmf::{Mapping, Name, Permissions};
use testkit::{TempDir, unique_name};

#[test]
fn ls_tells_name_size_owner_and_permissions() {
    let text = unique_name("ls");
    let name = Name::local(&*text).unwrap();
    let map = Mapping::create_new(&name, 10_000).unwrap();
    let info = map.info().unwrap();

    let listed = mmf(["ls"]).exits(0).text();
    let line = listed.lines().find(|line| line.contains(&text)).expect(&listed);
    let start = format!("name:{text} ");
    assert!(line.starts_with(&start) && line.contains(&format!(" {} ", map.len())), "{line}");
    assert!(line.contains(&info.owner) && line.ends_with(&info.permissions), "{line}");

    let all = mmf(["ls", "--json"]).exits(0).json();
    let object = all.as_array().unwrap().iter().find(|object| object["object"] == format!("name:{text}"));
    let object = object.expect("it is listed");
    assert_eq!(object["size"], map.len());
    assert_eq!(object["owner"], info.owner);
    assert_eq!(object["permissions"], info.permissions);

    drop(map);
    assert!(!mmf(["ls"]).exits(0).text().contains(&text));
}

#[test]
fn info_tells_what_is_known() {
    let text = unique_name("info");
    let map = Mapping::create_new(Name::local(&*text).unwrap(), 10_000).unwrap();
    let about = mmf(["info", &text, "--json"]).exits(0).json();
    assert_eq!(about["object"], format!("name:{text}"));
    assert_eq!(about["size"], map.len());
    assert_eq!(about["page_size"], mmf::page_size());
    assert_eq!(about["permissions"], map.info().unwrap().permissions);
    assert_eq!(about["writable"], true);
    let shown = mmf(["info", &text]).exits(0).text();
    for part in ["object", &text, &format!("{} bytes", map.len()), "read and write"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn a_prefix_decides_where_the_rule_would_say_otherwise() {
    let dir = TempDir::new();
    fs::write(dir.join("data"), "a file").unwrap();
    let inside = |object: &str| run(program().args(["read", object]).current_dir(dir.path()), b"");
    assert_eq!(inside("./data").exits(0).stdout, b"a file");
    assert_eq!(inside("file:data").exits(0).stdout, b"a file");
    inside("data").exits(3).says("there is a file of that name here; try: ./data");
    inside("name:data").exits(3);
    inside("file:missing").exits(3);

    let text = unique_name("scopes");
    let global = Name::global(&*text).unwrap();
    let map = Mapping::options().size(4096).permissions(Permissions::User).create_new(&global);
    // Windows wants a privilege for it that not everybody has.
    if let Ok(map) = map {
        map.write_at(0, b"global").unwrap();
        assert_eq!(mmf(["read", &format!("global:{text}"), "--length", "6"]).exits(0).stdout, b"global");
        mmf(["read", &text]).exits(3);
    }
}

#[test]
fn an_object_that_is_not_held_is_not_found_and_the_hint_helps() {
    let text = unique_name("unheld");
    for verb in ["info", "read", "write", "dump"] {
        mmf([verb, &text]).exits(3).says(&format!("try: mmf hold {text} --size 1M"));
    }
}

#[test]
fn rm_takes_the_stale_and_the_exact_and_nothing_else() {
    mmf(["rm"]).exits(2);
    mmf(["rm", "--stale", "exact:x"]).exits(2);
    mmf(["rm", "--json"]).exits(2);
    let text = unique_name("rm");
    let name = Name::local(&*text).unwrap();
    let _map = Mapping::create_new(&name, 4096).unwrap();
    mmf(["rm", &text]).exits(2).says("go with their last holder");
    assert!(Mapping::open(&name).is_ok());
    mmf(["rm", "./file"]).exits(2).says("it is a file");
    let stale = mmf(["rm", "--stale", "--json"]).exits(0).json();
    let met = stale.as_array().expect("an array");
    assert!(met.iter().all(|object| object["object"] != format!("name:{text}")), "{stale}");
}

#[test]
fn wrong_usage_is_told_before_anything_is_done() {
    for args in [
        vec!["hold", "x", "--size", "10Q"],
        vec!["hold", "x"],
        vec!["hold", "name:a/b", "--size", "1"],
        vec!["hold", "x", "--size", "1K", "--permissions", "me"],
        vec!["hold", "x", "--size", "1K", "--permissions", "mode:99"],
        vec!["hold", "x", "--size", "2K", "--reserve", "1K"],
        vec!["hold", "x", "--size", "1K", "--permissions", "everyone"],
        vec!["read", ""],
        vec!["read", "file:"],
        vec!["completions", "basic"],
        vec!["nothing"],
        vec![],
    ] {
        let output = mmf(&args).exits(2);
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}
