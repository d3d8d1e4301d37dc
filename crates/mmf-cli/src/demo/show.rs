//! What the demo found, for people and for programs.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::Route;
use super::conductor::Measured;
use super::sender::Outcome;

/// What happened.
pub(super) struct Story {
    file: Option<PathBuf>,
    wanted: u64,
    size: u64,
    rounds: usize,
    mapping: Outcome,
    rows: Vec<(Route, Measured)>,
}

impl Story {
    /// Takes the median of each way. Fails where the mapping did, or where two ways delivered different bytes.
    pub(super) fn new(
        file: Option<&Path>,
        wanted: u64,
        size: u64,
        outcomes: [Vec<Measured>; Route::ALL.len()],
    ) -> io::Result<Story> {
        let rounds = outcomes.iter().map(Vec::len).max().unwrap_or(0);
        let rows: Vec<(Route, Measured)> = Route::ALL.into_iter().zip(outcomes.into_iter().map(median)).collect();
        let mapping = match rows.first() {
            Some((Route::Mapping, Ok(outcome))) => outcome.clone(),
            Some((_, Err(error))) => return Err(io::Error::other(format!("the named mapping failed: {error}"))),
            _ => return Err(io::Error::other("nothing was measured")),
        };
        for (route, measured) in &rows {
            if measured.as_ref().is_ok_and(|outcome| outcome.checksum != mapping.checksum) {
                return Err(io::Error::other(format!("the {} delivered other bytes than mmf", route.title())));
            }
        }
        Ok(Story { file: file.map(Path::to_owned), wanted, size, rounds, mapping, rows })
    }

    fn source(&self) -> String {
        match &self.file {
            Some(path) => format!("{} of {}", bytes(self.size), path.display()),
            None => format!("{} of made bytes", bytes(self.size)),
        }
    }
}

fn median(outcomes: Vec<Measured>) -> Measured {
    let mut error = "it was not measured".to_owned();
    let mut good = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(outcome) => good.push(outcome),
            Err(why) => error = why,
        }
    }
    good.sort_by_key(|outcome| outcome.elapsed);
    let middle = good.len().saturating_sub(1) / 2;
    good.into_iter().nth(middle).ok_or(error)
}

/// All readers' bytes over the time.
fn rate(outcome: &Outcome) -> f64 {
    (outcome.size * outcome.readers.len() as u64) as f64 / outcome.elapsed.as_secs_f64() / 1e9
}

pub(super) fn text(story: &Story) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = write_text(&mut text, story);
    text
}

fn write_text(text: &mut String, story: &Story) -> std::fmt::Result {
    let mapping = &story.mapping;
    let readers = mapping.readers.len();
    let each = if readers == 1 { "It" } else { "Each" };
    writeln!(text, "Sharing {} with {}.", story.source(), count(readers, "reader process", "reader processes"))?;
    if story.size < story.wanted && story.file.is_none() {
        writeln!(text, "(There is no room for {} here.)", bytes(story.wanted))?;
    }
    let ids: Vec<String> = mapping.readers.iter().take(4).map(u64::to_string).collect();
    let more = if readers > ids.len() { ", ..." } else { "" };
    writeln!(text)?;
    writeln!(text, "  Process {} created `name:mmf-demo-{}` and put the bytes there.", mapping.sender, mapping.sender)?;
    writeln!(
        text,
        "  {} {}{more} opened it by that name alone, in {}, and found its size.",
        if readers == 1 { "Process" } else { "Processes" },
        ids.join(", "),
        time(mapping.opening),
    )?;
    writeln!(text, "  {each} read all of it; every checksum is right: {:016x}.", mapping.checksum)?;
    writeln!(text)?;
    writeln!(
        text,
        "{:<16}{:>10}{:>8}{:>12}{:>12}{:>13}{:>13}",
        "", "time", "GB/s", "mmf is", "checksum", "memory of", "memory of"
    )?;
    writeln!(
        text,
        "{:<16}{:>10}{:>8}{:>12}{:>12}{:>13}{:>13}",
        "", "", "", "faster by", "alone", "a reader", "all together"
    )?;
    for (route, measured) in &story.rows {
        let Ok(outcome) = measured else {
            writeln!(text, "{:<16}{:>10}", route.title(), "failed")?;
            continue;
        };
        let ratio = match route {
            Route::Mapping => String::new(),
            Route::Stream(_) => format!("{:.1} x", outcome.elapsed.as_secs_f64() / mapping.elapsed.as_secs_f64()),
        };
        writeln!(
            text,
            "{:<16}{:>10}{:>8.1}{:>12}{:>12}{:>13}{:>13}",
            route.title(),
            time(outcome.elapsed),
            rate(outcome),
            ratio,
            time(outcome.summing),
            bytes(outcome.reader_memory),
            bytes(outcome.memory),
        )?;
    }
    writeln!(text)?;
    let runs = if story.rounds == 1 { "one run".to_owned() } else { format!("the median of {} runs", story.rounds) };
    writeln!(
        text,
        "time: from the word to go until the last reader has reported its checksum; {runs}. In every row\n\
         the readers were running and connected before, the bytes lay in the sender's memory (with mmf that is\n\
         the mapping), and each reader copied {} at a time into memory of its own.\n\
         GB/s: the bytes of all readers together. checksum alone: what of the time the slowest reader spent on it.\n\
         memory: peaks as the system counts them. In mmf's row a reader's includes the mapping, which all share;\n\
         all together count it once.",
        bytes(super::data::CHUNK as u64)
    )?;
    for (route, measured) in &story.rows {
        if let Err(error) = measured {
            writeln!(text, "\nThe {} failed: {error}", route.title())?;
        }
    }
    Ok(())
}

pub(super) fn json(story: &Story) -> io::Result<String> {
    let rows: Vec<_> = story
        .rows
        .iter()
        .map(|(route, measured)| match measured {
            Ok(outcome) => json!({
                "way": route.title(),
                "seconds": outcome.elapsed.as_secs_f64(),
                "gigabytes_per_second": rate(outcome),
                "ratio_to_mmf": outcome.elapsed.as_secs_f64() / story.mapping.elapsed.as_secs_f64(),
                "delivery_seconds": outcome.delivery.as_secs_f64(),
                "checksum_seconds": outcome.summing.as_secs_f64(),
                "reader_memory": outcome.reader_memory,
                "memory": outcome.memory,
            }),
            Err(error) => json!({ "way": route.title(), "error": error }),
        })
        .collect();
    let whole = json!({
        "file": story.file,
        "size": story.size,
        "readers": story.mapping.readers.len(),
        "rounds": story.rounds,
        "checksum": format!("{:016x}", story.mapping.checksum),
        "open_seconds": story.mapping.opening.as_secs_f64(),
        "rows": rows,
    });
    Ok(serde_json::to_string_pretty(&whole)? + "\n")
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn bytes(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes % unit == 0 => format!("{} {name}", bytes / unit),
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => count(bytes.try_into().unwrap_or(0), "byte", "bytes"),
    }
}

fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds if seconds >= 1e-3 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{:.0} µs", seconds * 1e6),
    }
}
