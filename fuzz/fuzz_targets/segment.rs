//! Hostile bytes in a region that is in use: whatever a peer writes into any part of it, at any moment between and during
//! operations, each of them ends, with an error or with bytes, in time and within the region's memory.

#![no_main]

mod limits;
mod stage;

use std::io::{self, Read, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use mmf::{Access, Error, ErrorKind, LockError, Mapping, ReadGuard, Region, RegionOptions, WriteGuard};
use stage::{Choice, Restored, Storm};

const CAPACITY: usize = 64 << 10;
/// Where the payload begins.
const HEAD: usize = 20480;
/// What operations allocate beside contents: tables of handles, errors, and a vector that grows while a stream is read.
const SLACK: usize = 4 * CAPACITY;
/// How long locks are waited for: in most inputs, and in those that wait long enough to sleep and
/// to look whether the holder lives.
const SHORT: Duration = Duration::from_micros(150);
const LONG: Duration = Duration::from_millis(3);

/// How many steps an input may have. libFuzzer prefers inputs with many, which take long and find
/// what fewer find.
const STEPS: usize = 40;

#[derive(Arbitrary, Debug)]
struct Input {
    /// What another thread writes over and over meanwhile, in the inputs chosen for it.
    storm: Vec<Scribble>,
    steps: Vec<Step>,
}

/// Bytes that a peer writes.
#[derive(Arbitrary, Clone, Debug)]
enum Scribble {
    Word(Place, Value),
    Bytes(u16, Vec<u8>),
    /// From there to there.
    Fill(u16, u16, u8),
}

/// Words that are acted upon.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Place {
    /// Of the header that is checked once.
    Fixed(u8),
    Len,
    Lock,
    Version,
    /// A word of the queue of those who wait for the lock, or for a change.
    LockQueue(u8),
    ChangeQueue(u8),
    Occupied(u8),
    /// A word of a slot, mostly of one that is in use.
    Slot(u8, u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Value {
    Small(u8),
    Bits(u8),
    /// A lock's word: a writer and the flags.
    Writer(u16, u8),
    Near(i8),
    /// MiB.
    Large(u16),
    Any(u64),
}

#[derive(Arbitrary, Debug)]
enum Step {
    Scribble(Scribble),
    /// The file cut off, or made longer.
    Size(Size),
    Open(u8, bool),
    Drop(u8),
    /// Under a lock, and what happens while it is held.
    Read(u8, How, Vec<Inside>),
    /// The last: whether the guard is dropped by a panic.
    Write(u8, How, Vec<Inside>, bool),
    Do(u8, Free),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Size {
    Cut(u16),
    Longer(u16),
    /// Of this many MiB, which cost nothing.
    Huge(u16),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum How {
    Usual,
    Try,
    For(u8),
    Until(u8),
}

/// Needs no guard.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Free {
    Status,
    Version,
    IsPoisoned,
    ClearPoison,
    WaitChanged(u8, u8),
    ToVec,
    ReadInto(u16),
    Snapshot,
    Restore(u32),
}

#[derive(Arbitrary, Debug)]
enum Inside {
    Scribble(Scribble),
    Size(Size),
    Len,
    ReadAt(u16, u16),
    ToVec,
    Get(u16),
    Stream(u16),
    WriteAt(u16, Vec<u8>),
    Fill(u32, u8),
    Resize(u32),
    Put(u16, u64),
    StreamIn(Vec<u8>),
    /// What others do meanwhile, with this handle or another.
    Do(u8, Free),
    TryRead(u8),
    TryWrite(u8),
}

struct World<'a> {
    file: &'a Restored,
    timeout: Duration,
    handles: [Option<Region>; 4],
}

/// Makes a region with some contents.
fn make(path: &std::path::Path) -> mmf::Result<()> {
    let region = Region::create_new(path, CAPACITY as u64)?;
    region.write()?.set(b"contents")
}

impl World<'_> {
    fn new(file: &Restored, timeout: Duration) -> World<'_> {
        file.restore();
        let mut world = World { file, timeout, handles: [None, None, None, None] };
        let first = world.options().open(file.path()).unwrap_or_else(|error| panic!("{error}"));
        world.handles[0] = Some(first);
        world
    }

    fn options(&self) -> RegionOptions {
        Region::options().timeout(Some(self.timeout))
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Scribble(scribble) => scribble.apply(&self.file.peer),
            Step::Size(size) => size.apply(self.file),
            Step::Open(which, reads) => {
                let access = if *reads { Access::ReadOnly } else { Access::ReadWrite };
                let options = self.options().access(access);
                let opened = within(step, || options.open(self.file.path()));
                self.handles[usize::from(which % 4)] = told(opened);
            }
            Step::Drop(which) => within(step, || self.handles[usize::from(which % 4)] = None),
            Step::Read(which, how, inside) => {
                if let Some(region) = &self.handles[usize::from(which % 4)] {
                    let guard = within(step, || match how {
                        How::Usual => region.read(),
                        How::Try => region.try_read(),
                        How::For(n) => region.read_for(short(*n)),
                        How::Until(n) => region.read_until(Instant::now() + short(*n)),
                    });
                    if let Some(guard) = told(guard.or_else(LockError::into_guard)) {
                        inside.iter().for_each(|inside| self.under_read(&guard, inside));
                        within(step, || drop(guard));
                    }
                }
            }
            Step::Write(which, how, inside, panics) => {
                if let Some(region) = &self.handles[usize::from(which % 4)] {
                    let guard = within(step, || match how {
                        How::Usual => region.write(),
                        How::Try => region.try_write(),
                        How::For(n) => region.write_for(short(*n)),
                        How::Until(n) => region.write_until(Instant::now() + short(*n)),
                    });
                    if let Some(mut guard) = told(guard.or_else(LockError::into_guard)) {
                        inside.iter().for_each(|inside| self.under_write(&mut guard, inside));
                        within(step, || if *panics { drop_in_panic(guard) } else { drop(guard) });
                    }
                }
            }
            Step::Do(which, free) => self.free(*which, *free),
        }
    }

    fn under_read(&self, guard: &ReadGuard<'_>, inside: &Inside) {
        match inside {
            Inside::Len => _ = told(within(inside, || guard.len())).map(fits),
            Inside::ReadAt(at, len) => read_at(inside, *len, |buf| guard.read_at(usize::from(*at), buf)),
            Inside::ToVec => _ = told(within(inside, || guard.to_vec())).map(|bytes| fits(bytes.len())),
            Inside::Get(at) => _ = told(within(inside, || guard.get::<u64>(usize::from(*at)))),
            Inside::Stream(len) => stream(inside, guard.reader(), *len),
            other => self.beside(other),
        }
    }

    fn under_write(&self, guard: &mut WriteGuard<'_>, inside: &Inside) {
        match inside {
            Inside::Len => _ = told(within(inside, || guard.len())).map(fits),
            Inside::ReadAt(at, len) => read_at(inside, *len, |buf| guard.read_at(usize::from(*at), buf)),
            Inside::ToVec => _ = told(within(inside, || guard.to_vec())).map(|bytes| fits(bytes.len())),
            Inside::Get(at) => _ = told(within(inside, || guard.get::<u64>(usize::from(*at)))),
            Inside::Stream(len) => stream(inside, guard.reader(), *len),
            Inside::WriteAt(at, data) => _ = told(within(inside, || guard.write_at(usize::from(*at), data))),
            Inside::Fill(len, byte) => {
                let data = vec![*byte; *len as usize % (CAPACITY * 2)];
                let set = within(inside, || guard.set(&data));
                assert!(data.len() <= CAPACITY || set.is_err(), "{} bytes were taken", data.len());
                told(set);
            }
            Inside::Resize(len) => _ = told(within(inside, || guard.resize(*len as usize % (CAPACITY * 2)))),
            Inside::Put(at, value) => _ = told(within(inside, || guard.put(usize::from(*at), *value))),
            Inside::StreamIn(data) => _ = within(inside, || guard.writer().write_all(data)),
            other => self.beside(other),
        }
    }

    /// What needs no lock, and what must be refused to one who has it.
    fn beside(&self, inside: &Inside) {
        match inside {
            Inside::Scribble(scribble) => scribble.apply(&self.file.peer),
            Inside::Size(size) => size.apply(self.file),
            Inside::Do(which, free) => self.free(*which, *free),
            Inside::TryRead(which) => {
                if let Some(region) = &self.handles[usize::from(which % 4)] {
                    assert!(matches!(within(inside, || region.try_read()), Err(LockError::Failed(_))));
                }
            }
            Inside::TryWrite(which) => {
                if let Some(region) = &self.handles[usize::from(which % 4)] {
                    assert!(matches!(within(inside, || region.try_write()), Err(LockError::Failed(_))));
                }
            }
            _ => {}
        }
    }

    fn free(&self, which: u8, free: Free) {
        let Some(region) = &self.handles[usize::from(which % 4)] else { return };
        match free {
            Free::Status => {
                if let Some(status) = told(within(&free, || region.status())) {
                    assert!(status.len <= status.capacity && status.capacity == CAPACITY as u64, "{status:?}");
                    assert!(status.participants.len() <= 256);
                }
            }
            Free::Version => _ = told(within(&free, || region.version())),
            Free::IsPoisoned => _ = told(within(&free, || region.is_poisoned())),
            Free::ClearPoison => _ = told(within(&free, || region.clear_poison())),
            Free::WaitChanged(back, time) => {
                let since = region.version().unwrap_or(0).wrapping_sub(u64::from(back % 2) * 2);
                told(within(&free, || region.wait_changed(since, Instant::now() + short(time))));
            }
            Free::ToVec => _ = told(within(&free, || region.to_vec())).map(|bytes| fits(bytes.len())),
            Free::ReadInto(len) => {
                let mut bytes = vec![1; usize::from(len)];
                if told(within(&free, || region.read_into(&mut bytes))).is_some() {
                    fits(bytes.len());
                }
            }
            Free::Snapshot => {
                let mut count = Count(0);
                if within(&free, || region.snapshot(&mut count)).is_ok() {
                    fits(count.0);
                }
            }
            Free::Restore(len) => {
                let len = u64::from(len) % (CAPACITY as u64 * 2);
                let restored = within(&free, || region.restore(io::repeat(7).take(len)));
                assert!(len <= CAPACITY as u64 || restored.is_err(), "{len} bytes were taken");
            }
        }
    }
}

