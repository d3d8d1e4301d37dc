//! The structures of a dict in shared memory, and the write batch that changes them as one.

pub(in crate::dict) mod accessor;
pub(in crate::dict) mod blocks;
pub(in crate::dict) mod bucket_walk;
pub(in crate::dict) mod change_log;
pub(in crate::dict) mod index;
pub(in crate::dict) mod records;
pub(in crate::dict) mod redo_log;
pub(in crate::dict) mod spans;
pub(in crate::dict) mod storage;
pub(in crate::dict) mod sync_mark;
pub(in crate::dict) mod values;
pub(in crate::dict) mod verifier;
pub(in crate::dict) mod work_limit;
pub(in crate::dict) mod write_batch;
