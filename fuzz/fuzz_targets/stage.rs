//! What the targets of hostile bytes work on: a file that each input finds with the same bytes, and
//! a thread that writes to it over and over while an input runs.
//!
//! Both are kept from input to input, since making and removing them takes longer than what most
//! inputs do. A thread-local variable of the main thread holds them, which is dropped, and the
//! file's directory with it, when the process exits.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};

use mmf::Mapping;
use testkit::TempDir;

/// A file whose first bytes can be restored.
pub(crate) struct Restored {
    _dir: TempDir,
    path: PathBuf,
    file: File,
    bytes: Vec<u8>,
    /// A hostile peer's mapping of the file, as long as the file was first.
    pub(crate) peer: Arc<Mapping>,
}

impl Restored {
    /// Keeps the file that `make` makes at the path that it is given.
    pub(crate) fn new(make: impl FnOnce(&Path) -> mmf::Result<()>) -> Restored {
        let dir = TempDir::new();
        let path = dir.join("file");
        make(&path).unwrap_or_else(|error| panic!("{error}"));
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{error}"));
        let file = File::options().write(true).open(&path).unwrap_or_else(|error| panic!("{error}"));
        let peer = Mapping::open(&path).unwrap_or_else(|error| panic!("{error}"));
        Restored { _dir: dir, path, file, bytes, peer: Arc::new(peer) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its first bytes and its first length again.
    pub(crate) fn restore(&self) {
        self.set_len(self.bytes.len() as u64);
        let mut file = &self.file;
        let written = file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&self.bytes));
        written.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Cuts the file off, or makes it longer.
    pub(crate) fn set_len(&self, len: u64) {
        self.file.set_len(len).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// The states of the thread: it sleeps, it was given work, it writes, it is to stop.
const IDLE: u8 = 0;
const ASKED: u8 = 1;
const WRITING: u8 = 2;
const STOPPING: u8 = 3;

/// A thread that does some work over and over while the main thread does something else.
pub(crate) struct Storm<T> {
    shared: Arc<Shared<T>>,
    thread: Thread,
}

struct Shared<T> {
    state: AtomicU8,
    work: Mutex<Option<T>>,
}

impl<T: Send + 'static> Storm<T> {
    /// Starts the thread; `once` does the work one time.
    pub(crate) fn new(once: impl Fn(&T) + Send + 'static) -> Storm<T> {
        let shared = Arc::new(Shared { state: AtomicU8::new(IDLE), work: Mutex::new(None) });
        let writer = Arc::clone(&shared);
        let writes = move || {
            loop {
                while writer.state.load(SeqCst) != ASKED {
                    thread::park();
                }
                let work = writer.take();
                writer.state.store(WRITING, SeqCst);
                while writer.state.load(SeqCst) == WRITING {
                    work.iter().for_each(&once);
                    thread::yield_now();
                }
                // Memory of an input that outlives the input would be taken for a leak.
                drop(work);
                writer.state.store(IDLE, SeqCst);
            }
        };
        Storm { shared, thread: thread::spawn(writes).thread().clone() }
    }

    /// Runs `body` while the thread does its work, which has begun before.
    pub(crate) fn during<R>(&self, work: T, body: impl FnOnce() -> R) -> R {
        *self.shared.work.lock().unwrap_or_else(PoisonError::into_inner) = Some(work);
        self.shared.state.store(ASKED, SeqCst);
        self.thread.unpark();
        self.shared.wait_for(WRITING);
        let result = body();
        self.shared.state.store(STOPPING, SeqCst);
        self.shared.wait_for(IDLE);
        result
    }
}

impl<T> Shared<T> {
    fn take(&self) -> Option<T> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits for the other thread, which needs microseconds once it runs.
    fn wait_for(&self, state: u8) {
        while self.state.load(SeqCst) != state {
            thread::yield_now();
        }
    }
}

/// Chooses inputs for what takes longer than the rest, by a hash of all bytes: of the inputs that
/// libFuzzer makes from one of these, no larger share is chosen than of others.
pub(crate) struct Choice(u64);

impl Choice {
    pub(crate) fn of(input: &[u8]) -> Choice {
        // FNV-1a, whose upper half depends on every byte.
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        Choice(input.iter().fold(0xcbf2_9ce4_8422_2325, mix) >> 32)
    }

    /// Whether another thread writes meanwhile: one in 16.
    pub(crate) fn storms(&self) -> bool {
        self.0 % 16 == 0
    }

    /// Whether locks are waited for long enough to sleep: one in 16.
    pub(crate) fn waits(&self) -> bool {
        self.0 >> 4 & 15 == 0
    }

    /// Whether the target has a larger file than most inputs use: one in 32.
    #[allow(dead_code, reason = "only one target has one")]
    pub(crate) fn is_large(&self) -> bool {
        self.0 >> 8 & 31 == 0
    }
}
