//! Deaths at random: a part of what `cargo run --release -p testkit -- torture` does.

use std::time::Duration;

use testkit::torture::{Torture, dict_worker, worker};
use testkit::{DEADLINE, Peer, Watchdog};

testkit::peers! { worker, torturer, dict_worker, dict_torturer }

fn torturer(_: &[&str]) {
    let limit = Duration::from_secs(40);
    let good = Torture { kills: 200, processes: 6, pace: Duration::from_millis(1), limit }.run();
    testkit::peer::say(good);
}

fn dict_torturer(_: &[&str]) {
    let limit = Duration::from_secs(40);
    let good = Torture { kills: 300, processes: 0, pace: Duration::from_millis(1), limit }.run_dict();
    testkit::peer::say(good);
}

#[test]
fn deaths_at_random_violate_nothing() {
    torture("torturer");
}

#[test]
fn deaths_at_random_violate_nothing_of_a_dict() {
    torture("dict_torturer");
}

fn torture(role: &str) {
    let _watchdog = Watchdog::start(DEADLINE * 6);
    let mut peer = Peer::spawn(role, &[]);
    let good = peer.expect_line_within(DEADLINE * 5);
    assert_eq!(good, "true", "{}", peer.stderr());
    peer.finish();
}
