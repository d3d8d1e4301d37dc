//! Regions across forks, stops and deaths of processes, full tables, other users and namespaces.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mmf::{Access, ErrorKind, LockError, Name, Permissions, Region};
use testkit::{Peer, Watchdog, unique_name};

use crate::support::failed;
use crate::support::stories::{story, tells};
use crate::support::system::{self, fork, sleep_for_ever};

testkit::peers! {
    forks, lock_survives_child, child_survives_parent, forker, holder, dier, full, handles, namespaces, next_holder,
    users, user, service, many_readers
}

fn name() -> Name {
    Name::local(unique_name("life")).unwrap()
}

/// Takes a lock (`read` or `write`, `half` for a change half made), and holds it until it is told
/// to go on.
fn holder(args: &[&str]) {
    let region = Region::open(Name::local(args[0]).unwrap()).unwrap();
    if args[1] == "read" {
        let guard = region.read().unwrap();
        testkit::peer::say("inside");
        testkit::peer::hear();
        drop(guard);
    } else {
        let mut guard = region.write().unwrap();
        if args[1] == "half" {
            guard.write_at(0, b"half").unwrap();
        }
        testkit::peer::say("inside");
        testkit::peer::hear();
        drop(guard);
    }
    testkit::peer::say("outside");
    testkit::peer::hear();
}

/// A holder that is inside.
fn inside(name: &Name, how: &str) -> Peer {
    let mut peer = Peer::spawn("holder", &[name.as_str(), how]);
    peer.expect("inside");
    peer
}

#[test]
fn a_forked_child_is_refused_by_its_parents_handle_and_takes_part_by_its_own() {
    story("forks");
}

fn forks(_: &[&str]) {
    tells(|| {
        let name = name();
        let region = Region::create_new(&name, 4096).unwrap();
        region.write().unwrap().set(b"parent").unwrap();
        let guard = region.read().unwrap();
        fork(|| {
            let invalid = |kind: ErrorKind| assert!(matches!(kind, ErrorKind::InvalidInput { .. }), "{kind:?}");
            invalid(failed(region.try_write()));
            invalid(failed(region.read()));
            invalid(region.clear_poison().unwrap_err().kind().clone());
            invalid(region.wait_changed(0, Instant::now()).unwrap_err().kind().clone());
            let own = Region::open(&name).unwrap();
            // The parent's thread had the lock; the child's has not, though it is a copy.
            assert!(matches!(failed(own.write_for(Duration::from_millis(30))), ErrorKind::Timeout { .. }));
            // SAFETY: second owners of what the child alone has copies of; the first are never
            // dropped there.
            drop(unsafe { std::ptr::read(&raw const guard) });
            // The parent still reads, whatever the child dropped.
            assert!(matches!(failed(own.write_for(Duration::from_millis(30))), ErrorKind::Timeout { .. }));
            // SAFETY: as above.
            drop(unsafe { std::ptr::read(&raw const region) });
            assert!(matches!(failed(own.write_for(Duration::from_millis(30))), ErrorKind::Timeout { .. }));
            assert_eq!(own.to_vec().unwrap(), b"parent");
            0
        })
        .ends_with(0);
        drop(guard);
        region.write().unwrap().set(b"on").unwrap();
        assert!(!region.is_poisoned().unwrap());
    });
}

#[test]
fn a_lock_survives_the_end_of_a_child_that_was_forked_meanwhile() {
    story("lock_survives_child");
}

fn lock_survives_child(_: &[&str]) {
    tells(|| {
        let name = name();
        let region = Region::create_new(&name, 4096).unwrap();
        let guard = region.write().unwrap();
        fork(|| 0).ends_with(0);
        fork(|| std::process::exit(3)).ends_with(3);
        fork(sleep_for_ever).dies();
        let other = Region::open(&name).unwrap();
        std::thread::scope(|scope| {
            let refused = scope.spawn(|| failed(other.write_for(Duration::from_millis(60))));
            assert!(matches!(refused.join().unwrap(), ErrorKind::Timeout { holder: Some(_) }));
        });
        drop(guard);
        assert!(other.write().is_ok());
    });
}

#[test]
fn a_child_that_outlives_its_dead_parent_does_not_keep_its_lock() {
    story("child_survives_parent");
}

