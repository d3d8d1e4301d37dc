//! What the demo found, for people and for programs.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::conductor::Measured;
use super::sender::Outcome;
use super::{Route, dict};
use crate::size::human;

/// What became of one way.
struct Row {
    route: Route,
    /// The run in the middle of those that succeeded.
    median: Option<Outcome>,
    runs: usize,
    failures: Vec<String>,
}

/// What happened.
pub(super) struct Story {
    file: Option<PathBuf>,
    wanted: u64,
    size: u64,
    rounds: usize,
    mapping: Outcome,
    rows: Vec<Row>,
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
        let rows: Vec<Row> = Route::ALL.into_iter().zip(outcomes).map(|(route, runs)| Row::new(route, runs)).collect();
        let Some(first) = rows.first() else { return Err(io::Error::other("nothing was measured")) };
        let Some(mapping) = first.median.clone() else {
            let why = first.failures.first().map_or("it was not measured", String::as_str);
            return Err(io::Error::other(format!("the named mapping failed: {why}")));
        };
        for row in &rows {
            if row.median.as_ref().is_some_and(|outcome| outcome.checksum != mapping.checksum) {
                return Err(io::Error::other(format!("{}: other bytes than the first", row.route.title())));
            }
        }
        Ok(Story { file: file.map(Path::to_owned), wanted, size, rounds, mapping, rows })
    }

    fn ratio(&self, outcome: &Outcome) -> f64 {
        outcome.elapsed.as_secs_f64() / self.mapping.elapsed.as_secs_f64()
    }

    fn source(&self) -> String {
        match &self.file {
            Some(path) => format!("{} of {}", human(self.size), path.display()),
            None => format!("{} of made bytes", human(self.size)),
        }
    }
}

impl Row {
    fn new(route: Route, outcomes: Vec<Measured>) -> Row {
        let runs = outcomes.len();
        let (mut good, mut failures) = (Vec::new(), Vec::new());
        for outcome in outcomes {
            match outcome {
                Ok(outcome) => good.push(outcome),
                Err(why) => failures.push(why),
            }
        }
        good.sort_by_key(|outcome| outcome.elapsed);
        let middle = good.len().saturating_sub(1) / 2;
        Row { route, median: good.into_iter().nth(middle), runs, failures }
    }
}

fn row(text: &mut String, cells: [&str; 7]) -> std::fmt::Result {
    let [way, time, rate, ratio, summing, reader, all] = cells;
    let line = format!("{way:<16}{time:>10}{rate:>8}{ratio:>12}{summing:>12}{reader:>13}{all:>14}");
    writeln!(text, "{}", line.trim_end())
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
    writeln!(text, "Sharing {} with {}.", story.source(), count(readers, "reader process", "reader processes"))?;
    if story.size < story.wanted && story.file.is_none() {
        writeln!(text, "(There is no room for {} here.)", human(story.wanted))?;
    }
    let ids: Vec<String> = mapping.readers.iter().take(4).map(u64::to_string).collect();
    let more = if readers > ids.len() { ", ..." } else { "" };
    let (readers, each) = if readers == 1 { ("Process", "It") } else { ("Processes", "Each") };
    let (sender, opening, checksum) = (mapping.sender, time(mapping.opening), mapping.checksum);
    writeln!(text)?;
    writeln!(text, "  Process {sender} created `name:mmf-demo-{sender}` and put the bytes there.")?;
    writeln!(text, "  {readers} {}{more} opened it by that name alone and found its size.", ids.join(", "))?;
    writeln!(text, "  Opening it and bringing in all its pages took {opening}.")?;
    writeln!(text, "  {each} read all of it; every checksum is right: {checksum:016x}.")?;
    writeln!(text)?;
    row(text, ["", "time", "GB/s", "times the", "checksum", "memory of", "memory of"])?;
    row(text, ["", "", "", "first row", "alone", "a reader", "all together"])?;
    for Row { route, median, .. } in &story.rows {
        match median {
            None => row(text, [route.title(), "failed", "", "", "", "", ""])?,
            Some(outcome) => row(
                text,
                [
                    route.title(),
                    &time(outcome.elapsed),
                    &format!("{:.1}", rate(outcome)),
                    &format!("{:.1}", story.ratio(outcome)),
                    &time(outcome.summing),
                    &human(outcome.reader_memory),
                    &human(outcome.memory),
                ],
            )?,
        }
    }
    writeln!(text)?;
    let runs = if story.rounds == 1 { "one run".to_owned() } else { format!("the median of {} runs", story.rounds) };
    let chunk = human(super::data::CHUNK as u64);
    writeln!(
        text,
        "time: from the word to go until the last reader has reported its checksum; {runs}. Before it, in every\n\
         row, the readers were started and connected (with mmf: its pages brought in) and the bytes lay in the sender's\n\
         memory (with mmf: the mapping). The readers take {chunk} at a time into memory of their own, by guarded copies\n\
         from the mapping, by reads from the others; but `in place` they look at the mapping itself.\n\
         GB/s: the bytes of all readers together. checksum alone: the slowest reader's share of the time for it.\n\
         memory: peaks, as the system counts them. With mmf a reader's includes the mapping, which is the same memory\n\
         for all and counted once for all together."
    )?;
    for Row { route, runs, failures, .. } in &story.rows {
        if let Some(why) = failures.first() {
            writeln!(text, "\n{}: {} of {runs} runs failed: {why}", route.title(), failures.len())?;
        }
    }
    Ok(())
}

pub(super) fn json(story: &Story, shared: &dict::Outcome) -> io::Result<String> {
    let rows: Vec<_> = story
        .rows
        .iter()
        .map(|Row { route, median, failures, .. }| {
            json!({
                "way": route.title(),
                "failures": failures,
                "seconds": median.as_ref().map(|outcome| outcome.elapsed.as_secs_f64()),
                "gigabytes_per_second": median.as_ref().map(rate),
                "times_the_first": median.as_ref().map(|outcome| story.ratio(outcome)),
                "delivery_seconds": median.as_ref().map(|outcome| outcome.delivery.as_secs_f64()),
                "checksum_seconds": median.as_ref().map(|outcome| outcome.summing.as_secs_f64()),
                "reader_memory": median.as_ref().map(|outcome| outcome.reader_memory),
                "memory": median.as_ref().map(|outcome| outcome.memory),
            })
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
        "dict": dict::json(shared),
    });
    Ok(serde_json::to_string_pretty(&whole)? + "\n")
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds if seconds >= 1e-3 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{:.0} µs", seconds * 1e6),
    }
}
