//! The format of a dict in shared memory: where each word and byte is, and what it means.
//!
//! `docs/format.md` specifies it. Nothing here loads or stores shared memory.

pub(in crate::dict) mod encoding;
pub(in crate::dict) mod layout;
pub(in crate::dict) mod marks;
pub(in crate::dict) mod record;
pub(in crate::dict) mod slot;
pub(in crate::dict) mod span;
