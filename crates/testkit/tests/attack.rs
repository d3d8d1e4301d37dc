//! A short attack is survived, and makes every public call that the library's sources declare.

#![cfg(all(target_os = "linux", target_pointer_width = "64"))]
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// Enough to make each call many times.
const TRIALS: &str = "60";

/// Types whose public functions reach shared memory, or belong to those that do.
const TYPES: [&str; 20] = [
    "Changes",
    "Dict",
    "DictOptions",
    "Entries",
    "Entry",
    "LockError",
    "Participant",
    "Problem",
    "ReadGuard",
    "Reader",
    "Region",
    "RegionOptions",
    "RegionStatus",
    "Report",
    "Snapshot",
    "Stats",
    "Transaction",
    "Watched",
    "WriteGuard",
    "Writer",
];

/// The report of one attack.
fn report() -> &'static Value {
    static REPORT: OnceLock<Value> = OnceLock::new();
    REPORT.get_or_init(|| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_testkit"));
        command.args(["attack", "--trials", TRIALS, "--json"]).stderr(Stdio::inherit());
        let output = command.output().expect("testkit runs");
        serde_json::from_slice(&output.stdout).expect("a report in JSON")
    })
}

#[test]
fn a_short_attack_violates_no_limit() {
    let report = report();
    let violations = report["violations"].as_array().unwrap();
    assert!(violations.is_empty(), "{violations:#?}");
    assert_eq!(report["trials"].to_string(), TRIALS);
    assert!(report["mutations"].as_u64() > Some(1000), "{report}");
}

#[test]
fn an_attack_makes_every_public_call() {
    let exempt = testkit::attack::exempt();
    let declared = declared();
    for (name, why) in &exempt {
        assert!(declared.contains(*name), "{name} is exempt ({why}), but is not there");
    }
    let made: BTreeSet<&str> = report()["calls"].as_object().unwrap().keys().map(String::as_str).collect();
    let missing: Vec<&String> = declared
        .iter()
        .filter(|name| !made.contains(name.as_str()) && exempt.iter().all(|(exempt, _)| exempt != name))
        .collect();
    assert!(missing.is_empty(), "no victim calls {missing:#?}");
}

/// Every public function of the types, as `Type::name`, what they have of traits included.
fn declared() -> BTreeSet<String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mmf/src");
    let mut found = BTreeSet::new();
    for directory in ["region", "dict"] {
        collect(&sources.join(directory), &mut found);
    }
    assert!(found.contains("Dict::get_bytes") && found.contains("WriteGuard::to_vec"), "{found:?}");
    found
}

fn collect(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            functions(&fs::read_to_string(&path).unwrap(), found);
        }
    }
}

/// Adds the functions of one file. Its blocks begin and end at the same depth, as `cargo fmt`
/// leaves them.
fn functions(text: &str, found: &mut BTreeSet<String>) {
    // The types that the line's block is for, whether it implements a trait, and the block's depth.
    let mut block: Option<(Vec<&str>, bool, usize)> = None;
    for line in text.lines() {
        let code = line.trim_start();
        let depth = line.len() - code.len();
        match &block {
            None if code.starts_with("impl") && code.ends_with('{') => {
                let (types, of_trait) = head(code);
                block = (!types.is_empty()).then_some((types, of_trait, depth));
            }
            Some((.., begin)) if depth == *begin && code.starts_with('}') => block = None,
            Some((types, of_trait, begin)) if depth == begin + 4 => {
                if let Some(name) = declaration(code, *of_trait) {
                    found.extend(types.iter().map(|of| format!("{of}::{name}")));
                }
            }
            _ => {}
        }
    }
}

/// Of `impl<'a> A for B<'a> {`, the type where it is one of those, and whether there is a trait. A
/// macro's `$guard` stands for both guards.
fn head(code: &str) -> (Vec<&str>, bool) {
    let code = code.trim_start_matches("impl");
    // Past the parameters of the block.
    let code = match code.strip_prefix('<') {
        Some(rest) => {
            let mut depth = 1;
            let end = rest.find(|letter| {
                depth += i32::from(letter == '<') - i32::from(letter == '>');
                depth == 0
            });
            &rest[end.unwrap_or(0) + 1..]
        }
        None => code,
    };
    let (name, of_trait) = match code.split_once(" for ") {
        Some((_, name)) => (name, true),
        None => (code.trim_start(), false),
    };
    let name = name.split(|letter: char| !letter.is_alphanumeric() && letter != '$').next().unwrap_or_default();
    match name {
        "$guard" => (vec!["ReadGuard", "WriteGuard"], of_trait),
        _ => (TYPES.into_iter().filter(|known| *known == name).collect(), of_trait),
    }
}

/// The name of the public function that is declared here.
fn declaration(code: &str, of_trait: bool) -> Option<&str> {
    let code = match code.strip_prefix("pub ") {
        Some(code) => code,
        None if of_trait => code,
        None => return None,
    };
    let code = ["const ", "unsafe "].iter().fold(code, |code, word| code.strip_prefix(word).unwrap_or(code));
    let name = code.strip_prefix("fn ")?.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next()?;
    // The end of a value is a call of its own kind (`Region::drop`), or has no memory to reach.
    (name != "drop").then_some(name)
}
