//! What processes do and suffer: forks, signal handlers, several copies of the library, fewer
//! rights, limits, and deaths.

#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

#[path = "../support/mod.rs"]
mod support;

#[cfg(all(unix, not(target_env = "musl"), target_pointer_width = "64"))]
mod copies;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod death;
#[cfg(unix)]
mod file_limit;
#[cfg(unix)]
mod first_use;
#[cfg(unix)]
mod fork;
#[cfg(unix)]
mod handlers;
#[cfg(target_os = "linux")]
mod privileges;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod sandboxed;
mod torture;
