//! Death at every instruction: a part of what `cargo run --release -p testkit -- death --all` does.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use testkit::death::Deaths;
use testkit::{DEADLINE, LIFETIME, Peer, Watchdog};

testkit::peers! { tracer, dict_tracer }

fn tracer(_: &[&str]) {
    testkit::peer::say(Deaths { samples: 14, calls: 1, longest: 60_000, short: false }.run());
}

fn dict_tracer(_: &[&str]) {
    testkit::peer::say(Deaths { samples: 7, calls: 1, longest: 200_000, short: true }.run_dict());
}

#[test]
fn whatever_a_dead_process_leaves_is_recovered() {
    trace("tracer");
}

#[test]
fn whatever_a_dead_process_leaves_of_a_dict_is_recovered() {
    trace("dict_tracer");
}

fn trace(role: &str) {
    let _watchdog = Watchdog::start(DEADLINE * 9);
    let mut tracer = Peer::spawn_with(role, &[], |command| {
        command.env(LIFETIME, "160");
    });
    let good = tracer.expect_line_within(DEADLINE * 8);
    assert_eq!(good, "true", "{}", tracer.stderr());
    tracer.finish();
}
