//! Many processes create one object at the same instant, and some are killed during the creation.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mmf::{Access, ErrorKind, Mapping, MappingOptions, Name, Source};
use testkit::{Peer, TempDir, Watchdog, peer, release, unique_name};

use crate::support::actor::told;
use crate::support::stories::{story, tells};

testkit::peers! {
    racer, creator, looker, fifty_make, twenty_make_a_file, fifty_create, winners_killed, creators_killed
}

/// Bytes of a raced object: some pages, so that one half made would show.
const SIZE: usize = 64 << 10;
/// The length of an object whose creators are killed: it takes milliseconds to make.
const LARGE: usize = 64 << 20;
/// Where racers count themselves, and where the first leaves its number.
const COUNT: usize = 0;
const FIRST: usize = 8;
/// Behind the two is nothing but zeros.
const ZEROS: usize = 16;

fn source(text: &str) -> Source {
    match text.strip_prefix("file:") {
        Some(path) => Source::File(path.into()),
        None => Name::local(text).unwrap().into(),
    }
}

/// Races for each source that it is told, and says what it got: `LENGTH NUMBER-OF-THE-FIRST`, or the error. What it got
/// it holds until it hears `leave`, when it says how many it counted.
fn racer(args: &[&str]) {
    let number: u64 = args[0].parse().unwrap();
    while let Some(text) = peer::hear() {
        let options = Mapping::options().size(SIZE as u64);
        let race: fn(&MappingOptions, Source) -> mmf::Result<Mapping> =
            if args[1] == "create" { |options, source| options.create_new(source) } else { |o, s| o.open_or_create(s) };
        peer::line_up("start");
        match race(&options, source(&text)) {
            Err(error) => peer::say(told(&error)),
            Ok(map) => {
                assert!(map.read_to_vec(ZEROS, SIZE - ZEROS).unwrap().iter().all(|byte| *byte == 0), "not zeroed");
                map.fetch_add(COUNT, 1_u64, Ordering::SeqCst).unwrap();
                let first = map.compare_exchange(FIRST, 0, number, Ordering::SeqCst, Ordering::SeqCst).unwrap();
                peer::say(format!("{} {}", map.len(), first.err().unwrap_or(number)));
                assert_eq!(peer::hear().as_deref(), Some("leave"));
                peer::say(map.load::<u64>(COUNT, Ordering::SeqCst).unwrap());
            }
        }
    }
}

fn racers(count: usize, verb: &str) -> Vec<Peer> {
    (1..=count).map(|number| Peer::spawn("racer", &[&number.to_string(), verb])).collect()
}

/// Lets them race and gives what each said.
fn race(racers: &mut [Peer], source: &str) -> Vec<String> {
    racers.iter_mut().for_each(|racer| racer.send(source));
    release("start", racers.iter_mut());
    racers.iter_mut().map(Peer::expect_line).collect()
}

/// Checks that all have one and the same object, and lets them leave it.
#[track_caller]
fn assert_one_object(racers: &mut [Peer], said: &[String]) {
    assert!(said.iter().all(|line| *line == said[0]), "not one object, or not of full size: {said:?}");
    assert!(said[0].starts_with(&format!("{SIZE} ")), "{said:?}");
    racers.iter_mut().for_each(|racer| racer.send("leave"));
    for racer in racers.iter_mut() {
        assert_eq!(racer.expect_line(), said.len().to_string(), "some were counted in another object");
    }
}

#[test]
fn of_fifty_processes_that_open_or_create_one_creates_and_all_have_its_object() {
    story("fifty_make");
}

fn fifty_make(_: &[&str]) {
    tells(|| {
        let mut racers = racers(50, "make");
        for _ in 0..5 {
            let said = race(&mut racers, &unique_name("race"));
            assert_one_object(&mut racers, &said);
        }
        // The same name again and again; on Windows somebody who lists what there is may hold the object of the round
        // before for an instant, so there it is another name.
        let mut name = unique_name("race");
        for _ in 0..5 {
            if cfg!(windows) {
                name = unique_name("race");
            }
            let said = race(&mut racers, &name);
            assert_one_object(&mut racers, &said);
        }
        racers.into_iter().for_each(Peer::finish);
    });
}

#[test]
fn of_twenty_processes_that_open_or_create_a_file_one_creates_and_all_have_its_bytes() {
    story("twenty_make_a_file");
}

fn twenty_make_a_file(_: &[&str]) {
    tells(|| {
        let dir = TempDir::new();
        let mut racers = racers(20, "make");
        for round in 0..5 {
            let path = dir.join(format!("raced {round}"));
            let said = race(&mut racers, &format!("file:{}", path.display()));
            assert_one_object(&mut racers, &said);
            assert_eq!(path.metadata().unwrap().len(), SIZE as u64);
        }
        racers.into_iter().for_each(Peer::finish);
        assert_eq!(dir.path().read_dir().unwrap().count(), 5, "something half made is left beside them");
    });
}

#[test]
fn of_fifty_processes_that_create_new_one_succeeds_and_all_others_are_told_that_it_exists() {
    story("fifty_create");
}

