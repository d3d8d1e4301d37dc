//! What differs between systems: the semaphore of the old gem, the spelling of names, and rights of files.
//!
//! Each system has:
//! - `Semaphore`: `open(name)` gives the one that the old gem has for a map of that name, or `None` where there was no such
//!   gem; `take(time)` tells whether it was obtained; `give` gives it back and tells whether it had been taken at all.
//! - `named(name)`: what the old gem's `CreateFileMapping` meant by a name.
//! - `path(bytes)`: a path as Ruby has it.
//! - `errno(code)`: what Ruby takes the system's code for.
//! - `rights_like(path)`: those of a file, for one that goes with it.

#[cfg(not(windows))]
mod elsewhere;
#[cfg(windows)]
mod windows;

#[cfg(not(windows))]
pub(crate) use elsewhere::{Semaphore, errno, named, path, rights_like};
#[cfg(windows)]
pub(crate) use windows::{Semaphore, errno, named, path, rights_like};
