//! Windows.

use std::fs::File;
use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, RawHandle};
use std::os::windows::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::ptr;

use windows_sys::Win32::Foundation::{HANDLE_FLAG_INHERIT, SetHandleInformation};
use windows_sys::Win32::System::IO::DeviceIoControl;
use windows_sys::Win32::System::Ioctl::FSCTL_SET_SPARSE;

use super::Interrupt;

/// [Process creation
/// flags](https://learn.microsoft.com/windows/win32/procthread/process-creation-flags).
const DETACHED_PROCESS: u32 = 0x8;
const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;

/// Whether binary data on a terminal is the user's own business: a console takes text only.
pub(crate) const TERMINAL_TAKES_BYTES: bool = false;

/// A text for an exact name that no other program has.
pub(crate) fn exact_name(unique: &str) -> String {
    format!("Local\\{unique}")
}

pub(crate) fn is_path(text: &str) -> bool {
    let drive = matches!(text.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
    drive || text.contains(['/', '\\'])
}

/// Quotes for `cmd` and PowerShell what needs it.
pub(crate) fn quote(text: String) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/\\:+".contains(c);
    if text.chars().all(plain) { text } else { format!("\"{text}\"") }
}

/// The command by which a user ends a process that holds an object. It has no window that could be
/// asked politely.
pub(crate) fn how_to_end(pid: u32) -> String {
    format!("taskkill /F /PID {pid}")
}

/// Standard output without the buffer that looks for line ends.
pub(crate) fn raw_stdout() -> io::Result<File> {
    Ok(File::from(io::stdout().as_handle().try_clone_to_owned()?))
}

/// Calls `handler` on Ctrl-C, and when the console is closed. All processes of the console get
/// either.
pub(crate) fn on_interrupt(mut handler: impl FnMut(Interrupt) + Send + 'static) -> io::Result<()> {
    ctrlc::set_handler(move || handler(Interrupt { to_all: true })).map_err(io::Error::other)
}

/// Whether both are one file. What does not exist yet is no file, and what is mapped cannot be
/// replaced by another name.
pub(crate) fn is_same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Windows has no request to end for one process only, so there is none to pass on.
pub(crate) fn terminate(_pid: u32) {}

/// Lets the command's process outlive this one's console, and inherit nothing that others wait to
/// see closed.
pub(crate) fn detach(command: &mut Command) -> io::Result<()> {
    command.creation_flags(DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP);
    keep(io::stdin().as_raw_handle())?;
    keep(io::stdout().as_raw_handle())?;
    keep(io::stderr().as_raw_handle())
}

/// Keeps a standard handle from being inherited: a child gets every handle that can be, whatever
/// its own are.
fn keep(handle: RawHandle) -> io::Result<()> {
    if handle.is_null() {
        return Ok(());
    }
    // SAFETY: it is a standard handle of this process, which no code closes; only its flag changes.
    match unsafe { SetHandleInformation(handle, HANDLE_FLAG_INHERIT, 0) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// It was started without a console.
pub(crate) fn leave_terminal() -> io::Result<()> {
    Ok(())
}

pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or(1)
}

/// Lets an empty file have holes
/// ([FSCTL_SET_SPARSE](https://learn.microsoft.com/windows/win32/api/winioctl/ni-winioctl-fsctl_set_sparse)).
pub(crate) fn make_sparse(file: &File) -> io::Result<()> {
    let mut returned = 0;
    // SAFETY: the handle is open for as long as `file` lives; the call takes and gives no data but
    // the count, for which there is room.
    let done = unsafe {
        DeviceIoControl(
            file.as_raw_handle(),
            FSCTL_SET_SPARSE,
            ptr::null(),
            0,
            ptr::null_mut(),
            0,
            &mut returned,
            ptr::null_mut(),
        )
    };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
