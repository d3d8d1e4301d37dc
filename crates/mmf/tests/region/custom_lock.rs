//! Regions with a lock of the application's own: exclusion, wake-up, recovery and poison as with
//! mmf's lock.

use std::fs;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::support::failed;
use mmf::{Access, ErrorKind, LockError, LockWords, Mapping, Name, RawLock, Region, RegionOptions};
use testkit::{Peer, TempDir, Watchdog, peer, unique_name};

#[cfg(target_os = "linux")]
testkit::peers! { adder, lock_holder, of_the_system }
#[cfg(not(target_os = "linux"))]
testkit::peers! { adder, lock_holder }

/// Many readers, each counted in a word of its own, or one writer in the word that all share.
struct Counted;

// SAFETY: a reader counts itself and then looks for a writer, a writer enters the word and then
// looks for readers; all of it is sequentially consistent, so one of the two sees the other and
// goes back.
unsafe impl RawLock for Counted {
    fn name(&self) -> &'static str {
        "test/counted"
    }

    fn try_read(&self, words: LockWords<'_>, me: usize) -> io::Result<bool> {
        words.of(me)?.fetch_add(1)?;
        if words.shared(0)?.load()? == 0 {
            return Ok(true);
        }
        self.unlock_read(words, me)?;
        Ok(false)
    }

    fn try_write(&self, words: LockWords<'_>, me: usize) -> io::Result<bool> {
        if words.shared(0)?.compare_exchange(0, me as u64 + 1)? != 0 {
            return Ok(false);
        }
        for participant in 0..LockWords::PARTICIPANTS {
            if words.of(participant)?.load()? != 0 {
                self.unlock_write(words, me)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn unlock_read(&self, words: LockWords<'_>, me: usize) -> io::Result<()> {
        words.of(me)?.fetch_add(u64::MAX)?;
        Ok(())
    }

    fn unlock_write(&self, words: LockWords<'_>, _me: usize) -> io::Result<()> {
        Ok(words.shared(0)?.store(0)?)
    }

    fn recover(&self, words: LockWords<'_>, dead: usize) -> io::Result<()> {
        words.of(dead)?.store(0)?;
        words.shared(0)?.compare_exchange(dead as u64 + 1, 0)?;
        Ok(())
    }
}

/// The same words, of which something else is said.
struct Renamed(&'static str);

// SAFETY: as above.
unsafe impl RawLock for Renamed {
    fn name(&self) -> &str {
        self.0
    }

    fn try_read(&self, words: LockWords<'_>, me: usize) -> io::Result<bool> {
        Counted.try_read(words, me)
    }

    fn try_write(&self, words: LockWords<'_>, me: usize) -> io::Result<bool> {
        Counted.try_write(words, me)
    }

    fn unlock_read(&self, words: LockWords<'_>, me: usize) -> io::Result<()> {
        Counted.unlock_read(words, me)
    }

    fn unlock_write(&self, words: LockWords<'_>, me: usize) -> io::Result<()> {
        Counted.unlock_write(words, me)
    }

    fn recover(&self, words: LockWords<'_>, dead: usize) -> io::Result<()> {
        Counted.recover(words, dead)
    }
}

fn counted() -> RegionOptions {
    Region::options().lock(Counted)
}

fn named() -> Name {
    Name::local(unique_name("own-lock")).unwrap()
}

/// Adds 1 so many times to two numbers that must always be the same.
fn adder(args: &[&str]) {
    let region = counted().open(Name::local(args[0]).unwrap()).unwrap();
    for _ in 0..args[1].parse().unwrap() {
        let mut guard = region.write().unwrap();
        let [first, second]: [u64; 2] = guard.get(0).unwrap();
        assert_eq!(first, second);
        guard.put(0, first + 1).unwrap();
        guard.put(8, second + 1).unwrap();
    }
    peer::say("added");
}

/// Is inside to `read`, to `write`, or with a change `half` made.
fn lock_holder(args: &[&str]) {
    let region = counted().open(Name::local(args[0]).unwrap()).unwrap();
    if args[1] == "read" {
        let _guard = region.read().unwrap();
        peer::say("inside");
        peer::hear();
    } else {
        let mut guard = region.write().unwrap();
        if args[1] == "half" {
            guard.write_at(0, b"half").unwrap();
        }
        peer::say("inside");
        peer::hear();
    }
}

#[test]
fn it_keeps_processes_apart_and_readers_together() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let name = named();
    let region = counted().capacity(4096).create_new(&name).unwrap();
    region.write().unwrap().put(0, [0_u64; 2]).unwrap();
    let mut peers: Vec<Peer> = (0..2).map(|_| Peer::spawn("adder", &[name.as_str(), "500"])).collect();
    let mut seen = 0;
    while seen < 1000 {
        let guard = region.read().unwrap();
        let [first, second]: [u64; 2] = guard.get(0).unwrap();
        assert_eq!(first, second);
        seen = first;
        drop(guard);
        // This lock prefers readers.
        std::thread::sleep(Duration::from_millis(1));
    }
    for peer in &mut peers {
        peer.expect("added");
    }
    let _guard = region.read().unwrap();
    let mut beside = Peer::spawn("lock_holder", &[name.as_str(), "read"]);
    beside.expect("inside");
    for peer in peers.into_iter().chain([beside]) {
        peer.finish();
    }
}

#[test]
fn its_holders_are_named_shown_and_waited_for() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    for how in ["read", "write"] {
        let name = named();
        let region = counted().capacity(4096).create_new(&name).unwrap();
        let mut holder = Peer::spawn("lock_holder", &[name.as_str(), how]);
        holder.expect("inside");
        assert_eq!(failed(region.try_write()), ErrorKind::WouldBlock);
        let kind = failed(region.write_for(Duration::from_millis(50)));
        let ErrorKind::Timeout { holder: Some(named) } = kind else { panic!("{kind:?}") };
        assert_eq!(named.process, holder.pid());
        let status = region.status().unwrap();
        let shown = status.participants.iter().find(|participant| participant.process == holder.pid()).unwrap();
        assert_eq!((shown.writing, shown.reading), (how == "write", u32::from(how == "read")));
        holder.send("on");
        drop(region.write_for(testkit::DEADLINE).unwrap());
        holder.finish();
        let _guard = region.write().unwrap();
        assert_eq!(failed(region.read()), ErrorKind::Deadlock);
    }
}

#[test]
fn what_the_dead_had_is_recovered_and_a_change_half_made_is_poison() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    for how in ["read", "write", "half"] {
        for tries in [false, true] {
            let name = named();
            let region = counted().capacity(4096).create_new(&name).unwrap();
            region.write().unwrap().set(b"whole").unwrap();
            let mut dead = Peer::spawn("lock_holder", &[name.as_str(), how]);
            dead.expect("inside");
            dead.kill();
            dead.wait();
            let since = Instant::now();
            let result = if tries { region.try_write() } else { region.write() };
            let poisoned = matches!(result, Err(LockError::Poisoned(_)));
            assert_eq!(poisoned, how == "half", "{how}: {:?}", result.err());
            assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
        }
    }
}

