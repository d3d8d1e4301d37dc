//! The public methods of a dict.

mod check;
mod dict;
pub(in crate::dict) mod entries;
pub(in crate::dict) mod options;
mod repair;
pub(in crate::dict) mod single_key;
mod stats;
pub(in crate::dict) mod transaction;
pub(in crate::dict) mod watch;
mod write_set;
