//! The test's side: starting a peer, talking to it, and ending it in every way a process can end.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use crate::progress::Progress;
use crate::{DEADLINE, lock, names, program, sys, wire};

/// How long the pipes of a dead peer may stay open: a process of its own that it left behind can hold them.
const PIPES_CLOSE: Duration = Duration::from_secs(1);

/// Every peer of this process that was not dropped.
static LIVE: Mutex<Vec<Arc<Process>>> = Mutex::new(Vec::new());

/// Another process, playing a role of this test binary.
///
/// Dropping it kills it and waits for its end. If the test is failing, what it wrote to its stderr is shown.
///
/// # Examples
///
/// ```no_run
/// # use testkit::Peer;
/// // A peer that takes a lock, and dies with it:
/// let mut holder = Peer::spawn("holder", &["name"]);
/// holder.expect("locked");
/// holder.kill();
/// assert!(!holder.wait().success());
/// ```
#[derive(Debug)]
pub struct Peer {
    process: Arc<Process>,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

#[derive(Debug)]
struct Process {
    role: String,
    id: u32,
    child: Mutex<Child>,
    log: Mutex<Log>,
    reader_ended: Condvar,
}

#[derive(Debug)]
struct Log {
    /// What it wrote to its stderr, and what it printed to its stdout that was not for its parent.
    text: String,
    /// Whether the role was found.
    greeted: bool,
    /// Whether a failure has shown the text.
    shown: bool,
    readers: u32,
}

impl Peer {
    /// Starts this binary again, or the one that [`PROGRAM`](crate::PROGRAM) names, to play a role that [`peers!`](crate::peers) names.
    ///
    /// Returns at once; a role that does not exist is found out by whatever waits for the peer next.
    ///
    /// # Panics
    ///
    /// If the system refuses.
    #[track_caller]
    #[must_use]
    pub fn spawn(role: &str, args: &[&str]) -> Peer {
        Peer::spawn_with(role, args, |_| {})
    }

    /// As [`spawn`](Peer::spawn), after a change to the command: another user, environment or directory.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use testkit::Peer;
    /// let peer = Peer::spawn_with("slow", &[], |command| {
    ///     command.env(testkit::LIFETIME, "300");
    /// });
    /// ```
    ///
    /// # Panics
    ///
    /// If the system refuses.
    #[track_caller]
    #[must_use]
    pub fn spawn_with(role: &str, args: &[&str], change: impl FnOnce(&mut Command)) -> Peer {
        let mut joined = String::new();
        for arg in args {
            assert!(!arg.contains(wire::ARG_END), "{arg:?} holds the separator of arguments");
            joined.push_str(arg);
            joined.push(wire::ARG_END);
        }
        let mut command = Command::new(program());
        command
            .args([wire::ENTRY, "--nocapture", "--test-threads=1"])
            .env(wire::ROLE, role)
            .env(wire::ARGS, joined)
            .env(names::FAMILY, names::family())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        change(&mut command);
        let mut child = spawn(&mut command).unwrap_or_else(|error| panic!("cannot start the peer {role}: {error}"));

        let stdin = child.stdin.take().expect("stdin is piped");
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let process = Arc::new(Process {
            role: role.to_owned(),
            id: child.id(),
            child: Mutex::new(child),
            log: Mutex::new(Log { text: String::new(), greeted: false, shown: false, readers: 2 }),
            reader_ended: Condvar::new(),
        });
        let (said, lines) = mpsc::channel();
        process.clone().read(move |process| process.read_stdout(stdout, &said));
        process.clone().read(move |process| process.read_stderr(stderr));
        lock(&LIVE).push(process.clone());
        Peer { process, stdin, lines }
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id
    }

    /// Sends one line, which the peer gets from [`hear`](crate::peer::hear).
    ///
    /// # Panics
    ///
    /// If there is a line break in it, or if the peer is dead.
    #[track_caller]
    pub fn send(&mut self, line: impl ToString) {
        let line = line.to_string();
        assert!(!line.contains('\n'), "one line at a time: {line:?}");
        self.write(wire::LINE, &line);
    }

    /// The next line that the peer says, waiting for it until [`DEADLINE`].
    ///
    /// # Panics
    ///
    /// If none comes.
    #[track_caller]
    pub fn expect_line(&mut self) -> String {
        self.expect_line_within(DEADLINE)
    }

