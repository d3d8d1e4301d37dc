//! `mmf bench`: measures the cost of the operations on this machine, in a few seconds.

mod ping;

use std::hint::black_box;
use std::io;
use std::time::Duration;

use mmf::{Mapping, Name};
use mmf_cli::measure::{Pair, Plan, alone, rate, repeated, size, time};
use mmf_cli::pairs;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::print;

/// Measure the cost of the operations on this machine
///
/// Copies and atomic operations are compared with unguarded, unchecked ones. All figures are
/// medians; the samples of two columns are taken in turns. The run takes a few seconds. An idle
/// machine gives the best figures.
#[derive(clap::Args)]
pub(crate) struct BenchArgs {
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// Answer the process that measures round trips
    #[arg(long, hide = true, value_name = "NAME")]
    answer: Option<String>,
}

const PLAN: Plan = Plan { pairs: 31, sample: Duration::from_micros(500) };

const SIZES: [usize; 6] = [8, 64, 1 << 10, 16 << 10, 1 << 20, 32 << 20];

pub(crate) fn run(args: BenchArgs) -> Result<(), Failure> {
    if let Some(name) = args.answer {
        return Ok(ping::answer(&name)?);
    }
    let rows = rows()?;
    let text = if args.json { json_of(&rows)? } else { text_of(&rows) };
    print(&text)
}

/// One figure.
struct Row {
    what: String,
    /// How many bytes are moved, where that is the point.
    bytes: Option<usize>,
    took: Took,
}

enum Took {
    Beside(Pair),
    Alone(f64),
    /// This system cannot do it, and why.
    Not(String),
}

fn rows() -> io::Result<Vec<Row>> {
    let most = SIZES.into_iter().max().unwrap_or(0);
    let map = Mapping::options().size(most as u64).prefault(true).anonymous()?;
    let mut buffer = vec![1; most];
    let mut rows = Vec::new();
    for len in SIZES {
        let read = pairs::Copy { map: &map, buffer: &mut buffer, at: 0, from: 0, len }.read(PLAN)?;
        let write = pairs::Copy { map: &map, buffer: &mut buffer, at: 0, from: 0, len }.write(PLAN)?;
        rows.push(Row { what: format!("read_at {}", size(len)), bytes: Some(len), took: Took::Beside(read) });
        rows.push(Row { what: format!("write_at {}", size(len)), bytes: Some(len), took: Took::Beside(write) });
    }
    let row = |what: &str, took| Row { what: what.to_owned(), bytes: None, took };
    rows.push(row("load, 8 bytes", Took::Beside(pairs::load(PLAN, &map)?)));
    rows.push(row("fetch_add, 8 bytes", Took::Beside(pairs::fetch_add(PLAN, &map)?)));
    let name = Name::local(format!("mmf-bench-{}", std::process::id()))?;
    rows.push(row("create a named page, and drop it", Took::Alone(create(PLAN, &name)?)));
    rows.push(row("open a named page, and drop it", Took::Alone(open(PLAN, &name)?)));
    let fault = pairs::fault(PLAN).map_or_else(|error| Took::Not(error.to_string()), Took::Alone);
    rows.push(row("catch a fault (the file was truncated)", fault));
    rows.push(row("to another process and back, by one word", Took::Alone(ping::round_trip(PLAN, &name)?)));
    Ok(rows)
}

/// To create a named page and drop it, in nanoseconds.
fn create(plan: Plan, name: &Name) -> io::Result<f64> {
    drop(Mapping::create_new(name, 4096)?);
    Ok(alone(
        plan,
        repeated(|| {
            let _ = black_box(Mapping::create_new(name, 4096));
        }),
    ))
}

/// To open a named page that exists and drop it, in nanoseconds.
fn open(plan: Plan, name: &Name) -> io::Result<f64> {
    let _held = Mapping::create_new(name, 4096)?;
    drop(Mapping::open(name)?);
    Ok(alone(
        plan,
        repeated(|| {
            let _ = black_box(Mapping::open(name));
        }),
    ))
}

fn text_of(rows: &[Row]) -> String {
    let mut lines = vec![format!("{:<40}{:>12}{:>12}{:>14}{:>12}", "", "mmf", "GB/s", "without guard", "beside it")];
    for Row { what, bytes, took } in rows {
        let speed = |time| bytes.map_or(String::new(), |bytes| rate(bytes, time).replace(" GB/s", ""));
        lines.push(match took {
            Took::Beside(pair) => format!(
                "{what:<40}{:>12}{:>12}{:>14}{:>12}",
                time(pair.ours),
                speed(pair.ours),
                time(pair.theirs),
                // A speed is of no use for an operation of a few nanoseconds.
                if pair.theirs < 10.0 { format!("{:+.2} ns", pair.more) } else { format!("{:.2} x", pair.speed) },
            ),
            Took::Alone(took) => format!("{what:<40}{:>12}", time(*took)),
            Took::Not(why) => format!("{what:<40}not here: {why}"),
        });
    }
    lines.push(String::new());
    lines.push(format!(
        "Medians of {} runs in turns. Without guard: `ptr::copy_nonoverlapping` and the standard library's atomics on the\n\
         same memory, which check nothing and die of a page that is gone. Beside it: how fast mmf is, 1 being as fast,\n\
         or how much longer it takes.",
        PLAN.pairs
    ));
    lines.join("\n") + "\n"
}

fn json_of(rows: &[Row]) -> io::Result<String> {
    let rows: Vec<Value> = rows
        .iter()
        .map(|Row { what, bytes, took }| match took {
            Took::Beside(pair) => json!({
                "what": what, "bytes": bytes, "nanoseconds": pair.ours,
                "nanoseconds_without_guard": pair.theirs, "speed": pair.speed, "nanoseconds_more": pair.more,
            }),
            Took::Alone(took) => json!({ "what": what, "nanoseconds": took }),
            Took::Not(why) => json!({ "what": what, "error": why }),
        })
        .collect();
    Ok(serde_json::to_string_pretty(&json!({ "pairs": PLAN.pairs, "rows": rows }))? + "\n")
}
