//! The test kit's own stories: peers that talk, hang, die and leak, and what the test gets to know
//! of it.

#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitStatus;
use std::time::Duration;
use std::{fs, thread};

use testkit::{DEADLINE, LIFETIME, LeakCheck, Peer, TempDir, Watchdog, peer, release, unique_name};

testkit::peers! {
    echo, args, namer, chatter, panicker, mute, connected, racer, parent, hanging, in_time,
    tidy, leaks_a_file, leaks_an_open_file, leaks_a_child
}

fn echo(_: &[&str]) {
    while let Some(line) = peer::hear() {
        peer::say(line);
    }
}

fn args(args: &[&str]) {
    peer::say(format!("{args:?}"));
}

fn namer(_: &[&str]) {
    peer::say(unique_name("n"));
}

fn chatter(_: &[&str]) {
    print!("printed before ");
    peer::say("said");
    println!("printed after");
    eprintln!("complained");
}

fn panicker(_: &[&str]) {
    panic!("the peer's own words");
}

fn mute(_: &[&str]) {
    peer::hear();
}

/// Holds a connection to the test, which sees by its end that this process is dead.
fn connected(args: &[&str]) {
    let _connection = TcpStream::connect(args[0]).unwrap();
    eprintln!("connected to {}", args[0]);
    peer::hear();
}

/// Comes to the line when the test's byte has come, and tells over the connection when it was let
/// go.
fn racer(args: &[&str]) {
    let mut connection = TcpStream::connect(args[0]).unwrap();
    connection.read_exact(&mut [0]).unwrap();
    peer::line_up("start");
    connection.write_all(b"!").unwrap();
}

fn parent(args: &[&str]) {
    let _child = Peer::spawn("connected", args);
    peer::hear();
}

fn hanging(args: &[&str]) {
    let mut child = Peer::spawn("connected", args);
    // The watchdog shall find the child's words captured: this line comes after them.
    while child.stderr().is_empty() {
        thread::yield_now();
    }
    let _watchdog = Watchdog::start(Duration::from_millis(50));
    child.expect("what it never says");
}

fn in_time(_: &[&str]) {
    drop(Watchdog::start(Duration::from_millis(50)));
    // Longer than the watchdog would have waited.
    thread::sleep(Duration::from_millis(200));
}

fn tidy(_: &[&str]) {
    let check = LeakCheck::start();
    let dir = TempDir::new();
    fs::write(dir.join("file"), unique_name("file")).unwrap();
    let mut peer = Peer::spawn("echo", &[]);
    peer.send("a");
    peer.expect("a");
    peer.finish();
    let mut killed = Peer::spawn("mute", &[]);
    killed.kill();
    drop(killed);
    drop(dir);
    check.finish();
}

fn leaks_a_file(args: &[&str]) {
    let check = LeakCheck::start();
    fs::write(format!("{}/{}", args[0], unique_name("left")), "").unwrap();
    check.finish();
}

fn leaks_an_open_file(_: &[&str]) {
    let dir = TempDir::new();
    let check = LeakCheck::start();
    std::mem::forget(fs::File::create(dir.join("left open")).unwrap());
    check.finish();
}

fn leaks_a_child(_: &[&str]) {
    let check = LeakCheck::start();
    std::mem::forget(Peer::spawn("mute", &[]));
    check.finish();
}

/// What the panic in `test` says.
fn failure(test: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(test)).expect_err("it was to fail");
    payload.downcast_ref::<String>().expect("a formatted message").clone()
}

#[track_caller]
fn assert_contains(text: &str, part: &str) {
    assert!(text.contains(part), "{part:?} is not in: {text}");
}

fn assert_killed(status: ExitStatus) {
    #[cfg(unix)]
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    assert!(!status.success());
}

/// With a watchdog, since a peer that never connects is waited for without a deadline.
fn listen() -> (TcpListener, String, Watchdog) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address, Watchdog::start(DEADLINE * 6))
}

/// Fails unless the process at the other end closes the connection, which only its end does.
fn assert_dies(connection: &mut TcpStream) {
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    match connection.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("it lives on: {other:?}"),
    }
}

#[test]
fn a_peer_hears_and_says() {
    let mut peer = Peer::spawn("echo", &[]);
    for line in ["one", "", "  zwei ☃ ", "\u{1e}=\u{1f}"] {
        peer.send(line);
        peer.expect(line);
    }
    assert_ne!(peer.pid(), std::process::id());
    peer.finish();
}

#[test]
fn arguments_arrive_as_they_were_given() {
    for args in [&[][..], &[""], &["a b", "", "\"ü\"\n"]] {
        let mut peer = Peer::spawn("args", args);
        peer.expect(&format!("{args:?}"));
        peer.finish();
    }
}

#[test]
fn what_a_peer_prints_is_captured_and_does_not_disturb_what_it_says() {
    let mut peer = Peer::spawn("chatter", &[]);
    peer.expect("said");
    assert!(peer.wait().success());
    let written = peer.stderr();
    for part in ["printed before", "printed after", "complained"] {
        assert_contains(&written, part);
    }
}

#[test]
fn a_failure_shows_the_stderr_and_the_end_of_the_peer() {
    let text = failure(|| Peer::spawn("panicker", &[]).expect("anything"));
    for part in ["the peer panicker", "ended instead of saying something", "the peer's own words", "101"] {
        assert_contains(&text, part);
    }
    assert_contains(&failure(|| Peer::spawn("panicker", &[]).finish()), "was to end well");
}

#[test]
fn a_role_that_does_not_exist_is_named() {
    assert_contains(&failure(|| Peer::spawn("nobody", &[]).finish()), "nobody");
    assert_contains(&failure(|| Peer::spawn("nobody", &[]).expect("anything")), "its role never began");
}

