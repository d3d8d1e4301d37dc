//! `mmf export`.

use std::io::{self, BufWriter, IsTerminal, Write};

use mmf::Entry;
use serde::{Deserialize, Serialize};

use super::to_read;
use crate::cli::ExportArgs;
use crate::failure::{FAILED, Failure, Result, USAGE};
use crate::json::{Json, exact};
use crate::output::{open_bytes, progress, unwritten};
use crate::quoting::safe_json;
use crate::system;

/// The size of the output buffer.
const ENOUGH: usize = 1 << 16;

/// A key with its value, as `--help` describes the line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub(super) key: String,
    pub(super) value: Json,
}

pub(crate) fn run(args: ExportArgs) -> Result<()> {
    if let (Some(from), Some(to)) = (args.object.path(), &args.output) {
        if system::is_same_file(from, to) {
            return Err(Failure::new(USAGE, format!("cannot replace {} by itself", from.display())));
        }
    }
    // All entries are copied first, so that no process waits for a slow pipe.
    let mut entries: Vec<Entry> = to_read(&args.object, &args.looking, true)?.entries()?.collect();
    entries.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    let (out, target) = match &args.output {
        Some(path) => open_bytes(Some(path))?,
        // The lines are text, which every terminal accepts.
        None => {
            let out = system::raw_stdout().map_err(|error| Failure::io("open", "standard output", error))?;
            (out, "standard output".to_owned())
        }
    };
    let quiet = args.quiet || (args.output.is_none() && io::stdout().is_terminal());
    let template = "{wide_bar} {human_pos}/{human_len} keys {eta}";
    let bar = progress(quiet, Some(entries.len() as u64), template, template);
    let mut out = BufWriter::with_capacity(ENOUGH, out);
    for Entry { key, value, encoding, .. } in entries {
        let line = Line { key, value: exact::of(encoding, &value) };
        let line = serde_json::to_string(&line)
            .map_err(|error| Failure::new(FAILED, format!("cannot write {:?} as JSON: {error}", line.key)))?;
        writeln!(out, "{}", safe_json(line)).map_err(|error| unwritten(error, &target))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    out.flush().map_err(|error| unwritten(error, &target))
}