fn child_survives_parent(_: &[&str]) {
    tells(|| {
        let name = name();
        let region = Region::create_new(&name, 4096).unwrap();
        // The orphan is this process's then, to be waited for.
        // SAFETY: takes numbers only.
        system::checked(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) });
        let mut parent = Peer::spawn("forker", &[name.as_str()]);
        let child: i32 = parent.expect_line().parse().unwrap();
        parent.kill();
        parent.wait();
        let since = Instant::now();
        assert!(matches!(region.write(), Err(LockError::Poisoned(_))));
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
        // SAFETY: takes numbers only; it lived until this.
        system::checked(unsafe { libc::kill(child, libc::SIGKILL) });
        // SAFETY: a child of ours now; nothing is written.
        assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
    });
}

fn forker(args: &[&str]) {
    let region = Region::open(Name::local(args[0]).unwrap()).unwrap();
    let mut guard = region.write().unwrap();
    guard.write_at(0, b"half").unwrap();
    let child = fork(|| {
        // Its parent's pipes are not its own to keep open.
        for descriptor in 0..3 {
            // SAFETY: nothing in this child uses them.
            unsafe { libc::close(descriptor) };
        }
        sleep_for_ever()
    });
    testkit::peer::say(child.id());
    sleep_for_ever();
}

#[test]
fn a_stopped_holder_is_waited_for_and_named_and_then_goes_on() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    for how in ["read", "write", "half"] {
        let name = name();
        let region = Region::create_new(&name, 4096).unwrap();
        let mut peer = inside(&name, how);
        peer.stop();
        let wait = Duration::from_millis(300);
        let ErrorKind::Timeout { holder: Some(holder) } = failed(region.write_for(wait)) else { panic!("no holder") };
        assert_eq!(holder.process, peer.pid());
        assert!(holder.held_for > wait / 2 && holder.held_for < testkit::DEADLINE, "{holder:?}");
        assert!(matches!(failed(region.try_write()), ErrorKind::WouldBlock));
        peer.cont();
        peer.send("on");
        peer.expect("outside");
        assert!(region.write().is_ok());
        peer.finish();
    }
}

/// So many threads, each with a handle of its own, that read.
fn many_readers(args: &[&str]) {
    let name = Name::local(args[0]).unwrap();
    let inside = std::sync::Barrier::new(READERS + 1);
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                let region = Region::open(&name).unwrap();
                let _guard = region.read().unwrap();
                inside.wait();
                inside.wait();
            });
        }
        inside.wait();
        testkit::peer::say("inside");
        testkit::peer::hear();
        inside.wait();
    });
}

const READERS: usize = 150;

#[test]
fn a_program_that_dies_with_many_readers_is_recovered_from_as_fast_as_one_reader() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let name = name();
    let region = Region::create_new(&name, 4096).unwrap();
    let mut peer = Peer::spawn("many_readers", &[name.as_str()]);
    peer.expect("inside");
    assert!(matches!(failed(region.try_write()), ErrorKind::WouldBlock));
    peer.kill();
    peer.wait();
    let since = Instant::now();
    assert!(region.write().is_ok());
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
}

#[test]
fn who_only_tries_gets_the_lock_of_the_dead() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    for how in ["read", "write", "half"] {
        let name = name();
        let region = Region::create_new(&name, 4096).unwrap();
        let mut peer = inside(&name, how);
        assert!(matches!(failed(region.try_write()), ErrorKind::WouldBlock));
        peer.kill();
        peer.wait();
        let result = region.try_write();
        assert_eq!(matches!(result, Err(LockError::Poisoned(_))), how == "half", "{how}: {:?}", result.err());
    }
}

#[test]
fn who_only_tries_is_not_kept_out_for_those_who_gave_up_or_died_waiting() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    for dies in [false, true] {
        let name = name();
        let region = Region::create_new(&name, 4096).unwrap();
        let guard = region.write().unwrap();
        let mut peer = Peer::spawn("dier", &[name.as_str(), if dies { "10000" } else { "50" }]);
        peer.expect("waits");
        if dies {
            // Long enough that it asks to be preferred.
            std::thread::sleep(Duration::from_millis(100));
            peer.kill();
            peer.wait();
        } else {
            peer.expect("gave up");
        }
        drop(guard);
        let tries = (0..3).filter(|_| region.try_write().is_ok()).count();
        assert!(tries >= 2, "{tries} of 3 tries, dies: {dies}");
    }
}

