//! A name lives while some process holds it, however its holders end, and is gone after the last.
//!
//! Whether a file is left is checked on Unix, where objects are files. On Windows, the path is a
//! name of the kernel and never a file.

use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use mmf::{Access, ErrorKind, Mapping, Name};
use testkit::{Peer, Watchdog, peer, release, unique_name};

use crate::support::actor::{Actor, actor};
use crate::support::stories::{story, tells};

testkit::peers! {
    actor, three_holders, one_of_two, pairs_of_processes, pairs_of_threads, opener, opening_while_dropping, into_handle,
    exact_names, zeros_again
}

/// Bytes of an object: whole pages, so that Windows gives exactly that length too.
const SIZE: usize = 3 * 4096;

fn fresh() -> Name {
    Name::local(unique_name("life")).unwrap()
}

/// That nobody holds it any more. On Windows who lists an object has it open for an instant, as other tests do: there it
/// may take that long.
#[track_caller]
fn assert_gone(name: &Name, location: &str) {
    let since = Instant::now();
    let error = loop {
        match Mapping::open(name) {
            Err(error) => break error,
            Ok(map) => assert!(cfg!(windows) && since.elapsed() < testkit::DEADLINE, "it is still there: {map:?}"),
        }
    };
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
    assert!(!Path::new(location).exists(), "{location} is left");
}

/// As [`assert_gone`], seen by another process.
#[track_caller]
fn assert_gone_for(looker: &mut Actor, name: &Name) {
    let since = Instant::now();
    while cfg!(windows) && since.elapsed() < testkit::DEADLINE && looker.ask(&format!("open {name}")).starts_with("ok ")
    {
        looker.does("drop");
    }
    looker.is_refused(&format!("open {name}"), &ErrorKind::NotFound);
}

/// That another process finds it among those that live, or not. On Windows others may just be looking at it, as above; and
/// Wine tells one name at a time, so that one is missed while others come and go.
#[track_caller]
fn assert_listed(looker: &mut Actor, name: &Name, expected: bool) {
    let since = Instant::now();
    let mut listed = looker.does(&format!("listed {name}"));
    while cfg!(windows) && listed != expected.to_string() && since.elapsed() < testkit::DEADLINE {
        listed = looker.does(&format!("listed {name}"));
    }
    assert_eq!(listed, expected.to_string(), "whether {name} is listed");
}

fn location(map: &Mapping) -> String {
    map.info().unwrap().location.unwrap()
}

#[test]
fn a_name_lives_while_any_of_three_processes_holds_it_and_is_gone_after_the_last() {
    story("three_holders");
}

fn three_holders(_: &[&str]) {
    tells(|| {
        // Each of the three is the last once.
        for order in [[0, 1, 2], [1, 2, 0], [2, 0, 1]] {
            let name = fresh();
            let mut holders: Vec<Actor> = (0..3).map(|_| Actor::start()).collect();
            holders[0].does(&format!("create {name} size={SIZE}"));
            holders[0].does("write 100 hello");
            let location = holders[0].does("where");
            holders[1].does(&format!("open {name}"));
            holders[2].does(&format!("open {name} ro"));
            let mut looker = Actor::start();
            for who in order {
                looker.does(&format!("open {name} ro"));
                assert_eq!(looker.does("read 100 5"), "hello");
                looker.does("drop");
                assert_listed(&mut looker, &name, true);
                holders[who].does("drop");
            }
            assert!(!Path::new(&location).exists(), "{location} is left");
            assert_gone_for(&mut looker, &name);
            assert_listed(&mut looker, &name, false);
            looker.leaves();
            holders.into_iter().for_each(Actor::leaves);
        }
    });
}

#[test]
fn what_a_killed_last_holder_left_does_not_open_and_is_made_anew() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let name = fresh();
    let mut looker = Actor::start();
    for access in ["", " ro"] {
        let creator = Actor::who(&format!("create {name} size={SIZE}"));
        let mut last = Actor::who(&format!("open {name}{access}"));
        creator.dies();
        assert_listed(&mut last, &name, true);
        last.dies();
        assert_gone_for(&mut looker, &name);
        looker.is_refused(&format!("open {name} ro"), &ErrorKind::NotFound);
        looker.does(&format!("create {name} size={SIZE}"));
        assert_eq!(looker.does("zeros"), "true");
        looker.does("drop");
    }
    looker.leaves();
}

#[test]
fn a_killed_creator_can_be_followed_by_an_object_of_another_size() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let name = fresh();
    let mut creator = Actor::who(&format!("create {name} size={}", SIZE * 2));
    creator.does("write 0 old");
    creator.dies();
    let mut next = Actor::start();
    assert_gone_for(&mut next, &name);
    next.does(&format!("make {name} size={SIZE}"));
    assert_eq!(next.does(&format!("open {name}")), SIZE.to_string());
    assert_eq!(next.does("zeros"), "true");
    next.leaves();
}

