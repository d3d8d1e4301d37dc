//! Regions between processes that read, write and die.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mmf::{Access, ErrorKind, LockError, Mapping, Name, Region, Source};
use testkit::{Peer, TempDir, Watchdog, unique_name};

testkit::peers! { writer, dies_inside, dies_reading, dies_waiting, churn, turns }

/// Where a story's region is, as peers are told it.
struct Place {
    text: String,
    _dir: Option<TempDir>,
}

impl Place {
    fn named() -> Place {
        Place { text: format!("name:{}", unique_name("region")), _dir: None }
    }

    fn in_file() -> Place {
        let dir = TempDir::new();
        Place { text: format!("file:{}", dir.join("region").display()), _dir: Some(dir) }
    }

    fn source(&self) -> Source {
        source(&self.text)
    }
}

fn source(text: &str) -> Source {
    match text.split_once(':').unwrap() {
        ("file", path) => Source::File(path.into()),
        (_, name) => Name::local(name).unwrap().into(),
    }
}

/// Each story twice.
macro_rules! stories {
    ($($story:ident),+ $(,)?) => {
        mod named {
            $(#[test] fn $story() { super::$story(&super::Place::named()); })+
        }
        mod in_a_file {
            $(#[test] fn $story() { super::$story(&super::Place::in_file()); })+
        }
    };
}
stories! {
    what_one_process_sets_another_reads_at_its_length,
    a_change_wakes_who_waits_for_it,
    a_change_wakes_every_thread_that_waits_for_it,
    two_processes_pass_a_turn,
    a_writer_that_dies_leaves_its_lock_and_poison,
    a_writer_that_dies_is_noticed_by_those_who_only_look,
    a_reader_that_dies_costs_nobody_anything,
    a_reader_in_any_place_keeps_writers_out,
    a_writer_that_dies_waiting_leaves_the_readers_inside,
    a_panic_under_a_write_guard_poisons,
    taking_it_twice_in_a_thread_is_an_error,
    contents_grow_to_the_capacity_and_everybody_sees_it,
    a_raw_mapping_is_no_region,
    who_waits_is_shown_until_it_is_over,
    what_is_synced_stays_and_only_writers_sync,
    deaths_at_random_moments_lose_nothing,
    a_writer_that_no_segment_has_keeps_nobody_out,
}

fn who_waits_is_shown_until_it_is_over(place: &Place) {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let region = Region::create_new(place.source(), 1 << 20).unwrap();
    let others = &Region::open(place.source()).unwrap();
    // Of the handle that others use: who waits for the lock, and for a change.
    let shown = || {
        let participants = region.status().unwrap().participants;
        participants
            .iter()
            .map(|one| (one.waiting, one.watching))
            .fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    };
    let comes_to = |wanted: (u32, u32)| {
        while shown() != wanted {
            std::thread::yield_now();
        }
    };
    let guard = region.write().unwrap();
    std::thread::scope(|scope| {
        for write in [false, false, true] {
            scope.spawn(move || if write { drop(others.write().unwrap()) } else { drop(others.read().unwrap()) });
        }
        comes_to((3, 0));
        let since = region.version().unwrap();
        let watches = scope.spawn(move || others.wait_changed(since, Instant::now() + testkit::DEADLINE).unwrap());
        comes_to((3, 1));
        let mut guard = guard;
        guard.set(b"news").unwrap();
        drop(guard);
        watches.join().unwrap();
    });
    assert_eq!(shown(), (0, 0));
    // A wait in vain is over too.
    let guard = region.write().unwrap();
    assert!(others.read_for(Duration::from_millis(20)).is_err());
    assert_eq!(shown(), (0, 0));
    drop(guard);
}

fn what_is_synced_stays_and_only_writers_sync(place: &Place) {
    let region = Region::create_new(place.source(), 1 << 20).unwrap();
    region.sync().unwrap();
    let other = Region::open(place.source()).unwrap();
    other.write().unwrap().set(&[7; 100_000]).unwrap();
    // Longer than this handle knows.
    region.sync().unwrap();
    let guard = other.write().unwrap();
    region.sync().unwrap();
    drop(guard);
    if let Source::File(path) = place.source() {
        assert!(std::fs::read(path).unwrap().windows(100_000).any(|bytes| bytes == [7; 100_000]));
    }
    let reader = Region::options().access(Access::ReadOnly).open(place.source()).unwrap();
    assert_eq!(*reader.sync().unwrap_err().kind(), ErrorKind::ReadOnly);
}

fn writer(args: &[&str]) {
    let region = Region::open(source(args[0])).unwrap();
    while let Some(line) = testkit::peer::hear() {
        region.write().unwrap().set(line.as_bytes()).unwrap();
        testkit::peer::say("written");
    }
}

fn dies_inside(args: &[&str]) {
    let region = Region::open(source(args[0])).unwrap();
    let mut guard = region.write().unwrap();
    guard.write_at(0, b"half").unwrap();
    testkit::peer::say("inside");
    testkit::peer::hear();
}

fn dies_reading(args: &[&str]) {
    let region = Region::open(source(args[0])).unwrap();
    let _guard = region.read().unwrap();
    testkit::peer::say("inside");
    testkit::peer::hear();
}

fn what_one_process_sets_another_reads_at_its_length(place: &Place) {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let region = Region::create_new(place.source(), 1 << 20).unwrap();
    assert!(region.read().unwrap().is_empty().unwrap());
    let mut peer = Peer::spawn("writer", &[&place.text]);
    for text in ["hello", "hi"] {
        let before = region.version().unwrap();
        peer.send(text);
        peer.expect("written");
        assert_eq!(region.to_vec().unwrap(), text.as_bytes());
        assert_ne!(region.version().unwrap(), before);
    }
    let watcher = Region::options().access(Access::ReadOnly).open(place.source()).unwrap();
    assert_eq!(watcher.to_vec().unwrap(), b"hi");
    peer.finish();
}

fn a_change_wakes_who_waits_for_it(place: &Place) {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let region = Region::create_new(place.source(), 1 << 20).unwrap();
    let mut peer = Peer::spawn("writer", &[&place.text]);
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

fn a_change_wakes_every_thread_that_waits_for_it(place: &Place) {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let region = Region::create_new(place.source(), 1 << 20).unwrap();
    let mut peer = Peer::spawn("writer", &[&place.text]);
    for round in 0..20 {
        let since = region.version().unwrap();
        std::thread::scope(|scope| {
            let wait = || region.wait_changed(since, Instant::now() + testkit::DEADLINE).unwrap();
            let waiting: Vec<_> = (0..5).map(|_| scope.spawn(wait)).collect();
            peer.send(round);
            for thread in waiting {
                assert!(thread.join().unwrap() > since);
            }
        });
        peer.expect("written");
    }
    peer.finish();
}

/// Makes every odd number of the count even, until it is as high as it shall be.
fn turns(args: &[&str]) {
    let region = Region::open(source(args[0])).unwrap();
    take_turns(&region, 1, args[1].parse().unwrap());
}

/// Counts on whenever it is this one's turn, sleeping until it is.
fn take_turns(region: &Region, mine: u64, most: u64) {
    loop {
        let since = region.version().unwrap();
        let turn = region.read().unwrap().get::<u64>(0).unwrap();
        if turn >= most {
            return;
        }
        if turn % 2 == mine {
            region.write().unwrap().put(0, turn + 1).unwrap();
        } else {
            region.wait_changed(since, Instant::now() + testkit::DEADLINE).unwrap();
        }
    }
}

fn two_processes_pass_a_turn(place: &Place) {
    const TURNS: u64 = 2000;
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let region = Region::create_new(place.source(), 4096).unwrap();
    region.write().unwrap().put(0, 0_u64).unwrap();
    let peer = Peer::spawn("turns", &[&place.text, &TURNS.to_string()]);
    take_turns(&region, 0, 2);
    let since = Instant::now();
    take_turns(&region, 0, TURNS);
    // A wake-up that is lost costs 50 ms; were every tenth, it would be 10 s.
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    println!("{:.0} round trips/s", TURNS as f64 / 2.0 / since.elapsed().as_secs_f64());
    peer.finish();
}

fn a_writer_that_dies_leaves_its_lock_and_poison(place: &Place) {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let region = Region::create_new(place.source(), 1 << 20).unwrap();
    region.write().unwrap().set(b"whole").unwrap();
    let mut peer = Peer::spawn("dies_inside", &[&place.text]);
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

/// Nobody clears up.
fn a_writer_that_dies_is_noticed_by_those_who_only_look(place: &Place) {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let _region = Region::create_new(place.source(), 1 << 20).unwrap();
    let reader = Region::options().access(Access::ReadOnly).open(place.source()).unwrap();
    let mut peer = Peer::spawn("dies_inside", &[&place.text]);
    peer.expect("inside");
    peer.kill();
    assert_eq!(*reader.to_vec().unwrap_err().kind(), ErrorKind::Poisoned);
    assert!(reader.is_poisoned().unwrap() && reader.status().unwrap().poisoned);
}

fn a_reader_that_dies_costs_nobody_anything(place: &Place) {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let region = Region::create_new(place.source(), 1 << 20).unwrap();
    let mut peer = Peer::spawn("dies_reading", &[&place.text]);
    peer.expect("inside");
    assert!(region.try_write().is_err());
    peer.kill();
    region.write().unwrap().set(b"on").unwrap();
    assert!(!region.is_poisoned().unwrap());
}

/// Holds a read lock of `region` in another thread while `what` runs.
fn while_read(region: &Region, what: impl FnOnce()) {
    let (inside, is_inside) = std::sync::mpsc::channel();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _guard = region.read().unwrap();
            inside.send(()).unwrap();
            // Ends as well where `what` panics.
            let _ = is_done.recv();
        });
        is_inside.recv().unwrap();
        let _done = done;
        what();
    });
}

