//! Stories that must leave nothing behind.

use std::time::Duration;

use testkit::{LIFETIME, LeakCheck, Peer, peer};

/// The longest silence of a story. Most take less than a second on an idle machine; a longer one
/// writes to its standard error as it goes on.
const SILENCE: Duration = Duration::from_secs(150);
/// The process of a story ends itself after that time, also if the test has died.
const LONGEST: Duration = Duration::from_secs(3600);

/// Runs a role in a process of its own, where a check for leaks encloses it (see [`tells`]).
#[track_caller]
pub(crate) fn story(role: &str) {
    let mut peer = Peer::spawn_with(role, &[], |command| {
        command.env(LIFETIME, LONGEST.as_secs().to_string());
    });
    assert_eq!(peer.expect_line_after_progress(SILENCE), "told");
    peer.finish();
}

/// What such a role does.
pub(crate) fn tells(story: impl FnOnce()) {
    let check = LeakCheck::start();
    story();
    check.finish();
    peer::say("told");
}