#[test]
fn what_the_dead_left_is_not_listed() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let name = fresh();
    let mut looker = Actor::start();
    let mut holder = Actor::who(&format!("create {name} size={SIZE}"));
    let location = holder.does("where");
    assert_listed(&mut looker, &name, true);
    holder.dies();
    assert_listed(&mut looker, &name, false);
    assert!(!Path::new(&location).exists(), "{location} is left");
    looker.leaves();
}

/// Any process that creates in the same scope sweeps too, and other tests do so all the time: so it is tried until our
/// own sweep is the first. On Windows the system leaves nothing to be told of.
#[cfg(unix)]
#[test]
fn a_sweep_removes_what_the_dead_left_and_tells_its_name_and_size() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let mut sweeper = Actor::start();
    let told = (0..20).any(|_| {
        let name = fresh();
        let mut holder = Actor::who(&format!("create {name} size={SIZE}"));
        let location = holder.does("where");
        holder.dies();
        let told = sweeper.does(&format!("sweep {name}"));
        assert!(!Path::new(&location).exists(), "{location} is left");
        assert!(told == "unmet" || told == format!("met {SIZE} removed"), "{told}");
        told != "unmet"
    });
    assert!(told, "no sweep told of what it removed");
    sweeper.leaves();
}

#[test]
fn a_killed_holder_that_was_not_the_last_changes_nothing() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let name = fresh();
    let mut stays = Actor::who(&format!("create {name} size={SIZE}"));
    stays.does("write 7 hello");
    let mut goes = Actor::who(&format!("open {name}"));
    goes.does("write 12 world");
    goes.dies();
    let mut looker = Actor::who(&format!("open {name}"));
    assert_eq!(looker.does("read 7 10"), "helloworld");
    looker.is_refused(&format!("create {name} size={SIZE}"), &ErrorKind::AlreadyExists);
    assert!(!looker.does(&format!("sweep {name}")).contains("removed"));
    looker.leaves();
    assert_eq!(stays.does("read 7 10"), "helloworld");
    stays.leaves();
}

#[test]
fn a_read_only_holder_alone_keeps_the_name_and_is_the_last_to_take_it_away() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let name = fresh();
    let mut creator = Actor::who(&format!("create {name} size={SIZE}"));
    creator.does("write 0 kept");
    let location = creator.does("where");
    let mut reader = Actor::who(&format!("open {name} ro"));
    creator.does("drop");
    assert_listed(&mut creator, &name, true);
    creator.does(&format!("open {name}"));
    assert_eq!(creator.does("read 0 4"), "kept");
    creator.leaves();
    reader.is_refused("write 0 x", &ErrorKind::ReadOnly);
    reader.does("drop");
    assert!(!Path::new(&location).exists(), "{location} is left");
    assert_gone_for(&mut reader, &name);
    reader.leaves();
}

/// A holder that drops when it is let go.
fn one_of_two(_: &[&str]) {
    while let Some(name) = peer::hear() {
        let map = Mapping::open(Name::local(name).unwrap()).unwrap();
        peer::line_up("drop");
        drop(map);
        peer::say("dropped");
    }
}

#[test]
fn two_processes_that_are_the_last_and_drop_at_once_leave_nothing() {
    story("pairs_of_processes");
}

fn pairs_of_processes(_: &[&str]) {
    tells(|| {
        let mut pair = [Peer::spawn("one_of_two", &[]), Peer::spawn("one_of_two", &[])];
        for round in 0..200 {
            let name = fresh();
            let made = Mapping::create_new(&name, SIZE as u64).unwrap();
            let location = location(&made);
            pair.iter_mut().for_each(|peer| peer.send(name.as_str()));
            pair.iter_mut().for_each(|peer| peer.expect("drop"));
            // In every other round a third one stays, which nobody may take the name from.
            let stays = (round % 2 == 0).then_some(made);
            pair.iter_mut().for_each(|peer| peer.send("drop"));
            pair.iter_mut().for_each(|peer| peer.expect("dropped"));
            if let Some(stays) = stays {
                drop(Mapping::open(&name).expect("a third one holds it"));
                drop(stays);
            }
            assert_gone(&name, &location);
        }
        pair.into_iter().for_each(Peer::finish);
    });
}

#[test]
fn two_threads_that_are_the_last_and_drop_at_once_leave_nothing() {
    story("pairs_of_threads");
}

fn pairs_of_threads(_: &[&str]) {
    tells(|| {
        for round in 0..200 {
            let name = fresh();
            let made = Mapping::create_new(&name, SIZE as u64).unwrap();
            let location = location(&made);
            let pair = [Mapping::open(&name).unwrap(), Mapping::open(&name).unwrap()];
            let stays = (round % 2 == 0).then_some(made);
            let barrier = Barrier::new(2);
            thread::scope(|scope| {
                for map in pair {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        barrier.wait();
                        drop(map);
                    });
                }
            });
            if let Some(stays) = stays {
                drop(Mapping::open(&name).expect("a third one holds it"));
                drop(stays);
            }
            assert_gone(&name, &location);
        }
    });
}

