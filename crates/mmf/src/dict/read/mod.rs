//! Reading without a lock.

pub(in crate::dict) mod fast_path;
pub(in crate::dict) mod get;
