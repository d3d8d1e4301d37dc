//! Calls of a Unix system that only tests make.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// A user who owns nothing.
pub(crate) const NOBODY: u32 = 65534;

/// Changes the user of this process, which cannot change it back.
pub(crate) fn become_user(uid: u32) {
    // SAFETY: an empty list, of which nothing is read.
    checked(unsafe { libc::setgroups(0, std::ptr::null()) });
    // SAFETY: takes a number only; root's call sets the saved id too (setgid(2)).
    checked(unsafe { libc::setgid(uid) });
    // SAFETY: takes a number only; as above (setuid(2)).
    checked(unsafe { libc::setuid(uid) });
}

/// Returns the outcome of a call, and fails if it is -1.
#[track_caller]
pub(crate) fn checked(outcome: libc::c_int) -> libc::c_int {
    assert_ne!(outcome, -1, "{}", io::Error::last_os_error());
    outcome
}

/// Gives this thread, and the processes it starts from now on, a `/dev/shm` of its own.
#[cfg(target_os = "linux")]
pub(crate) fn own_dev_shm(options: &str) {
    own_mounts();
    mount(Some(c"tmpfs"), c"/dev/shm", Some(c"tmpfs"), 0, options);
}

/// Hides from other threads what this thread mounts from now on.
#[cfg(target_os = "linux")]
pub(crate) fn own_mounts() {
    // SAFETY: takes a number only; the namespace is this thread's alone.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNS) });
    mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, "");
}

#[cfg(target_os = "linux")]
pub(crate) fn mount(what: Option<&CStr>, place: &CStr, kind: Option<&CStr>, flags: libc::c_ulong, options: &str) {
    let text = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    let options = CString::new(options).expect("no zeros");
    // SAFETY: each argument is null, where mount(2) allows that, or a string that ends with a zero.
    checked(unsafe { libc::mount(text(what), place.as_ptr(), text(kind), flags, options.as_ptr().cast()) });
}

/// Creates a fifo.
pub(crate) fn make_fifo(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).expect("no zeros");
    // SAFETY: a string that ends with a zero.
    checked(unsafe { libc::mkfifo(path.as_ptr(), 0o600) });
}

/// Locks the live byte of this file exclusively, as the creation and the removal of an object do.
/// Returns the file that holds the lock.
#[cfg(target_os = "linux")]
pub(crate) fn take_exclusively(path: &Path) -> std::fs::File {
    let file = std::fs::File::options().read(true).write(true).open(path).expect("the file");
    assert!(lock_byte(&file, libc::F_WRLCK, 1 << 62));
    file
}

/// Locks one byte, `F_RDLCK` or `F_WRLCK`. Returns `false` if another lock is in the way.
#[cfg(target_os = "linux")]
pub(crate) fn lock_byte(file: &std::fs::File, kind: libc::c_int, at: i64) -> bool {
    // For 32-bit processors, glibc's `fcntl` takes a `flock` with 32-bit offsets, so this calls the
    // system directly.
    #[cfg(target_pointer_width = "64")]
    use libc::SYS_fcntl as SYS_FCNTL;
    #[cfg(target_pointer_width = "32")]
    use libc::SYS_fcntl64 as SYS_FCNTL;
    #[cfg(not(all(target_pointer_width = "32", target_env = "gnu")))]
    use libc::flock;
    #[cfg(all(target_pointer_width = "32", target_env = "gnu"))]
    use libc::flock64 as flock;

    // SAFETY: plain integers, for which zeros are valid.
    let mut lock: flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind.try_into().expect("a small number");
    lock.l_whence = libc::SEEK_SET.try_into().expect("a small number");
    (lock.l_start, lock.l_len) = (at, 1);
    let fd = std::os::fd::AsRawFd::as_raw_fd(file);
    // SAFETY: the descriptor is open, and the command reads one `flock`.
    if unsafe { libc::syscall(SYS_FCNTL, fd, libc::F_OFD_SETLK, &raw const lock) } == 0 {
        return true;
    }
    let error = io::Error::last_os_error();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
    false
}

