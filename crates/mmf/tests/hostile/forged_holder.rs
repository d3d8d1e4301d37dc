//! A peer stores in the lock's word, or among the counts of readers, that a living handle has the
//! lock. The handle finds out that none of its threads has it, and goes on; so do its peers, once
//! it has made any call that takes the lock.

use std::io;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mmf::{Dict, ErrorKind, LockError, LockWords, Mapping, RawLock, Region};
use testkit::{Peer, TempDir, Watchdog, peer};

testkit::peers! { forger, writer, dict_writer }

/// Where things are, as `docs/format.md` says. The first handle that attaches has slot 0.
const LOCK: usize = 2048;
const VERSION: usize = 2056;
const READERS: usize = 4096 + 4;
const FIRST_GROUP: u64 = 1 << 20;

/// Far more than it takes: a handle asks after some milliseconds whether it really holds the lock.
const SOON: Duration = Duration::from_secs(5);

/// Stores what it is told: `tag` or `count`, with what is there in the word beside it left alone.
fn forger(args: &[&str]) {
    let raw = Mapping::open(Path::new(args[0])).unwrap();
    while let Some(what) = peer::hear() {
        match what.as_str() {
            "tag" => {
                let word: u64 = raw.load(LOCK, Ordering::SeqCst).unwrap();
                raw.store(LOCK, word & !0xffff | 1, Ordering::SeqCst).unwrap();
            }
            "count" => {
                raw.store(READERS, 3_u32, Ordering::SeqCst).unwrap();
                raw.fetch_or(LOCK, FIRST_GROUP, Ordering::SeqCst).unwrap();
            }
            "odd" => raw.store(VERSION, 7_u64, Ordering::SeqCst).unwrap(),
            other => panic!("{other}"),
        }
        peer::say("stored");
    }
}

/// Writes whenever it is told, and says what came of it.
fn writer(args: &[&str]) {
    let region = Region::open(Path::new(args[0])).unwrap();
    while let Some(timeout) = peer::hear() {
        let result = region.write_for(Duration::from_millis(timeout.parse().unwrap()));
        match result {
            Ok(mut guard) => {
                guard.set(b"written").unwrap();
                drop(guard);
                peer::say("written");
            }
            Err(LockError::Poisoned(_)) => peer::say("poisoned"),
            Err(LockError::Failed(error)) => match error.kind() {
                ErrorKind::Timeout { holder: Some(holder) } => peer::say(format!("held by {}", holder.process)),
                kind => peer::say(format!("{kind:?}")),
            },
        }
    }
}

fn dict_writer(args: &[&str]) {
    let dict = Dict::open(Path::new(args[0])).unwrap();
    while let Some(key) = peer::hear() {
        dict.set_bytes(&key, b"theirs").unwrap();
        peer::say("set");
    }
}

struct Story {
    region: Region,
    forger: Peer,
    writer: Peer,
    path: std::path::PathBuf,
    _dir: TempDir,
    _watchdog: Watchdog,
}

impl Story {
    fn begin() -> Story {
        let watchdog = Watchdog::start(testkit::DEADLINE * 3);
        let dir = TempDir::new();
        let path = dir.join("region");
        let region = Region::create_new(&*path, 1 << 16).unwrap();
        region.write().unwrap().set(b"whole").unwrap();
        let peer = |role| Peer::spawn(role, &[path.to_str().unwrap()]);
        let (forger, writer) = (peer("forger"), peer("writer"));
        Story { region, forger, writer, path, _dir: dir, _watchdog: watchdog }
    }

    fn forge(&mut self, what: &str) {
        self.forger.send(what);
        self.forger.expect("stored");
    }

    /// Another process gets the lock.
    fn another_writes(&mut self) {
        self.writer.send("10000");
        self.writer.expect("written");
    }
}

#[track_caller]
fn soon<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = work();
    assert!(began.elapsed() < SOON, "{what} took {:?}", began.elapsed());
    result
}

