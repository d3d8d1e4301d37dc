//! Regions: locked bytes between processes that read, write and die.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed check is a failed test")]

use std::time::{Duration, Instant};

use mmf::{Access, ErrorKind, LockError, Mapping, Name, Region};
use testkit::{Peer, Watchdog, unique_name};

testkit::peers! { writer, dies_inside, dies_reading, churn }

fn name() -> Name {
    Name::local(unique_name("region")).unwrap()
}

fn writer(args: &[&str]) {
    let region = Region::open(Name::local(args[0]).unwrap()).unwrap();
    while let Some(line) = testkit::peer::hear() {
        region.write().unwrap().set(line.as_bytes()).unwrap();
        testkit::peer::say("written");
    }
}

fn dies_inside(args: &[&str]) {
    let region = Region::open(Name::local(args[0]).unwrap()).unwrap();
    let mut guard = region.write().unwrap();
    guard.write_at(0, b"half").unwrap();
    testkit::peer::say("inside");
    testkit::peer::hear();
}

fn dies_reading(args: &[&str]) {
    let region = Region::open(Name::local(args[0]).unwrap()).unwrap();
    let _guard = region.read().unwrap();
    testkit::peer::say("inside");
    testkit::peer::hear();
}

#[test]
fn what_one_process_sets_another_reads_at_its_length() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let name = name();
    let region = Region::create_new(&name, 1 << 20).unwrap();
    assert!(region.read().unwrap().is_empty().unwrap());
    let mut peer = Peer::spawn("writer", &[name.as_str()]);
    for text in ["hello", "hi"] {
        let before = region.version().unwrap();
        peer.send(text);
        peer.expect("written");
        assert_eq!(region.to_vec().unwrap(), text.as_bytes());
        assert_ne!(region.version().unwrap(), before);
    }
    let watcher = Region::options().access(Access::ReadOnly).open(&name).unwrap();
    assert_eq!(watcher.to_vec().unwrap(), b"hi");
    peer.finish();
}

#[test]
fn a_change_wakes_who_waits_for_it() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let name = name();
    let region = Region::create_new(&name, 1 << 20).unwrap();
    let mut peer = Peer::spawn("writer", &[name.as_str()]);
    let since = region.version().unwrap();
    peer.send("news");
    let version = region.wait_changed(since, Instant::now() + testkit::DEADLINE).unwrap();
    assert!(version > since);
    let soon = Instant::now() + Duration::from_millis(20);
    peer.expect("written");
    let version = region.version().unwrap();
    assert!(matches!(region.wait_changed(version, soon).unwrap_err().kind(), ErrorKind::Timeout { .. }));
    peer.finish();
}

#[test]
fn a_writer_that_dies_leaves_its_lock_and_poison() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let name = name();
    let region = Region::create_new(&name, 1 << 20).unwrap();
    region.write().unwrap().set(b"whole").unwrap();
    let mut peer = Peer::spawn("dies_inside", &[name.as_str()]);
    peer.expect("inside");
    let LockError::Failed(error) = region.read_for(Duration::from_millis(50)).err().unwrap() else { panic!("locked") };
    let ErrorKind::Timeout { holder: Some(holder) } = error.kind() else { panic!("{error}") };
    assert_eq!(holder.process, peer.pid());
    peer.kill();
    let since = Instant::now();
    match region.write() {
        Err(LockError::Poisoned(mut guard)) => {
            assert_eq!(guard.to_vec().unwrap(), b"halfe");
            guard.set(b"mended").unwrap();
        }
        other => panic!("{:?}", other.err()),
    }
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    assert!(region.is_poisoned().unwrap());
    region.clear_poison().unwrap();
    assert_eq!(region.to_vec().unwrap(), b"mended");
}

#[test]
fn a_reader_that_dies_costs_nobody_anything() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let name = name();
    let region = Region::create_new(&name, 1 << 20).unwrap();
    let mut peer = Peer::spawn("dies_reading", &[name.as_str()]);
    peer.expect("inside");
    assert!(region.try_write().is_err());
    peer.kill();
    region.write().unwrap().set(b"on").unwrap();
    assert!(!region.is_poisoned().unwrap());
}