/// Sends this thread a signal once in each `time`, until the process ends.
pub(crate) fn interrupt_every(time: Duration) {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: plain integers, for which zeros are valid: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
    // SAFETY: the handler does nothing, at any moment.
    checked(unsafe { libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) });
    let this = Thread::this();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(time);
            // SAFETY: the thread plays the peer's role, with which the process ends.
            assert_eq!(unsafe { this.signal(libc::SIGALRM) }, 0);
        }
    });
}

/// The id of a thread: a number or a pointer, depending on the system.
pub(crate) struct Thread(libc::pthread_t);
// SAFETY: only the system follows it, which takes it from any thread.
unsafe impl Send for Thread {}
// SAFETY: as above.
unsafe impl Sync for Thread {}

impl Thread {
    pub(crate) fn this() -> Thread {
        // SAFETY: takes nothing and cannot fail.
        Thread(unsafe { libc::pthread_self() })
    }

    /// # Safety
    ///
    /// The thread lives.
    pub(crate) unsafe fn signal(&self, signal: libc::c_int) -> libc::c_int {
        // SAFETY: the caller's promise.
        unsafe { libc::pthread_kill(self.0, signal) }
    }
}

/// Unmounts the newest file system at this place.
#[cfg(target_os = "linux")]
pub(crate) fn unmount(place: &CStr) {
    // SAFETY: a string that ends with a zero.
    checked(unsafe { libc::umount2(place.as_ptr(), 0) });
}

/// A forked child, killed and waited for when dropped.
pub(crate) struct Child(libc::pid_t);

/// Runs `child` in a forked copy of this process, which ends with the code that `child` returns, or
/// 101 if it panics. The copy drops no value of this process.
pub(crate) fn fork(child: impl FnOnce() -> i32) -> Child {
    // SAFETY: the child has only this thread. Of the locks that other threads of a test's peer hold
    // for longer than an instant, it takes only the allocator's, which libc frees in a child.
    let id = checked(unsafe { libc::fork() });
    if id != 0 {
        return Child(id);
    }
    let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(101);
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(code) }
}

impl Child {
    /// Returns its process id.
    pub(crate) fn id(&self) -> libc::pid_t {
        self.0
    }

    #[track_caller]
    pub(crate) fn ends_with(mut self, code: i32) {
        let status = self.wait();
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == code, "the child ended otherwise: {status:#x}");
    }

    #[track_caller]
    pub(crate) fn dies_of(mut self, signal: i32) {
        let status = self.wait();
        assert!(
            libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == signal,
            "the child ended otherwise: {status:#x}"
        );
    }

    /// Waits for its end. Returns `None` if a signal ended it.
    pub(crate) fn code(mut self) -> Option<i32> {
        let status = self.wait();
        libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
    }

    /// Kills it.
    #[track_caller]
    pub(crate) fn dies(self) {
        // SAFETY: a child of ours that was not waited for, so the number is its own.
        checked(unsafe { libc::kill(self.0, libc::SIGKILL) });
        self.dies_of(libc::SIGKILL);
    }

    fn wait(&mut self) -> i32 {
        let mut status = 0;
        // SAFETY: writes one number.
        checked(unsafe { libc::waitpid(self.0, &raw mut status, 0) });
        self.0 = 0;
        status
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.0 > 0 {
            // SAFETY: a child of ours that was not waited for, so the number is its own.
            let _ = unsafe { libc::kill(self.0, libc::SIGKILL) };
            self.wait();
        }
    }
}

/// Becomes another program, without arguments.
pub(crate) fn exec(path: &CStr) -> i32 {
    let arguments = [path.as_ptr(), std::ptr::null()];
    // SAFETY: a string that ends with a zero, and a list of such that ends with null.
    unsafe { libc::execv(path.as_ptr(), arguments.as_ptr()) };
    panic!("{path:?} cannot be run: {}", io::Error::last_os_error())
}

pub(crate) fn sleep_for_ever() -> i32 {
    // If a failing test leaves it behind, `SIGALRM` ends it after 10 minutes.
    // SAFETY: takes a number only.
    unsafe { libc::alarm(600) };
    loop {
        // SAFETY: takes nothing.
        unsafe { libc::pause() };
    }
}
