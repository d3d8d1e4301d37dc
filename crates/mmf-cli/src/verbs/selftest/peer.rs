//! The peer process of a check: this program, started with a step.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use mmf::{ErrorKind, FaultPolicy, Mapping};

use super::{Outcome, Verdict, ensure};
use crate::failure::{FAILED, Failure, Result};
use crate::object::Object;
use crate::output::print;

pub(super) const HELLO: &[u8] = b"from the test process";
pub(super) const ANSWER: &[u8] = b"from the other process";
pub(super) const ANSWER_AT: usize = 1000;

/// The step of the peer process.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Step {
    /// Reads what it finds, and answers.
    Answer,
    /// Creates the object and holds it until its standard input ends.
    Hold,
    /// Loses the end of a mapped file, and copies from and to where it was.
    CutTrap,
    /// The same by system calls.
    CutSystemCalls,
}

impl Step {
    fn word(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Does the step and tells how it went, as a line of JSON.
pub(super) fn run(step: Step, object: &Object) -> Result<()> {
    let outcome = match step {
        Step::Answer => answer(object),
        Step::Hold => return hold(object),
        Step::CutTrap => cut(object, FaultPolicy::Trap),
        Step::CutSystemCalls => cut(object, FaultPolicy::SystemCalls),
    };
    tell(outcome)
}

fn tell(outcome: Verdict) -> Result<()> {
    let outcome = outcome.map_or_else(|outcome| outcome, Outcome::Works);
    match serde_json::to_string(&outcome) {
        Ok(line) => print(&(line + "\n")),
        Err(error) => Err(Failure::new(FAILED, error.to_string())),
    }
}

fn answer(object: &Object) -> Verdict {
    let map = Mapping::open(object.source())?;
    ensure(map.read_to_vec(0, HELLO.len())? == HELLO, "another process sees what was written before it came")?;
    map.write_at(ANSWER_AT, ANSWER)?;
    Ok(String::new())
}

fn hold(object: &Object) -> Result<()> {
    match Mapping::create_new(object.source(), 4096) {
        Err(error) => tell(Err(error.into())),
        Ok(_held) => {
            tell(Ok(String::new()))?;
            // It ends when the test process closes its end, or dies.
            let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
            Ok(())
        }
    }
}

fn cut(object: &Object, policy: FaultPolicy) -> Verdict {
    let Some(path) = object.path() else {
        return Err(Outcome::Fails("it was given no file".to_owned()));
    };
    let page = mmf::page_size();
    let map = Mapping::options().fault_policy(policy).open(object.source())?;
    let file = OpenOptions::new().write(true).open(path)?;
    if let Err(error) = file.set_len(page as u64) {
        return Err(Outcome::NotHere(format!("the system keeps a mapped file whole: {error}")));
    }
    let mut bytes = vec![0; 2 * page];
    let gone = |result: mmf::Result<()>, done: usize| {
        let expected = ErrorKind::Fault { offset: page, done };
        result.is_err_and(|error| *error.kind() == expected)
    };
    ensure(gone(map.read_at(page / 2, &mut bytes), page / 2), "a read tells at which byte the file ends")?;
    ensure(gone(map.write_at(page - 10, &bytes), 10), "a write tells at which byte the file ends")?;
    ensure(gone(map.fill(page..2 * page, 1), 0), "a fill tells at which byte the file ends")?;
    if policy == FaultPolicy::Trap {
        let loaded = map.load::<u64>(page, std::sync::atomic::Ordering::Relaxed);
        ensure(gone(loaded.map(drop), 0), "an atomic operation tells that its byte is gone")?;
    }
    ensure(map.read_at(0, &mut bytes[..page]).is_ok(), "the bytes before the end can still be read")?;
    let started = Instant::now();
    ensure(gone(map.read_at(page, &mut bytes[..8]), 0), "a read after the file's end does nothing")?;
    let took = started.elapsed();
    Ok(format!("{:.1} µs a fault", took.as_secs_f64() * 1e6))
}

/// A process that does a step, and is gone when this is dropped.
pub(super) struct Peer {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Peer {
    pub(super) fn start(step: Step, object: &mmf::Source) -> Verdict<Peer> {
        let argument: OsString = match object {
            mmf::Source::File(path) => prefixed(path),
            other => other.to_string().into(),
        };
        let mut child = Command::new(std::env::current_exe()?)
            .args(["selftest", "--step", &step.word()])
            .arg(argument)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        match child.stdout.take() {
            Some(stdout) => Ok(Peer { child, said: BufReader::new(stdout) }),
            None => Err(Outcome::Fails("the other process has no output".to_owned())),
        }
    }

    /// Its report after the step, or how it died.
    pub(super) fn outcome(&mut self) -> Verdict {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        match serde_json::from_str(&line) {
            Ok(Outcome::Works(about)) => Ok(about),
            Ok(outcome) => Err(outcome),
            Err(_) => {
                let status = self.child.wait()?;
                Err(Outcome::Fails(format!("the other process died: {status}")))
            }
        }
    }

    /// Lets it end by itself.
    pub(super) fn end(mut self) -> Verdict<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        ensure(status.success(), "the other process ended well")
    }

    /// Ends it at whatever it does, and tells when that was.
    pub(super) fn kill(mut self) -> Verdict<Instant> {
        self.child.kill()?;
        let killed = Instant::now();
        self.child.wait()?;
        Ok(killed)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It has ended already, or is not needed any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn prefixed(path: &Path) -> OsString {
    let mut text = OsString::from("file:");
    text.push(path);
    text
}

/// Polls a condition until it holds or the time is over.
pub(super) fn within(limit: Duration, mut done: impl FnMut() -> Verdict<bool>) -> Verdict<bool> {
    let started = Instant::now();
    loop {
        if done()? {
            return Ok(true);
        }
        if started.elapsed() > limit {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