#[test]
fn a_leaked_guards_lock_ends_with_its_handle() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    for write in [false, true] {
        let name = named();
        let region = counted().capacity(4096).create_new(&name).unwrap();
        let leaks = counted().open(&name).unwrap();
        // In a thread of its own, since the thread's mark is leaked too.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if write {
                    std::mem::forget(leaks.write().unwrap());
                } else {
                    std::mem::forget(leaks.read().unwrap());
                }
            });
        });
        drop(leaks);
        assert!(region.write_for(Duration::from_secs(1)).is_ok());
    }
}

#[test]
fn who_has_another_lock_cannot_write_and_can_read() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let name = named();
    let region = counted().capacity(4096).create_new(&name).unwrap();
    region.write().unwrap().set(b"contents").unwrap();
    let differs = |options: RegionOptions, wanted: &str, found: &str, name: &Name| {
        let error = options.open(name).err().unwrap();
        let kind = ErrorKind::Mismatch { what: "its lock", wanted: wanted.to_owned(), found: found.to_owned() };
        assert_eq!(*error.kind(), kind);
    };
    differs(Region::options(), "mmf's own", "\"test/counted\"", &name);
    differs(Region::options().lock(Renamed("test/other")), "\"test/other\"", "\"test/counted\"", &name);
    let ours = named();
    let _region = Region::create_new(&ours, 4096).unwrap();
    differs(counted(), "\"test/counted\"", "mmf's own", &ours);

    let reader = Region::options().access(Access::ReadOnly).open(&name).unwrap();
    assert_eq!(reader.to_vec().unwrap(), b"contents");
    for bad in ["", "with a space", "longer than thirty-two characters"] {
        let error = Region::options().lock(Renamed(bad)).capacity(1).create_new(named()).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
    }
}

