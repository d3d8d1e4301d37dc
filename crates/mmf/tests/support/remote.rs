//! Peer processes: one that operates on a mapping, and two that truncate and extend a file.

use std::fs::File;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mmf::{Access, Mapping, Result};
use testkit::{Peer, peer};

use super::cases::{self, Case, Kind, inherited, pattern, source_of};

/// A process that has a mapping of its own.
#[derive(Debug)]
pub(crate) struct Remote(Peer);

impl Remote {
    /// Starts the process, which opens the object at this address as the case asks.
    #[track_caller]
    pub(crate) fn open(address: &str, case: &Case) -> Remote {
        Remote::open_with(address, case, 0)
    }

    /// Does what [`open`](Remote::open) does, with a reserve.
    #[track_caller]
    pub(crate) fn open_with(address: &str, case: &Case, reserve: usize) -> Remote {
        let (from, to) = case.part.unwrap_or((0, u64::MAX));
        let way = format!("{:?} {:?} {from} {to} {reserve}", case.access, case.policy);
        let mut peer = Peer::spawn("operator", &[address, &way]);
        peer.expect("open");
        Remote(peer)
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, command: impl ToString) -> String {
        self.0.send(command);
        self.0.expect_line()
    }

    /// Writes `pattern(seed, len)` at `offset`.
    #[track_caller]
    pub(crate) fn write(&mut self, offset: usize, seed: u8, len: usize) {
        assert_eq!(self.ask(format!("write {offset} {len} {seed}")), "()");
    }

    /// Compares the bytes at `offset` with these.
    #[track_caller]
    pub(crate) fn expect(&mut self, offset: usize, bytes: &[u8]) {
        assert_eq!(self.ask(format!("sum {offset} {}", bytes.len())), sum(bytes).to_string());
    }

    #[track_caller]
    pub(crate) fn finish(self) {
        self.0.finish();
    }
}

/// Returns a hash of the bytes (FNV-1a).
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// The role behind [`Remote`]: carries out each line, and answers with the outcome or the kind of
/// error.
pub(crate) fn operator(args: &[&str]) {
    let map = open(args[0], args[1]).unwrap();
    peer::say("open");
    while let Some(line) = peer::hear() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<usize>().unwrap();
        peer::say(match words[0] {
            "write" => answer(map.write_at(number(1), &pattern(words[3].parse().unwrap(), number(2)))),
            "sum" => answer(map.read_to_vec(number(1), number(2)).map(|bytes| sum(&bytes))),
            "len" => map.len().to_string(),
            "refresh" => answer(map.refresh()),
            "grow" => answer(map.grow(number(1))),
            "add" => answer(map.fetch_add(number(1), number(2) as u64, Ordering::Relaxed)),
            other => panic!("what is {other}?"),
        });
    }
}

fn answer<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{:?}", error.kind()),
    }
}

fn open(address: &str, way: &str) -> Result<Mapping> {
    let words: Vec<&str> = way.split(' ').collect();
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    let access = [Access::ReadOnly, Access::ReadWrite, Access::CopyOnWrite].into_iter();
    let access = access.into_iter().find(|access| format!("{access:?}") == words[0]).unwrap();
    let policy = cases::POLICIES.into_iter().find(|policy| format!("{policy:?}") == words[1]).unwrap();
    let part = if number(3) == u64::MAX { None } else { Some((number(2), number(3))) };
    let mut options = Case { kind: Kind::Passed, part, policy, access }.options();
    if number(4) > 0 {
        options = options.reserve(number(4));
    }
    match source_of(address) {
        Some(source) => options.open(source),
        None => options.from_handle(inherited(address.strip_prefix("handle:").unwrap())),
    }
}

/// The role that sets a file's length to each number that it hears.
pub(crate) fn truncater(args: &[&str]) {
    let file = File::options().write(true).open(args[0]).unwrap();
    while let Some(len) = peer::hear() {
        file.set_len(len.parse().unwrap()).unwrap();
        peer::say("set");
    }
}

/// The role that truncates and extends a file again and again, for as many milliseconds as each
/// line says.
pub(crate) fn shaker(args: &[&str]) {
    let file = File::options().write(true).open(args[0]).unwrap();
    let whole: u64 = args[1].parse().unwrap();
    while let Some(time) = peer::hear() {
        let since = Instant::now();
        let mut rounds = 0_u64;
        while since.elapsed() < Duration::from_millis(time.parse().unwrap()) {
            file.set_len(whole * (rounds % 8) / 8).unwrap();
            file.set_len(whole).unwrap();
            rounds += 1;
            std::thread::yield_now();
        }
        peer::say(rounds);
    }
}
