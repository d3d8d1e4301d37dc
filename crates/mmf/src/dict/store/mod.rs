//! The structures of a dict in shared memory, and the write batch that changes them as one.

pub(in crate::dict) mod allocator;
pub(in crate::dict) mod change_log;
pub(in crate::dict) mod index;
pub(in crate::dict) mod redo_log;
pub(in crate::dict) mod sync_mark;
pub(in crate::dict) mod value_copy;
pub(in crate::dict) mod work_limit;
pub(in crate::dict) mod write_batch;
