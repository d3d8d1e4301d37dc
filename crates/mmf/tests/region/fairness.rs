//! Fairness: each of many threads and processes gets the lock again and again.

use std::time::Duration;

use mmf::{Name, Region};
use testkit::fairness::{Fairness, contender};
use testkit::{Peer, Watchdog, unique_name};

testkit::peers! { contender, one_of_many }

#[test]
fn neither_readers_nor_writers_starve() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 9);
    let fair = Fairness { readers: 6, writers: 3, time: Duration::from_secs(2) }.run();
    println!("readers: {}\nwriters: {}", fair.readers, fair.writers);
    for shares in [&fair.readers, &fair.writers] {
        // Ten times what the slowest machine showed.
        assert!(shares.longest < Duration::from_secs(10), "{shares}");
        // Thousands each, if the system lets each run; one that starves gets a handful.
        assert!(shares.least() > 20, "{shares}");
    }
}

const TURNS: u64 = 10;

/// Reads, and counts one further, each turn.
fn one_of_many(args: &[&str]) {
    let region = Region::options().timeout(Some(testkit::DEADLINE * 4)).open(Name::local(args[0]).unwrap()).unwrap();
    testkit::peer::line_up("start");
    for _ in 0..TURNS {
        let mut guard = region.write().unwrap();
        let sum = guard.get::<u64>(0).unwrap();
        guard.put(0, sum + 1).unwrap();
        drop(guard);
        assert!(region.read().unwrap().get::<u64>(0).unwrap() > sum);
    }
    testkit::peer::line_up("done");
}

#[test]
fn hundreds_of_processes_use_one_region() {
    // Under Wine each takes a quarter of a second to start.
    const PROCESSES: usize = if cfg!(windows) { 20 } else { 200 };
    let _watchdog = Watchdog::start(testkit::DEADLINE * 9);
    let text = unique_name("crowd");
    let region = Region::create_new(Name::local(&text).unwrap(), 4096).unwrap();
    region.write().unwrap().put(0, 0_u64).unwrap();
    let mut peers: Vec<Peer> = (0..PROCESSES).map(|_| Peer::spawn("one_of_many", &[&text])).collect();
    testkit::release("start", &mut peers);
    for peer in &mut peers {
        peer.expect("done");
    }
    assert_eq!(region.read().unwrap().get::<u64>(0).unwrap(), PROCESSES as u64 * TURNS);
    // All take part at the same time, and leave.
    assert_eq!(region.status().unwrap().participants.len(), PROCESSES + 1);
    for mut peer in peers {
        peer.send("done");
        peer.finish();
    }
    assert_eq!(region.status().unwrap().participants.len(), 1);
}
