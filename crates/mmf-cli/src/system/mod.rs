//! What the systems do differently: the only place of the program that asks which one this is.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::*;
#[cfg(windows)]
pub(crate) use windows::*;

/// Why this process shall end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// Ctrl-C, which the terminal sends to every process in the foreground.
    Keyboard,
    /// Somebody asked this process alone, or its terminal is gone.
    Termination,
}
