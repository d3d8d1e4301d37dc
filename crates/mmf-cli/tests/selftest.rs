//! `mmf selftest`, and what the program tells of itself.

mod common;

use common::{mmf, program, run};
use testkit::TempDir;

#[test]
fn all_that_can_work_here_works_and_nothing_is_left_behind() {
    let dir = TempDir::new();
    let temporary = |program: &mut std::process::Command| {
        program.env("TMPDIR", dir.path()).env("TEMP", dir.path()).env("TMP", dir.path());
    };
    let mut command = program();
    temporary(command.args(["selftest", "--json"]));
    let results = run(&mut command, b"").exits(0).json();
    assert_eq!(results["ok"], true);
    let checks = results["checks"].as_array().unwrap();
    assert!(checks.len() >= 18, "{results}");
    let works = checks.iter().filter(|check| check["result"] == "ok").count();
    assert!(works >= 10, "{results:#}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(!mmf(["ls"]).exits(0).text().contains("mmf-selftest"));

    let mut command = program();
    temporary(command.arg("selftest"));
    let text = run(&mut command, b"").exits(0).text();
    assert!(text.contains(" 0 failed"), "{text}");
}

#[test]
fn what_keeps_the_checks_from_beginning_is_told() {
    // Nowhere to put a file: the checks cannot even begin.
    let dir = TempDir::new();
    let missing = dir.join("missing");
    let mut command = program();
    command.arg("selftest").env("TMPDIR", &missing).env("TEMP", &missing).env("TMP", &missing);
    run(&mut command, b"").exits(3).says("cannot create");
}

#[test]
fn the_rule_is_told_wherever_an_object_is_taken() {
    for verb in ["hold", "info", "read", "write", "dump", "cp", "rm"] {
        let help = mmf([verb, "--help"]).exits(0).text();
        assert!(help.contains("always decides"), "{verb}: {help}");
    }
    let help = mmf(["--help"]).exits(0).text();
    for part in ["always decides", "powers of 1024", "Exit codes:", "the object does not exist"] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[test]
fn completions_and_pages_exist_for_every_verb() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = mmf(["completions", shell]).exits(0).text();
        assert!(script.contains("selftest"), "{shell}");
    }
    assert!(mmf(["man"]).exits(0).text().contains("Exit codes:"));
    let dir = TempDir::new();
    mmf(["man", "--dir", dir.join("man1").to_str().unwrap()]).exits(0);
    for page in ["mmf.1", "mmf-hold.1", "mmf-selftest.1"] {
        assert!(dir.join("man1").join(page).is_file(), "{page}");
    }
}
