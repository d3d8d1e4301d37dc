//! An end for a test that hangs.

use std::io::{self, Write};
use std::panic::Location;
use std::process;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use crate::parent;
use crate::progress::Progress;

/// Ends a test that hangs: unless it is dropped in time, it kills all peers of this process, tells where it
/// was started and what each peer wrote to its stderr, and aborts.
///
/// The time counts only while this process and its peers make no progress: on Linux, while they use
/// almost no processor time. They may use five times the limit.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let _watchdog = testkit::Watchdog::start(Duration::from_secs(30));
/// // What could hang.
/// ```
#[derive(Debug)]
#[must_use = "it watches until it is dropped"]
pub struct Watchdog {
    _dropped: Sender<()>,
}

impl Watchdog {
    /// Begins to count.
    #[track_caller]
    pub fn start(limit: Duration) -> Watchdog {
        let place = Location::caller();
        let test = thread::current().name().unwrap_or("?").to_owned();
        let (dropped, watched) = mpsc::channel();
        thread::spawn(move || {
            let mut progress: Option<Progress> = None;
            while watched.recv_timeout(limit / 2) == Err(RecvTimeoutError::Timeout) {
                let Some(progress) = &mut progress else {
                    progress = Some(Progress::of(process::id(), 0));
                    continue;
                };
                if !progress.goes_on(0, limit) {
                    bark(&test, place, limit);
                }
            }
        });
        Watchdog { _dropped: dropped }
    }
}

fn bark(test: &str, place: &Location<'_>, limit: Duration) -> ! {
    // Not `eprintln!`: libtest captures that in the threads of a test, and never gets to show it.
    let mut stderr = io::stderr();
    let _ = writeln!(stderr, "testkit: {test} hangs: the watchdog of {place} was not dropped within {limit:?}");
    for text in parent::kill_all() {
        let _ = writeln!(stderr, "{text}");
    }
    process::abort()
}
