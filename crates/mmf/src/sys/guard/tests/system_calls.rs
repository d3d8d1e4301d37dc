//! Faults under `FaultPolicy::SystemCalls`.

use super::region::{Region, STEP, number};
use crate::sys::guard;
use crate::types::FaultPolicy;

#[test]
fn the_count_is_exact_on_both_sides() {
    if let Err(error) = guard::probe_system_calls() {
        println!("not here: {error}");
        return;
    }
    let region = Region::new(4 * STEP, 4 * STEP);
    region.number(0);
    let source: Vec<u8> = (0..4 * STEP).map(|at| number(at, 9)).collect();
    for len in [1, 2, 100, 4096, 4097, 10_000, 60_000] {
        for distance in [0, 1, 63, 99, 4095, 4096, 4097, 9999, 50_001] {
            if distance >= len {
                continue;
            }
            let at = region.border().wrapping_sub(distance);
            if !forbidden_pages_can_be_read() {
                let mut copy = vec![0; len];
                // SAFETY: as many bytes in the array; the system reports what is not there.
                let left = unsafe { guard::copy(FaultPolicy::SystemCalls, copy.as_mut_ptr(), at, len, 0, 0) };
                assert_eq!(left, len - distance, "{len} bytes from {distance} before the border");
                assert_eq!(copy[..distance], region.bytes(distance, distance));
            }

            // SAFETY: the source is longer; the system reports what is not there.
            let left = unsafe { guard::copy(FaultPolicy::SystemCalls, at, source.as_ptr(), len, 0, 0) };
            assert_eq!(left, len - distance, "{len} bytes to {distance} before the border");
            assert_eq!(region.bytes(distance, distance), source[..distance]);

            // SAFETY: the system reports what is not there.
            let left = unsafe { guard::fill(FaultPolicy::SystemCalls, at, 0x77, len, 0, 0) };
            assert_eq!(left, len - distance, "fill of {len} bytes to {distance} before the border");
            assert!(region.bytes(distance, distance).iter().all(|&byte| byte == 0x77));
        }
    }
}

#[test]
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn a_page_that_is_gone_cannot_be_read_and_any_other_can() {
    let region = Region::new(4 * STEP, 4 * STEP);
    for distance in [1, 7, 8, 64, 4096] {
        assert!(guard::can_be_read(region.border().wrapping_sub(distance)), "{distance} before the border");
    }
    for distance in [0, 1, 8, 4095, 4096] {
        assert!(!guard::can_be_read(region.border().wrapping_add(distance)), "{distance} behind the border");
    }
    assert!(!guard::can_be_read(std::ptr::null()));
}

/// Wine reads by `ptrace`, to which the forbidden pages that stand for gone ones are open.
fn forbidden_pages_can_be_read() -> bool {
    #[cfg(windows)]
    {
        use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};
        // SAFETY: the name ends with a zero.
        let ntdll = unsafe { GetModuleHandleA(c"ntdll".as_ptr().cast()) };
        // SAFETY: a module that is never unloaded, and a name that ends with a zero.
        unsafe { GetProcAddress(ntdll, c"wine_get_version".as_ptr().cast()) }.is_some()
    }
    #[cfg(not(windows))]
    false
}
