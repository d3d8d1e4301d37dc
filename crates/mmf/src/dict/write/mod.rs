//! Changes of a dict under the write lock: sessions, lookups, the changes themselves, flushes.

pub(in crate::dict) mod apply;
pub(in crate::dict) mod compaction;
#[cfg(test)]
mod fast_path_tests;
pub(in crate::dict) mod flush;
pub(in crate::dict) mod lookup;
pub(in crate::dict) mod read_session;
pub(in crate::dict) mod reclaim;
pub(in crate::dict) mod record_writer;
pub(in crate::dict) mod session;
mod small_vec;