/// Counts what is written.
struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn within<T>(what: &dyn std::fmt::Debug, work: impl FnOnce() -> T) -> T {
    limits::within(CAPACITY + SLACK, what, work)
}

fn fits(len: usize) {
    assert!(len <= CAPACITY, "{len} bytes of contents");
}

/// An error says what it is; none of those that tell of a mistake in the library or of the caller's.
fn told<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(!matches!(error.kind(), ErrorKind::Other | ErrorKind::Misaligned { .. }), "{error}");
            assert!(!error.to_string().is_empty());
            None
        }
    }
}

/// Without the noise of a panic that means something.
fn drop_in_panic(guard: WriteGuard<'_>) {
    let panics = AssertUnwindSafe(|| {
        let _guard = guard;
        panic::resume_unwind(Box::new(()))
    });
    let unwound: thread::Result<()> = panic::catch_unwind(panics);
    assert!(unwound.is_err());
}

/// Up to half a millisecond.
fn short(time: u8) -> Duration {
    Duration::from_micros(u64::from(time) * 2)
}

/// Reads into the middle of a buffer, whose ends stay as they are.
fn read_at(what: &Inside, len: u16, read: impl FnOnce(&mut [u8]) -> Result<(), Error>) {
    let mut buffer = vec![0x5a; usize::from(len) + 128];
    let end = buffer.len() - 64;
    told(within(what, || read(&mut buffer[64..end])));
    assert!(buffer[..64].iter().chain(&buffer[end..]).all(|byte| *byte == 0x5a), "{what:?} wrote outside");
}