/// Waits for a lock that it does not get.
fn dier(args: &[&str]) {
    let region = Region::open(Name::local(args[0]).unwrap()).unwrap();
    testkit::peer::say("waits");
    assert!(matches!(
        failed(region.write_for(Duration::from_millis(args[1].parse().unwrap()))),
        ErrorKind::Timeout { .. }
    ));
    testkit::peer::say("gave up");
}

#[test]
fn readers_without_a_lock_read_on_once_poison_is_cleared_though_nobody_wrote() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let name = name();
    let region = Region::create_new(&name, 4096).unwrap();
    region.write().unwrap().set(b"full").unwrap();
    let since = region.version().unwrap();
    let reader =
        Region::options().access(Access::ReadOnly).timeout(Some(Duration::from_millis(50))).open(&name).unwrap();
    let mut peer = inside(&name, "half");
    assert!(matches!(reader.to_vec().unwrap_err().kind(), ErrorKind::Contended));
    peer.kill();
    peer.wait();
    assert!(matches!(region.read(), Err(LockError::Poisoned(_))));
    assert!(matches!(reader.to_vec().unwrap_err().kind(), ErrorKind::Poisoned));
    assert!(region.wait_changed(since, Instant::now() + testkit::DEADLINE).unwrap() > since);
    region.clear_poison().unwrap();
    assert_eq!(reader.to_vec().unwrap(), b"half");
}

#[test]
fn a_leaked_guards_lock_ends_with_its_handle_also_for_who_takes_its_place() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    for write in [false, true] {
        let name = name();
        let other = Region::create_new(&name, 4096).unwrap();
        let leaks = Region::open(&name).unwrap();
        // In a thread of its own, since the thread's mark is leaked too.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if write {
                    std::mem::forget(leaks.write().unwrap());
                } else {
                    std::mem::forget(leaks.read().unwrap());
                }
            });
        });
        drop(leaks);
        let next = Region::open(&name).unwrap();
        assert!(next.read_for(Duration::from_secs(1)).is_ok());
        assert!(other.write_for(Duration::from_secs(1)).is_ok());
    }
}

#[test]
fn a_full_table_is_an_error_and_has_room_again_after_drops_and_deaths() {
    story("full");
}

fn full(_: &[&str]) {
    tells(|| {
        let name = name();
        let ours = Region::create_new(&name, 4096).unwrap();
        ours.write().unwrap().set(b"there").unwrap();
        let mut peers: Vec<Peer> = (0..3).map(|_| Peer::spawn("handles", &[name.as_str(), "85"])).collect();
        for peer in &mut peers {
            peer.expect("attached");
        }
        assert_eq!(ours.status().unwrap().participants.len(), 256);
        let late = Region::open(&name).unwrap();
        assert_eq!(failed(late.read()), ErrorKind::Full);
        assert_eq!(failed(late.try_write()), ErrorKind::Full);
        let told = mmf::Error::from(late.read().err().unwrap()).to_string();
        assert!(told.contains(name.as_str()) && told.contains("256 writable handles"), "{told}");
        // A reader without write access needs no slot, and the participants with a slot go on.
        let reader = Region::options().access(Access::ReadOnly).open(&name).unwrap();
        assert_eq!(reader.to_vec().unwrap(), b"there");
        assert!(ours.write().is_ok());

        peers[0].send("drop one");
        peers[0].expect("dropped");
        assert!(late.read().is_ok());
        let later = Region::open(&name).unwrap();
        assert_eq!(failed(later.read()), ErrorKind::Full);
        peers[1].kill();
        peers[1].wait();
        assert!(later.read().is_ok());
        let all: Vec<Region> = (0..84).map(|_| Region::open(&name).unwrap()).collect();
        for region in &all {
            assert!(region.read().is_ok());
        }
        assert_eq!(failed(Region::open(&name).unwrap().read()), ErrorKind::Full);
        drop(peers);
    });
}

/// So many handles that take part, one of which goes with each line.
fn handles(args: &[&str]) {
    let name = Name::local(args[0]).unwrap();
    let mut all: Vec<Region> = (0..args[1].parse().unwrap()).map(|_| Region::open(&name).unwrap()).collect();
    for region in &all {
        drop(region.read().unwrap());
    }
    testkit::peer::say("attached");
    while testkit::peer::hear().is_some() {
        all.pop();
        testkit::peer::say("dropped");
    }
}

#[test]
#[ignore = "needs root: makes a namespace of process ids"]
fn processes_in_different_pid_namespaces_share_a_lock_and_survive_each_other() {
    story("namespaces");
}

