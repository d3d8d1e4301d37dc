//! Stories that must leave nothing behind.

use std::time::Duration;

use testkit::{LIFETIME, LeakCheck, Peer, Watchdog, peer};

/// How long a story may take: they are short, and a loaded machine is slow.
const STORY: Duration = Duration::from_secs(150);

/// Plays a role in a process of its own, where a check for leaks stands around it (see [`tells`]).
#[track_caller]
pub(crate) fn story(role: &str) {
    let _watchdog = Watchdog::start(STORY + testkit::DEADLINE);
    let mut peer = Peer::spawn_with(role, &[], |command| {
        command.env(LIFETIME, STORY.as_secs().to_string());
    });
    assert_eq!(peer.expect_line_within(STORY), "told");
    peer.finish();
}

/// What such a role does.
pub(crate) fn tells(story: impl FnOnce()) {
    let check = LeakCheck::start();
    story();
    check.finish();
    peer::say("told");
}
