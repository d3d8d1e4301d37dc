//! Mappings: bytes of every source, under every policy and option, and their atomic operations.

#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

#[path = "../support/mod.rs"]
mod support;

mod atomics;
mod conformance;
mod cursor;
mod faults;
#[cfg(target_os = "linux")]
mod large_pages;
mod options;
mod regressions;
