//! What no operation may pass, whatever a peer does to the shared bytes: memory, and time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
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
const LONGEST: u32 = 100;
const TICK: Duration = Duration::from_millis(10);
static TICKS: AtomicU64 = AtomicU64::new(0);

/// How long the calling thread has waited for a processor, as the system counts it. On a busy
/// machine it waits while the thread that ticks, which hardly runs, gets one at once.
struct Delay {
    file: Option<File>,
    /// The last count, and the tick at which it was read.
    known: Duration,
    at: u64,
}

thread_local! {
    static DELAY: RefCell<Delay> =
        RefCell::new(Delay { file: File::open("/proc/thread-self/schedstat").ok(), known: Duration::ZERO, at: 0 });
}

impl Delay {
    /// Reads the count, in nanoseconds the second number of the file. Without one, it stays zero.
    fn read(&self) -> Duration {
        let read = || {
            let mut file = self.file.as_ref()?;
            let mut text = [0; 64];
            file.seek(SeekFrom::Start(0)).ok()?;
            let len = file.read(&mut text).ok()?;
            let text = std::str::from_utf8(&text[..len]).ok()?;
            text.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
        };
        read().unwrap_or(self.known)
    }

    /// Reads the count now and then, since that takes longer than most of what is measured.
    fn begin(&mut self, now: u64) {
        if now - self.at >= u64::from(LONGEST / 10) {
            (self.known, self.at) = (self.read(), now);
        }
    }
}

/// Runs `work`, which may allocate up to `memory` bytes and has less than a second. The time that
/// the thread waits for a processor does not count, nor up to 100 ms of it from before.
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
    DELAY.with_borrow_mut(|delay| delay.begin(began));
    MOST.store(LIVE.load(SeqCst).saturating_add(memory), SeqCst);
    let result = work();
    MOST.store(usize::MAX, SeqCst);
    let took = TICK * u32::try_from(TICKS.load(SeqCst) - began).unwrap_or(u32::MAX);
    if took >= TICK * LONGEST {
        let waited = DELAY.with_borrow(|delay| delay.read() - delay.known);
        assert!(took.saturating_sub(waited) < TICK * LONGEST, "{what:?} took {took:?}, {waited:?} of it waiting");
    }
    result
}
