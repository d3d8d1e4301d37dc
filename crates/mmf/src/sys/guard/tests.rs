//! Tests of the guard's contract, on pages that are really gone.

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

/// Runs one test in a new process, in which [`case`] returns `case`.
fn child(test: &str, case: &str) -> ExitStatus {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env(CASE, case)
        .output()
        .unwrap();
    // The test harness shows this output only if the test fails.
    print!("{case}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    output.status
}

/// Returns the case that the parent requested, if this process is a child. A timer ends a child
/// that hangs after 60 seconds.
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

/// Runs `check` once for each code path of the routines: each vector size of the processor, and
/// long copies as loops, as `rep movsb` and as non-temporal stores.
fn every_way(mut check: impl FnMut()) {
    let _alone = alone();
    trap::every_way(&mut check);
}

/// Serialises the tests that select code paths, because the selection is global.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