    /// As [`expect_line`](Peer::expect_line), with another deadline.
    ///
    /// The deadline counts only while the peer makes no progress, so that a busy machine slows a
    /// test down and does not fail it. A peer makes progress when it writes to its standard error,
    /// and on Linux when it or a child process of it uses the processor. Between two writes, it may
    /// use five times the deadline of processor time.
    ///
    /// # Panics
    ///
    /// If none comes.
    #[track_caller]
    pub fn expect_line_within(&mut self, deadline: Duration) -> String {
        let mut progress: Option<Progress> = None;
        loop {
            match self.lines.recv_timeout(deadline / 2) {
                Ok(line) => return line,
                Err(RecvTimeoutError::Timeout) => {
                    let written = self.stderr().len();
                    // Looking at all processes takes milliseconds, so only a silent peer costs that.
                    let Some(progress) = &mut progress else {
                        progress = Some(Progress::of(self.pid(), written));
                        continue;
                    };
                    if !progress.goes_on(written, deadline) {
                        self.fail(&format!("said nothing for {deadline:?}"));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.await_exit(PIPES_CLOSE);
                    self.fail("ended instead of saying something")
                }
            }
        }
    }

    /// Waits until the peer says something, which must be this.
    ///
    /// # Panics
    ///
    /// If it is something else, or nothing.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let line = self.expect_line();
        if line != text {
            self.fail(&format!("said {line:?} where {text:?} was expected"));
        }
    }

    /// Waits this long for the peer to say nothing: for a peer that must be blocked. It can only ever err
    /// in favour of the code under test.
    ///
    /// # Panics
    ///
    /// If the peer says something or ends.
    #[track_caller]
    pub fn expect_silence(&mut self, time: Duration) {
        match self.lines.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(line) => self.fail(&format!("said {line:?} where it was to be silent")),
            Err(RecvTimeoutError::Disconnected) => {
                self.await_exit(PIPES_CLOSE);
                self.fail("ended where it was to be silent")
            }
        }
    }

    /// Kills it (SIGKILL, `TerminateProcess`) and returns without waiting for its end; see
    /// [`wait`](Peer::wait). Nothing happens if it ended before.
    ///
    /// # Panics
    ///
    /// If the system refuses.
    #[track_caller]
    pub fn kill(&mut self) {
        if let Err(error) = lock(&self.process.child).kill() {
            // Windows refuses to terminate what is ending already.
            if !self.await_exit(PIPES_CLOSE) {
                self.fail(&format!("cannot be killed: {error}"));
            }
        }
    }

    /// Stops it (SIGSTOP) and returns when it stands still.
    ///
    /// # Panics
    ///
    /// If it is dead and was waited for.
    #[cfg(unix)]
    pub fn stop(&mut self) {
        let child = lock(&self.process.child);
        sys::unix::stop(sys::unix::pid(&child));
    }

    /// Lets it go on after [`stop`](Peer::stop) (SIGCONT).
    ///
    /// # Panics
    ///
    /// If it is dead and was waited for.
    #[cfg(unix)]
    pub fn cont(&mut self) {
        let child = lock(&self.process.child);
        sys::unix::cont(sys::unix::pid(&child));
    }

    /// Waits for its end until [`DEADLINE`]. By then the system has closed all that it had open.
    ///
    /// # Panics
    ///
    /// If it does not end, or ends well without having played its role.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        if !self.await_exit(DEADLINE) {
            self.fail(&format!("did not end within {DEADLINE:?}"));
        }
        let status = lock(&self.process.child).wait().expect("a child that ended can be reaped");
        self.process.settle();
        let greeted = lock(&self.process.log).greeted;
        if status.success() && !greeted {
            self.fail("plays no role");
        }
        status
    }

    /// Tells the peer that nothing more will be sent, so that its [`hear`](crate::peer::hear) returns
    /// `None`, and waits for it to end well.
    ///
    /// # Panics
    ///
    /// If it says one more line, does not end by [`DEADLINE`], or ends badly.
    #[track_caller]
    pub fn finish(mut self) {
        // It may have ended by itself, or just be doing so: only its exit status tells whether well.
        let _ = self.stdin.write_all(&[wire::CLOSE, b'\n']);
        let status = self.wait();
        if !status.success() {
            self.fail("was to end well");
        }
        if let Ok(line) = self.lines.try_recv() {
            self.fail(&format!("said {line:?}, which nobody waited for"));
        }
    }

    /// What it wrote to its stderr so far; all of it once [`wait`](Peer::wait) has returned. What it
    /// printed to its stdout is there too.
    #[must_use]
    pub fn stderr(&self) -> String {
        lock(&self.process.log).text.clone()
    }

    #[track_caller]
    fn write(&mut self, kind: u8, text: &str) {
        let mut bytes = vec![kind];
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(b'\n');
        if let Err(error) = self.stdin.write_all(&bytes) {
            self.await_exit(PIPES_CLOSE);
            self.fail(&format!("cannot be told {text:?}: {error}"));
        }
    }

    fn await_exit(&self, deadline: Duration) -> bool {
        let end = {
            let mut child = lock(&self.process.child);
            if matches!(child.try_wait(), Ok(Some(_))) {
                return true;
            }
            sys::End::of(&child)
        };
        // Without the lock, so that a watchdog can kill the child meanwhile.
        end.wait(deadline)
    }

    #[track_caller]
    fn fail(&self, what: &str) -> ! {
        panic!("{}", self.process.describe(what))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        {
            let mut child = lock(&self.process.child);
            // It may have ended already, and then there is nothing to be done.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.process.settle();
        lock(&LIVE).retain(|process| !Arc::ptr_eq(process, &self.process));
        let shown = lock(&self.process.log).shown;
        if thread::panicking() && !shown {
            eprintln!("{}", self.process.describe("was there when the test failed"));
        }
    }
}

