//! What the guard promises, tried on pages that are really gone.

mod atomics;
mod copies;
mod faults;
mod multi_word;
mod region;
#[cfg(unix)]
mod signals;
mod system_calls;
mod validated_read;

use std::process::{Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::trap;

/// Runs the test of that name alone in a process of its own, where it finds itself to be the child.
fn child(test: &str, case: &str) -> ExitStatus {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env(CASE, case)
        .output()
        .unwrap();
    // Shown only if the test fails.
    print!("{case}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    output.status
}

/// What the parent asked of this process, if it is a child. A child that hangs dies.
fn case() -> Option<String> {
    let case = std::env::var(CASE).ok()?;
    #[cfg(unix)]
    // SAFETY: sets a timer.
    unsafe {
        libc::alarm(60);
    }
    Some(case)
}

const CASE: &str = "MMF_GUARD_TEST_CASE";

/// Every way the routines can go, one after the other: each kind of vector that the processor has; long copies as
/// loops, as `rep movsb` and past the caches.
fn every_way(mut check: impl FnMut()) {
    let _alone = alone();
    trap::every_way(&mut check);
}

/// Tests that choose the routines' ways must not do so at the same time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
