//! Unix only: signals, names that stay, mapped files that shrink, redirected outputs.

#![cfg(unix)]

mod common;

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::process::{Command, Stdio};

use common::{Running, mmf, program, run, wait};
use testkit::{TempDir, unique_name};

#[track_caller]
fn signal(which: &str, pid: u32) {
    assert_eq!(run(Command::new("kill").args([which, &pid.to_string()]), b"").code, Some(0));
}

#[test]
fn an_interrupt_ends_a_holder_in_order() {
    for which in ["-INT", "-TERM", "-HUP"] {
        let name = unique_name("signal");
        let mut holder = Running::start(["hold", &name, "--size", "4K"]);
        holder.line();
        signal(which, holder.child.id());
        assert_eq!(holder.wait(), Some(0), "{which}");
        mmf(["info", &name]).exits(3);
    }
}

#[test]
fn a_command_gets_the_wish_to_end_and_the_interrupt_is_its_own_business() {
    let name = unique_name("forward");
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let mut holder = Running::start(["hold", &name, "--size", "4K", "--", "sh", "-c", script]);
    assert_eq!(holder.line(), "ready");
    // The terminal would have sent it to the command as well.
    signal("-INT", holder.child.id());
    mmf(["info", &name]).exits(0);
    signal("-TERM", holder.child.id());
    assert_eq!(holder.wait(), Some(9));
    mmf(["info", &name]).exits(3);
}

#[test]
fn a_command_s_signal_becomes_an_exit_code() {
    let name = unique_name("killed");
    mmf(["hold", &name, "--size", "4K", "--", "sh", "-c", "kill -KILL $$"]).exits(128 + 9);
    mmf(["hold", &name, "--size", "4K", "--", "/dev/null"]).exits(126);
}

#[test]
fn exact_names_stay_until_they_are_removed() {
    let name = format!("exact:/{}", unique_name("exact"));
    mmf(["hold", &name, "--size", "4K", "--", "true"]).exits(0);
    let stayed = mmf(["info", &name]);
    mmf(["rm", &name]).exits(0);
    stayed.exits(0);
    mmf(["rm", &name]).exits(3);
}

/// Linux, where it is known where objects lie.
#[cfg(target_os = "linux")]
#[test]
fn an_object_that_was_linked_is_refused_with_the_way_out_and_rm_is_that_way() {
    let name = format!("global:{}", unique_name("linked"));
    let map = mmf::Mapping::create_new(mmf::Name::global(&name[7..]).unwrap(), 4096).unwrap();
    let path = map.info().unwrap().location.unwrap();
    let link = format!("{path}-link");
    fs::hard_link(&path, &link).unwrap();
    for verb in ["info", "dump"] {
        mmf([verb, &name]).exits(5).says("2 hard links").says(&format!("mmf rm {name}")).says("-samefile");
    }
    mmf(["rm", &name]).exits(0);
    mmf(["info", &name]).exits(3);
    mmf(["hold", &name, "--size", "4K", "--", "true"]).exits(0);
    // The other name is no object either, and its owner's processes remove it.
    mmf(["info", &format!("{name}-link")]).exits(3);
    assert!(fs::metadata(&link).is_err());
    drop(map);
}

#[test]
fn a_file_that_is_cut_off_while_it_is_read_is_an_error() {
    let dir = TempDir::new();
    let file = dir.join("data");
    for verb in ["read", "dump"] {
        // A dump squeezes nothing of this.
        fs::write(&file, common::pattern(8 << 20)).unwrap();
        let held = OpenOptions::new().write(true).open(&file).unwrap();
        let mut child = program()
            .arg(verb)
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        // Now it waits for this process to take what the pipe does not hold.
        stdout.read_exact(&mut [0; 1]).unwrap();
        held.set_len(10_000).unwrap();
        std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
        assert_eq!(wait(&mut child, verb), Some(1));
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.contains("is gone") && said.contains("was its file truncated"), "{said}");
    }
}

#[test]
fn a_file_is_not_read_onto_another_link_to_it() {
    let dir = TempDir::new();
    let (file, link) = (dir.join("data"), dir.join("link"));
    fs::write(&file, "precious").unwrap();
    fs::hard_link(&file, &link).unwrap();
    mmf(["read", file.to_str().unwrap(), "-o", link.to_str().unwrap()]).exits(2).says("by itself");
    assert_eq!(fs::read(&file).unwrap(), b"precious");
}

#[test]
fn closed_outputs_are_no_panics() {
    let name = unique_name("full");
    let held = |script: &str| mmf(["hold", &name, "--size", "4M", "--", "sh", "-c", script]);
    let program = env!("CARGO_BIN_EXE_mmf");
    for verb in ["ls", "info \"$MMF_OBJECT\"", "dump \"$MMF_OBJECT\"", "ls --json", "completions bash", "man", "--help"]
    {
        held(&format!("{program} {verb} >&-")).exits(0);
        // A pipeline's own status is that of its last command.
        let status = format!("{{ {{ {program} {verb} 2>/dev/null; echo $? >&3; }} | true; }} 3>&1");
        let code = held(&format!("exit $({status})")).code;
        assert_eq!(code, Some(0), "{verb}");
        held(&format!("{program} {verb} 2>&-")).exits(0);
    }
}

#[test]
fn an_interrupted_watch_leaves_its_place() {
    let name = unique_name("watch");
    let region = mmf::Region::create_new(mmf::Name::local(&*name).unwrap(), 4096).unwrap();
    let mut watcher = Running::start(["watch", &name]);
    let started = std::time::Instant::now();
    while region.status().unwrap().participants.is_empty() {
        assert!(started.elapsed() < common::LIMIT, "no process watches");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    signal("-INT", watcher.child.id());
    assert_eq!(watcher.wait(), Some(130));
    assert!(region.status().unwrap().participants.is_empty());
}
