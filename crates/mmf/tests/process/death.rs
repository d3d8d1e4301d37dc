//! Death at every instruction: a part of what `cargo run --release -p testkit -- death --all` does.

use testkit::death::Deaths;
use testkit::{DEADLINE, LIFETIME, Peer};

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

/// The tracer writes a line to its standard error for each operation that it has gone through, so a
/// busy machine only makes it slower.
fn trace(role: &str) {
    let mut tracer = Peer::spawn_with(role, &[], |command| {
        command.env(LIFETIME, "1800");
    });
    let good = tracer.expect_line_after_progress(DEADLINE * 8);
    assert_eq!(good, "true", "{}", tracer.stderr());
    tracer.finish();
}