fn is_timeout<G>(result: Result<G, LockError<G>>) -> bool {
    matches!(result, Err(LockError::Failed(error)) if matches!(error.kind(), ErrorKind::Timeout { .. } | ErrorKind::WouldBlock))
}

/// Each in turn, so that what one leaves in the lock's word is what the next one finds.
fn a_reader_in_any_place_keeps_writers_out(place: &Place) {
    let region = Region::create_new(place.source(), 4096).unwrap();
    // More than one word has bits for.
    let handles: Vec<Region> = (0..70).map(|_| Region::open(place.source()).unwrap()).collect();
    for handle in &handles {
        drop(handle.read().unwrap());
    }
    for handle in &handles {
        while_read(handle, || {
            assert!(is_timeout(region.try_write()));
            drop(region.try_read().unwrap());
        });
        drop(region.write().unwrap());
    }
}

fn dies_waiting(args: &[&str]) {
    let region = Region::open(source(args[0])).unwrap();
    testkit::peer::say("waits");
    let _guard = region.write().unwrap();
}

fn a_writer_that_dies_waiting_leaves_the_readers_inside(place: &Place) {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let region = Region::create_new(place.source(), 4096).unwrap();
    let is_writing = || region.status().unwrap().participants.iter().any(|participant| participant.writing);
    while_read(&region, || {
        let mut peer = Peer::spawn("dies_waiting", &[&place.text]);
        peer.expect("waits");
        while !is_writing() {
            std::thread::yield_now();
        }
        peer.kill();
        while is_writing() {
            assert!(is_timeout(region.write_for(Duration::from_millis(30))));
        }
        assert!(is_timeout(region.write_for(Duration::from_millis(30))));
    });
    drop(region.write().unwrap());
}

