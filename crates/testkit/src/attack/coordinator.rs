//! The coordinator's side of the victims: starts them, gives orders, notes each call, and kills a
//! victim that makes no progress.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::judge::{Call, End, Outcome};
use super::victim::{Bound, schedule_in};
use crate::{DEADLINE, LIFETIME, lock, program, wire};

/// How often victims are looked after that say nothing.
const TICK: Duration = Duration::from_millis(50);
/// How much longer than its limit a call may take before its process is killed.
const GRACE: Duration = Duration::from_secs(5);

struct Process {
    child: Child,
    /// `None` once it was told that nothing more will come.
    stdin: Option<ChildStdin>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    /// The call under way.
    open: Option<(String, Bound, Instant)>,
    /// The last line that was no call.
    answer: Option<String>,
    last: Instant,
    told_to_end: bool,
    /// Where the system tells how its thread was scheduled, and what that was when the call under
    /// way began.
    schedule: String,
    before: (u64, u64),
}

impl Process {
    /// Nanoseconds that the thread which makes the calls had a processor, and that it waited for
    /// one.
    fn schedule(&self) -> (u64, u64) {
        std::fs::read(&self.schedule).map_or((0, 0), |bytes| schedule_in(&bytes))
    }
}

/// All victims of one trial.
pub(super) struct Coordinator {
    processes: Vec<Option<Process>>,
    send: Sender<(usize, Option<String>)>,
    lines: Receiver<(usize, Option<String>)>,
    pub(super) outcome: Outcome,
}

impl Coordinator {
    pub(super) fn new() -> Coordinator {
        let (send, lines) = mpsc::channel();
        Coordinator { processes: Vec::new(), send, lines, outcome: Outcome::default() }
    }

