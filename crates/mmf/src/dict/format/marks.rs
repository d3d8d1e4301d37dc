//! Marks in the words DURABLE, REDO_LEN and BOOT: how far the disk has the dict, and which repair
//! or rebuild is under way.
//!
//! DURABLE is a set of bits: [`CLEAN`], [`FLUSHED_BEFORE`], [`UNSURE`] and [`SYNCING`]. REDO_LEN is
//! a count of stores or [`REPAIRING`]. BOOT is the hash of a boot id, 0 before the first change,
//! [`RECOVERING`] or [`NO_BOOT`].

/// In DURABLE: nothing has changed since the last flush.
pub(in crate::dict) const CLEAN: u64 = 1;

/// In DURABLE: the dict was flushed at least once.
pub(in crate::dict) const FLUSHED_BEFORE: u64 = 2;

/// In DURABLE: it is unknown whether the disk has recorded that [`CLEAN`] is off.
pub(in crate::dict) const UNSURE: u64 = 4;

/// In DURABLE: a sync is under way, has failed or was interrupted.
pub(in crate::dict) const SYNCING: u64 = 8;

/// In the place of the redo log's count while a repair is under way or was interrupted.
pub(in crate::dict) const REPAIRING: u64 = u64::MAX;

/// In the place of BOOT while a rebuild is under way or was interrupted.
pub(in crate::dict) const RECOVERING: u64 = u64::MAX;

/// In the place of BOOT while a repair follows an interrupted rebuild. No boot's hash has this
/// value.
pub(in crate::dict) const NO_BOOT: u64 = u64::MAX - 1;