#[test]
fn what_another_boot_left_is_cleared() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let dir = TempDir::new();
    let (path, copy) = (dir.join("region"), dir.join("copy"));
    let region = counted().capacity(4096).create_new(&*path).unwrap();
    region.write().unwrap().set(b"whole").unwrap();
    let mut guard = region.write().unwrap();
    guard.write_at(0, b"half").unwrap();
    let mut bytes = fs::read(&path).unwrap();
    drop(guard);
    drop(region);
    bytes[1040] ^= 1;
    fs::write(&copy, bytes).unwrap();
    let region = counted().open(&*copy).unwrap();
    assert!(matches!(region.write_for(testkit::DEADLINE), Err(LockError::Poisoned(_))));
}

/// Has the lock for writing when its owner says so.
struct Scripted<F>(F);

// SAFETY: in these tests, the lock has one user.
unsafe impl<F: Fn(LockWords<'_>, Call) -> bool + Send + Sync + 'static> RawLock for Scripted<F> {
    fn name(&self) -> &'static str {
        "test/scripted"
    }

    fn try_read(&self, _: LockWords<'_>, _: usize) -> io::Result<bool> {
        Ok(false)
    }

    fn try_write(&self, words: LockWords<'_>, _: usize) -> io::Result<bool> {
        Ok(self.0(words, Call::TryWrite))
    }

    fn unlock_read(&self, _: LockWords<'_>, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn unlock_write(&self, words: LockWords<'_>, _: usize) -> io::Result<()> {
        self.0(words, Call::Unlock);
        Ok(())
    }

    fn recover(&self, _: LockWords<'_>, _: usize) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Call {
    TryWrite,
    Unlock,
}

#[test]
fn words_that_there_are_not_are_refused() {
    let (say, said) = std::sync::mpsc::channel();
    let asks = Scripted(move |words: LockWords<'_>, _| {
        let words = [words.shared(128), words.shared(usize::MAX), words.of(256), words.of(usize::MAX)];
        say.send(words.map(|word| word.unwrap_err().kind().clone())).unwrap();
        true
    });
    let region = Region::options().lock(asks).capacity(4096).create_new(named()).unwrap();
    drop(region.write().unwrap());
    for kind in said.recv().unwrap() {
        assert!(matches!(kind, ErrorKind::InvalidInput { .. }), "{kind:?}");
    }
}

