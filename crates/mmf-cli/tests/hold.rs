//! `mmf hold`: how long an object lives, and what happens to commands that run meanwhile.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{LIMIT, Running, mmf, mmf_with, program, run};
use mmf::{Mapping, Name};
use testkit::{TempDir, unique_name};

const MMF: &str = env!("CARGO_BIN_EXE_mmf");

/// Waits for what the system does in its own time.
#[track_caller]
fn gone(name: &str) {
    let started = Instant::now();
    while mmf(["info", name]).code != Some(3) {
        assert!(started.elapsed() < LIMIT, "{name} is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_object_lives_while_it_is_held_and_no_longer() {
    let name = unique_name("held");
    let mut holder = Running::start(["hold", &name, "--size", "64K"]);
    assert!(holder.line().starts_with(&format!("holding name:{name} (64 KiB)")));
    mmf_with(["write", &name], b"hello").exits(0);
    assert_eq!(mmf(["read", &name, "--length", "5"]).exits(0).stdout, b"hello");
    mmf(["hold", &name, "--size", "4K"]).exits(4).says(&format!("see: mmf info {name}"));
    holder.child.kill().unwrap();
    holder.wait();
    gone(&name);
    mmf(["rm", "--stale"]).exits(0);
    // Nothing of the dead is in the way, or seen again.
    let map = Mapping::create_new(Name::local(&*name).unwrap(), 4096).unwrap();
    assert_eq!(map.read_to_vec(0, 5).unwrap(), [0; 5]);
}

#[test]
fn a_command_s_exit_code_is_passed_on() {
    let name = unique_name("command");
    mmf(["hold", &name, "--size", "4K", "--", MMF, "info", &name]).exits(0);
    let absent = unique_name("absent");
    mmf(["hold", &name, "--size", "4K", "--", MMF, "info", &absent]).exits(3);
    mmf(["hold", &name, "--size", "4K", "--", MMF]).exits(2);
    mmf(["hold", &name, "--size", "4K", "--", "no-such-command-anywhere"]).exits(127).says("cannot run");
    gone(&name);
}

#[test]
fn a_command_finds_its_object_in_the_environment() {
    let (shell, flag, echo) =
        if cfg!(windows) { ("cmd", "/c", "echo %MMF_OBJECT%") } else { ("sh", "-c", "echo \"$MMF_OBJECT\"") };
    let name = unique_name("variable");
    let held = mmf(["hold", &name, "--size", "4K", "--", shell, flag, echo]).exits(0);
    assert_eq!(held.text().trim(), format!("name:{name}"));

    let dir = TempDir::new();
    let held =
        run(program().args(["hold", "./data", "--size", "4K", "--", shell, flag, echo]).current_dir(dir.path()), b"");
    let text = held.exits(0).text();
    let path = text.trim().strip_prefix("file:").expect(&text);
    assert_eq!(std::fs::metadata(path).unwrap().len(), 4096);
}

#[test]
fn a_command_has_the_standard_streams() {
    let name = unique_name("streams");
    mmf_with(["hold", &name, "--size", "4K", "--", MMF, "write", &name], &[1; 4097]).exits(1).says("standard input");
}

/// Ends a process as `hold --detach` says that one does.
#[track_caller]
fn end_as_told(stderr: &str) {
    let (_, command) = stderr.trim().rsplit_once("to end it: ").expect(stderr);
    let mut words = command.split_whitespace();
    let done = run(Command::new(words.next().unwrap()).args(words), b"");
    assert_eq!(done.code, Some(0), "{command}: {}", done.stderr);
}

#[test]
fn a_detached_holder_outlives_its_starter_and_ends_as_told() {
    let name = unique_name("detached");
    // That this returns at all shows that no process keeps the pipes of the test open.
    let started = mmf(["hold", &name, "--size", "1M", "--detach"]).exits(0);
    let pid: u32 = started.text().trim().parse().expect("a process id and nothing else");
    assert!(started.stderr.contains(&format!("process {pid} holds name:{name} (1 MiB)")), "{}", started.stderr);
    let about = mmf(["info", &name, "--json"]);
    let again = mmf(["hold", &name, "--size", "1M", "--detach"]);
    end_as_told(&started.stderr);
    assert_eq!(about.exits(0).json()["size"], 1 << 20);
    again.exits(4).says("it exists already");
    gone(&name);
}

#[test]
fn a_detached_holder_ends_with_its_command() {
    let name = unique_name("brief");
    mmf(["hold", &name, "--size", "4K", "--detach", "--", MMF, "info", &name]).exits(0);
    gone(&name);
    mmf(["hold", &name, "--size", "4K", "--detach", "--", "no-such-command-anywhere"]).exits(127).says("cannot run");
    gone(&name);
}

#[test]
fn what_cannot_be_created_in_the_background_is_told_in_the_foreground() {
    let name = unique_name("huge");
    mmf(["hold", &name, "--size", "0", "--detach"]).exits(2).says("needs a size");
    let dir = TempDir::new();
    let path = dir.join("no-directory").join("file");
    mmf(["hold", path.to_str().unwrap(), "--size", "4K", "--detach"]).exits(3);
}

#[test]
fn options_reach_the_library() {
    let name = unique_name("options");
    let mut holder = Running::start(["hold", &name, "--size", "4K", "--reserve", "1G", "--prefault"]);
    holder.line();
    let map = Mapping::options().reserve(1 << 30).open(Name::local(&*name).unwrap()).unwrap();
    map.grow(1 << 20).unwrap();
    assert_eq!(mmf(["info", &name, "--json"]).exits(0).json()["size"], 1 << 20);
    holder.child.kill().unwrap();
    holder.wait();
    // It lives on, since this process holds it too.
    mmf(["info", &name]).exits(0);
}
