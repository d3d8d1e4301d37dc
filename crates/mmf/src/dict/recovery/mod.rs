//! Recovery after damage and power cuts: `check`, the record scan, and the rebuild of a dict.

pub(in crate::dict) mod check;
pub(in crate::dict) mod open_after_crash;
pub(in crate::dict) mod rebuild;
pub(in crate::dict) mod record_scan;
pub(in crate::dict) mod report;
