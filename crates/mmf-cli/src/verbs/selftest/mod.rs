//! `mmf selftest`: tests mmf's features on this machine.

mod checks;
mod peer;
mod place;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cli::SelftestArgs;
use crate::failure::{FAILED, Failure, Result};
use crate::lifetime::Bound;
use crate::output::{print, print_json};
use place::Place;

pub(crate) use peer::Step;

/// The result of a check, with details.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Outcome {
    Works(String),
    NotHere(String),
    Fails(String),
}

/// A check that does not work, or cannot be made here.
type Verdict<T = String, E = Outcome> = std::result::Result<T, E>;

impl From<mmf::Error> for Outcome {
    fn from(error: mmf::Error) -> Self {
        match error.kind() {
            // A full disk or /dev/shm is not mmf's failure either.
            mmf::ErrorKind::Unsupported { .. } | mmf::ErrorKind::NoSpace => Outcome::NotHere(error.to_string()),
            _ => Outcome::Fails(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Outcome {
    fn from(error: std::io::Error) -> Self {
        Outcome::Fails(error.to_string())
    }
}

/// Fails a check unless the promise holds.
fn ensure(holds: bool, promise: &str) -> Verdict<()> {
    if holds { Ok(()) } else { Err(Outcome::Fails(format!("it is not true that {promise}"))) }
}

pub(crate) fn run(args: SelftestArgs) -> Result<()> {
    if let (Some(step), Some(object)) = (args.step, &args.object) {
        let _bound = Bound::new(Duration::from_secs(60));
        return peer::run(step, object);
    }
    let place = Place::new()?;
    place.clean_up_on_interrupt()?;
    let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    if !args.json {
        print(&format!("mmf {} on {system}, pages of {} bytes\n\n", env!("CARGO_PKG_VERSION"), mmf::page_size()))?;
    }
    let width = checks::ALL.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut results = Vec::new();
    for check in checks::ALL {
        let started = Instant::now();
        let outcome = (check.run)(&place).map_or_else(|outcome| outcome, Outcome::Works);
        let took = started.elapsed();
        if !args.json {
            print(&line(check.name, width, &outcome, took))?;
        }
        results.push((check.name, outcome, took));
    }
    conclude(&results, &system, args.json)
}

fn line(name: &str, width: usize, outcome: &Outcome, took: Duration) -> String {
    let ms = took.as_secs_f64() * 1e3;
    match outcome {
        Outcome::Works(about) if about.is_empty() => format!("{name:<width$}  {ms:8.1} ms  ok\n"),
        Outcome::Works(about) => format!("{name:<width$}  {ms:8.1} ms  ok ({about})\n"),
        Outcome::NotHere(why) => format!("{name:<width$}  {ms:8.1} ms  not here ({why})\n"),
        Outcome::Fails(why) => format!("{name:<width$}  {ms:8.1} ms  FAILED: {why}\n"),
    }
}

fn conclude(results: &[(&str, Outcome, Duration)], system: &str, as_json: bool) -> Result<()> {
    let count = |which: fn(&Outcome) -> bool| results.iter().filter(|(_, outcome, _)| which(outcome)).count();
    let failed = count(|outcome| matches!(outcome, Outcome::Fails(_)));
    if as_json {
        let checks: Vec<_> = results.iter().map(|(name, outcome, took)| Row::new(name, outcome, *took)).collect();
        print_json(&Results {
            version: env!("CARGO_PKG_VERSION"),
            system,
            page_size: mmf::page_size(),
            ok: failed == 0,
            checks,
        })?;
    } else {
        let works = count(|outcome| matches!(outcome, Outcome::Works(_)));
        let absent = count(|outcome| matches!(outcome, Outcome::NotHere(_)));
        print(&format!("\n{works} ok, {failed} failed, {absent} not here\n"))?;
    }
    if failed == 0 { Ok(()) } else { Err(Failure::silent(FAILED)) }
}

/// The results as JSON.
#[derive(Serialize)]
struct Results<'a> {
    version: &'a str,
    system: &'a str,
    page_size: usize,
    ok: bool,
    checks: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    check: &'a str,
    result: &'a str,
    about: &'a str,
    ms: f64,
}

impl<'a> Row<'a> {
    fn new(check: &'a str, outcome: &'a Outcome, took: Duration) -> Self {
        let (result, about) = match outcome {
            Outcome::Works(about) => ("ok", about),
            Outcome::NotHere(why) => ("not here", why),
            Outcome::Fails(why) => ("failed", why),
        };
        Row { check, result, about, ms: took.as_secs_f64() * 1e3 }
    }
}
