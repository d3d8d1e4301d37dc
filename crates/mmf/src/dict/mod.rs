//! [`Dict`]: keys and values that processes share, in memory or in a file.

mod api;
mod format;
mod handle;
#[cfg(test)]
#[cfg(loom)]
mod models;
#[cfg(test)]
mod power_cut_tests;
mod read;
mod recovery;
mod store;
mod write;

pub use api::entries::Entries;
pub use api::options::DictOptions;
pub use api::transaction::{Snapshot, Transaction};
pub use api::watch::{Change, Changes, Watched};
pub use format::encoding::Encoding;
pub use handle::Dict;
pub use read::scan::Entry;
pub use recovery::report::{Problem, Report, Stats};
