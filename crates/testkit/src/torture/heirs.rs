//! How long the next one waits for the lock of a holder that was killed, one at a time.

use std::time::{Duration, Instant};

use mmf::{LockError, Name, Region};

use crate::{Peer, peer, unique_name};

/// What came of it.
#[derive(Clone, Debug)]
pub struct Heirs {
    /// From the kill to the lock, sorted.
    pub waits: Vec<Duration>,
}

/// The role of who takes the write lock, begins a change, says so and waits for its death. Arguments: the region's name,
/// and bytes of memory to be filled before.
pub fn holder(args: &[&str]) {
    let region = Region::open(Name::local(args[0]).expect("a name")).expect("the region");
    let resident = vec![1_u8; args[1].parse().expect("a number of bytes")];
    let mut guard = region.write().or_else(LockError::into_guard).expect("the lock");
    guard.write_at(0, &[resident.last().copied().unwrap_or(1)]).expect("room for a byte");
    peer::say("inside");
    peer::hear();
}

/// Kills a holder, with so many bytes resident, `kills` times, while a thread waits for its lock.
///
/// The binary must play the role [`holder`] by that name.
///
/// # Panics
///
/// If the lock is not obtained, or without the report of poison.
#[must_use]
pub fn inherit(kills: usize, resident: u64) -> Heirs {
    let text = unique_name("heirs");
    let name = Name::local(&text).expect("a name");
    let region = Region::create_new(&name, 4096).expect("a region");
    let mut waits = Vec::with_capacity(kills);
    let spawn = || Peer::spawn("holder", &[&text, &resident.to_string()]);
    for _ in 0..kills {
        let mut holder = spawn();
        assert_eq!(holder.expect_line_within(Duration::from_secs(60)), "inside");
        let killed = std::thread::scope(|scope| {
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
            holder.kill();
            heir.join().map(|got| got - killed).expect("the heir")
        });
        waits.push(killed);
    }
    waits.sort_unstable();
    Heirs { waits }
}
