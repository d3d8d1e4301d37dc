//! Reading without a lock.

pub(in crate::dict) mod fast_path;
pub(in crate::dict) mod get;
pub(in crate::dict) mod scan;
pub(in crate::dict) mod sink;
