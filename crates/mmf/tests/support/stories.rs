//! Tests that run in a process of their own, which must leave nothing behind.

use std::time::Duration;

use testkit::{LIFETIME, LeakCheck, Peer, peer};

/// The longest time that a story may use no processor, because it waits for a disk for example.
const SILENCE: Duration = Duration::from_secs(240);
/// The process of a story ends itself after that time, also if the test has died.
const LONGEST: Duration = Duration::from_secs(3600);

/// Makes a test of each function named. The function runs in a process of its own, which must leave
/// nothing behind.
macro_rules! stories {
    (@test [$($attribute:tt)*] $story:ident) => {
        #[test]
        $($attribute)*
        fn $story() {
            $crate::support::stories::story(stringify!($story));
        }
    };
    (@ $attributes:tt $($story:ident),+) => {
        mod peers {
            use $crate::support::remote::{operator, shaker, truncater};
            $(fn $story(_: &[&str]) {
                $crate::support::stories::tells(super::$story);
            })+
            testkit::peers! { operator, truncater, shaker, $($story),+ }
        }
        mod tests {
            use $crate::support::stories::stories;
            $(stories!(@test $attributes $story);)+
        }
    };
    (ignored $why:literal: $($story:ident),+ $(,)?) => { $crate::support::stories::stories!(@ [#[ignore = $why]] $($story),+); };
    ($($story:ident),+ $(,)?) => { $crate::support::stories::stories!(@ [] $($story),+); };
}
pub(crate) use stories;

/// Runs a role in a process of its own, where a check for leaks encloses it (see [`tells`]).
#[track_caller]
pub(crate) fn story(role: &str) {
    let mut peer = Peer::spawn_with(role, &[], |command| {
        command.env(LIFETIME, LONGEST.as_secs().to_string());
    });
    assert_eq!(peer.expect_line_within(SILENCE), "told");
    peer.finish();
}

/// The body of such a role: runs `story` and fails if it leaves anything behind.
pub(crate) fn tells(story: impl FnOnce()) {
    let check = LeakCheck::start();
    story();
    check.finish();
    peer::say("told");
}
