//! Where a value is copied to.

use std::mem::MaybeUninit;

use crate::dict::format::record::{RecordHeader, RecordKind};
use crate::dict::store::storage::Storage;
use crate::dict::store::work_limit::WorkLimit;
use crate::error::{Error, Result};

/// What a key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dict) struct Found {
    pub(in crate::dict) version: u64,
    pub(in crate::dict) kind: RecordKind,
}

/// What is to be done with a value: where it is copied to.
pub(in crate::dict) trait Sink {
    fn take(&mut self, storage: &Storage<'_>, block: usize, head: &RecordHeader, limit: &WorkLimit) -> Result<()>;

    /// Room for a value that is copied before its length is known.
    fn room(&mut self) -> &mut [MaybeUninit<u8>];

    /// The value is the first `len` bytes of the room, which has `room` bytes, if it is so long.
    ///
    /// # Safety
    ///
    /// All of the room was filled.
    unsafe fn filled(&mut self, room: usize, len: usize) -> bool;

    /// The value that was copied; `None` where none is.
    fn value(&self) -> Option<&[u8]>;
}

/// Nothing is copied.
pub(in crate::dict) struct DiscardValue;

impl Sink for DiscardValue {
    #[inline]
    fn take(&mut self, _: &Storage<'_>, _: usize, _: &RecordHeader, _: &WorkLimit) -> Result<()> {
        Ok(())
    }

    #[inline(always)]
    fn room(&mut self) -> &mut [MaybeUninit<u8>] {
        &mut []
    }

    #[inline(always)]
    unsafe fn filled(&mut self, _: usize, _: usize) -> bool {
        true
    }

    #[inline(always)]
    fn value(&self) -> Option<&[u8]> {
        None
    }
}

/// Of a vector's room no more bytes are used before a value's length is known.
pub(in crate::dict) const SPECULATIVE_LEN: usize = 128;

impl Sink for &mut Vec<u8> {
    #[inline(always)]
    fn take(&mut self, storage: &Storage<'_>, block: usize, head: &RecordHeader, limit: &WorkLimit) -> Result<()> {
        self.clear();
        // Next time there is room for one of that length before it is known.
        let _ = self.try_reserve(SPECULATIVE_LEN / 2);
        storage.values().append_value(block, head, self, limit)
    }

    #[inline(always)]
    fn room(&mut self) -> &mut [MaybeUninit<u8>] {
        self.clear();
        let len = if self.capacity() < 16 { 0 } else { self.capacity().min(SPECULATIVE_LEN) };
        &mut self.spare_capacity_mut()[..len]
    }

    #[inline(always)]
    unsafe fn filled(&mut self, room: usize, len: usize) -> bool {
        if len > room {
            return false;
        }
        // SAFETY: as many bytes, and more, were filled.
        unsafe { self.set_len(len) };
        true
    }

    #[inline(always)]
    fn value(&self) -> Option<&[u8]> {
        Some(self)
    }
}

/// Why a look did not tell.
pub(in crate::dict) enum Retry {
    /// Somebody changed what was looked at.
    Changed,
    Failed(Error),
}

impl From<Error> for Retry {
    fn from(error: Error) -> Retry {
        Retry::Failed(error)
    }
}
