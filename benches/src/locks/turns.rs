//! Two processes that pass a turn, there and back.

use std::cell::Cell;
use std::hint::spin_loop;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mmf::{Error, Mapping, Name, Region};

/// How long the other process may take before something is wrong.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// What the other process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Writes to the region, and sleeps until it changes.
    Changes,
    /// Changes a word, and sleeps on it.
    Futex,
    /// Writes to the region, and watches its version.
    Version,
    /// Changes a word, and watches it.
    Atomics,
    /// Takes no turns, but read locks until it is told to stop.
    Reads,
}

impl Way {
    pub(super) const ALL: [Way; 5] = [Way::Changes, Way::Futex, Way::Version, Way::Atomics, Way::Reads];
}

/// What both processes have open.
pub(super) struct Shared {
    pub(super) region: Region,
    page: Mapping,
}

impl Shared {
    pub(super) fn create(name: &str) -> io::Result<Shared> {
        let region = Region::create_new(Name::local(name)?, 1 << 20)?;
        Ok(Shared { region, page: Mapping::create_new(Name::local(format!("{name}-page"))?, 4096)? })
    }

    pub(super) fn open(name: &str) -> io::Result<Shared> {
        let region = Region::open(Name::local(name)?)?;
        Ok(Shared { region, page: Mapping::open(Name::local(format!("{name}-page"))?)? })
    }

    /// Where the turn stands for those who use no lock.
    fn word(&self) -> io::Result<&AtomicU32> {
        let start = self.page.as_mut_ptr()?.cast::<AtomicU32>();
        // SAFETY: the page has a word, aligned, for as long as it is borrowed, and both processes use it atomically.
        Ok(unsafe { &*start })
    }

    /// Whether the other process shall stop reading.
    pub(super) fn stop(&self) -> io::Result<&AtomicBool> {
        let start = self.page.as_mut_ptr()?.wrapping_add(256).cast::<AtomicBool>();
        // SAFETY: as above; both processes write nothing else than 0 or 1 there.
        Ok(unsafe { &*start })
    }

    /// Takes part in so many turns there and back, and in one before that. `ready` is called when this process
    /// has looked where the turn stands.
    pub(super) fn play(
        &self,
        way: Way,
        rounds: u64,
        first: bool,
        ready: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<Duration> {
        let deadline = Instant::now() + LIMIT;
        let version = Cell::new(self.region.version()?);
        let word = self.word()?;
        let turn = Cell::new(word.load(Ordering::Acquire));
        ready()?;
        let write = || {
            self.region.write().map_err(Error::from)?.put(0, version.get())?;
            version.set(version.get() + 2);
            Ok(())
        };
        let store = || {
            turn.set(turn.get().wrapping_add(1));
            // Pairs with the other's load.
            word.store(turn.get(), Ordering::Release);
        };
        let came = || word.load(Ordering::Acquire) != turn.get();
        match way {
            Way::Changes => rally(rounds, first, write, || {
                version.set(self.region.wait_changed(version.get(), deadline)?);
                Ok(())
            }),
            Way::Version => rally(rounds, first, write, || {
                awake(deadline, || Ok(self.region.version()? != version.get()))?;
                version.set(version.get() + 2);
                Ok(())
            }),
            Way::Futex => rally(
                rounds,
                first,
                || {
                    store();
                    futex_wake(word);
                    Ok(())
                },
                || {
                    while !came() {
                        futex_wait(word, turn.get(), deadline)?;
                    }
                    turn.set(turn.get().wrapping_add(1));
                    Ok(())
                },
            ),
            Way::Atomics => rally(
                rounds,
                first,
                || {
                    store();
                    Ok(())
                },
                || {
                    awake(deadline, || Ok(came()))?;
                    turn.set(turn.get().wrapping_add(1));
                    Ok(())
                },
            ),
            Way::Reads => {
                let stop = self.stop()?;
                while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
                    for _ in 0..1000 {
                        drop(self.region.read());
                    }
                }
                Ok(Duration::ZERO)
            }
        }
    }
}

/// `pass` gives the turn away, `wait` waits until it is back.
fn rally(
    rounds: u64,
    first: bool,
    mut pass: impl FnMut() -> io::Result<()>,
    mut wait: impl FnMut() -> io::Result<()>,
) -> io::Result<Duration> {
    let mut round = || {
        if first {
            pass()?;
            return wait();
        }
        wait()?;
        pass()
    };
    round()?;
    let began = Instant::now();
    for _ in 0..rounds {
        round()?;
    }
    Ok(began.elapsed())
}

/// Waits awake.
fn awake(deadline: Instant, mut came: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let mut looks = 0_u32;
    while !came()? {
        spin_loop();
        looks = looks.wrapping_add(1);
        if looks % (1 << 16) == 0 && Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the other process does not go on"));
        }
    }
    Ok(())
}

fn futex_wake(word: &AtomicU32) {
    // SAFETY: takes the address of a word that is there, and changes nothing.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}

fn futex_wait(word: &AtomicU32, expected: u32, deadline: Instant) -> io::Result<()> {
    if Instant::now() > deadline {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "the other process does not go on"));
    }
    let timeout = libc::timespec { tv_sec: 10, tv_nsec: 0 };
    // SAFETY: takes the addresses of a word and of a timeout that are there.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, &raw const timeout) };
    Ok(())
}

/// The C library's mutex that processes share and that tells of a dead holder, with memory behind it.
pub(super) struct Mutex {
    page: Mapping,
}

/// Where the bytes begin.
const BYTES: usize = 4096;

impl Mutex {
    pub(super) fn new(bytes: usize) -> io::Result<Mutex> {
        let page = Mapping::options().size((BYTES + bytes) as u64).prefault(true).anonymous()?;
        let mutex = Mutex { page };
        let at = mutex.at()?;
        let mut attributes = std::mem::MaybeUninit::uninit();
        // SAFETY: there is room for the attributes.
        check(unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: they were made by the call above.
        check(unsafe { libc::pthread_mutexattr_setpshared(attributes.as_mut_ptr(), libc::PTHREAD_PROCESS_SHARED) })?;
        // SAFETY: as above.
        check(unsafe { libc::pthread_mutexattr_setrobust(attributes.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST) })?;
        // SAFETY: the page has room for a mutex, and nobody uses it yet.
        check(unsafe { libc::pthread_mutex_init(at, attributes.as_ptr()) })?;
        Ok(mutex)
    }

    fn at(&self) -> io::Result<*mut libc::pthread_mutex_t> {
        Ok(self.page.as_mut_ptr()?.cast())
    }

    /// Where the bytes are.
    pub(super) fn bytes(&self) -> io::Result<*mut u8> {
        Ok(self.page.as_mut_ptr()?.wrapping_add(BYTES))
    }

    /// Runs `what` with the mutex locked.
    pub(super) fn locked(&self, what: impl FnOnce()) -> io::Result<()> {
        let at = self.at()?;
        // SAFETY: the mutex was made in `new` and is not destroyed.
        check(unsafe { libc::pthread_mutex_lock(at) })?;
        what();
        // SAFETY: this thread has locked it.
        check(unsafe { libc::pthread_mutex_unlock(at) })
    }
}

fn check(code: i32) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}
