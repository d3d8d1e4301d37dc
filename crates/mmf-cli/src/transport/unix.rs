//! Pipes and Unix sockets.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::net::sockopt;

use super::{BUFFER, Inlet, Outlet};

/// The title of [`Way::Local`](super::Way::Local) on this system.
pub const LOCAL_NAME: &str = "Unix socket";

pub(super) fn start_with_pipe(command: &mut Command) -> io::Result<(Child, Option<Outlet>)> {
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let pipe = child.stdin.take().ok_or_else(|| io::Error::other("the child has no standard input"))?;
    widen_pipe(&pipe);
    Ok((child, Some(Box::new(pipe))))
}

/// A pair that is born connected has no path, so nothing is left behind whatever happens.
pub(super) fn start_with_local(command: &mut Command) -> io::Result<(Child, Option<Outlet>)> {
    let (ours, theirs) = UnixStream::pair()?;
    for end in [&ours, &theirs] {
        // Refusal only makes it slower.
        let _ = sockopt::set_socket_send_buffer_size(end, BUFFER);
        let _ = sockopt::set_socket_recv_buffer_size(end, BUFFER);
    }
    let child = command.stdin(OwnedFd::from(theirs)).spawn()?;
    // The command keeps the child's end open, and the stream would never end.
    command.stdin(Stdio::null());
    Ok((child, Some(Box::new(ours))))
}

pub(super) fn local_inlet() -> io::Result<Inlet> {
    Ok(Box::new(io::stdin()))
}

pub(super) fn connect_local(_address: &str) -> io::Result<Outlet> {
    Err(io::Error::other("a pair of sockets is born connected"))
}

/// Linux gives 64 KiB unless asked, and 1 MiB at most to ordinary users
/// ([`pipe(7)`](https://man7.org/linux/man-pages/man7/pipe.7.html)); other systems grow pipes by
/// themselves.
#[cfg(target_os = "linux")]
fn widen_pipe(pipe: &impl AsFd) {
    // Refusal only makes it slower.
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, BUFFER);
}

#[cfg(not(target_os = "linux"))]
fn widen_pipe(_pipe: &impl AsFd) {}

/// The sender's side alone: a receive buffer that was set no longer grows with the need
/// ([`tcp(7)`](https://man7.org/linux/man-pages/man7/tcp.7.html), `tcp_rmem`).
pub(super) fn widen_tcp(stream: &TcpStream) {
    // Refusal only makes it slower.
    let _ = sockopt::set_socket_send_buffer_size(stream, 4 * BUFFER);
}

/// Puts the child out of reach of the terminal's Ctrl-C, which only its starter shall get: the
/// child sees the starter's end, and cleans up.
pub fn alone(command: &mut Command) -> &mut Command {
    command.process_group(0)
}

/// The most memory that this process ever had, in bytes; 0 where the system does not tell.
#[cfg(target_os = "linux")]
pub fn peak_memory() -> u64 {
    // Not `getrusage`: what it tells survives an exec, so a child would inherit its starter's peak
    // (`proc_pid_status(5)`).
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

#[cfg(not(target_os = "linux"))]
pub fn peak_memory() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is good for one `rusage`, which the call fills.
    let done = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    // SAFETY: all zeros, which it was made of, is a valid `rusage` as well.
    let usage = unsafe { usage.assume_init() };
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
    if done == 0 { u64::try_from(usage.ru_maxrss).unwrap_or(0) * unit } else { 0 }
}
