//! The format of a dict in shared memory: the place and the meaning of each word and byte.
//!
//! `docs/format.md` specifies it. These modules do not load or store shared memory.

pub(in crate::dict) mod encoding;
pub(in crate::dict) mod layout;
pub(in crate::dict) mod marks;
pub(in crate::dict) mod record;
pub(in crate::dict) mod slot;
pub(in crate::dict) mod span;
