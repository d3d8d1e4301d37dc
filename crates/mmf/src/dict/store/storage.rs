//! [`Storage`]: the memory of an open dict.

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

/// The blocks of one segment.
#[derive(Clone, Copy)]
pub(in crate::dict) struct Storage<'a> {
    pub(in crate::dict) map: &'a Mapping,
    pub(in crate::dict) layout: &'a Layout,
    /// What keys are hashed with.
    pub(in crate::dict) seed: u64,
    /// See [`Dict`](crate::dict::handle::Dict).
    pub(in crate::dict) verify_up_to: u64,
}

impl<'a> Storage<'a> {
    #[cold]
    pub(in crate::dict) fn no_entry_error(&self) -> Error {
        self.damaged("its index leads to what is no record")
    }

    /// What differs after every change.
    pub(in crate::dict) fn commit_state(&self) -> Result<(u64, u64, u64)> {
        Ok((self.map.word(at::COMMIT)?, self.map.word(at::FLOOR)?, self.map.word(at::BUCKETS)?))
    }

    /// Where there is no index, a repair may have taken it away to make it anew.
    #[cold]
    pub(in crate::dict) fn check_no_incomplete_repair(&self) -> Result<()> {
        if self.map.word(at::REDO_LEN)? == REPAIRING { Err(redo_log::repair_error(self.map)) } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    pub(in crate::dict) fn damaged(&self, reason: impl Into<String>) -> Error {
        self.map.name_error(Error::new(ErrorKind::Damaged { reason: reason.into() }, "use"))
    }

    /// The span table, and the lists of spans.
    #[inline(always)]
    pub(in crate::dict) fn spans(&self) -> Spans<'_> {
        Spans::new(self)
    }

    /// The blocks of the spans.
    #[inline(always)]
    pub(in crate::dict) fn blocks(&self) -> Blocks<'_> {
        Blocks::new(self)
    }

    /// The index.
    #[inline(always)]
    pub(in crate::dict) fn index(&self) -> Index<'_> {
        Index::new(self)
    }

    /// The records.
    #[inline(always)]
    pub(in crate::dict) fn records(&self) -> Records<'_> {
        Records::new(self)
    }

    /// The values of records.
    #[inline(always)]
    pub(in crate::dict) fn values(&self) -> Values<'_> {
        Values::new(self)
    }

    /// The records, checked against their checksums.
    #[inline(always)]
    pub(in crate::dict) fn verifier(&self) -> Verifier<'_> {
        Verifier::new(self)
    }
}
