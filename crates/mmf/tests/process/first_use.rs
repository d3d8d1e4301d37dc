//! Forks while another thread uses the library for the first time. The child has a copy of every
//! lock that the thread holds at that moment, and not the thread.
//!
//! 1. The story's process never uses mmf itself. It forks *users*, whose copy of mmf has not been
//!    used either.
//! 2. Each user starts a thread that uses mmf, and forks children at random moments of that first
//!    use.
//! 3. Each child uses mmf in the same way. A child that hangs is ended by its alarm.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mmf::{Dict, Name, Region};

use crate::support::stories::{story, tells};
use crate::support::system::fork;

testkit::peers! {
    forks_in_first_use
}

/// Children of each user: the first use is over before most forks that come later.
const CHILDREN: u32 = 2;
/// How long a child may take for what takes less than a millisecond on an idle machine.
const ALARM: u32 = 20;
/// The longest that a fork is delayed after the other thread began.
const LONGEST_DELAY: Duration = Duration::from_micros(400);

/// Forks in one run of the test; `MMF_FORKS=10000` for the long form.
fn forks() -> u32 {
    std::env::var("MMF_FORKS").ok().and_then(|forks| forks.parse().ok()).unwrap_or(1000)
}

/// A name of this process's own; `testkit::unique_name` has a first use, too.
fn name(kind: &str) -> Name {
    Name::local(format!("first-use-{kind}-{}", std::process::id())).unwrap()
}

/// Uses all that the library sets up at its first use: fault handlers, fork handlers, the boot's
/// id, tokens.
fn use_it() {
    let region = Region::create_new(name("region"), 4096).unwrap();
    region.write().unwrap().write_at(0, b"first").unwrap();
    drop(region);
    let dict = Dict::create_new(name("dict"), 1 << 20).unwrap();
    dict.set_bytes("key", b"value").unwrap();
    assert_eq!(dict.get_bytes("key").unwrap().unwrap(), b"value");
}

/// Waits for so long without giving the processor away.
fn spin(time: Duration) {
    let since = Instant::now();
    while since.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Gives how many children did not end as they should.
fn user(mut random: u64) -> i32 {
    let mut failed = 0;
    let begun = &AtomicBool::new(false);
    std::thread::scope(|threads| {
        let thread = threads.spawn(move || {
            begun.store(true, Ordering::SeqCst);
            use_it();
        });
        while !begun.load(Ordering::SeqCst) {
            std::hint::spin_loop();
        }
        for _ in 0..CHILDREN {
            // xorshift64
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            spin(Duration::from_nanos(random % u64::try_from(LONGEST_DELAY.as_nanos()).unwrap()));
            let child = fork(|| {
                // SAFETY: takes a number only.
                unsafe { libc::alarm(ALARM) };
                use_it();
                0
            });
            failed += i32::from(child.code() != Some(0));
        }
        thread.join().expect("the thread that uses it first");
    });
    failed
}

#[test]
fn a_child_forked_in_another_threads_first_use_does_not_hang() {
    story("forks_in_first_use");
}

fn forks_in_first_use(_: &[&str]) {
    tells(|| {
        let seed = u64::from(std::process::id()) << 32 | 0x9e37_79b9;
        let mut failed = 0;
        for round in 0..forks() / CHILDREN {
            let child = fork(|| user(seed.wrapping_mul(u64::from(round) * 2 + 1)));
            failed += child.code().expect("a user that ends");
            assert!(failed < 3, "{failed} children failed in {} forks", (round + 1) * CHILDREN);
            if round % 20 == 0 {
                eprintln!("{} forks", (round + 1) * CHILDREN);
            }
        }
        assert_eq!(failed, 0, "children failed in {} forks", forks());
    });
}
