//! Runs the program as a user does, and ends what hangs.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Long, since only a test that fails waits it out.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The result of a run of the program.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Output {
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Output {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.text(), self.stderr);
        assert!(!self.stderr.contains("panicked at"), "{}", self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Output {
        assert!(self.stderr.contains(text), "`{text}` is not in: {}", self.stderr);
        self
    }

    /// Standard output as text, with the line ends of Unix.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).replace("\r\n", "\n")
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

pub(crate) fn program() -> Command {
    #[allow(unused_mut, reason = "only Unix changes it")]
    let mut command = Command::new(env!("CARGO_BIN_EXE_mmf"));
    #[cfg(unix)]
    default_signals(&mut command);
    command
}

/// Gives the program the default action of the signals that end it. A process inherits ignored
/// signals: `nohup` ignores SIGHUP, and a shell ignores SIGINT for its background jobs.
#[cfg(unix)]
fn default_signals(command: &mut Command) {
    let reset = || {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
            // SAFETY: takes numbers; the default action runs no code of this process.
            if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure calls only `signal`, which is async-signal-safe, and allocates nothing.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, reset) };
}

/// Runs it to its end, with nothing on standard input.
#[track_caller]
pub(crate) fn mmf<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    mmf_with(args, &[])
}

/// Runs it to its end, with `input` on standard input.
#[track_caller]
pub(crate) fn mmf_with<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, input: &[u8]) -> Output {
    run(program().args(args), input)
}

#[track_caller]
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Output {
    let shown = format!("{command:?}");
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = testkit::spawn(command).expect(&shown);
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let input = input.to_vec();
    let written = thread::spawn(move || {
        // It may not want to read it all.
        let _ = stdin.write_all(&input);
    });
    let stdout = collect(child.stdout.take().expect("stdout is piped"));
    let stderr = collect(child.stderr.take().expect("stderr is piped"));
    let code = wait(&mut child, &shown);
    written.join().expect("the writer");
    let stderr = String::from_utf8_lossy(&stderr.join().expect("the reader")).into_owned();
    Output { code, stdout: stdout.join().expect("the reader"), stderr }
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("a pipe can be read");
        bytes
    })
}

/// Waits for the end, and makes one if there is none in time.
#[track_caller]
pub(crate) fn wait(child: &mut Child, shown: &str) -> Option<i32> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status.code();
        }
        if started.elapsed() > LIMIT {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{shown} did not end in {LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// A program that runs, and is gone when this is dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    /// Its standard input stays open.
    #[track_caller]
    pub(crate) fn start<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Running {
        let mut command = program();
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = testkit::spawn(&mut command).expect("the program starts");
        let lines = lines(child.stdout.take().expect("stdout is piped"));
        Running { child, lines }
    }

    /// The next line that it prints.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(LIMIT).expect("it prints a line in time")
    }

    /// A line that it has printed already, if there is one.
    pub(crate) fn try_line(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    #[track_caller]
    pub(crate) fn wait(&mut self) -> Option<i32> {
        wait(&mut self.child, "the program")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || BufReader::new(from).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    lines
}

/// Bytes of which no two runs are alike.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}
