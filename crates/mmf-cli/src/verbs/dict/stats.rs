//! `mmf stats`.

use serde::Serialize;

use super::to_read;
use crate::cli::StatsArgs;
use crate::failure::Result;
use crate::output::{Align, Table, print, print_json};
use crate::size::human;

/// Figures as JSON.
#[derive(Serialize)]
struct About {
    entries: u64,
    capacity: u64,
    used: u64,
    free: u64,
    pending: u64,
    idle: u64,
    fragmentation: f64,
    span_size: u64,
    spans: u64,
    spans_taken: u64,
    buckets: u64,
    version: u64,
    flushed: u64,
    unflushed: bool,
    participants: u64,
}

pub(crate) fn run(args: StatsArgs) -> Result<()> {
    let stats = to_read(&args.object, &args.looking, false)?.stats()?;
    if args.json {
        return print_json(&About {
            entries: stats.entries,
            capacity: stats.capacity,
            used: stats.used,
            free: stats.free,
            pending: stats.pending,
            idle: stats.idle,
            fragmentation: stats.fragmentation,
            span_size: stats.span_size,
            spans: stats.spans,
            spans_taken: stats.spans_taken,
            buckets: stats.buckets,
            version: stats.version,
            flushed: stats.flushed,
            unflushed: stats.unflushed,
            participants: stats.participants,
        });
    }
    let bytes = |bytes: u64| format!("{bytes} bytes ({})", human(bytes));
    let mut table = Table::new([("keys", Align::Left), (&stats.entries.to_string(), Align::Left)]);
    let mut tell = |what: &str, value: String| table.row([what.to_owned(), value]);
    tell("capacity", bytes(stats.capacity));
    tell("used", bytes(stats.used));
    tell("free", bytes(stats.free));
    tell("freed by the next flush", bytes(stats.pending));
    tell("idle", format!("{}, in spans for records of one size", bytes(stats.idle)));
    tell("fragmentation", format!("{:.1} % of the space for values is idle", 100.0 * stats.fragmentation));
    tell("spans", format!("{} of {} taken, {} each", stats.spans_taken, stats.spans, human(stats.span_size)));
    tell("buckets", stats.buckets.to_string());
    tell("version", stats.version.to_string());
    let flushed = match (stats.flushed, stats.unflushed) {
        (0, _) => "never".to_owned(),
        (version, true) => format!("up to version {version}; changed since"),
        (version, false) => format!("up to version {version}"),
    };
    tell("flushed", flushed);
    tell("participants", stats.participants.to_string());
    print(&table.text())
}
