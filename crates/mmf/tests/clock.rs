//! Clocks that are set during a wait: no deadline depends on the time of day, nor on when the machine
//! was started.
//!
//! A test binary of its own: it defines `clock_gettime` in place of the C library's, for every test
//! of the binary.

// With 32 bits `std` asks for the time by another name, and such a `time_t` has no year 2600.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed check is a failed test")]

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use mmf::{Access, ErrorKind, LockError, Name, Region};
use testkit::{Peer, Watchdog, unique_name};

testkit::peers! { dies_inside, answers }

/// How many times this process has asked for the time of day.
static LOOKS: AtomicUsize = AtomicUsize::new(0);

/// In place of the C library's: the time of day differs from one call to the next.
#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    // SAFETY: the caller's place for the time, passed on.
    let outcome = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    if clock == libc::CLOCK_REALTIME && outcome == 0 {
        #[allow(deprecated, reason = "musl's, which other systems have as it is")]
        const HOUR: libc::time_t = 3600;
        // The last two are before 1970, and after what 64 bits of nanoseconds tell.
        let jumps = [HOUR, -HOUR, -60 * 365 * 24 * HOUR, 600 * 365 * 24 * HOUR];
        let jump = jumps[LOOKS.fetch_add(1, Ordering::SeqCst) % jumps.len()];
        // SAFETY: the system has written it, and it is the caller's alone.
        unsafe { (*time).tv_sec += jump };
    }
    libc::c_int::try_from(outcome).unwrap_or(-1)
}

fn name() -> Name {
    Name::local(unique_name("clock")).unwrap()
}

fn dies_inside(args: &[&str]) {
    let region = Region::open(Name::local(args[0]).unwrap()).unwrap();
    let mut guard = region.write().unwrap();
    guard.write_at(0, b"half").unwrap();
    testkit::peer::say("inside");
    testkit::peer::hear();
}

const WAIT: Duration = Duration::from_millis(200);

/// What must fail when the wait is over, not before and not much later.
fn fails_in_time<T>(wait: impl FnOnce() -> Result<T, mmf::Error>) -> ErrorKind {
    let since = Instant::now();
    let Err(error) = wait() else { panic!("it was not refused") };
    let waited = since.elapsed();
    assert!(waited >= WAIT && waited < WAIT * 10, "{waited:?}: {error}");
    error.kind().clone()
}

#[test]
fn waits_end_in_time_though_the_clock_is_set_again_and_again() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let (one, two) = (SystemTime::now(), SystemTime::now());
    let apart = one.duration_since(two).unwrap_or_else(|error| error.duration());
    assert!(apart > Duration::from_secs(3000), "the clock is not set: nothing is tested");

    let name = name();
    let region = Region::create_new(&name, 4096).unwrap();
    region.write().unwrap().set(b"whole").unwrap();
    let since = region.version().unwrap();
    let reader = Region::options().access(Access::ReadOnly).timeout(Some(WAIT)).open(&name).unwrap();
    let mut peer = Peer::spawn("dies_inside", &[name.as_str()]);
    peer.expect("inside");
    let looks = LOOKS.load(Ordering::SeqCst);
    for _ in 0..2 {
        let refused = fails_in_time(|| region.read_for(WAIT).map(drop).map_err(mmf::Error::from));
        let ErrorKind::Timeout { holder: Some(holder) } = refused else { panic!("{refused:?}") };
        assert!(holder.held_for < WAIT * 10, "{holder:?}");
        fails_in_time(|| region.write_until(Instant::now() + WAIT).map(drop).map_err(mmf::Error::from));
        fails_in_time(|| region.wait_changed(since, Instant::now() + WAIT));
        assert_eq!(fails_in_time(|| reader.to_vec()), ErrorKind::Contended);
    }
    assert_eq!(LOOKS.load(Ordering::SeqCst), looks, "a wait asks for the time of day");

    // Participants are shown with whatever time they joined at.
    assert_eq!(region.status().unwrap().participants.len(), 2);
    peer.kill();
    peer.wait();
    let since = Instant::now();
    assert!(matches!(region.write(), Err(LockError::Poisoned(_))));
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
}

const ROUNDS: u64 = 200;

/// Waits for each change, and answers it.
fn answers(args: &[&str]) {
    let region = Region::open(Name::local(args[0]).unwrap()).unwrap();
    testkit::peer::say("there");
    for round in 0..ROUNDS {
        loop {
            let since = region.version().unwrap();
            if region.read().unwrap().get::<u64>(0).unwrap() == round * 2 + 1 {
                break;
            }
            region.wait_changed(since, Instant::now() + testkit::DEADLINE).unwrap();
        }
        region.write().unwrap().put(0, round * 2 + 2).unwrap();
    }
}

#[test]
#[ignore = "needs root: makes a namespace of clocks"]
fn processes_whose_machines_started_at_different_times_wake_each_other() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let name = name();
    let region = Region::create_new(&name, 4096).unwrap();
    region.write().unwrap().put(0, 0_u64).unwrap();
    let mut peer = Peer::spawn_with("answers", &[name.as_str()], |command| {
        let mut outer = Command::new("unshare");
        outer.args(["--time", "--monotonic", "10000000", "--fork", "--kill-child"]);
        outer.arg(command.get_program()).args(command.get_args());
        outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        outer.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        *command = outer;
    });
    peer.expect("there");
    let since = Instant::now();
    for round in 0..ROUNDS {
        region.write().unwrap().put(0, round * 2 + 1).unwrap();
        loop {
            let since = region.version().unwrap();
            if region.read().unwrap().get::<u64>(0).unwrap() == round * 2 + 2 {
                break;
            }
            region.wait_changed(since, Instant::now() + testkit::DEADLINE).unwrap();
        }
    }
    // Were each wake-up lost, the sleeps' bounds alone would make it twenty seconds.
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    peer.finish();
}
