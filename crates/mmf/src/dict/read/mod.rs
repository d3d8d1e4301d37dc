//! Reads of a dict: keys without a lock, and copies of all entries.

pub(in crate::dict) mod fast_path;
pub(in crate::dict) mod get;
pub(in crate::dict) mod scan;
pub(in crate::dict) mod sink;
