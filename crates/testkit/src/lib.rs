//! Child processes, watchdogs and unique names for the tests of mmf.
//!
//! A test that tells a story of several processes names functions as *roles* and starts its own binary
//! again to play them. It needs no harness of its own: `cargo test` and `cargo nextest run` both work.
//!
//! ```no_run
//! testkit::peers! { greeter }
//!
//! fn greeter(args: &[&str]) {
//!     while let Some(name) = testkit::peer::hear() {
//!         testkit::peer::say(format!("{} {name}", args[0]));
//!     }
//! }
//!
//! #[test]
//! fn a_greeter_greets() {
//!     let _watchdog = testkit::Watchdog::start(testkit::DEADLINE * 3);
//!     let mut greeter = testkit::Peer::spawn("greeter", &["hello"]);
//!     greeter.send("world");
//!     greeter.expect("hello world");
//!     greeter.finish();
//! }
//! # fn main() {}
//! ```
//!
//! Nothing here waits without a bound, and no outcome depends on a sleep: a test waits for a line of its
//! peer, for its peer's end, or fails.
//!
//! What fails, fails by a panic that shows what each peer wrote to its stderr.

#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub mod attack;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod death;
pub mod fairness;
pub mod golden;
mod leak;
mod names;
mod parent;
pub mod peer;
mod progress;
mod sys;
pub mod torture;
mod watchdog;

use std::env;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use leak::LeakCheck;
pub use names::{TempDir, unique_name};
pub use parent::{Peer, release, spawn};
pub use watchdog::Watchdog;

/// How long a test waits for a peer to say something or to end.
///
/// It is long, since only a failing test ever waits it out, and a loaded machine can hold a process up.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The environment variable that sets how many seconds a peer may live, where the 600 of the default do
/// not fit. For [`Peer::spawn_with`].
pub const LIFETIME: &str = "TESTKIT_LIFETIME";

/// The environment variable that names the program to play the roles in place of this one: the same test, built for
/// another kind of processor. With it each test between processes becomes one between the two kinds.
pub const PROGRAM: &str = "TESTKIT_PROGRAM";

/// The program that plays the roles.
fn program() -> PathBuf {
    match env::var_os(PROGRAM) {
        Some(other) => other.into(),
        None => env::current_exe().expect("the path of this binary"),
    }
}

/// Makes functions of this module roles that [`Peer::spawn`] can start by their names.
///
/// It expands to a test named `peer_entry`, which returns at once unless the process was started to play
/// a role. So it stands once a module, in a file that is compiled as a test. Within one test binary,
/// two different roles have different names: `cargo test` fails where they do not. Several modules may
/// list the same function.
///
/// A program without libtest calls [`peer::enter`] first thing in its `main` instead.
///
/// # Examples
///
/// ```
/// testkit::peers! { idle, echo }
///
/// fn idle(_: &[&str]) {}
///
/// fn echo(_: &[&str]) {
///     while let Some(line) = testkit::peer::hear() {
///         testkit::peer::say(line);
///     }
/// }
/// ```
#[macro_export]
macro_rules! peers {
    ($($role:ident),+ $(,)?) => {
        #[test]
        fn peer_entry() {
            $crate::peer::declare(&[$((stringify!($role), ::std::any::type_name_of_val(&$role))),+]);
            $crate::peer::enter(&[$((stringify!($role), $role as $crate::peer::Role)),+]);
        }
    };
}

/// Locks, also after another thread's panic: what a test kit still has to say then is what matters.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What parent and peer say to each other.
mod wire {
    /// The test that [`peers!`](crate::peers) makes; a filter that finds it in whatever module it stands.
    pub(crate) const ENTRY: &str = "peer_entry";
    pub(crate) const ROLE: &str = "TESTKIT_ROLE";
    pub(crate) const ARGS: &str = "TESTKIT_ARGS";
    /// Ends each argument, the last too, so that no argument and one empty argument differ.
    pub(crate) const ARG_END: char = '\x1f';
    /// Begins what a peer means for its parent, since libtest writes to the same stdout and may have
    /// begun the line.
    pub(crate) const MARK: u8 = 0x1e;
    /// After the mark: the role was found and begins.
    pub(crate) const HELLO: u8 = b'+';
    /// After the mark, and before each line to a peer: a line.
    pub(crate) const LINE: u8 = b'=';
    /// To a peer: no more lines will come, which is not the same as a parent that died.
    pub(crate) const CLOSE: u8 = b'.';
}