#[test]
fn a_panic_under_a_write_guard_poisons() {
    let name = name();
    let region = Region::create_new(&name, 4096).unwrap();
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut guard = region.write().unwrap();
        guard.set(b"x").unwrap();
        panic!("meant");
    }));
    assert!(matches!(region.read(), Err(LockError::Poisoned(_))));
}

#[test]
fn taking_it_twice_in_a_thread_is_an_error() {
    let name = name();
    let region = Region::create_new(&name, 4096).unwrap();
    let other = Region::open(&name).unwrap();
    let guard = region.read().unwrap();
    for again in [region.read().err().unwrap(), other.read().err().unwrap()] {
        let LockError::Failed(error) = again else { panic!("locked") };
        assert_eq!(*error.kind(), ErrorKind::Deadlock);
    }
    drop(guard);
    assert!(other.write().is_ok());
}

#[test]
fn contents_grow_to_the_capacity_and_everybody_sees_it() {
    let name = name();
    let region = Region::create_new(&name, 1 << 20).unwrap();
    let other = Region::open(&name).unwrap();
    let big = vec![7; 1 << 20];
    other.write().unwrap().set(&big).unwrap();
    assert_eq!(region.to_vec().unwrap(), big);
    let error = region.write().unwrap().set(&vec![8; (1 << 20) + 1]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
    assert_eq!(region.to_vec().unwrap(), big);
}

#[test]
fn a_raw_mapping_is_no_region() {
    let name = name();
    let _raw = Mapping::create_new(&name, 1 << 16).unwrap();
    assert!(matches!(Region::open(&name).err().unwrap().kind(), ErrorKind::NotASegment { .. }));
}

/// Reads and writes a pair that must agree, until it is killed.
fn churn(args: &[&str]) {
    let region = Region::open(Name::local(args[0]).unwrap()).unwrap();
    let mut turn = u64::from(std::process::id());
    testkit::peer::say("up");
    loop {
        turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if turn >> 62 == 0 {
            let (mut guard, poisoned) = match region.write() {
                Ok(guard) => (guard, false),
                Err(LockError::Poisoned(guard)) => (guard, true),
                Err(LockError::Failed(error)) => panic!("{error}"),
            };
            let (a, b): (u64, u64) = (guard.get(0).unwrap(), guard.get(8).unwrap());
            assert!(poisoned || a == b, "{a} {b}");
            guard.put(0, a.max(b) + 1).unwrap();
            guard.put(8, a.max(b) + 1).unwrap();
            drop(guard);
            if poisoned {
                region.clear_poison().unwrap();
            }
        } else {
            match region.read() {
                Ok(guard) => assert_eq!(guard.get::<u64>(0).unwrap(), guard.get::<u64>(8).unwrap()),
                Err(LockError::Poisoned(_)) => {}
                Err(LockError::Failed(error)) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn deaths_at_random_moments_lose_nothing() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 4);
    let name = name();
    let region = Region::create_new(&name, 4096).unwrap();
    region.write().unwrap().set(&[0; 16]).unwrap();
    let spawn = || {
        let mut peer = Peer::spawn("churn", &[name.as_str()]);
        peer.expect("up");
        peer
    };
    let mut peers: Vec<Peer> = (0..6).map(|_| spawn()).collect();
    let mut last = 0;
    for round in 0..300_usize {
        let mut victim = std::mem::replace(&mut peers[round % 6], spawn());
        victim.kill();
        if round % 10 == 9 {
            let guard = match region.read() {
                Ok(guard) | Err(LockError::Poisoned(guard)) => guard,
                Err(LockError::Failed(error)) => panic!("{error}"),
            };
            let now = guard.get::<u64>(0).unwrap();
            assert!(now >= last, "{now} {last}");
            last = now;
        }
    }
    assert!(last > 300, "{last} writes");
    for mut peer in peers {
        peer.kill();
    }
}
