//! Files of dicts that processes with different boot ids use at the same time, and the rebuild that
//! follows a power cut.
//!
//! A test cannot give a process another boot id without the rights to mount. It changes BOOT in the
//! file instead: for the processes that have the file open, BOOT is then what another container
//! wrote.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mmf::{Access, Dict, ErrorKind, Mapping};
use testkit::{Peer, TempDir, Watchdog, peer};

testkit::peers!(uses, recovers, opens, is_short_of_descriptors);

/// Where things are, as `docs/format.md` says.
const BUCKETS: usize = 20480 + 16;
const LEN: usize = 20480 + 64;
const REDO_LEN: usize = 20480 + 128;
const DURABLE: usize = 20480 + 256;
const BOOT: usize = 20480 + 304;

const KEYS: usize = 2000;

fn key(nth: usize) -> String {
    format!("key {nth}")
}

/// A file with a dict that was changed after its last flush.
fn filled(path: &Path) {
    let dict = Dict::create_new(path, 4 << 20).unwrap();
    (0..KEYS).for_each(|nth| assert_ne!(dict.set_bytes(&key(nth), key(nth).as_bytes()).unwrap(), 0));
    dict.flush().unwrap();
    dict.set_bytes("last", b"not flushed").unwrap();
}

fn word(path: &Path, at: usize) -> u64 {
    u64::from_le_bytes(fs::read(path).unwrap()[at..at + 8].try_into().unwrap())
}

/// Has BOOT say what a process with another boot id would have written.
fn change_boot(path: &Path) {
    let raw = Mapping::open(path).unwrap();
    let boot = raw.load::<u64>(BOOT, Ordering::SeqCst).unwrap();
    raw.store(BOOT, boot ^ 2, Ordering::SeqCst).unwrap();
}

fn read_only(path: &Path) -> mmf::Result<Dict> {
    Dict::options().access(Access::ReadOnly).open(path)
}

fn uses(args: &[&str]) {
    let dict = Dict::open(Path::new(args[0])).unwrap();
    dict.set_bytes("user", b"is here").unwrap();
    peer::say("uses");
    while peer::hear().is_some() {
        dict.set_bytes("user", b"is still here").unwrap();
        assert_eq!(dict.get_bytes(&key(1)).unwrap().unwrap(), key(1).as_bytes());
        peer::say("used");
    }
}

fn recovers(args: &[&str]) {
    let path = Path::new(args[0]);
    while peer::hear().is_some() {
        change_boot(path);
        let dict = Dict::open(path).unwrap();
        assert_eq!(word(path, DURABLE) & 1, 1, "it was rebuilt");
        assert_eq!(dict.get_bytes(&key(1)).unwrap().unwrap(), key(1).as_bytes());
        // Otherwise there is nothing to recover the next time.
        dict.set_bytes("last", b"not flushed").unwrap();
        drop(dict);
        peer::say("recovered");
    }
}

#[test]
fn a_dict_in_use_is_not_rebuilt_by_a_process_that_has_another_boot_id() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let dir = TempDir::new();
    let path = dir.join("used");
    filled(&path);
    let mut user = Peer::spawn("uses", &[path.to_str().unwrap()]);
    user.expect("uses");
    change_boot(&path);
    let boot = word(&path, BOOT);
    assert_eq!(word(&path, DURABLE) & 1, 0, "it was changed since the flush");
    // A handle for reading is not told that the machine stopped.
    let reader = read_only(&path).unwrap();
    assert_eq!(reader.get_bytes("last").unwrap().unwrap(), b"not flushed");
    let mut other = Peer::spawn("uses", &[path.to_str().unwrap()]);
    other.expect("uses");
    assert_eq!((word(&path, DURABLE) & 1, word(&path, REDO_LEN)), (0, 0), "it was not rebuilt");
    assert_eq!(word(&path, BOOT), boot, "containers do not take BOOT from each other");
    for peer in [&mut user, &mut other] {
        peer.send("");
        peer.expect("used");
    }
    // The second has checked its file as well, so it counts once the first is gone.
    user.finish();
    drop(read_only(&path).unwrap());
    let third = Dict::open(path.as_path()).unwrap();
    assert_eq!((word(&path, DURABLE) & 1, word(&path, BOOT)), (0, boot));
    third.set_bytes("third", b"value").unwrap();
    other.kill();
    other.wait();
    drop(read_only(&path).unwrap());
    drop(third);
    // With no process left, only the boot id tells.
    let error = read_only(&path).err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::Damaged { .. }), "{error}");
    let dict = Dict::open(path.as_path()).unwrap();
    assert_eq!(word(&path, DURABLE) & 1, 1, "it was rebuilt");
    assert_eq!(dict.get_bytes("third").unwrap().unwrap(), b"value");
}