fn fifty_create(_: &[&str]) {
    tells(|| {
        let mut racers = racers(50, "create");
        for _ in 0..5 {
            let said = race(&mut racers, &unique_name("race"));
            let winners: Vec<usize> = (0..50).filter(|&who| said[who].starts_with(&SIZE.to_string())).collect();
            assert_eq!(winners.len(), 1, "{said:?}");
            let others = said.iter().filter(|line| line.starts_with("AlreadyExists: ")).count();
            assert_eq!(others, 49, "{said:?}");
            racers[winners[0]].send("leave");
            racers[winners[0]].expect("1");
        }
        racers.into_iter().for_each(Peer::finish);
    });
}

#[test]
fn a_creator_killed_as_soon_as_it_has_won_takes_nothing_from_the_others() {
    story("winners_killed");
}

fn winners_killed(_: &[&str]) {
    tells(|| {
        let mut name = unique_name("race");
        for round in 0..15 {
            // As above.
            if cfg!(windows) {
                name = unique_name("race");
            }
            let mut racers = racers(10, "make");
            racers.iter_mut().for_each(|racer| racer.send(&name));
            release("start", &mut racers);
            // Whoever is first to have it dies at once; in every third round all do, and leave the dead object
            // to the next round.
            let first = racers[0].expect_line();
            let killed = first.rsplit(' ').next().unwrap().parse::<usize>().unwrap() - 1;
            racers[killed].kill();
            assert!(!racers.remove(killed).wait().success());
            if round % 3 == 2 {
                racers.iter_mut().for_each(Peer::kill);
                continue;
            }
            // All have it before the first leaves: the object ends with the last who has it, and a slow one would then
            // make another. What the first of them said was heard above, unless that was the one killed: whose object may have
            // ended with it, before anybody else had it.
            let first = if killed == 0 { racers[0].expect_line() } else { first };
            for racer in &mut racers[1..] {
                assert_eq!(racer.expect_line(), first, "not one object");
            }
            for racer in &mut racers {
                racer.send("leave");
                let line = racer.expect_line();
                assert!((1..=10).contains(&line.parse::<u32>().unwrap()), "{line}");
            }
            racers.into_iter().for_each(Peer::finish);
        }
        // Nothing is stuck.
        drop(Mapping::open_or_create(Name::local(name).unwrap(), SIZE as u64).unwrap());
    });
}

/// Creates and drops a large object until it is killed. Says when it begins, and each time it has made one.
fn creator(args: &[&str]) {
    let name = Name::local(args[0]).unwrap();
    peer::say("begins");
    loop {
        match Mapping::create_new(&name, LARGE as u64) {
            Ok(map) => {
                peer::say("made");
                // So that it is also met complete.
                std::thread::sleep(Duration::from_millis(1));
                drop(map);
            }
            Err(error) => assert_eq!(*error.kind(), ErrorKind::AlreadyExists, "{error}"),
        }
    }
}

/// Opens over and over until a file is there, and fails if it ever gets what is half made.
fn looker(args: &[&str]) {
    let name = Name::local(args[0]).unwrap();
    let mut opened = 0_u32;
    peer::say("ready");
    while !Path::new(args[1]).exists() {
        match Mapping::options().access(Access::ReadOnly).open(&name) {
            Ok(map) => {
                assert_eq!(map.len(), LARGE, "half made");
                for at in [0, LARGE / 3, LARGE - 4096] {
                    assert!(map.read_to_vec(at, 4096).unwrap().iter().all(|byte| *byte == 0), "not zeroed at {at}");
                }
                opened += 1;
            }
            Err(error) => assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}"),
        }
    }
    peer::say(opened);
}

#[test]
fn a_creator_killed_half_way_leaves_nothing_half_made_and_nothing_stuck() {
    let _watchdog = Watchdog::start(Duration::from_secs(170));
    story("creators_killed");
}

fn creators_killed(_: &[&str]) {
    tells(|| {
        let name = unique_name("half");
        let dir = TempDir::new();
        let end = dir.join("end");
        let mut looker = Peer::spawn("looker", &[&name, end.to_str().unwrap()]);
        looker.expect("ready");
        // Different moments of a creation each time, from the first to the last millisecond of one.
        for kill in 0..120_u64 {
            let mut creator = Peer::spawn("creator", &[&name]);
            creator.expect("begins");
            // Every other time it has made one before, however slow the machine is.
            if kill % 2 == 1 {
                creator.expect("made");
            }
            let since = Instant::now();
            while since.elapsed() < Duration::from_micros(kill * 7919 % 40_000) {
                std::hint::spin_loop();
            }
            creator.kill();
            assert!(!creator.wait().success());
        }
        std::fs::write(&end, "").unwrap();
        let opened: u32 = looker.expect_line().parse().unwrap();
        assert!(opened > 0, "it was never open while somebody looked: nothing was tested");
        looker.finish();
        let map = Mapping::create_new(Name::local(name).unwrap(), LARGE as u64).expect("nothing is stuck");
        assert_eq!(map.len(), LARGE);
    });
}
