//! Linux, macOS and their kin.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::thread;

use rustix::process::{Pid, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Interrupt;

/// Whether binary data on a terminal is the user's own business.
pub(crate) const TERMINAL_TAKES_BYTES: bool = true;

/// A text for an exact name that no other program has.
pub(crate) fn exact_name(unique: &str) -> String {
    format!("/{unique}")
}

pub(crate) fn is_path(text: &str) -> bool {
    text.contains('/')
}

/// Quotes for the shell what needs it.
pub(crate) fn quote(text: String) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:+,@%".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// The command by which a user ends a process that holds an object.
pub(crate) fn how_to_end(pid: u32) -> String {
    format!("kill {pid}")
}

/// Standard output without the buffer that looks for line ends.
pub(crate) fn raw_stdout() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// Calls `handler` on Ctrl-C, and when this process is asked to end.
pub(crate) fn on_interrupt(mut handler: impl FnMut(Interrupt) + Send + 'static) -> io::Result<()> {
    let mut wanted = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP)? {
        wanted.push(SIGHUP);
    }
    let mut signals = Signals::new(wanted)?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            handler(Interrupt { to_all: signal == SIGINT });
        }
    })?;
    Ok(())
}

/// `nohup` starts programs so that they stay when the terminal goes.
fn is_ignored(signal: i32) -> io::Result<bool> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null pointer changes nothing, and `action` has room for the present action.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded and so has filled it.
    let action = unsafe { action.assume_init() };
    Ok(action.sa_sigaction == libc::SIG_IGN)
}

/// Whether both are one file, by whatever links. What does not exist yet is no file.
pub(crate) fn is_same_file(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| path.metadata().map(|about| (about.dev(), about.ino()));
    matches!((id(one), id(other)), (Ok(one), Ok(other)) if one == other)
}

/// Passes on to a child the wish that this process shall end.
pub(crate) fn terminate(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // A child that has just ended needs no telling.
        let _ = rustix::process::kill_process(pid, Signal::TERM);
    }
}

/// Lets the command's process outlive this one's terminal; the rest is `leave_terminal` of the
/// process itself.
pub(crate) fn detach(_command: &mut Command) -> io::Result<()> {
    Ok(())
}

/// Makes this process one that no terminal reaches, as `setsid(2)` tells.
pub(crate) fn leave_terminal() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// As the shell has it: 128 and the signal's number.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

/// Files have holes without being asked.
pub(crate) fn make_sparse(_file: &File) -> io::Result<()> {
    Ok(())
}
