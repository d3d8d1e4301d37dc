//! The verbs of dicts.

use std::path::PathBuf;

use clap::Args;

use super::TimeoutOption;
use crate::json::exact::EXACT_RULE;
use crate::object::{OBJECT_RULE, Object};
use crate::size::{self, SIZE_RULE};
use crate::verbs::dict::Pair;

/// Set keys of a dict, all at once
///
/// KEY=TEXT sets text, KEY:=JSON a number, a list or whatever else JSON has (what it has no words for, `mmf import` reads),
/// KEY@FILE the bytes of a file, without encoding. The first `:=`, `=` or `@` ends the key, so `ver=1.10` stays text. Several pairs are one transaction: every
/// reader sees all of them or none. A file that does not exist is made; a name must be held: `mmf hold NAME --dict`.
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
/// Text is printed without quotes, bytes as they are, everything else as JSON. Where there is no such key the exit code
/// is 1. It does not wait, neither for a lock nor for a writer. On a terminal, control characters
/// of text other than line ends and tabs are escaped, and bytes that have any are refused; a pipe
/// or a file gets everything as it is.
#[derive(Args)]
#[command(after_help = OBJECT_RULE)]
pub(crate) struct GetArgs {
    /// The dict
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// The key
    pub(crate) key: String,
    /// Print JSON whatever it is; bytes as {"$bytes": HEX} or {"$bin": HEX}
    #[arg(long)]
    pub(crate) json: bool,
    /// The file to write to, which is replaced; standard output unless given
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) looking: Looking,
}

/// Remove keys of a dict, all at once
///
/// Where one was not there the exit code is 1, and the others are removed all the same.
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
/// Each is a line of its own, as it is. One that is empty, begins with `"` or has control
/// characters is written as a JSON string, so that no key can end a line or give orders to a
/// terminal, and a line that begins with `"` is always JSON.
#[derive(Args)]
#[command(after_help = OBJECT_RULE)]
pub(crate) struct KeysArgs {
    /// The dict
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// Print a JSON array
    #[arg(long)]
    pub(crate) json: bool,
    /// Print every key as it is, and a zero byte behind each, for `xargs -0`
    #[arg(short = '0', long, conflicts_with = "json")]
    pub(crate) null: bool,
    #[command(flatten)]
    pub(crate) looking: Looking,
}

/// Add to a whole number, and print the sum
///
/// A key that is not there counts as 0. However many processes do so at once, none is lost.
#[derive(Args)]
#[command(after_help = OBJECT_RULE)]
pub(crate) struct IncrArgs {
    /// The dict
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// The key
    pub(crate) key: String,
    /// How much, also less than 0
    #[arg(value_name = "BY", default_value_t = 1, allow_negative_numbers = true)]
    pub(crate) by: i64,
    #[command(flatten)]
    pub(crate) making: Making,
    #[command(flatten)]
    pub(crate) changing: Changing,
}

/// Write all of a dict as lines of JSON
///
/// All lines are of one moment. `mmf import` makes the same values of them, to the byte.
#[derive(Args)]
#[command(after_help = OBJECT_RULE, after_long_help = format!("{OBJECT_RULE}\n\n{EXACT_RULE}"))]
pub(crate) struct ExportArgs {
    /// The dict
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// The file to write to, which is replaced; standard output unless given
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
/// The lines are those of `mmf export`. Each is set on its own, and keys that no line has stay. What comes before a line
/// that is wrong is set. A file that does not exist is made; a name must be held: `mmf hold NAME --dict`.
#[derive(Args)]
#[command(after_help = format!("{OBJECT_RULE}\n\n{SIZE_RULE}"))]
#[command(after_long_help = format!("{OBJECT_RULE}\n\n{SIZE_RULE}\n\n{EXACT_RULE}"))]
pub(crate) struct ImportArgs {
    /// The dict
    #[arg(value_name = "OBJECT", value_parser = Object::parser())]
    pub(crate) object: Object,
    /// The file to read from; standard input unless given
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

/// Look whether a dict is damaged
///
/// Every value's checksum is looked at, and whether index, values and space agree with each other. Writers wait
/// meanwhile. The exit code is 1 where something is wrong.
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

/// Make a damaged dict anew from all that is whole
///
/// What was removed stays removed as far as anything left tells so; keys of which nothing does are kept and named. One
/// without damage is left as it is. Nobody else may have it open for writing. It is changed where it is: copy a file that
/// is dear to you before.
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

/// Tell how much of a dict is used
///
/// Space is taken in spans. `used` is what keys and values take; `free` fits values of any size; what is `idle` is in spans
/// that were begun for records of one size, and is for more of that size. What is replaced or removed in a file that was
/// flushed is kept until the next flush. `participants` are living processes' handles that have changed something, listed
/// all, or watch: who gets, and who holds, is none.
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

/// How a file is made.
#[derive(Args)]
pub(crate) struct Making {
    /// Bytes that a file which is made may grow to, 1G unless given; of one that exists the least
    #[arg(long, value_name = "N", value_parser = size::parse)]
    pub(crate) capacity: Option<u64>,
}

/// What verbs that change a dict have in common.
#[derive(Args)]
pub(crate) struct Changing {
    /// Return only once the changes of a file are on its disk
    #[arg(long)]
    pub(crate) flush: bool,
    #[command(flatten)]
    pub(crate) looking: Looking,
}

/// What all verbs of dicts have in common.
#[derive(Args)]
pub(crate) struct Looking {
    #[command(flatten)]
    pub(crate) timeout_option: TimeoutOption,
    /// Accept a named object of another user
    #[arg(long)]
    pub(crate) any_owner: bool,
}
