//! Hostile peers and users: forged bytes, squatted names, and another user of the machine.

#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

#[path = "../support/mod.rs"]
mod support;

mod bounds;
#[cfg(feature = "serde")]
mod depth;
mod dict;
mod forged_holder;
#[cfg(target_os = "linux")]
mod places;
#[cfg(target_os = "linux")]
mod region;
#[cfg(target_os = "linux")]
mod second_user;
#[cfg(target_os = "linux")]
mod second_user_delays;
#[cfg(target_os = "linux")]
mod second_user_files;