fn namespaces(_: &[&str]) {
    tells(|| {
        let name = name();
        let region = Region::create_new(&name, 4096).unwrap();
        for how in ["read", "half"] {
            // Process 1 of its namespace; killed with it where it forgets.
            let mut peer = Peer::spawn_with("holder", &[name.as_str(), how], in_a_namespace);
            peer.expect("inside");
            let ErrorKind::Timeout { holder: Some(holder) } = failed(region.write_for(Duration::from_millis(50)))
            else {
                panic!("no holder")
            };
            assert_eq!(holder.process, 1, "as it knows itself");
            // Process 1 of the namespace is no process of this test; it ends with `unshare`.
            peer.kill();
            peer.wait();
            let since = Instant::now();
            let result = region.write();
            assert_eq!(matches!(result, Err(LockError::Poisoned(_))), how == "half", "{:?}", result.err());
            assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
        }
        // And the other way round: who is in there recovers from a death out here.
        region.clear_poison().unwrap();
        let mut dead = inside(&name, "half");
        dead.kill();
        dead.wait();
        let mut next_holder = Peer::spawn_with("next_holder", &[name.as_str()], in_a_namespace);
        next_holder.expect("poison: half");
        next_holder.finish();
    });
}

/// Has a peer started as process 1 of a namespace, which dies with the one that this process
/// starts.
fn in_a_namespace(command: &mut Command) {
    let mut outer = Command::new("unshare");
    outer.args(["--pid", "--fork", "--kill-child"]).arg(command.get_program()).args(command.get_args());
    outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    *command = outer;
}

/// Takes the write lock, says how it was found, and lets it go.
fn next_holder(args: &[&str]) {
    let region = Region::open(Name::local(args[0]).unwrap()).unwrap();
    let (found, guard) = match region.write() {
        Ok(guard) => ("whole", guard),
        Err(LockError::Poisoned(guard)) => ("poison", guard),
        Err(LockError::Failed(error)) => panic!("{error}"),
    };
    testkit::peer::say(format!("{found}: {}", guard.to_vec().unwrap().escape_ascii()));
}

#[test]
#[ignore = "needs root: becomes another user"]
fn a_service_and_a_desktop_program_share_a_lock_and_survive_each_other() {
    story("users");
}

fn users(_: &[&str]) {
    tells(|| {
        let name = Name::global(unique_name("users")).unwrap();
        let options = Region::options().permissions(Permissions::Everyone).capacity(4096);
        let service = options.create_new(&name).unwrap();
        service.write().unwrap().set(b"of the service").unwrap();
        let mut desktop = Peer::spawn("user", &[name.as_str()]);
        desktop.expect("poison: false, of the service");
        assert!(matches!(failed(service.write_for(Duration::from_millis(50))), ErrorKind::Timeout { .. }));
        desktop.send("on");
        desktop.expect("out");
        assert_eq!(service.to_vec().unwrap(), b"of the desktop");

        // Who may not open the other's process recovers what it left.
        let mut dead = Peer::spawn("service", &[name.as_str()]);
        dead.expect("inside");
        dead.kill();
        dead.wait();
        desktop.send("again");
        desktop.expect("poison: true, half the desktop");
        desktop.kill();
        desktop.wait();
        assert!(matches!(service.write(), Err(LockError::Poisoned(_))));
    });
}

/// Another user, who may not do anything to this test's processes.
fn user(args: &[&str]) {
    system::become_user(system::NOBODY);
    let region = Region::options().allow_other_owners(true).open(Name::global(args[0]).unwrap()).unwrap();
    loop {
        let result = region.write();
        let poisoned = matches!(result, Err(LockError::Poisoned(_)));
        let mut guard = result.or_else(LockError::into_guard).unwrap();
        let found = guard.to_vec().unwrap();
        testkit::peer::say(format!("poison: {poisoned}, {}", found.escape_ascii()));
        guard.set(b"of the desktop").unwrap();
        testkit::peer::hear();
        drop(guard);
        testkit::peer::say("out");
        testkit::peer::hear();
    }
}

/// Dies with a change half made.
fn service(args: &[&str]) {
    let region = Region::open(Name::global(args[0]).unwrap()).unwrap();
    let mut guard = region.write().unwrap();
    guard.set(b"half the desktop").unwrap();
    testkit::peer::say("inside");
    testkit::peer::hear();
}