#[test]
fn the_wrong_line_no_line_and_one_line_too_many_are_failures() {
    let mut peer = Peer::spawn("echo", &[]);
    peer.send("a");
    assert_contains(&failure(|| peer.expect("b")), "said \"a\" where \"b\" was expected");
    assert_contains(&failure(|| drop(peer.expect_line_within(Duration::from_millis(20)))), "said nothing");
    peer.expect_silence(Duration::from_millis(20));
    peer.send("c");
    assert_contains(&failure(|| peer.expect_silence(DEADLINE)), "was to be silent");
    peer.send("d");
    assert_contains(&failure(|| peer.finish()), "said \"d\", which the test did not wait for");
}

#[test]
fn a_killed_peer_is_dead() {
    let (listener, address, _watchdog) = listen();
    let mut peer = Peer::spawn("connected", &[&address]);
    let (mut connection, _) = listener.accept().unwrap();
    peer.kill();
    assert_killed(peer.wait());
    assert_dies(&mut connection);
    peer.kill();
    assert_contains(&failure(|| peer.send("to the dead")), "cannot be told");
}

#[test]
fn a_dropped_peer_is_dead() {
    let (listener, address, _watchdog) = listen();
    let peer = Peer::spawn("connected", &[&address]);
    let (mut connection, _) = listener.accept().unwrap();
    drop(peer);
    assert_dies(&mut connection);
}

#[cfg(unix)]
#[test]
fn a_stopped_peer_goes_on_where_it_stood() {
    let mut peer = Peer::spawn("echo", &[]);
    peer.stop();
    peer.send("a");
    peer.expect_silence(Duration::from_millis(50));
    peer.cont();
    peer.expect("a");
    peer.stop();
    peer.kill();
    assert_killed(peer.wait());
}

#[test]
fn a_peer_dies_with_its_parent() {
    let (listener, address, _watchdog) = listen();
    let mut parent = Peer::spawn("parent", &[&address]);
    let (mut grandchild, _) = listener.accept().unwrap();
    parent.kill();
    assert_dies(&mut grandchild);
}

#[test]
fn a_peer_does_not_outlive_its_time() {
    let mut peer = Peer::spawn_with("mute", &[], |command| {
        command.env(LIFETIME, "0");
    });
    assert!(!peer.wait().success());
    assert_contains(&peer.stderr(), "the peer mute lived longer than 0 s");
}

#[test]
fn a_watchdog_tells_what_hangs_and_ends_it() {
    let (listener, address, _watchdog) = listen();
    let mut hanging = Peer::spawn("hanging", &[&address]);
    let (mut grandchild, _) = listener.accept().unwrap();
    assert!(!hanging.wait().success());
    let text = hanging.stderr();
    for part in ["the watchdog of", "stories.rs", "the peer connected", &format!("connected to {address}")] {
        assert_contains(&text, part);
    }
    assert_dies(&mut grandchild);
}

#[test]
fn a_watchdog_that_was_dropped_is_quiet() {
    Peer::spawn("in_time", &[]).finish();
}

#[test]
fn nobody_is_let_go_before_the_last_has_come() {
    let (listener, address, _watchdog) = listen();
    let mut peers: Vec<Peer> = (0..3).map(|_| Peer::spawn("racer", &[&address])).collect();
    let mut connections: Vec<TcpStream> = (0..3).map(|_| listener.accept().unwrap().0).collect();
    thread::scope(|scope| {
        scope.spawn(|| release("start", &mut peers));
        let (last, others) = connections.split_last_mut().unwrap();
        for connection in &mut *others {
            connection.write_all(b".").unwrap();
            connection.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let early = connection.read(&mut [0]).expect_err("it was let go early");
            assert!(matches!(early.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{early}");
        }
        last.write_all(b".").unwrap();
    });
    for connection in &mut connections {
        connection.set_read_timeout(Some(DEADLINE)).unwrap();
        connection.read_exact(&mut [0]).unwrap();
    }
    peers.into_iter().for_each(Peer::finish);
}

#[test]
fn names_differ_between_and_within_processes() {
    let mut names = vec![unique_name("n"), unique_name("n")];
    for _ in 0..2 {
        names.push(Peer::spawn("namer", &[]).expect_line());
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(names.iter().all(|name| name.len() <= 40 && name.ends_with("-n")), "{names:?}");
}

#[test]
fn a_temporary_directory_goes_with_all_in_it() {
    let dir = TempDir::new();
    let path = dir.path().to_owned();
    fs::create_dir(dir.join("inner")).unwrap();
    fs::write(dir.join("inner").join("file"), "bytes").unwrap();
    drop(dir);
    assert!(!path.exists());
}

#[test]
fn who_leaves_nothing_passes_the_leak_check() {
    Peer::spawn("tidy", &[]).finish();
}

#[test]
fn an_open_file_and_a_child_are_leaks() {
    let told = if cfg!(windows) { "cannot remove" } else { "left behind:\ndescriptor" };
    assert_contains(&failure(|| Peer::spawn("leaks_an_open_file", &[]).finish()), told);
    assert_contains(&failure(|| Peer::spawn("leaks_a_child", &[]).finish()), "the peer mute");
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_in_shared_memory_is_a_leak() {
    let inner = format!("/dev/shm/{}", unique_name("inner"));
    fs::create_dir(&inner).unwrap();
    for dir in ["/dev/shm", &inner] {
        let text = failure(|| Peer::spawn("leaks_a_file", &[dir]).finish());
        let (_, tail) = text.split_once("left behind:\nfile ").expect("the file is named");
        let path = tail.lines().next().unwrap();
        assert!(path.starts_with(dir), "{path}");
        fs::remove_file(path).unwrap();
    }
    fs::remove_dir(&inner).unwrap();
}
