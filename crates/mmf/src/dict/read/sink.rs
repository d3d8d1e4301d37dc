//! [`Sink`]: the destination of a value that is read. A vector takes the bytes. [`DiscardValue`]
//! takes none, for a caller that needs only the version or the existence of a key.

use std::mem::MaybeUninit;

use crate::dict::format::record::{RecordHeader, RecordKind};
use crate::dict::store::storage::Storage;
use crate::dict::store::work_limit::WorkLimit;
use crate::error::{Error, Result};

/// The version and the kind of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dict) struct Found {
    pub(in crate::dict) version: u64,
    pub(in crate::dict) kind: RecordKind,
}

/// The destination of a value.
pub(in crate::dict) trait Sink {
    /// Copies a record's value, whose length is known.
    fn take(&mut self, storage: &Storage<'_>, block: usize, head: &RecordHeader, limit: &WorkLimit) -> Result<()>;

    /// Returns memory for a value that is copied before its length is known.
    fn room(&mut self) -> &mut [MaybeUninit<u8>];

    /// Makes the first `len` bytes of the room the value. Returns `false`, and changes nothing, if
    /// `len` is larger than `room`, the length of the room.
    ///
    /// # Safety
    ///
    /// The last call was that of [`room`](Sink::room). It returned `room` bytes, and all of them
    /// are initialized.
    unsafe fn filled(&mut self, room: usize, len: usize) -> bool;

    /// Returns the copied value, or `None` if this sink copies none.
    fn value(&self) -> Option<&[u8]>;
}

/// A sink that copies nothing.
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

/// The largest number of bytes that are copied to a vector before the value's length is known.
pub(in crate::dict) const SPECULATIVE_LEN: usize = 128;

impl Sink for &mut Vec<u8> {
    #[inline(always)]
    fn take(&mut self, storage: &Storage<'_>, block: usize, head: &RecordHeader, limit: &WorkLimit) -> Result<()> {
        self.clear();
        // The next read into this vector then finds room for a speculative copy.
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
        // SAFETY: the caller has initialized the first `room` bytes of the vector's spare capacity,
        // the vector was empty (`room` clears it), and `len <= room`.
        unsafe { self.set_len(len) };
        true
    }

    #[inline(always)]
    fn value(&self) -> Option<&[u8]> {
        Some(self)
    }
}

/// The reason why an attempt returned no result.
pub(in crate::dict) enum Retry {
    /// A writer has changed what was read.
    Changed,
    Failed(Error),
}

impl From<Error> for Retry {
    fn from(error: Error) -> Retry {
        Retry::Failed(error)
    }
}