impl Process {
    fn read(self: Arc<Self>, reader: impl FnOnce(&Process) + Send + 'static) {
        thread::spawn(move || {
            reader(&self);
            lock(&self.log).readers -= 1;
            self.reader_ended.notify_all();
        });
    }

    fn read_stdout(&self, stdout: impl Read, said: &Sender<String>) {
        let mut stdout = BufReader::new(stdout);
        let mut line = Vec::new();
        while matches!(stdout.read_until(b'\n', &mut line), Ok(1..)) {
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let mark = text.iter().position(|&byte| byte == wire::MARK);
            let printed = &text[..mark.unwrap_or(text.len())];
            {
                let mut log = lock(&self.log);
                // What comes before the greeting is libtest's.
                if log.greeted && !printed.is_empty() {
                    log.text.push_str(&String::from_utf8_lossy(printed));
                    log.text.push('\n');
                }
                log.greeted |= mark.is_some();
            }
            if let Some([wire::LINE, line @ ..]) = mark.map(|mark| &text[mark + 1..]) {
                // The test may be done with this peer.
                let _ = said.send(String::from_utf8_lossy(line).into_owned());
            }
            line.clear();
        }
    }

    fn read_stderr(&self, mut stderr: impl Read) {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stderr.read(&mut buffer) {
            lock(&self.log).text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }

    /// Waits until all that a dead process wrote has been read.
    fn settle(&self) {
        let log = lock(&self.log);
        // A poisoned lock is as good here; and past the deadline there is what there is.
        drop(self.reader_ended.wait_timeout_while(log, PIPES_CLOSE, |log| log.readers > 0));
    }

    /// What happened to it, how it ended, and what it wrote.
    fn describe(&self, what: &str) -> String {
        let mut text = format!("the peer {} (process {}) {what}", self.role, self.id);
        let ended = lock(&self.child).try_wait().ok().flatten();
        if let Some(status) = ended {
            self.settle();
            let _ = write!(text, "; it ended with {status}");
        }
        let mut log = lock(&self.log);
        log.shown = true;
        if ended.is_some() && !log.greeted {
            let _ = write!(text, "; its role never began: does a `peers!` name {}?", self.role);
        }
        let _ = match log.text.trim_end() {
            "" => write!(text, "; its stderr is empty"),
            written => write!(text, "; its stderr:\n{written}\n--- end of its stderr"),
        };
        text
    }
}

/// Lets peers go that wait at the [line](crate::peer::line_up) of this name, all together: none before
/// the last has come.
///
/// # Examples
///
/// ```no_run
/// # use testkit::Peer;
/// let mut peers: Vec<Peer> = (0..4).map(|_| Peer::spawn("racer", &[])).collect();
/// testkit::release("start", &mut peers);
/// ```
///
/// # Panics
///
/// If one does not come.
#[track_caller]
pub fn release<'a>(name: &str, peers: impl IntoIterator<Item = &'a mut Peer>) {
    let mut waiting = Vec::new();
    for peer in peers {
        peer.expect(name);
        waiting.push(peer);
    }
    for peer in waiting {
        peer.send(name);
    }
}

/// Kills every live peer and tells what is known of each.
pub(crate) fn kill_all() -> Vec<String> {
    let live = lock(&LIVE);
    let texts = live.iter().map(|process| process.describe("was alive")).collect();
    for process in live.iter() {
        // The process ends right after; what could not be killed sees that and ends by itself.
        let _ = lock(&process.child).kill();
    }
    texts
}

/// The peers of this process that were not dropped.
pub(crate) fn live() -> Vec<String> {
    lock(&LIVE).iter().map(|process| format!("the peer {} (process {})", process.role, process.id)).collect()
}

/// Starts a process. Wine now and then fails to (`ERROR_INTERNAL_ERROR`: the new process died before it ran), and does it
/// when asked again.
///
/// # Errors
///
/// As [`Command::spawn`].
pub fn spawn(command: &mut Command) -> std::io::Result<Child> {
    const INTERNAL_ERROR: i32 = 1359;
    let mut tries = 0..5;
    loop {
        match command.spawn() {
            Err(error) if cfg!(windows) && error.raw_os_error() == Some(INTERNAL_ERROR) && tries.next().is_some() => {}
            started => return started,
        }
    }
}
