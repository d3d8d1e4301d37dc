//! The verbs of dicts.

use std::path::PathBuf;

use clap::Args;

use super::TimeoutOption;
use crate::json::exact::EXACT_RULE;
use crate::object::{OBJECT_RULE, Object};
use crate::size::{self, SIZE_RULE};
use crate::verbs::dict::Pair;

/// Set keys of a dict in one transaction
///
/// KEY=TEXT sets text, KEY:=JSON any JSON value, KEY@FILE the bytes of a file without encoding.
/// `mmf import` sets values that JSON cannot express. The first `:=`, `=` or `@` ends the key, so
/// `ver=1.10` sets text. Several pairs are one transaction: each reader sees all of them or none. A
/// file that does not exist is created; a name must exist: create it with `mmf hold NAME --dict`.
#[derive(Args)]
#[command(after_help = format!("{OBJECT_RULE}\n\n{SIZE_RULE}"))]
pub(crate) struct SetArgs {
    /// The dict
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// KEY=TEXT, KEY:=JSON or KEY@FILE
    #[arg(value_name = "KEY=TEXT", required = true, value_parser = Pair::parser())]
    pub(crate) pairs: Vec<Pair>,
    #[command(flatten)]
    pub(crate) making: Making,
    #[command(flatten)]
    pub(crate) changing: Changing,
}

/// Print a key's value
///
/// Text is printed without quotes, bytes as they are, every other value as JSON. If the key does
/// not exist, the exit code is 1. The verb waits for no lock and no writer. On a terminal, control
/// characters of text other than line ends and tabs are escaped, and bytes with control characters
/// are refused; a pipe or a file gets every value as it is.
#[derive(Args)]
#[command(after_help = OBJECT_RULE)]
pub(crate) struct GetArgs {
    /// The dict
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// The key
    pub(crate) key: String,
    /// Print every value as JSON; bytes as {"$bytes": HEX} or {"$bin": HEX}
    #[arg(long)]
    pub(crate) json: bool,
    /// File to write to, which is replaced [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) looking: Looking,
}

/// Remove keys of a dict in one transaction
///
/// If a key does not exist, the exit code is 1, and the other keys are removed.
#[derive(Args)]
#[command(after_help = OBJECT_RULE)]
pub(crate) struct DelArgs {
    /// The dict
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// The keys
    #[arg(value_name = "KEY", required = true)]
    pub(crate) keys: Vec<String>,
    #[command(flatten)]
    pub(crate) changing: Changing,
}

/// List the keys of a dict, in order
///
/// Each key has a line of its own. A key that is empty, begins with `"` or has control characters
/// is written as a JSON string, so that no key can end a line or control a terminal, and a line
/// that begins with `"` is always JSON.
#[derive(Args)]
#[command(after_help = OBJECT_RULE)]
pub(crate) struct KeysArgs {
    /// The dict
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// Print a JSON array
    #[arg(long)]
    pub(crate) json: bool,
    /// Print every key as it is, followed by a zero byte, for `xargs -0`
    #[arg(short = '0', long, conflicts_with = "json")]
    pub(crate) null: bool,
    #[command(flatten)]
    pub(crate) looking: Looking,
}

/// Add to an integer, and print the sum
///
/// A key that does not exist counts as 0. The addition is atomic: concurrent additions of other
/// processes are not lost.
#[derive(Args)]
#[command(after_help = OBJECT_RULE)]
pub(crate) struct IncrArgs {
    /// The dict
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// The key
    pub(crate) key: String,
    /// Number to add, which may be negative
    #[arg(value_name = "BY", default_value_t = 1, allow_negative_numbers = true)]
    pub(crate) by: i64,
    #[command(flatten)]
    pub(crate) making: Making,
    #[command(flatten)]
    pub(crate) changing: Changing,
}

/// Write all keys and values of a dict as lines of JSON
///
/// All lines are of one moment. `mmf import` restores each value from them to the byte.
#[derive(Args)]
#[command(after_help = OBJECT_RULE, after_long_help = format!("{OBJECT_RULE}\n\n{EXACT_RULE}"))]
pub(crate) struct ExportArgs {
    /// The dict
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// File to write to, which is replaced [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) looking: Looking,
}

/// Set keys of a dict from lines of JSON
///
/// The lines have the form of `mmf export`. Each line is a change of its own, and keys without a
/// line stay. An invalid line ends the import; the lines before it are set. A file that does not
/// exist is created; a name must exist: create it with `mmf hold NAME --dict`.
#[derive(Args)]
#[command(after_help = format!("{OBJECT_RULE}\n\n{SIZE_RULE}"))]
#[command(after_long_help = format!("{OBJECT_RULE}\n\n{SIZE_RULE}\n\n{EXACT_RULE}"))]
pub(crate) struct ImportArgs {
    /// The dict
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// File to read from [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) making: Making,
    #[command(flatten)]
    pub(crate) changing: Changing,
}

/// Check a dict for damage
///
/// Verifies the checksum of every value, and that index, values and free space agree. Writers wait
/// meanwhile. The exit code is 1 if the dict is damaged.
#[derive(Args)]
#[command(after_help = OBJECT_RULE)]
pub(crate) struct CheckArgs {
    /// The dict
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) looking: Looking,
}

/// Repair a damaged dict from its valid records
///
/// Rebuilds index, tables and words from the records whose checksums are right. A removed key stays
/// removed if a trace of the removal is left; keys that may have been removed are kept, and named.
/// A dict without damage is not changed. No other process may have it open for writing. The dict is
/// repaired in place: make a copy of an important file first.
#[derive(Args)]
#[command(after_help = OBJECT_RULE)]
pub(crate) struct RepairArgs {
    /// The dict
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show how much of a dict's space is used
///
/// Space is allocated in spans. `used` is the space of keys and values. `free` is available for
/// values of any size. `idle` is in spans that hold records of one size, and is available for
/// records of that size. Replaced and removed records of a file that was flushed are kept until the
/// next flush. `participants` counts the handles of living processes that have changed, listed or
/// watched the dict; handles that only get, or only hold the object, are not counted.
#[derive(Args)]
#[command(after_help = OBJECT_RULE)]
pub(crate) struct StatsArgs {
    /// The dict
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) looking: Looking,
}

/// Options of verbs that create a file.
#[derive(Args)]
pub(crate) struct Making {
    /// Bytes that a created file may grow to [default: 1G]; an existing dict must have at least
    /// this capacity
    #[arg(long, value_name = "N", value_parser = size::parse)]
    pub(crate) capacity: Option<u64>,
}

/// Options of verbs that change a dict.
#[derive(Args)]
pub(crate) struct Changing {
    /// Return after the changes of a file are on its disk
    #[arg(long)]
    pub(crate) flush: bool,
    #[command(flatten)]
    pub(crate) looking: Looking,
}

/// Options of all verbs of dicts.
#[derive(Args)]
pub(crate) struct Looking {
    #[command(flatten)]
    pub(crate) timeout_option: TimeoutOption,
    /// Accept a named object of another user
    #[arg(long)]
    pub(crate) any_owner: bool,
}
