//! Regions: locked bytes, their contents, and what a participant leaves.

#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

#[path = "../support/mod.rs"]
mod support;

mod boot;
mod contents;
mod custom_lock;
mod fairness;
#[cfg(target_os = "linux")]
mod life;
mod poison_errors;
mod sharing;
