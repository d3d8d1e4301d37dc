//! Forked processes: traced ones, which are led instruction by instruction, and helpers, which answer lines.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::panic::{self, AssertUnwindSafe};
use std::ptr;
use std::time::Duration;

/// What `ptrace` takes as its request.
#[cfg(not(target_env = "musl"))]
type Request = libc::c_uint;
#[cfg(target_env = "musl")]
type Request = libc::c_int;

/// What became of a traced process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It did one instruction.
    Stepped,
    /// It told that it is at a mark.
    Marked,
    /// Anything else: a fault, an end.
    Other(i32),
}

/// A forked child, killed and waited for when dropped.
#[derive(Debug)]
pub(super) struct Child(libc::pid_t);

/// Forks. The child dies with this process's thread.
fn fork(child: impl FnOnce()) -> Child {
    // SAFETY: the child has this thread alone. What it calls takes no lock that another thread of this process holds for
    // longer than an instant, but the allocator's, which libc sees to.
    let pid = unsafe { libc::fork() };
    assert_ne!(pid, -1, "fork: {}", std::io::Error::last_os_error());
    if pid > 0 {
        return Child(pid);
    }
    // SAFETY: takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let code = if panic::catch_unwind(AssertUnwindSafe(child)).is_ok() { 0 } else { 101 };
    // SAFETY: ends the process at once, so that nothing of the parent's is dropped here.
    unsafe { libc::_exit(code) }
}

/// A mark for whoever traces this process: stops it.
pub(super) fn mark() {
    // SAFETY: takes a number only.
    unsafe { libc::raise(libc::SIGSTOP) };
}

impl Child {
    /// A child that this thread traces. It runs until its first [`mark`].
    pub(super) fn traced(child: impl FnOnce()) -> Child {
        let traced = fork(|| {
            // SAFETY: takes no pointers.
            unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, ptr::null_mut::<u8>(), ptr::null_mut::<u8>()) };
            child();
        });
        assert_eq!(traced.wait(), Stop::Marked, "the traced process prepares itself");
        traced
    }

    fn wait(&self) -> Stop {
        let mut status = 0;
        // SAFETY: a child of ours that was not waited for; writes one number.
        let pid = unsafe { libc::waitpid(self.0, &raw mut status, 0) };
        assert_eq!(pid, self.0, "waitpid: {}", std::io::Error::last_os_error());
        match status {
            status if libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGTRAP => Stop::Stepped,
            status if libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP => Stop::Marked,
            status => Stop::Other(status),
        }
    }

    /// One instruction, a system call in one piece.
    pub(super) fn step(&self) -> Stop {
        self.go_on(libc::PTRACE_SINGLESTEP)
    }

    /// Goes on until right before a system call, or in one until right behind it. Who is killed before it does not do it.
    pub(super) fn to_system_call(&self) -> Stop {
        self.go_on(libc::PTRACE_SYSCALL)
    }

    fn go_on(&self, how: Request) -> Stop {
        // SAFETY: a stopped process that this thread traces; no signal is passed on, and nothing is pointed to.
        let done = unsafe { libc::ptrace(how, self.0, ptr::null_mut::<u8>(), ptr::null_mut::<u8>()) };
        assert_eq!(done, 0, "ptrace: {}", std::io::Error::last_os_error());
        self.wait()
    }

    /// Whether the next instruction is `syscall`.
    pub(super) fn is_at_system_call(&self) -> bool {
        self.word(self.registers().rip) & 0xffff == 0x050f
    }

    pub(super) fn id(&self) -> libc::pid_t {
        self.0
    }

    pub(super) fn registers(&self) -> libc::user_regs_struct {
        // SAFETY: plain integers, for which zeros are valid.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        // SAFETY: a stopped process that this thread traces; the registers are written to what is as large.
        unsafe { libc::ptrace(libc::PTRACE_GETREGS, self.0, ptr::null_mut::<u8>(), &raw mut registers) };
        registers
    }

    /// The instruction at an address, and what is behind it.
    pub(super) fn code(&self, address: u64) -> [u8; 16] {
        let mut code = [0; 16];
        for (to, from) in code.chunks_exact_mut(8).zip([address, address + 8]) {
            to.copy_from_slice(&self.word(from).to_ne_bytes());
        }
        code
    }

    fn word(&self, address: u64) -> libc::c_long {
        // SAFETY: reads in the other process, where the system checks the address.
        unsafe { libc::ptrace(libc::PTRACE_PEEKTEXT, self.0, address, ptr::null_mut::<u8>()) }
    }

    pub(super) fn kill(self) {
        drop(self);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: a child of ours that was not waited for to its end, so the number is its own.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        let mut status = 0;
        loop {
            // SAFETY: writes one number.
            let pid = unsafe { libc::waitpid(self.0, &raw mut status, 0) };
            // A traced process may report a stop that came before.
            if pid != self.0 || libc::WIFSIGNALED(status) || libc::WIFEXITED(status) {
                return;
            }
        }
    }
}

/// A forked process that answers lines.
pub(super) struct Helper {
    child: Option<Child>,
    lines: BufReader<UnixStream>,
}

/// A helper's end of its line to this process.
pub(super) struct Line(BufReader<UnixStream>);

impl Line {
    pub(super) fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).ok().filter(|read| *read > 0)?;
        Some(line.trim_end().to_owned())
    }

    pub(super) fn say(&mut self, text: &str) {
        // If nobody hears, this process is about to be killed.
        let _ = self.0.get_mut().write_all(format!("{}\n", text.replace('\n', " ")).as_bytes());
    }
}

impl Helper {
    pub(super) fn start(work: impl FnOnce(&mut Line)) -> Helper {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let child = fork(|| work(&mut Line(BufReader::new(theirs))));
        ours.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        Helper { child: Some(child), lines: BufReader::new(ours) }
    }

    pub(super) fn send(&mut self, text: &str) {
        self.lines.get_mut().write_all(format!("{text}\n").as_bytes()).expect("a helper that lives");
    }

    /// What it says, or `None` where it says nothing for five seconds. Five seconds do not count in
    /// which it waited for a processor for more than one.
    pub(super) fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        let mut delay = self.delay();
        loop {
            match self.lines.read_line(&mut line) {
                Ok(0) => return None,
                Ok(_) => return Some(line.trim_end().to_owned()),
                Err(_) => {}
            }
            let now = self.delay();
            if now.saturating_sub(delay) < Duration::from_secs(1) {
                return None;
            }
            delay = now;
        }
    }

    /// How long it has been ready to run and waited for a processor: zero where the kernel does not
    /// tell (`CONFIG_SCHED_INFO`).
    fn delay(&self) -> Duration {
        let id = self.child.as_ref().map_or(0, Child::id);
        let text = fs::read_to_string(format!("/proc/{id}/schedstat")).unwrap_or_default();
        let nanoseconds = text.split(' ').nth(1).and_then(|number| number.parse().ok());
        Duration::from_nanos(nanoseconds.unwrap_or(0))
    }

    pub(super) fn kill(&mut self) {
        drop(self.child.take());
    }
}
