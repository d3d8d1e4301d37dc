//! Forks of this process, which share file descriptions and so the locks on them.
//!
//! Handlers of `pthread_atfork(3)` see the calls of `fork`, not those of `posix_spawn` and `vfork`, whose children have
//! the descriptions only until they start their program.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

static MADE: AtomicU32 = AtomicU32::new(0);

/// How many forks this process has made or descends from since the first call. While the number stays, no
/// process that runs this program shares a description that was opened meanwhile.
pub(super) fn made() -> u32 {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler is a function that lives as long as the program, and adds to an atomic only.
        unsafe { libc::pthread_atfork(None, Some(count), Some(count)) };
    });
    MADE.load(Ordering::SeqCst)
}

extern "C" fn count() {
    MADE.fetch_add(1, Ordering::SeqCst);
}