    /// Starts one more victim, and returns its number.
    pub(super) fn start(&mut self, args: &[String]) -> usize {
        let number = self.processes.len();
        let joined: String = args.iter().map(|arg| format!("{arg}{}", wire::ARG_END)).collect();
        let mut command = Command::new(program());
        command
            .args([wire::ENTRY, "--nocapture", "--test-threads=1"])
            .env(wire::ROLE, "attack_victim")
            .env(wire::ARGS, joined)
            .env(LIFETIME, "600")
            // Each arena of glibc's reserves 128 MiB of addresses for a moment, which would hide
            // what the library takes.
            .env("MALLOC_ARENA_MAX", "1")
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("a process can be started");
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut stderr_pipe = child.stderr.take().expect("stderr is piped");
        let stderr = Arc::new(Mutex::new(String::new()));
        let send = self.send.clone();
        let out = thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                // libtest may have begun the line.
                let Some(at) = line.iter().position(|byte| *byte == wire::MARK) else { continue };
                if line.get(at + 1) == Some(&wire::LINE) {
                    let text = String::from_utf8_lossy(&line[at + 2..]).into_owned();
                    // The coordinator is gone when the trial is over.
                    let _ = send.send((number, Some(text)));
                }
            }
            let _ = send.send((number, None));
        });
        let noted = Arc::clone(&stderr);
        let err = thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stderr_pipe.read_to_end(&mut bytes);
            lock(&noted).push_str(&String::from_utf8_lossy(&bytes));
        });
        let now = Instant::now();
        let readers = vec![out, err];
        let process = Process {
            child,
            stdin,
            stderr,
            readers,
            open: None,
            answer: None,
            last: now,
            told_to_end: false,
            schedule: String::new(),
            before: (0, 0),
        };
        self.processes.push(Some(process));
        number
    }

    /// Gives an order; nothing happens where the victim is dead.
    pub(super) fn order(&mut self, victim: usize, text: &str) {
        let Some(process) = &mut self.processes[victim] else { return };
        process.answer = None;
        process.last = Instant::now();
        if let Some(stdin) = &mut process.stdin {
            // It may just have died, which its end tells.
            let _ = stdin.write_all(format!("{}{text}\n", char::from(wire::LINE)).as_bytes());
        }
    }

    /// Waits for the answers of these victims; `None` for one that died.
    pub(super) fn answers(&mut self, victims: &[usize]) -> Vec<Option<String>> {
        while victims.iter().any(|victim| self.is_busy(*victim)) {
            self.hear();
        }
        victims
            .iter()
            .map(|victim| self.processes[*victim].as_mut().and_then(|process| process.answer.take()))
            .collect()
    }

    /// Gives an order and waits for the answer.
    pub(super) fn ask(&mut self, victim: usize, text: &str) -> Option<String> {
        self.order(victim, text);
        self.answers(&[victim]).pop().flatten()
    }

    /// Lets them end.
    pub(super) fn end(&mut self, victims: &[usize]) {
        for victim in victims {
            if let Some(process) = &mut self.processes[*victim] {
                process.told_to_end = true;
                process.last = Instant::now();
                if let Some(stdin) = &mut process.stdin {
                    let _ = stdin.write_all(&[wire::CLOSE, b'\n']);
                }
            }
        }
        while victims.iter().any(|victim| self.processes[*victim].is_some()) {
            self.hear();
        }
    }

    fn is_busy(&self, victim: usize) -> bool {
        self.processes[victim].as_ref().is_some_and(|process| process.answer.is_none())
    }

    /// Waits for a line, and looks for victims that hang.
    fn hear(&mut self) {
        match self.lines.recv_timeout(TICK) {
            Ok((victim, Some(line))) => self.note(victim, &line),
            Ok((victim, None)) => self.bury(victim, None),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        for victim in 0..self.processes.len() {
            let Some(process) = &self.processes[victim] else { continue };
            let limit = match &process.open {
                Some((name, bound, _)) => 2 * call(victim, name, *bound).limit() + GRACE,
                None => DEADLINE,
            };
            let busy = process.answer.is_none() || process.told_to_end;
            if !busy || process.last.elapsed() <= limit {
                continue;
            }
            // On a loaded machine its thread may not have run at all.
            let waited = process.schedule().1.saturating_sub(process.before.1);
            if process.last.elapsed().saturating_sub(Duration::from_nanos(waited)) > limit {
                self.bury(victim, Some("was killed: no progress"));
            }
        }
    }

    fn note(&mut self, victim: usize, line: &str) {
        let Some(process) = &mut self.processes[victim] else { return };
        process.last = Instant::now();
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["b", name, letter, time] => {
                let time = Duration::from_micros(time.parse().unwrap_or(0));
                let bound = if letter == "d" { Bound::Deadline(time) } else { Bound::Work(time) };
                process.open = Some((name.to_owned(), bound, Instant::now()));
                process.before = process.schedule();
            }
            ["n", ..] => self.outcome.inner.extend(words[1..].iter().map(|name| (*name).to_owned())),
            ["e", wall, cpu, delay, heap, space, ..] => {
                let Some((name, bound, _)) = process.open.take() else { return };
                let number = |text: &str| text.parse::<u64>().unwrap_or(0);
                let time = |text: &str| Duration::from_micros(number(text));
                self.outcome.calls.push(Call {
                    wall: time(wall),
                    cpu: time(cpu),
                    delay: time(delay),
                    heap: number(heap),
                    space: number(space) * 1024,
                    outcome: words[6..].join(" "),
                    ended: true,
                    ..call(victim, &name, bound)
                });
            }
            ["ready", thread] => {
                process.schedule = format!("/proc/{thread}/schedstat");
                process.answer = Some(line.to_owned());
            }
            _ => process.answer = Some(line.to_owned()),
        }
    }

    /// Notes how a victim ended; kills it where `why` says so.
    fn bury(&mut self, victim: usize, why: Option<&str>) {
        let Some(mut process) = self.processes[victim].take() else { return };
        let (cpu, delay) = process.schedule();
        let (cpu, delay) = (cpu.saturating_sub(process.before.0), delay.saturating_sub(process.before.1));
        let (cpu, delay) = (Duration::from_nanos(cpu), Duration::from_nanos(delay));
        if why.is_some() {
            let _ = process.child.kill();
        }
        drop(process.stdin.take());
        let status = process.child.wait().expect("a child that has ended or was killed");
        for reader in process.readers {
            let _ = reader.join();
        }
        if let Some((name, bound, began)) = process.open {
            let outcome = why.unwrap_or("died").to_owned();
            self.outcome.calls.push(Call { wall: began.elapsed(), cpu, delay, outcome, ..call(victim, &name, bound) });
            if why.is_some() {
                return;
            }
        }
        let text = match (why, status.signal()) {
            (Some(why), _) => why.to_owned(),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => format!("code {}", status.code().unwrap_or(-1)),
        };
        let good = why.is_none() && process.told_to_end && status.success();
        let stderr = lock(&process.stderr).clone();
        self.outcome.ends.push(End { victim, status: text, good, stderr });
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().flatten() {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

/// A call of which nothing is known but what it is.
fn call(victim: usize, name: &str, bound: Bound) -> Call {
    Call {
        victim,
        name: name.to_owned(),
        bound,
        wall: Duration::ZERO,
        cpu: Duration::ZERO,
        delay: Duration::ZERO,
        heap: 0,
        space: 0,
        outcome: String::new(),
        ended: false,
    }
}
