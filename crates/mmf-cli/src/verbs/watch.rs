//! `mmf watch`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use mmf::{Dict, ErrorKind, Region};
use serde::Serialize;

use super::dict::{self, watch::watched};
use crate::cli::WatchArgs;
use crate::failure::{FAILED, Failure, INTERRUPTED, Result, USAGE};
use crate::object::Opened;
use crate::output::{note, print};
use crate::{system, time};

/// The time within which an interrupt is noticed.
const STEP: Duration = Duration::from_millis(100);

/// A change as JSON.
#[derive(Serialize)]
struct Change {
    version: u64,
    length: u64,
    time: String,
}

pub(crate) fn run(args: WatchArgs) -> Result<()> {
    // A timeout beyond the range of the clock means none.
    let until = args.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    // Before the object is opened, so that an interrupt always closes it in order.
    let interrupted = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&interrupted);
    system::on_interrupt(move |_| heard.store(true, Ordering::Relaxed))
        .map_err(|error| Failure::io("listen for", "interrupts", error))?;
    match open(&args)? {
        Watchable::Region(region) => {
            let mut version = region.version()?;
            note(&format!("watching {} at version {version}; Ctrl-C ends it", args.object));
            each(&args, until, &interrupted, |next| of_region(&args, &region, &mut version, next))
        }
        Watchable::Dict(dict) => {
            let mut changes = dict.watch(watched(&args))?;
            note(&format!("watching {}; Ctrl-C ends it", args.object));
            each(&args, until, &interrupted, |next| dict::watch::next(&args, &dict, &mut changes, next))
        }
    }
}

/// Prints lines until the count or the timeout is reached. `next` prints a line if a change comes
/// in time, and returns whether it did.
fn each(
    args: &WatchArgs,
    until: Option<Instant>,
    interrupted: &AtomicBool,
    mut next: impl FnMut(Instant) -> Result<bool>,
) -> Result<()> {
    let mut lines = 0;
    while args.count.is_none_or(|count| lines < count) {
        if interrupted.load(Ordering::Relaxed) {
            return Err(Failure::silent(INTERRUPTED));
        }
        let now = Instant::now();
        if until.is_some_and(|until| until <= now) {
            return args.count.map_or(Ok(()), |count| Err(too_few(args, lines, count)));
        }
        lines += u64::from(next(until.map_or(now + STEP, |until| until.min(now + STEP)))?);
    }
    Ok(())
}

fn of_region(args: &WatchArgs, region: &Region, version: &mut u64, next: Instant) -> Result<bool> {
    match region.wait_changed(*version, next) {
        Err(error) if matches!(error.kind(), ErrorKind::Timeout { .. }) => Ok(false),
        Err(error) => Err(error.into()),
        Ok(_) => {
            let status = region.status()?;
            *version = status.version;
            show(args, Change { version: *version, length: status.len, time: time::utc(SystemTime::now()) })?;
            Ok(true)
        }
    }
}

enum Watchable {
    Region(Box<Region>),
    Dict(Box<Dict>),
}

fn open(args: &WatchArgs) -> Result<Watchable> {
    let of_dict = args.key.is_some() || args.prefix.is_some();
    let advise = |error: mmf::Error| {
        let is_name_of_none = *error.kind() == ErrorKind::NotFound && args.object.name().is_some();
        let failure = args.object.advise_opener(error, dict::HOLDING);
        match is_name_of_none && !of_dict {
            true => failure.hint(format!("or: mmf hold {} --region --capacity 1M", args.object.typed())),
            false => failure,
        }
    };
    match args.object.open_to_read(args.any_owner, Region::DEFAULT_TIMEOUT).map_err(advise)? {
        Opened::Dict(dict) => Ok(Watchable::Dict(dict)),
        Opened::Region(_) if of_dict => {
            Err(Failure::new(USAGE, format!("{} is a region, which has no keys", args.object)))
        }
        Opened::Region(region) => Ok(Watchable::Region(region)),
        Opened::Unusable(error) => Err(error.into()),
        Opened::Raw(_) => {
            let message = format!("cannot watch {}: it is raw memory, which reports no changes", args.object);
            Err(Failure::new(FAILED, message).hint("watch a region or a dict; see: mmf hold --help"))
        }
    }
}

fn show(args: &WatchArgs, change: Change) -> Result<()> {
    if args.json {
        return match serde_json::to_string(&change) {
            Ok(line) => print(&(line + "\n")),
            Err(error) => Err(Failure::new(FAILED, format!("cannot write JSON: {error}"))),
        };
    }
    print(&format!("{}  version {}  {} bytes\n", change.time, change.version, change.length))
}

fn too_few(args: &WatchArgs, lines: u64, count: u64) -> Failure {
    Failure::new(FAILED, format!("{} changed {lines} times of {count} before the timeout", args.object))
}
