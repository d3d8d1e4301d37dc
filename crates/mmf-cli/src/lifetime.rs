//! A time limit for the processes that `demo` and `selftest` start.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

/// Ends this process with code 1 if it is not dropped in time.
pub(crate) struct Bound(#[allow(dead_code, reason = "its drop is what tells the thread")] Sender<()>);

impl Bound {
    pub(crate) fn new(limit: Duration) -> Bound {
        let (sender, dropped) = mpsc::channel();
        std::thread::spawn(move || {
            if dropped.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                eprintln!("mmf: the step did not finish within {limit:?}");
                std::process::exit(1);
            }
        });
        Bound(sender)
    }
}
