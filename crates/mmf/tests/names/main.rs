//! Names: how long a named object lives, and what creates, opens and removes it.

#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

#[path = "../support/mod.rs"]
mod support;

#[cfg(target_os = "linux")]
mod full;
mod interop;
mod lifetime;
mod races;
#[cfg(target_os = "linux")]
mod users;
