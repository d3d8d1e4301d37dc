//! Writing, with the lock.

pub(in crate::dict) mod compaction;
mod durability;
pub(in crate::dict) mod fast_path;
pub(in crate::dict) mod flush;
mod free;
pub(in crate::dict) mod session;
mod small_vec;
