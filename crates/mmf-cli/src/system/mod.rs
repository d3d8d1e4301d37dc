//! Differences between the systems. Only this folder and `transport` ask which system this is.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::*;
#[cfg(windows)]
pub(crate) use windows::*;

/// A request that this process ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupt {
    /// It came from the terminal (Ctrl-C), which sends it to every process in the foreground.
    pub(crate) to_all: bool,
}
