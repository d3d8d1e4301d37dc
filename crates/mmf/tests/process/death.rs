//! Death at every instruction: a part of what `cargo run --release -p testkit -- death --all` does.
//!
//! A tracer leads a process through each operation, one instruction at a time. On two idle cores,
//! both tests together take about a minute, so plain `cargo test` leaves them out.

use std::path::Path;

use testkit::death::Deaths;
use testkit::{DEADLINE, LIFETIME, Peer, TempDir};

testkit::peers! { tracer, dict_tracer }

fn tracer(args: &[&str]) {
    let deaths = Deaths { samples: 14, calls: 1, longest: 60_000, short: false };
    testkit::peer::say(deaths.run(Path::new(args[0])));
}

fn dict_tracer(args: &[&str]) {
    let deaths = Deaths { samples: 7, calls: 1, longest: 200_000, short: true };
    testkit::peer::say(deaths.run_dict(Path::new(args[0])));
}

#[test]
#[ignore = "long: ci/test.sh runs it"]
fn whatever_a_dead_process_leaves_is_recovered() {
    trace("tracer");
}

#[test]
#[ignore = "long: ci/test.sh runs it"]
fn whatever_a_dead_process_leaves_of_a_dict_is_recovered() {
    trace("dict_tracer");
}

/// Runs a tracer, however long it takes on a busy machine, as long as it makes progress.
fn trace(role: &str) {
    // This process removes the directory, also after the tracer was killed.
    let dir = TempDir::in_memory();
    let mut tracer = Peer::spawn_with(role, &[dir.path().to_str().unwrap()], |command| {
        command.env(LIFETIME, "3600");
    });
    let good = tracer.expect_line_within(DEADLINE * 2);
    assert_eq!(good, "true", "{}", tracer.stderr());
    tracer.finish();
}
