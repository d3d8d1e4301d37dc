//! `mmf watch` of a dict.

use std::time::{Instant, SystemTime};

use mmf::{Change, Changes, Dict, Watched};
use serde::Serialize;

use crate::cli::WatchArgs;
use crate::failure::{FAILED, Failure, Result};
use crate::json::{self, Json};
use crate::output::print;
use crate::quoting::{key_line, safe_json};
use crate::time::utc;

/// The number of characters of a value that a line shows.
const SHOWN: usize = 200;

/// The keys to watch.
pub(crate) fn watched(args: &WatchArgs) -> Watched {
    match (&args.key, &args.prefix) {
        (Some(key), _) => Watched::Key(key.clone()),
        (None, Some(prefix)) => Watched::Prefix(prefix.clone()),
        (None, None) => Watched::All,
    }
}

/// A change as JSON.
#[derive(Serialize)]
struct Told {
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Json>,
}

/// Prints the next change if one comes until `next`. Returns whether it did.
pub(crate) fn next(args: &WatchArgs, dict: &Dict, changes: &mut Changes<'_>, next: Instant) -> Result<bool> {
    let Some(change) = changes.next_until(next)? else { return Ok(false) };
    let time = utc(SystemTime::now());
    let told = match change {
        Change::Set { key, version } => {
            let mut bytes = Vec::new();
            let encoding = dict.get_into(&key, &mut bytes)?;
            let value = encoding.map(|encoding| json::readable(encoding, &bytes));
            Told { time, version: Some(version), what: "set", key: Some(key), value }
        }
        Change::Removed { key, version } => {
            Told { time, version: Some(version), what: "removed", key: Some(key), value: None }
        }
        Change::Cleared { version } => Told { time, version: Some(version), what: "cleared", key: None, value: None },
        Change::Missed => Told { time, version: None, what: "missed", key: None, value: None },
        _ => return Ok(false),
    };
    if args.json {
        let line = serde_json::to_string(&told);
        let line = line.map_err(|error| Failure::new(FAILED, format!("cannot write JSON: {error}")))?;
        print(&(safe_json(line) + "\n"))?;
    } else {
        print(&text(&told))?;
    }
    Ok(true)
}

fn text(told: &Told) -> String {
    let mut line = format!("{}  ", told.time);
    match (told.version, &told.key) {
        (None, _) => line += "missed changes: the change log was overwritten before it was read; read the keys again",
        (Some(version), None) => line += &format!("version {version}  {}", told.what),
        (Some(version), Some(key)) => {
            let has_space = key.chars().any(char::is_whitespace);
            let key = if has_space { format!("{key:?}").into() } else { key_line(key) };
            line += &format!("version {version}  {:<7}  {key}", told.what);
        }
    }
    if let Some(value) = &told.value {
        let value = value.line();
        line += "  ";
        line.extend(value.chars().take(SHOWN));
        if value.chars().nth(SHOWN).is_some() {
            line += &format!(" ... ({} characters)", value.chars().count());
        }
    }
    line + "\n"
}
