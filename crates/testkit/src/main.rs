//! Torments mmf: `testkit torture`, `testkit times`, `testkit fairness`, `testkit death`, `testkit
//! attack`. And `testkit golden` makes the golden segments.

#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use testkit::fairness::{self, Fairness};
use testkit::torture::{self, Torture, Victim};

const USAGE: &str = "\
usage: testkit torture [--dict] [--kills N] [--processes N] [--seconds S] [--pace-us U]
       testkit handover [--kills N] [--resident BYTES] [--core 1]
       testkit fairness [--readers N] [--writers N] [--seconds S]
       testkit death [--dict] [--all | --samples N]
       testkit attack [--trials N] [--seed S] [--only TARGET] [--repeat SCRIPT] [--jobs N] [--json]
       testkit golden DIRECTORY";

/// Counts what victims of `attack` allocate.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[global_allocator]
static METER: testkit::attack::meter::Meter = testkit::attack::meter::Meter;

fn main() -> ExitCode {
    testkit::peer::enter(&[
        #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
        ("attack_victim", testkit::attack::victim),
        ("worker", torture::worker),
        ("dict_worker", torture::dict_worker),
        ("holder", torture::holder),
        ("contender", fairness::contender),
    ]);
    let args: Vec<String> = env::args().skip(1).collect();
    let Some((verb, rest)) = args.split_first() else { return usage() };
    let (dict, rest) = match rest.split_first() {
        Some((first, rest)) if first == "--dict" => (true, rest),
        _ => (false, rest),
    };
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    if verb == "death" {
        let deaths = match rest {
            [all] if all == "--all" => testkit::death::Deaths::all(1000),
            [samples, number] if samples == "--samples" => match number.parse() {
                Ok(number) => testkit::death::Deaths::all(number),
                Err(_) => return usage(),
            },
            [] => testkit::death::Deaths::all(100),
            _ => return usage(),
        };
        let dir = testkit::TempDir::in_memory();
        let good = if dict { deaths.run_dict(dir.path()) } else { deaths.run(dir.path()) };
        return if good { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let ("golden", [dir]) = (verb.as_str(), rest) {
        testkit::golden::make(Path::new(dir)).expect("a directory that can be written to");
        return ExitCode::SUCCESS;
    }
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    if verb == "attack" {
        let Some(attack) = attack(rest) else { return usage() };
        return match attack.run() {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(text) => {
                eprintln!("testkit: {text}");
                ExitCode::from(2)
            }
        };
    }
    let Some(number) = numbers(rest) else { return usage() };
    let good = match verb.as_str() {
        "torture" => {
            let torture = Torture {
                kills: number("kills", 10_000),
                processes: small(number("processes", 12)),
                pace: Duration::from_micros(number("pace-us", 1000)),
                limit: Duration::from_secs(number("seconds", 36_000)),
            };
            if dict { torture.run_dict() } else { torture.run() }
        }
        "handover" => {
            let victim = Victim { resident: number("resident", 0), dumps_core: number("core", 0) != 0 };
            let times = torture::measure_handover(small(number("kills", 1000)), victim);
            println!("{} holders killed", times.waits.len());
            for (text, waits) in [("kill", &times.waits), ("release", &times.after_release)] {
                let at = |share: usize| waits[(waits.len() - 1) * share / 1000];
                println!(
                    "from the {text} to the lock: half below {:.3?}, 99 % below {:.3?}, worst {:.3?}",
                    at(500),
                    at(990),
                    at(1000)
                );
            }
            true
        }
        "fairness" => {
            let fair = Fairness {
                readers: small(number("readers", 8)),
                writers: small(number("writers", 4)),
                time: Duration::from_secs(number("seconds", 10)),
            }
            .run();
            println!("readers: {}\nwriters: {}", fair.readers, fair.writers);
            true
        }
        _ => return usage(),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What an attack was asked for.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn attack(args: &[String]) -> Option<testkit::attack::Attack> {
    use std::time::SystemTime;

    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed = u64::try_from(since.as_micros() % 1_000_000_000).ok()?;
    let (only, repeat) = (None, None);
    let mut attack = testkit::attack::Attack { trials: 1000, seed, only, repeat, jobs: 2, json: false };
    let mut args = args.iter();
    while let Some(name) = args.next() {
        match name.as_str() {
            "--json" => attack.json = true,
            "--trials" => attack.trials = args.next()?.parse().ok()?,
            "--seed" => attack.seed = args.next()?.parse().ok()?,
            "--jobs" => attack.jobs = args.next()?.parse().ok()?,
            "--only" => attack.only = Some(args.next()?.clone()),
            "--repeat" => attack.repeat = Some(args.next()?.clone()),
            _ => return None,
        }
    }
    Some(attack)
}

fn small(number: u64) -> usize {
    usize::try_from(number).expect("a small number")
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

/// The options, each `--name number`, with what stands for one that was not given.
fn numbers(args: &[String]) -> Option<impl Fn(&str, u64) -> u64> {
    let mut given = Vec::new();
    for pair in args.chunks(2) {
        let [name, number] = pair else { return None };
        given.push((name.strip_prefix("--")?.to_owned(), number.parse().ok()?));
    }
    Some(move |name: &str, usual: u64| {
        given.iter().find(|(known, _)| known == name).map_or(usual, |(_, number)| *number)
    })
}
