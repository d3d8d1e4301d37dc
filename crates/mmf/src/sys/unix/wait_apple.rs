//! Sleeping on a word of shared memory: `os_sync_wait_on_address(3)` with `SHARED`, which macOS 14.4 and iOS 17.4 brought.
//!
//! Older systems have nothing public of the kind: there the word is looked at every millisecond by its owner.

use std::ffi::{CStr, c_int, c_void};
use std::time::Duration;

use crate::once::ProcessOnce;

/// How often the word is looked at on older systems.
const PERIOD: Duration = Duration::from_millis(1);

// `os/os_sync_wait_on_address.h`, `os/clock.h`
const SHARED: u32 = 1;
const CLOCK_MACH_ABSOLUTE_TIME: u32 = 32;

type WaitWithTimeout = unsafe extern "C" fn(*mut c_void, u64, usize, u32, u32, u64) -> c_int;
type WakeAll = unsafe extern "C" fn(*mut c_void, usize, u32) -> c_int;

/// Looked up when first needed, so that the library loads on older systems.
fn functions() -> Option<(WaitWithTimeout, WakeAll)> {
    static FUNCTIONS: ProcessOnce<Option<(WaitWithTimeout, WakeAll)>> = ProcessOnce::new();
    *FUNCTIONS.get_or_init(|| {
        let wait = symbol(c"os_sync_wait_on_address_with_timeout")?;
        let wake = symbol(c"os_sync_wake_by_address_all")?;
        // SAFETY: the system's function of this name has this type.
        let wait = unsafe { std::mem::transmute::<*mut c_void, WaitWithTimeout>(wait) };
        // SAFETY: as above.
        let wake = unsafe { std::mem::transmute::<*mut c_void, WakeAll>(wake) };
        Some((wait, wake))
    })
}

fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name ends in a zero.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    Some(found).filter(|found| !found.is_null())
}

/// Sleeps while the word is `expected`, until `wake_all`, for `timeout` at the most; also wakes for no reason.
pub(super) fn sleep(word: *const u32, expected: u32, timeout: Duration) {
    let Some((wait, _)) = functions() else { return std::thread::sleep(timeout.min(PERIOD)) };
    // 0 would be refused.
    let nanoseconds = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX).max(1);
    let (word, expected, size) = (word.cast_mut().cast(), u64::from(expected), size_of::<u32>());
    // SAFETY: an aligned word, of which the kernel only reads, and which it checks itself.
    unsafe { wait(word, expected, size, SHARED, CLOCK_MACH_ABSOLUTE_TIME, nanoseconds) };
}

/// Wakes whoever sleeps on the word, in every process.
pub(super) fn wake_all(word: *const u32) {
    if let Some((_, wake)) = functions() {
        // SAFETY: an aligned word, which the kernel uses as a name.
        unsafe { wake(word.cast_mut().cast(), size_of::<u32>(), SHARED) };
    }
}
