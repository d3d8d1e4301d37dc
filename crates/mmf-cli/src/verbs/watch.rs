//! `mmf watch`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use mmf::{ErrorKind, Region};
use serde::Serialize;

use crate::cli::WatchArgs;
use crate::failure::{FAILED, Failure, INTERRUPTED, Result};
use crate::object::Opened;
use crate::output::{note, print};
use crate::{system, time};

/// How soon an interrupt is noticed.
const STEP: Duration = Duration::from_millis(100);

/// A change as JSON.
#[derive(Serialize)]
struct Change {
    version: u64,
    length: u64,
    time: String,
}

pub(crate) fn run(args: WatchArgs) -> Result<()> {
    // A timeout that no clock can tell is none.
    let until = args.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    // From before there is a place in the region to leave.
    let interrupted = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&interrupted);
    system::on_interrupt(move |_| heard.store(true, Ordering::Relaxed))
        .map_err(|error| Failure::io("listen for", "interrupts", error))?;
    let region = open(&args)?;
    let mut version = region.version()?;
    note(&format!("watching {} at version {version}; Ctrl-C ends it", args.object));
    let mut lines = 0;
    while args.count.is_none_or(|count| lines < count) {
        if interrupted.load(Ordering::Relaxed) {
            return Err(Failure::silent(INTERRUPTED));
        }
        let now = Instant::now();
        if until.is_some_and(|until| until <= now) {
            return args.count.map_or(Ok(()), |count| Err(too_few(&args, lines, count)));
        }
        let next = until.map_or(now + STEP, |until| until.min(now + STEP));
        match region.wait_changed(version, next) {
            Err(error) if matches!(error.kind(), ErrorKind::Timeout { .. }) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {
                let status = region.status()?;
                version = status.version;
                show(&args, Change { version, length: status.len, time: time::utc(SystemTime::now()) })?;
                lines += 1;
            }
        }
    }
    Ok(())
}

fn open(args: &WatchArgs) -> Result<Box<Region>> {
    let advise = |error| args.object.advise_opener(error, "--region --capacity 1M");
    match args.object.open_to_read(args.any_owner, Region::DEFAULT_TIMEOUT).map_err(advise)? {
        Opened::Region(region) => Ok(region),
        Opened::Unusable(error) => Err(error.into()),
        Opened::Raw(_) => {
            let message = format!("{} is raw memory, whose changes nobody is told of", args.object);
            Err(Failure::new(FAILED, message).hint("those of a region can be watched; see: mmf hold --help"))
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
    Failure::new(FAILED, format!("{} changed {lines} times of {count} before the time was over", args.object))
}
