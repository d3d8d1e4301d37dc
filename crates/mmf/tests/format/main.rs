//! The bytes of shared memory and files, as `docs/format.md` has them.

#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

#[path = "../support/mod.rs"]
mod support;

mod capacities;
#[cfg(feature = "serde")]
mod dicts;
mod reader;
mod segments;
