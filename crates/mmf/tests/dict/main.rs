//! Dicts: keys and values, their changes and their files.

#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

#[path = "../support/mod.rs"]
mod support;

mod boot;
mod damage;
#[cfg(target_os = "linux")]
mod failing_disk;
#[cfg(feature = "serde")]
mod full;
#[cfg(feature = "serde")]
mod model;
mod operations;
mod regressions;
mod shared;
mod space;
#[cfg(feature = "serde")]
mod user;