fn stream(what: &Inside, mut reader: impl Read, len: u16) {
    let mut buffer = vec![0; usize::from(len) + 1];
    let mut all = 0;
    while let Ok(n @ 1..) = within(what, || reader.read(&mut buffer)) {
        all += n;
        fits(all);
    }
}

impl Scribble {
    fn apply(&self, raw: &Mapping) {
        // What is gone cannot be scribbled on.
        let _ = match self {
            Scribble::Word(place, value) => {
                let at = place.offset();
                let old = raw.load::<u64>(at, SeqCst).unwrap_or(0);
                raw.store(at, value.number(old), SeqCst)
            }
            Scribble::Bytes(at, bytes) => raw.write_at(usize::from(*at), bytes),
            Scribble::Fill(from, to, byte) => raw.fill(usize::from(*from.min(to))..usize::from(*from.max(to)), *byte),
        };
    }
}

impl Place {
    fn offset(self) -> usize {
        match self {
            Place::Fixed(n) => usize::from(n % 128) * 8,
            Place::Len => 2064,
            Place::Lock => 2048,
            Place::Version => 2056,
            Place::LockQueue(n) => 2112 + usize::from(n % 5) * 8,
            Place::ChangeQueue(n) => 2304 + usize::from(n % 5) * 8,
            Place::Occupied(n) => 2176 + usize::from(n % 4) * 8,
            Place::Slot(slot, n) => {
                let slot = if slot < 240 { slot % 4 } else { slot };
                4096 + usize::from(slot) * 64 + usize::from(n % 3) * 8
            }
        }
    }
}

