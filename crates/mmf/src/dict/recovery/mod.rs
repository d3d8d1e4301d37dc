//! Damage and power cuts: finding what is whole, and making the dict anew from it.

pub(in crate::dict) mod check;
pub(in crate::dict) mod open_after_crash;
pub(in crate::dict) mod rebuild;
pub(in crate::dict) mod record_scan;
pub(in crate::dict) mod report;