fn a_panic_under_a_write_guard_poisons(place: &Place) {
    let region = Region::create_new(place.source(), 4096).unwrap();
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut guard = region.write().unwrap();
        guard.set(b"x").unwrap();
        panic!("meant");
    }));
    assert!(matches!(region.read(), Err(LockError::Poisoned(_))));
}

fn taking_it_twice_in_a_thread_is_an_error(place: &Place) {
    let region = Region::create_new(place.source(), 4096).unwrap();
    let other = Region::open(place.source()).unwrap();
    let guard = region.read().unwrap();
    for again in [region.read().err().unwrap(), other.read().err().unwrap()] {
        let LockError::Failed(error) = again else { panic!("locked") };
        assert_eq!(*error.kind(), ErrorKind::Deadlock);
    }
    drop(guard);
    assert!(other.write().is_ok());
}

fn contents_grow_to_the_capacity_and_everybody_sees_it(place: &Place) {
    let region = Region::create_new(place.source(), 1 << 20).unwrap();
    let other = Region::open(place.source()).unwrap();
    let big = vec![7; 1 << 20];
    other.write().unwrap().set(&big).unwrap();
    assert_eq!(region.to_vec().unwrap(), big);
    let error = region.write().unwrap().set(&vec![8; (1 << 20) + 1]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
    assert_eq!(region.to_vec().unwrap(), big);
}

fn a_raw_mapping_is_no_region(place: &Place) {
    let _raw = Mapping::create_new(place.source(), 1 << 16).unwrap();
    assert!(matches!(Region::open(place.source()).err().unwrap().kind(), ErrorKind::NotASegment { .. }));
}

/// Reads and writes a pair that must agree, until it is killed.
fn churn(args: &[&str]) {
    let region = Region::open(source(args[0])).unwrap();
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
            if poisoned {
                // With the lock in hand: what the next writer's death reports must not be cleared.
                region.clear_poison().unwrap();
            }
            drop(guard);
        } else {
            match region.read() {
                Ok(guard) => assert_eq!(guard.get::<u64>(0).unwrap(), guard.get::<u64>(8).unwrap()),
                Err(LockError::Poisoned(_)) => {}
                Err(LockError::Failed(error)) => panic!("{error}"),
            }
        }
    }
}