#[test]
fn a_handle_that_reads_its_own_slot_in_the_word_takes_it_out() {
    let mut story = Story::begin();
    for round in 0..20 {
        story.forge("tag");
        soon("it", || match round % 4 {
            0 => assert_eq!(
                story.region.read_for(SOON * 2).unwrap().to_vec().unwrap().len(),
                if round == 0 { 5 } else { 7 }
            ),
            1 => story.region.write_for(SOON * 2).unwrap().set(b"ours").unwrap(),
            2 => drop(story.region.try_read().unwrap()),
            _ => drop(story.region.try_write().unwrap()),
        });
        story.another_writes();
    }
}

#[test]
fn readers_that_a_peer_counts_for_a_handle_keep_nobody_out() {
    let mut story = Story::begin();
    for round in 0..10 {
        story.forge("count");
        if round % 2 == 0 {
            soon("write", || drop(story.region.write_for(SOON * 2).unwrap()));
            story.another_writes();
        } else {
            // Another process waits for the readers that there are not, and this handle for that
            // process.
            story.writer.send("10000");
            thread::sleep(Duration::from_millis(20));
            soon("read", || drop(story.region.read_for(SOON * 2).unwrap()));
            story.writer.expect("written");
        }
        assert_eq!(story.region.status().unwrap().participants[0].reading, 0);
    }
}

#[test]
fn all_threads_of_a_handle_get_the_lock_though_each_of_them_waits() {
    let mut story = Story::begin();
    const THREADS: usize = 6;
    let all = Barrier::new(THREADS + 1);
    let Story { region, forger, .. } = &mut story;
    thread::scope(|scope| {
        for nth in 0..THREADS {
            let (region, all) = (&*region, &all);
            scope.spawn(move || {
                for _ in 0..20 {
                    all.wait();
                    match nth % 2 {
                        0 => drop(soon("write", || region.write_for(SOON * 2).unwrap())),
                        _ => drop(soon("read", || region.read_for(SOON * 2).unwrap())),
                    }
                    all.wait();
                }
            });
        }
        for round in 0..20 {
            forger.send(if round % 2 == 0 { "tag" } else { "count" });
            forger.expect("stored");
            all.wait();
            all.wait();
        }
    });
    story.another_writes();
}

#[test]
fn a_thread_that_reads_for_long_does_not_keep_others_from_taking_a_forged_writer_out() {
    let mut story = Story::begin();
    let guard = story.region.read().unwrap();
    story.forger.send("tag");
    story.forger.expect("stored");
    thread::scope(|scope| {
        scope.spawn(|| soon("read", || drop(story.region.read_for(SOON * 2).unwrap())));
    });
    drop(guard);
    story.another_writes();
}

#[test]
fn what_a_handle_really_holds_it_keeps() {
    let story = Story::begin();
    let region = &story.region;
    region.write().unwrap().set(&[0; 16]).unwrap();
    const THREADS: u64 = 4;
    const TURNS: u64 = 40;
    thread::scope(|scope| {
        for nth in 0..THREADS {
            scope.spawn(move || {
                for turn in 0..TURNS {
                    let mut guard = region.write_for(testkit::DEADLINE).unwrap();
                    let before: u64 = guard.get(0).unwrap();
                    // Others wait for long enough to ask who holds the lock.
                    thread::sleep(Duration::from_millis(if (nth + turn) % 4 == 0 { 5 } else { 0 }));
                    guard.put(0, before + 1).unwrap();
                    drop(guard);
                    let guard = region.read_for(testkit::DEADLINE).unwrap();
                    let first: u64 = guard.get(0).unwrap();
                    thread::sleep(Duration::from_millis(if (nth + turn) % 4 == 1 { 5 } else { 0 }));
                    assert_eq!(guard.get::<u64>(0).unwrap(), first, "a writer beside a reader");
                }
            });
        }
    });
    assert_eq!(region.read().unwrap().get::<u64>(0).unwrap(), THREADS * TURNS);
}

/// To its peers such a handle is a holder that does not let go.
#[test]
fn an_idle_handle_is_waited_for_and_named_until_it_makes_a_call() {
    let mut story = Story::begin();
    story.forge("tag");
    story.writer.send("200");
    story.writer.expect(&format!("held by {}", std::process::id()));
    soon("read", || drop(story.region.read_for(SOON * 2).unwrap()));
    story.another_writes();
}

