//! A global allocator that counts, so that the peak of one call's memory is known to the byte.
//!
//! The resident size would not do: a hostile length makes a victim reserve memory that it never
//! touches, and the pages of shared memory count as resident too. The program installs the
//! allocator in every process; it counts only where `start` was called, and costs one load
//! elsewhere.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

/// The allocator, for `#[global_allocator]`.
#[derive(Debug)]
pub struct Meter;

static STARTED: AtomicBool = AtomicBool::new(false);
/// Bytes that are allocated now, less those that were when counting began.
static LIVE: AtomicI64 = AtomicI64::new(0);
/// The most that `LIVE` has been since [`reset`], with requests that the system refused.
static PEAK: AtomicI64 = AtomicI64::new(0);

/// Begins to count.
pub(super) fn start() {
    STARTED.store(true, Relaxed);
}

/// Makes the peak what is allocated now.
pub(super) fn reset() {
    PEAK.store(LIVE.load(Relaxed), Relaxed);
}

/// Returns the peak in bytes since the last [`reset`]; 0 in a program without the allocator.
pub(super) fn peak() -> u64 {
    u64::try_from(PEAK.load(Relaxed)).unwrap_or(0)
}

/// Counts a request before it is made: a request that the system refuses is a peak too.
fn add(bytes: usize) {
    if STARTED.load(Relaxed) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX >> 1);
        let live = LIVE.fetch_add(bytes, Relaxed).saturating_add(bytes);
        PEAK.fetch_max(live, Relaxed);
    }
}

fn subtract(bytes: usize) {
    if STARTED.load(Relaxed) {
        LIVE.fetch_sub(i64::try_from(bytes).unwrap_or(i64::MAX >> 1), Relaxed);
    }
}

// SAFETY: each function hands its arguments to `System` unchanged and returns what that returns.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        let block = unsafe { System.alloc(layout) };
        if block.is_null() {
            subtract(layout.size());
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, which is the same.
        let block = unsafe { System.alloc_zeroed(layout) };
        if block.is_null() {
            subtract(layout.size());
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        subtract(layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`, which is the same.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size);
        // SAFETY: the caller keeps the contract of `realloc`, which is the same.
        let moved = unsafe { System.realloc(block, layout, size) };
        subtract(if moved.is_null() { size } else { layout.size() });
        moved
    }
}