#[test]
fn no_reader_misses_a_key_while_another_process_rebuilds_the_dict() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let dir = TempDir::new();
    let path = dir.join("rebuilt");
    filled(&path);
    // Neither of them has locked, so neither keeps another process from rebuilding.
    let readers = [read_only(&path).unwrap(), Dict::open(path.as_path()).unwrap()];
    let (done, refused) = (AtomicBool::new(false), AtomicU64::new(0));
    let is_refused = |error: &mmf::Error| {
        assert!(matches!(error.kind(), ErrorKind::Damaged { .. } | ErrorKind::Contended), "{error}");
        refused.fetch_add(1, Ordering::Relaxed);
    };
    thread::scope(|scope| {
        for reader in &readers {
            let (done, is_refused) = (&done, &is_refused);
            scope.spawn(move || {
                for round in 0.. {
                    let nth = round % KEYS;
                    match reader.get_bytes(&key(nth)) {
                        Ok(found) => assert!(found.as_deref() == Some(key(nth).as_bytes()), "{nth} is not there"),
                        Err(error) => is_refused(&error),
                    }
                    match reader.contains_key("last") {
                        Ok(found) => assert!(found, "the last key is not there"),
                        Err(error) => is_refused(&error),
                    }
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        let (done, is_refused, path) = (&done, &is_refused, &path);
        scope.spawn(move || {
            let reader = read_only(path).or_else(|_| read_only(path));
            let Ok(reader) = reader else { return };
            while !done.load(Ordering::Relaxed) {
                match reader.keys() {
                    Ok(keys) => assert_eq!(keys.len(), KEYS + 1),
                    Err(error) => is_refused(&error),
                }
            }
        });
        let stop = StopAtEnd(done);
        let mut recoverer = Peer::spawn("recovers", &[path.to_str().unwrap()]);
        let began = Instant::now();
        for round in 0..30 {
            // Where syncs are slow, fewer do.
            if round >= 3 && began.elapsed() > Duration::from_secs(10) {
                break;
            }
            recoverer.send("");
            recoverer.expect("recovered");
            thread::sleep(Duration::from_millis(2));
        }
        drop(stop);
        recoverer.finish();
    });
    println!("{} reads were refused", refused.load(Ordering::Relaxed));
}

/// Ends the readers, also when the test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn opens(args: &[&str]) {
    peer::say("there");
    peer::hear();
    let dict = Dict::open(Path::new(args[0])).unwrap();
    for nth in 0..KEYS {
        assert_eq!(dict.get_bytes(&key(nth)).unwrap().unwrap(), key(nth).as_bytes(), "{nth}");
    }
    assert_eq!(dict.len().unwrap(), KEYS + 1);
    dict.set_bytes("last", args[1].as_bytes()).unwrap();
    peer::say("opened");
    peer::hear();
}

#[test]
fn of_many_processes_that_open_a_file_after_a_power_cut_each_finds_it_rebuilt_also_when_one_dies_at_it() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 6);
    let dir = TempDir::new();
    let path = dir.join("cut");
    filled(&path);
    let spawn = |nth: u32| Peer::spawn("opens", &[path.to_str().unwrap(), &nth.to_string()]);
    for round in 0..12_u32 {
        // What no page of the index and of the table says any more can only come from the records.
        let mut bytes = fs::read(&path).unwrap();
        bytes[BOOT] ^= 2;
        bytes[DURABLE..DURABLE + 8].copy_from_slice(&2_u64.to_le_bytes());
        bytes[LEN..LEN + 24].copy_from_slice(&[0x11; 24]);
        bytes[BUCKETS] ^= 0x15;
        fs::write(&path, &bytes).unwrap();
        let mut peers: Vec<Peer> = (0..4).map(spawn).collect();
        peers.iter_mut().for_each(|peer| peer.expect("there"));
        peers.iter_mut().for_each(|peer| peer.send(""));
        // A rebuild takes some milliseconds here.
        thread::sleep(Duration::from_micros(u64::from(round) * 700));
        if round % 4 != 0 {
            peers[0].kill();
            peers.remove(0).wait();
        }
        for peer in &mut peers {
            peer.expect("opened");
        }
        peers.into_iter().for_each(Peer::finish);
    }
    assert!(Dict::open(path.as_path()).unwrap().check().unwrap().is_whole());
}