impl Value {
    fn number(self, old: u64) -> u64 {
        match self {
            Value::Small(n) => n.into(),
            Value::Bits(n) => u64::MAX << (n % 64),
            Value::Writer(slot, flags) => u64::from(slot % 300) | u64::from(flags) << 16,
            Value::Near(n) => old.wrapping_add_signed(n.into()),
            Value::Large(n) => u64::from(n) << 20,
            Value::Any(n) => n,
        }
    }
}

impl Size {
    fn apply(self, file: &Restored) {
        let len = match self {
            Size::Cut(len) => u64::from(len),
            Size::Longer(len) => (HEAD + CAPACITY) as u64 + u64::from(len),
            Size::Huge(len) => u64::from(len) << 20,
        };
        file.set_len(len);
    }
}

thread_local! {
    static FILE: Restored = Restored::new(make);
    static STORM: Storm<(Arc<Mapping>, Vec<Scribble>)> =
        Storm::new(|(peer, storm): &(Arc<Mapping>, Vec<Scribble>)| storm.iter().for_each(|one| one.apply(peer)));
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(bytes)) {
        FILE.with(|file| run(input, &Choice::of(bytes), file));
    }
});

fn run(input: Input, choice: &Choice, file: &Restored) {
    let waits_long = choice.waits();
    let mut world = World::new(file, if waits_long { LONG } else { SHORT });
    let mut steps = || input.steps.iter().take(STEPS).for_each(|step| world.step(step));
    if choice.storms() && !input.storm.is_empty() {
        STORM.with(|storm| storm.during((Arc::clone(&file.peer), input.storm), steps));
    } else {
        steps();
    }
    // A handle that is opened once the hostile peer has ended is locked out by nothing that it
    // left.
    world.handles = [None, None, None, None];
    let late = Region::options().timeout(Some(Duration::from_secs(10))).open(file.path());
    if let Some(region) = told(late) {
        // Without a timeout it asks about the holders at once, and so need not sleep first.
        let first = if waits_long { None } else { Some(within(&"the last lock", || region.write_for(Duration::ZERO))) };
        let lock = match first {
            None | Some(Err(LockError::Failed(_))) => within(&"the last lock", || region.write()),
            Some(lock) => lock,
        };
        let lock = lock.or_else(LockError::into_guard);
        assert!(matches!(lock.as_ref().map_err(Error::kind), Ok(_) | Err(ErrorKind::Fault { .. })), "{:?}", lock.err());
    }
}
