//! [`Storage`]: the entry point to the structures of an open dict.
//!
//! `Storage` is a `Copy` value of four words that the handle builds for each call. Its methods
//! return views of one structure each: [`Spans`], [`Blocks`], [`Index`], [`Records`], [`Values`]
//! and [`Verifier`]. A view costs nothing: it is one reference, and is inlined.

use crate::dict::format::layout::{Layout, at};
use crate::dict::format::marks::REPAIRING;
use crate::dict::store::blocks::Blocks;
use crate::dict::store::index::Index;
use crate::dict::store::records::Records;
use crate::dict::store::redo_log;
use crate::dict::store::spans::Spans;
use crate::dict::store::values::Values;
use crate::dict::store::verifier::Verifier;
use crate::error::{Error, ErrorKind, Result};
use crate::mapping::Mapping;

/// The shared memory of one dict, with the values that every access to it needs.
#[derive(Clone, Copy)]
pub(in crate::dict) struct Storage<'a> {
    pub(in crate::dict) map: &'a Mapping,
    pub(in crate::dict) layout: &'a Layout,
    /// The seed of key hashes and checksums: the first 8 bytes of the segment's id.
    pub(in crate::dict) seed: u64,
    /// See the field of the same name in [`Dict`](crate::dict::handle::Dict).
    pub(in crate::dict) verify_up_to: u64,
}

impl<'a> Storage<'a> {
    #[cold]
    pub(in crate::dict) fn no_entry_error(&self) -> Error {
        self.damaged("a slot of its index leads to bytes that are not a record")
    }

    /// Returns COMMIT, FLOOR and BUCKETS: at least one of them differs after every change.
    pub(in crate::dict) fn commit_state(&self) -> Result<(u64, u64, u64)> {
        Ok((self.map.word(at::COMMIT)?, self.map.word(at::FLOOR)?, self.map.word(at::BUCKETS)?))
    }

    /// Returns an error if a repair or a rebuild is under way or was interrupted. A reader calls
    /// this if the dict has no buckets, since a repair removes them before it builds a new index.
    #[cold]
    pub(in crate::dict) fn check_no_incomplete_repair(&self) -> Result<()> {
        if self.map.word(at::REDO_LEN)? == REPAIRING { Err(redo_log::repair_error(self.map)) } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    pub(in crate::dict) fn damaged(&self, reason: impl Into<String>) -> Error {
        self.map.name_error(Error::new(ErrorKind::Damaged { reason: reason.into() }, "use"))
    }

    /// Returns the span table with its lists.
    #[inline(always)]
    pub(in crate::dict) fn spans(&self) -> Spans<'_> {
        Spans::new(self)
    }

    /// Returns the block allocator.
    #[inline(always)]
    pub(in crate::dict) fn blocks(&self) -> Blocks<'_> {
        Blocks::new(self)
    }

    /// Returns the index.
    #[inline(always)]
    pub(in crate::dict) fn index(&self) -> Index<'_> {
        Index::new(self)
    }

    /// Returns the records.
    #[inline(always)]
    pub(in crate::dict) fn records(&self) -> Records<'_> {
        Records::new(self)
    }

    /// Returns the values of records.
    #[inline(always)]
    pub(in crate::dict) fn values(&self) -> Values<'_> {
        Values::new(self)
    }

    /// Returns the verifier, which checks records against their checksums.
    #[inline(always)]
    pub(in crate::dict) fn verifier(&self) -> Verifier<'_> {
        Verifier::new(self)
    }
}