#[cfg(unix)]
fn is_short_of_descriptors(args: &[&str]) {
    let path = Path::new(args[0]);
    let null = || fs::File::open("/dev/null");
    let mut all: Vec<fs::File> = std::iter::from_fn(|| null().ok()).collect();
    // As many as each step of opening takes, one after the other.
    for _ in 0..12 {
        let opened = Dict::open(path);
        let locked = opened.as_ref().map(|dict| dict.set_bytes("last", b"with few descriptors").is_ok());
        match &locked {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => assert_eq!(error.raw_os_error(), Some(24), "{error}"),
        }
        drop(opened);
        drop(all.pop());
    }
    drop(all);
    drop(Dict::open(path).unwrap());
    peer::say("opened");
}

#[cfg(not(unix))]
fn is_short_of_descriptors(_: &[&str]) {}

#[cfg(unix)]
#[test]
fn a_process_that_cannot_read_the_boot_id_for_want_of_descriptors_rebuilds_nothing() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let dir = TempDir::new();
    let path = dir.join("short");
    filled(&path);
    let boot = word(&path, BOOT);
    let mut short = Peer::spawn("is_short_of_descriptors", &[path.to_str().unwrap()]);
    short.expect("opened");
    short.finish();
    assert_eq!(word(&path, BOOT), boot);
    assert_eq!(word(&path, DURABLE) & 1, 0, "it was rebuilt");
}

/// Has a peer started with a boot id of its own, as a container that mounts one.
#[cfg(target_os = "linux")]
fn with_boot_id(id: &Path) -> impl FnOnce(&mut std::process::Command) {
    let mount = format!("mount --bind '{}' /proc/sys/kernel/random/boot_id && exec \"$0\" \"$@\"", id.display());
    move |command| {
        let mut outer = std::process::Command::new("unshare");
        outer.args(["--mount", "sh", "-c", &mount]).arg(command.get_program()).args(command.get_args());
        outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        use std::process::Stdio;
        outer.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        *command = outer;
    }
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "needs root: makes a namespace of mounts"]
fn containers_with_boot_ids_of_their_own_use_one_dict() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let dir = TempDir::new();
    let (path, id) = (dir.join("shared"), dir.join("boot id"));
    fs::write(&id, "01234567-89ab-cdef-0123-456789abcdef\n").unwrap();
    filled(&path);
    let boot = word(&path, BOOT);
    let text = path.to_str().unwrap();
    // Each begins while one of the other container lives, and one of each writes at the same time.
    let mut users: Vec<Peer> = Vec::new();
    for round in 0..10 {
        let peer = match round % 2 {
            0 => Peer::spawn("uses", &[text]),
            _ => Peer::spawn_with("uses", &[text], with_boot_id(&id)),
        };
        users.push(peer);
        users.last_mut().unwrap().expect("uses");
        for user in &mut users {
            user.send("");
            user.expect("used");
        }
        if round >= 2 {
            users.remove(0).finish();
        }
        assert_eq!((word(&path, DURABLE) & 1, word(&path, BOOT)), (0, boot), "in round {round}");
    }
    // The last two are of one container each. Once both are gone, the other container rebuilds it,
    // with readers beside it.
    users.into_iter().for_each(Peer::finish);
    let reader = read_only(&path).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for nth in 0..KEYS {
                    if let Ok(found) = reader.get_bytes(&key(nth)) {
                        assert!(found.as_deref() == Some(key(nth).as_bytes()), "{nth} is not there");
                    }
                }
            }
        });
        let stop = StopAtEnd(&done);
        let mut other = Peer::spawn_with("uses", &[text], with_boot_id(&id));
        other.expect("uses");
        assert_ne!(word(&path, BOOT), boot);
        drop(stop);
        other.finish();
    });
}
