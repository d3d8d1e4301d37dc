//! How long the next one waits for the lock of a holder that was killed, one at a time.

use std::time::{Duration, Instant};

use mmf::{LockError, Name, Region};

use crate::{Peer, TempDir, peer, sys, unique_name};

/// Who is killed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Victim {
    /// Bytes of memory that it has filled, which the system takes back.
    pub resident: u64,
    /// Whether it writes all of them to a file as it dies.
    pub dumps_core: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct HandoverTimes {
    /// From the kill to the lock, sorted.
    pub waits: Vec<Duration>,
    /// From when the system had released the dead process, sorted; 0 where the lock was had before
    /// that was known.
    pub after_release: Vec<Duration>,
}

/// The role of who takes the write lock, begins a change, says so and waits for its death.
/// Arguments: the region's name, bytes of memory to be filled before, and the directory for a core
/// dump if there is to be one.
pub fn holder(args: &[&str]) {
    let region = Region::open(Name::local(args[0]).expect("a name")).expect("the region");
    let resident = vec![1_u8; args[1].parse().expect("a number of bytes")];
    if let Some(directory) = args.get(2) {
        sys::allow_core_dump(directory);
    }
    let mut guard = region.write().or_else(LockError::into_guard).expect("the lock");
    guard.write_at(0, &[resident.last().copied().unwrap_or(1)]).expect("room for a byte");
    peer::say("inside");
    peer::hear();
}

/// Kills such a holder `kills` times, while a thread waits for its lock.
///
/// The binary must play the role [`holder`] by that name.
///
/// # Panics
///
/// If the lock is not obtained, or without the report of poison; if the system writes no core dump
/// where one is wanted.
#[must_use]
pub fn measure_handover(kills: usize, victim: Victim) -> HandoverTimes {
    let text = unique_name("handover");
    let name = Name::local(&text).expect("a name");
    let region = Region::options().capacity(4096).timeout(None).create_new(&name).expect("a region");
    let mut times = HandoverTimes { waits: Vec::with_capacity(kills), after_release: Vec::with_capacity(kills) };
    for _ in 0..kills {
        let directory = victim.dumps_core.then(TempDir::new);
        let mut args = vec![text.clone(), victim.resident.to_string()];
        args.extend(directory.iter().map(|directory| directory.path().display().to_string()));
        let mut holder = Peer::spawn("holder", &args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(holder.expect_line_within(Duration::from_secs(60)), "inside");
        let (killed, released, got) = std::thread::scope(|scope| {
            let heir = scope.spawn(|| {
                let result = region.write();
                let now = Instant::now();
                match result {
                    Err(LockError::Poisoned(_)) => region.clear_poison().expect("room for a clear word"),
                    other => panic!("no poison: {:?}", other.err()),
                }
                now
            });
            // Asleep by then, and asking ever more rarely.
            std::thread::sleep(Duration::from_millis(5));
            let killed = Instant::now();
            if victim.dumps_core {
                sys::dump_core(holder.pid());
            } else {
                holder.kill();
            }
            holder.wait();
            let released = Instant::now();
            (killed, released, heir.join().expect("the heir"))
        });
        if let Some(directory) = directory {
            let dumped = std::fs::read_dir(directory.path()).expect("the directory").filter_map(Result::ok);
            let size: u64 = dumped.filter_map(|file| file.metadata().ok()).map(|data| data.len()).sum();
            assert!(size >= victim.resident, "a core dump of {size} bytes; see /proc/sys/kernel/core_pattern");
        }
        times.waits.push(got - killed);
        times.after_release.push(got.saturating_duration_since(released));
    }
    times.waits.sort_unstable();
    times.after_release.sort_unstable();
    times
}