#[test]
fn a_forged_writer_in_the_middle_of_a_change_is_poison() {
    let mut story = Story::begin();
    story.forge("odd");
    story.forge("tag");
    let result = soon("write", || story.region.write_for(SOON * 2));
    assert!(matches!(result, Err(LockError::Poisoned(_))), "{:?}", result.err());
    drop(result);
    story.region.clear_poison().unwrap();
    assert_eq!(story.region.version().unwrap(), 8);
    story.another_writes();
}

#[test]
fn a_dict_goes_on_too() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let dir = TempDir::new();
    let path = dir.join("dict");
    let dict = Dict::options().capacity(1 << 20).timeout(Some(SOON * 2)).create_new(path.as_path()).unwrap();
    dict.set_bytes("key", b"ours").unwrap();
    let mut forger = Peer::spawn("forger", &[path.to_str().unwrap()]);
    let mut writer = Peer::spawn("dict_writer", &[path.to_str().unwrap()]);
    for what in ["tag", "count"] {
        for round in 0..3 {
            forger.send(what);
            forger.expect("stored");
            soon("it", || match round {
                0 => dict.set_bytes("key", b"again").map(drop).unwrap(),
                1 => drop(dict.entries().unwrap()),
                _ => dict.transaction(|tx| tx.set_bytes("key", b"more")).unwrap(),
            });
            if what == "count" {
                // A reader looks at no counts: a writer does.
                soon("set", || dict.set_bytes("key", b"last").unwrap());
            }
            writer.send("theirs");
            writer.expect("set");
        }
    }
}

/// One at a time.
struct Turns;

// SAFETY: what exchanges 0 for its own number is alone until it puts 0 back, or is dead.
unsafe impl RawLock for Turns {
    fn name(&self) -> &'static str {
        "test/turns"
    }
    fn try_read(&self, words: LockWords<'_>, me: usize) -> io::Result<bool> {
        self.try_write(words, me)
    }
    fn try_write(&self, words: LockWords<'_>, me: usize) -> io::Result<bool> {
        Ok(words.shared(0)?.compare_exchange(0, me as u64 + 1)? == 0)
    }
    fn unlock_read(&self, words: LockWords<'_>, me: usize) -> io::Result<()> {
        self.unlock_write(words, me)
    }
    fn unlock_write(&self, words: LockWords<'_>, _me: usize) -> io::Result<()> {
        Ok(words.shared(0)?.store(0)?)
    }
    fn recover(&self, words: LockWords<'_>, dead: usize) -> io::Result<()> {
        words.shared(0)?.compare_exchange(dead as u64 + 1, 0)?;
        Ok(())
    }
}

#[test]
fn beside_a_lock_of_the_users_own_as_well() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let dir = TempDir::new();
    let path = dir.join("region");
    let region = Region::options().capacity(4096).lock(Turns).create_new(&*path).unwrap();
    region.write().unwrap().set(b"whole").unwrap();
    let mut forger = Peer::spawn("forger", &[path.to_str().unwrap()]);
    for write in [false, true] {
        forger.send("tag");
        forger.expect("stored");
        soon("it", || match write {
            true => drop(region.write_for(SOON * 2).unwrap()),
            false => drop(region.read_for(SOON * 2).unwrap()),
        });
    }
}

/// Threads that come and go share what they leave behind.
#[test]
fn threads_that_end_leave_no_trace() {
    let mut story = Story::begin();
    let stop = AtomicBool::new(false);
    for _ in 0..50 {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    drop(story.region.read_for(testkit::DEADLINE).unwrap());
                    drop(story.region.write_for(testkit::DEADLINE).unwrap());
                    stop.load(Ordering::Relaxed)
                });
            }
        });
    }
    story.forge("tag");
    soon("write", || drop(story.region.write_for(SOON * 2).unwrap()));
    assert!(story.path.exists());
    story.another_writes();
}