fn deaths_at_random_moments_lose_nothing(place: &Place) {
    const PEERS: usize = 3;
    const KILLS: usize = 100;
    let _watchdog = Watchdog::start(testkit::DEADLINE * 4);
    let region = Region::create_new(place.source(), 4096).unwrap();
    region.write().unwrap().set(&[0; 16]).unwrap();
    let spawn = || {
        let mut peer = Peer::spawn("churn", &[&place.text]);
        peer.expect("up");
        peer
    };
    let mut peers: Vec<Peer> = (0..PEERS).map(|_| spawn()).collect();
    let (mut last, mut longest) = (0, Duration::ZERO);
    let began = Instant::now();
    let mut round = 0;
    // Starting a process takes long on some systems, and longer where others work too.
    while round < KILLS && (round <= KILLS / 4 || began.elapsed() < Duration::from_secs(50)) {
        let mut victim = std::mem::replace(&mut peers[round % PEERS], spawn());
        round += 1;
        victim.kill();
        let since = Instant::now();
        let guard = match region.read() {
            Ok(guard) | Err(LockError::Poisoned(guard)) => guard,
            Err(LockError::Failed(error)) => panic!("{error}"),
        };
        longest = longest.max(since.elapsed());
        let now = guard.get::<u64>(0).unwrap();
        assert!(now >= last, "{now} {last}");
        last = now;
    }
    println!("{round} kills, {last} writes, longest wait {longest:?}");
    assert!(last > round as u64, "{last} writes");
    // A busy machine holds processes up; `testkit torture` measures the waits.
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    for mut peer in peers {
        peer.kill();
    }
}

/// Whoever may write the object may write any number into the lock's word.
fn a_writer_that_no_segment_has_keeps_nobody_out(place: &Place) {
    // Where the format has the lock's word, and the version, which is odd while a change is under way.
    let (lock, version) = (2048, 2056);
    let region = Region::create_new(place.source(), 1 << 16).unwrap();
    let raw = Mapping::open(place.source()).unwrap();
    for nobody in [257_u32, 1000, 0xffff] {
        raw.store(lock, u64::from(nobody), Ordering::SeqCst).unwrap();
        raw.store(version, 2_u64, Ordering::SeqCst).unwrap();
        drop(region.write().unwrap());
        drop(region.read().unwrap());
        raw.store(lock, u64::from(nobody), Ordering::SeqCst).unwrap();
        raw.store(version, 3_u64, Ordering::SeqCst).unwrap();
        assert!(matches!(region.read(), Err(LockError::Poisoned(_))), "{nobody}");
        region.clear_poison().unwrap();
    }
}