/// A region, its bytes, and options for others who have its lock say that.
fn scripted<F>(script: impl FnOnce(Mapping) -> F) -> (Name, Region, RegionOptions)
where
    F: Fn(LockWords<'_>, Call) -> bool + Send + Sync + 'static,
{
    let name = named();
    let region = Region::options().lock(Scripted(|_: LockWords<'_>, _| true)).capacity(4096).create_new(&name).unwrap();
    let raw = Mapping::open(&name).unwrap();
    (name, region, Region::options().lock(Scripted(script(raw))))
}

/// A peer that may write the object can make it seem that ever more participants have died.
#[test]
fn the_dead_that_never_end_do_not_keep_from_the_deadline() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let (name, _region, options) = scripted(|raw| {
        move |_: LockWords<'_>, _| {
            // Slots 64 to 127 are occupied.
            raw.store(2184, u64::MAX, Ordering::SeqCst).unwrap();
            false
        }
    });
    let region = options.open(&name).unwrap();
    let kind = failed(region.write_for(Duration::from_millis(100)));
    assert!(matches!(kind, ErrorKind::Timeout { .. }), "{kind:?}");
}

#[test]
fn waiting_for_who_is_still_told_to_be_inside_takes_what_is_left_of_the_timeout() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 6);
    const TIMEOUT: Duration = Duration::from_secs(3);
    // Acquired shortly before the deadline, while the word names a living holder. On a busy machine
    // the deadline may come first.
    for _ in 0..10 {
        let (say, said) = std::sync::mpsc::channel();
        let since = Instant::now();
        let (name, lives, options) = scripted(|raw| {
            move |_: LockWords<'_>, call| {
                if call == Call::TryWrite && since.elapsed() < TIMEOUT * 9 / 10 {
                    return false;
                }
                raw.store(2048, 1_u64, Ordering::SeqCst).unwrap();
                say.send(Instant::now()).unwrap();
                true
            }
        });
        // Slot 0 is its.
        drop(lives.write().unwrap());
        let region = options.open(&name).unwrap();
        let kind = failed(region.write_for(TIMEOUT));
        assert!(matches!(kind, ErrorKind::Timeout { .. }), "{kind:?}");
        if let (Ok(had), Ok(given_back)) = (said.try_recv(), said.try_recv()) {
            assert!(given_back - had < TIMEOUT * 9 / 10, "{:?}", given_back - had);
            return;
        }
    }
    panic!("the lock was never had before the deadline");
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::path::Path;

    use super::{LockError, LockWords, Peer, RawLock, Region, RegionOptions, TempDir, Watchdog, io, peer};

    /// A lock that the system has, and releases when its holder dies.
    struct OfTheSystem(File);

    impl OfTheSystem {
        fn ask(&self, operation: libc::c_int) -> io::Result<bool> {
            // SAFETY: an open descriptor, and no pointer.
            match unsafe { libc::flock(self.0.as_raw_fd(), operation | libc::LOCK_NB) } {
                0 => Ok(true),
                _ => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                    error => Err(error),
                },
            }
        }
    }

    // SAFETY: `flock(2)`; every handle here has a description of its own and one thread.
    unsafe impl RawLock for OfTheSystem {
        fn name(&self) -> &'static str {
            "test/flock"
        }

        fn try_read(&self, _: LockWords<'_>, _: usize) -> io::Result<bool> {
            self.ask(libc::LOCK_SH)
        }

        fn try_write(&self, _: LockWords<'_>, _: usize) -> io::Result<bool> {
            self.ask(libc::LOCK_EX)
        }

        fn unlock_read(&self, _: LockWords<'_>, _: usize) -> io::Result<()> {
            self.ask(libc::LOCK_UN).map(drop)
        }

        fn unlock_write(&self, _: LockWords<'_>, _: usize) -> io::Result<()> {
            self.ask(libc::LOCK_UN).map(drop)
        }

        fn recover(&self, _: LockWords<'_>, _: usize) -> io::Result<()> {
            Ok(())
        }
    }

    fn options(dir: &Path) -> RegionOptions {
        let file = File::options().create(true).append(true).open(dir.join("lock")).unwrap();
        Region::options().lock(OfTheSystem(file)).capacity(4096)
    }

    pub(super) fn of_the_system(args: &[&str]) {
        let dir = Path::new(args[0]);
        let region = options(dir).open(dir.join("region")).unwrap();
        let mut guard = region.write().unwrap();
        guard.write_at(0, b"half").unwrap();
        peer::say("inside");
        peer::hear();
    }

    #[test]
    fn a_lock_that_the_system_releases_tells_of_poison_too() {
        let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
        let dir = TempDir::new();
        let region = options(dir.path()).create_new(dir.join("region")).unwrap();
        region.write().unwrap().set(b"whole").unwrap();
        for reads in [false, true] {
            let mut dead = Peer::spawn("of_the_system", &[dir.path().to_str().unwrap()]);
            dead.expect("inside");
            assert!(matches!(region.try_read(), Err(LockError::Failed(_))));
            dead.kill();
            dead.wait();
            if reads {
                assert!(matches!(region.read(), Err(LockError::Poisoned(_))));
            }
            let Err(LockError::Poisoned(mut guard)) = region.write() else { panic!("no poison") };
            guard.set(b"mended").unwrap();
            region.clear_poison().unwrap();
            drop(guard);
            assert_eq!(region.to_vec().unwrap(), b"mended");
        }
    }
}
#[cfg(target_os = "linux")]
use system::of_the_system;
