//! Pipes without and with a name.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::TcpStream;
use std::os::windows::io::{AsRawSocket, FromRawHandle, OwnedHandle};
use std::os::windows::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::ptr;

use windows_sys::Win32::Foundation::{ERROR_PIPE_CONNECTED, GetLastError, HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::Win32::Networking::WinSock::{SO_SNDBUF, SOL_SOCKET, setsockopt};
use windows_sys::Win32::Storage::FileSystem::{FILE_FLAG_FIRST_PIPE_INSTANCE, PIPE_ACCESS_INBOUND};
use windows_sys::Win32::System::Pipes::{
    ConnectNamedPipe, CreateNamedPipeW, CreatePipe, PIPE_READMODE_BYTE, PIPE_REJECT_REMOTE_CLIENTS, PIPE_TYPE_BYTE,
    PIPE_WAIT,
};
use windows_sys::Win32::System::ProcessStatus::{K32GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS};
use windows_sys::Win32::System::Threading::{CREATE_NEW_PROCESS_GROUP, GetCurrentProcess};

use super::{BUFFER, Inlet, Outlet, say};

/// The title of [`Way::Local`](super::Way::Local) on this system.
pub const LOCAL_NAME: &str = "named pipe";

const ROOM: u32 = 1 << 20;
const _: () = assert!(ROOM as usize == BUFFER);

/// Made here, since the standard library gives its pipes 64 KiB.
pub(super) fn start_with_pipe(command: &mut Command) -> io::Result<(Child, Option<Outlet>)> {
    let (mut reader, mut writer): (HANDLE, HANDLE) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: both pointers are good for a handle; no security attributes: neither end is inherited
    // unless asked.
    let made = unsafe { CreatePipe(&mut reader, &mut writer, ptr::null(), ROOM) };
    if made == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so this is a new handle without another owner.
    let theirs = unsafe { OwnedHandle::from_raw_handle(reader) };
    // SAFETY: as above.
    let ours = unsafe { OwnedHandle::from_raw_handle(writer) };
    let child = command.stdin(Stdio::from(theirs)).spawn()?;
    // The command keeps the child's end open, and a writer would not see the child's death.
    command.stdin(Stdio::null());
    Ok((child, Some(Box::new(File::from(ours)))))
}

pub(super) fn start_with_local(command: &mut Command) -> io::Result<(Child, Option<Outlet>)> {
    Ok((command.stdin(Stdio::piped()).spawn()?, None))
}

/// The reader makes the pipe: everyone may read from a pipe of the default rights, only its owner
/// may write to it.
pub(super) fn local_inlet() -> io::Result<Inlet> {
    let name = format!(r"\\.\pipe\mmf-demo-{}", std::process::id());
    let wide: Vec<u16> = name.encode_utf16().chain([0]).collect();
    let open = PIPE_ACCESS_INBOUND | FILE_FLAG_FIRST_PIPE_INSTANCE;
    let mode = PIPE_TYPE_BYTE | PIPE_READMODE_BYTE | PIPE_WAIT | PIPE_REJECT_REMOTE_CLIENTS;
    // SAFETY: the name ends with a zero and outlives the call; no security attributes.
    let pipe = unsafe { CreateNamedPipeW(wide.as_ptr(), open, mode, 1, ROOM, ROOM, 0, ptr::null()) };
    if pipe == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so this is a new handle without another owner.
    let owned = unsafe { OwnedHandle::from_raw_handle(pipe) };
    say(&name)?;
    // SAFETY: the handle is open for as long as `owned` lives; it is not overlapped, so no
    // structure is needed.
    let connected = unsafe { ConnectNamedPipe(pipe, ptr::null_mut()) };
    // SAFETY: reads the calling thread's last error.
    if connected == 0 && unsafe { GetLastError() } != ERROR_PIPE_CONNECTED {
        return Err(io::Error::last_os_error());
    }
    Ok(Box::new(File::from(owned)))
}

pub(super) fn connect_local(address: &str) -> io::Result<Outlet> {
    Ok(Box::new(OpenOptions::new().write(true).open(address)?))
}

pub(super) fn widen_tcp(stream: &TcpStream) {
    let (Ok(socket), room) = (usize::try_from(stream.as_raw_socket()), (4 * ROOM).to_ne_bytes()) else { return };
    // SAFETY: the socket is open while `stream` is borrowed, and the value is four bytes long.
    // Refusal only makes it slower.
    let _ = unsafe { setsockopt(socket, SOL_SOCKET, SO_SNDBUF, room.as_ptr(), 4) };
}

/// Puts the child out of reach of the terminal's Ctrl-C, which only its starter shall get: the
/// child sees the starter's end, and cleans up.
pub fn alone(command: &mut Command) -> &mut Command {
    command.creation_flags(CREATE_NEW_PROCESS_GROUP)
}

/// The most memory that this process ever had, in bytes; 0 where the system does not tell.
pub fn peak_memory() -> u64 {
    let size = size_of::<PROCESS_MEMORY_COUNTERS>();
    let mut counters = PROCESS_MEMORY_COUNTERS { cb: u32::try_from(size).unwrap_or(0), ..Default::default() };
    // SAFETY: gives a constant that stands for this process.
    let this = unsafe { GetCurrentProcess() };
    // SAFETY: the pointer is good for the structure, whose size stands in `cb` and in the last
    // argument.
    let done = unsafe { K32GetProcessMemoryInfo(this, &mut counters, counters.cb) };
    if done == 0 { 0 } else { counters.PeakWorkingSetSize as u64 }
}