#[test]
fn what_is_created_after_the_last_drop_holds_zeros_and_no_old_bytes() {
    story("zeros_again");
}

fn zeros_again(_: &[&str]) {
    tells(|| {
        let name = fresh();
        for size in [SIZE, SIZE, SIZE / 3, SIZE * 20, SIZE] {
            let map = Mapping::create_new(&name, size as u64).unwrap();
            assert_eq!(map.len(), size);
            assert!(map.read_to_vec(0, size).unwrap().iter().all(|byte| *byte == 0), "old bytes came back");
            map.fill(.., 0xA5).unwrap();
            let location = location(&map);
            drop(map);
            assert_gone(&name, &location);
        }
    });
}

/// Opens over and over: what it gets must work, and its name must stand as long as it is held.
fn opener(args: &[&str]) {
    let name = Name::local(args[0]).unwrap();
    let (mut opened, mut missed) = (0_u32, 0_u32);
    peer::line_up("start");
    // At least until both were seen, and not for ever.
    for _ in 0..200_000 {
        match Mapping::options().access(Access::ReadOnly).open(&name) {
            Ok(map) => {
                assert_eq!(map.len(), SIZE, "half made, or another one");
                let again = Mapping::open(&name).expect("the name of what is held");
                again.write_at(64, &opened.to_le_bytes()).unwrap();
                assert_eq!(map.read_to_vec(64, 4).unwrap(), opened.to_le_bytes(), "two objects of one name");
                opened += 1;
            }
            Err(error) => {
                assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
                missed += 1;
            }
        }
        if opened >= 300 && missed >= 300 {
            break;
        }
    }
    peer::say(format!("{} {}", opened > 0, missed > 0));
}

#[test]
fn opening_while_the_last_holder_drops_gives_a_name_that_stands_or_not_found() {
    story("opening_while_dropping");
}

fn opening_while_dropping(_: &[&str]) {
    tells(|| {
        let name = fresh();
        let mut opener = Peer::spawn("opener", &[name.as_str()]);
        release("start", [&mut opener]);
        let ended = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                    match Mapping::create_new(&name, SIZE as u64) {
                        Ok(map) => drop(map),
                        // The opener holds the one before.
                        Err(error) => assert_eq!(*error.kind(), ErrorKind::AlreadyExists, "{error}"),
                    }
                }
            });
            let line = opener.expect_line_within(testkit::DEADLINE * 4);
            ended.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(line, "true true", "the race was never run: opened, missed");
        });
        opener.finish();
    });
}

#[test]
fn what_is_kept_as_a_handle_keeps_its_bytes_and_not_its_name() {
    story("into_handle");
}

fn into_handle(_: &[&str]) {
    tells(|| {
        let name = fresh();
        let map = Mapping::create_new(&name, SIZE as u64).unwrap();
        map.write_at(SIZE - 4, b"kept").unwrap();
        let handle = map.into_handle();
        // On Windows the handle is the section's own, which is what keeps a name there.
        if cfg!(unix) {
            assert_eq!(*Mapping::open(&name).expect_err("no mapping holds it").kind(), ErrorKind::NotFound);
            let next = Mapping::create_new(&name, SIZE as u64).expect("the name is free");
            assert_eq!(next.read_to_vec(SIZE - 4, 4).unwrap(), [0; 4]);
        }
        let again = Mapping::options().from_handle(handle).unwrap();
        assert_eq!(again.read_to_vec(SIZE - 4, 4).unwrap(), b"kept");
        drop(again);
        assert_gone(&name, "");
    });
}

#[test]
fn an_exact_name_lives_by_the_systems_rule() {
    story("exact_names");
}

fn exact_names(_: &[&str]) {
    tells(|| {
        let plain = unique_name("exact");
        let name = Name::exact(if cfg!(windows) { format!("Local\\{plain}") } else { format!("/{plain}") }).unwrap();
        let map = Mapping::create_new(&name, SIZE as u64).unwrap();
        map.write_at(0, b"exact").unwrap();
        drop(map);
        if cfg!(windows) {
            assert_eq!(*Mapping::open(&name).unwrap_err().kind(), ErrorKind::NotFound);
            assert!(matches!(name.unlink().unwrap_err().kind(), ErrorKind::Unsupported { .. }));
            return;
        }
        // Neither a sweep nor a listing judges it.
        mmf::sweep().unwrap();
        assert!(mmf::list().unwrap().iter().all(|listed| listed.name.as_str() != plain));
        let error = Mapping::create_new(&name, SIZE as u64).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::AlreadyExists, "{error}");
        let again = Mapping::open(&name).unwrap();
        name.unlink().unwrap();
        assert_eq!(*name.unlink().unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(*Mapping::open(&name).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(again.read_to_vec(0, 5).unwrap(), b"exact", "who holds it keeps the memory");
    });
}
