//! The peer's side: what a role calls to talk to the test that started it.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, BufRead, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use crate::{LIFETIME, lock, sys, wire};

/// What a peer does: a function of the arguments that [`Peer::spawn`](crate::Peer::spawn) was given.
///
/// When it returns, the process ends with code 0; when it panics, with 101.
pub type Role = fn(&[&str]);

static HEARD: OnceLock<Mutex<Receiver<String>>> = OnceLock::new();

/// The functions that play the roles of this process's modules, by the roles' names.
static DECLARED: Mutex<BTreeMap<&str, &str>> = Mutex::new(BTreeMap::new());

/// Notes which functions play the roles of one module: their names, and their paths.
///
/// [`enter`] plays the first role of the wanted name that it meets, in whichever module that is.
/// [`peers!`](crate::peers) calls this function so that two roles of one name fail a test.
///
/// # Panics
///
/// If another function plays a role of the same name.
pub fn declare(roles: &[(&'static str, &'static str)]) {
    let mut declared = lock(&DECLARED);
    for &(name, function) in roles {
        let first = *declared.entry(name).or_insert(function);
        assert_eq!(first, function, "two functions play the role {name}: rename one of them");
    }
}

/// Plays the role that this process was started for, if it is one of these, and does not return then.
///
/// For programs that are not test binaries; in those, [`peers!`](crate::peers) calls it.
///
/// # Examples
///
/// ```standalone_crate
/// fn main() {
///     testkit::peer::enter(&[("adder", adder)]);
///
///     let mut adder = testkit::Peer::spawn("adder", &["2", "3"]);
///     adder.expect("5");
///     adder.finish();
/// }
///
/// fn adder(args: &[&str]) {
///     testkit::peer::say(args.iter().map(|arg| arg.parse::<u32>().unwrap()).sum::<u32>());
/// }
/// ```
pub fn enter(roles: &[(&str, Role)]) {
    let Ok(wanted) = env::var(wire::ROLE) else { return };
    let Some((_, role)) = roles.iter().find(|(name, _)| *name == wanted) else { return };

    let lifetime = env::var(LIFETIME).map_or(600, |text| text.parse().expect("a number of seconds"));
    thread::spawn(move || watch(&wanted, lifetime));
    let (heard, receiver) = mpsc::channel();
    HEARD.set(Mutex::new(receiver)).expect("a process plays one role");
    thread::spawn(move || listen(Some(heard)));
    tell(wire::HELLO, "");

    let args = env::var(wire::ARGS).unwrap_or_default();
    let args: Vec<&str> = args.split_terminator(wire::ARG_END).collect();
    // The panic's message goes to stderr, which the parent captures. libtest must not get to go on.
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| role(&args)));
    process::exit(if outcome.is_ok() { 0 } else { 101 });
}

/// Whether this process was started to play a role.
pub(crate) fn is_one() -> bool {
    HEARD.get().is_some()
}

/// Says one line to the test, which waits for it with [`Peer::expect`](crate::Peer::expect).
///
/// # Examples
///
/// ```no_run
/// testkit::peer::say("ready");
/// testkit::peer::say(42);
/// ```
///
/// # Panics
///
/// If there is a line break in it, or in a process that is no peer.
pub fn say(line: impl ToString) {
    assert!(is_one(), "only a peer can say something to its parent");
    let line = line.to_string();
    assert!(!line.contains('\n'), "one line at a time: {line:?}");
    tell(wire::LINE, &line);
}

/// The next line that the test sent with [`Peer::send`](crate::Peer::send), waiting for it; `None` when
/// the test [finishes](crate::Peer::finish) this peer. If the test's process dies, so does this one.
///
/// # Examples
///
/// ```no_run
/// while let Some(line) = testkit::peer::hear() {
///     testkit::peer::say(line.to_uppercase());
/// }
/// ```
///
/// # Panics
///
/// In a process that is no peer.
pub fn hear() -> Option<String> {
    let receiver = HEARD.get().expect("only a peer can hear its parent");
    lock(receiver).recv().ok()
}

/// Waits at a named line until the test lets all peers go together with [`release`](crate::release).
///
/// # Examples
///
/// ```no_run
/// // In the peer:
/// testkit::peer::line_up("start");
/// // In the test:
/// # let mut peers: Vec<testkit::Peer> = Vec::new();
/// testkit::release("start", &mut peers);
/// ```
///
/// # Panics
///
/// If the test says anything but that name.
pub fn line_up(name: &str) {
    say(name);
    assert_eq!(hear().as_deref(), Some(name), "the parent releases another line");
}

fn tell(kind: u8, text: &str) {
    let mut bytes = vec![wire::MARK, kind];
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(b'\n');
    // In one write, so that what other threads print stays outside the line.
    let mut stdout = io::stdout().lock();
    let told = stdout.write_all(&bytes).and_then(|()| stdout.flush());
    // A parent that is gone takes this process along in `listen`; a panic would only add noise.
    if told.is_err() {
        sys::end_now();
    }
}

fn listen(mut heard: Option<mpsc::Sender<String>>) {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        match (line.as_bytes().first(), &heard) {
            (Some(&wire::LINE), Some(sender)) => {
                // The receiver lives in a static.
                let _ = sender.send(line[1..].to_owned());
            }
            (Some(&wire::CLOSE), _) => heard = None,
            _ => break,
        }
    }
    // The parent closes its end by dying alone: a peer that it is done with it tells so, or kills.
    sys::end_now();
}

fn watch(role: &str, seconds: u64) {
    thread::sleep(Duration::from_secs(seconds));
    // Not `eprintln!`, which libtest may capture in this thread.
    let _ = writeln!(io::stderr(), "testkit: the peer {role} lived longer than {seconds} s");
    sys::end_now();
}
