//! What no operation may pass, whatever a peer does to the shared bytes: memory, and time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::process;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

/// Bytes that are allocated, and how many there may be.
static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(usize::MAX);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

impl Counting {
    fn count(size: usize) {
        if LIVE.fetch_add(size, SeqCst) + size > MOST.load(SeqCst) {
            // What tells of it allocates as well.
            MOST.store(usize::MAX, SeqCst);
            eprintln!("{size} bytes more are more than may be allocated\n{}", Backtrace::force_capture());
            // An allocator must not unwind.
            process::abort();
        }
    }
}

// SAFETY: all is left to the system's allocator; counting changes nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Counting::count(layout.size());
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Counting::count(layout.size());
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), SeqCst);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(at, layout) };
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both are there for a moment.
        Counting::count(size);
        LIVE.fetch_sub(layout.size(), SeqCst);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// How long anything may take, in ticks: a machine that stands still does not tick either.
const LONGEST: u64 = 100;
const TICK: Duration = Duration::from_millis(10);
static TICKS: AtomicU64 = AtomicU64::new(0);

/// Does something with so many bytes of memory at the most, and in less than a second.
pub(crate) fn within<T>(memory: usize, what: &dyn std::fmt::Debug, work: impl FnOnce() -> T) -> T {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        thread::spawn(|| {
            loop {
                thread::sleep(TICK);
                TICKS.fetch_add(1, SeqCst);
            }
        });
    });
    let began = TICKS.load(SeqCst);
    MOST.store(LIVE.load(SeqCst).saturating_add(memory), SeqCst);
    let result = work();
    MOST.store(usize::MAX, SeqCst);
    let took = TICKS.load(SeqCst) - began;
    assert!(took < LONGEST, "{what:?} took {:?}", TICK * u32::try_from(took).unwrap_or(u32::MAX));
    result
}
