//! A hostile peer against every public call of `Region` and `Dict`: `testkit attack`.
//!
//! A trial has four parts:
//!
//! 1. A victim creates an object and fills it. A second victim joins. Both make all public calls in
//!    random order, with deadlines, and tell the coordinator of each call's outcome, duration and
//!    memory (`victim.rs`).
//! 2. Meanwhile the attacker writes to the object through a descriptor of its own. It derives
//!    hostile values from what is there (`attacker.rs`, `mutations.rs`, `dict_mutations.rs`,
//!    `values.rs`), and knows the format from `docs/format.md` alone (`layout.rs`).
//! 3. The attack ends. The victims, and then a fresh process, take the lock. A dict's file is
//!    repaired.
//! 4. The judge compares all that with the limits (`judge.rs`).
//!
//! The attacker adapts: scripts that led to the slowest calls or the most memory are kept and
//! mutated (`script.rs`). A violation is reported with the script that repeats it. What might be
//! the machine's load is repeated alone first.

mod attacker;
mod coordinator;
mod dict_calls;
mod dict_mutations;
mod judge;
mod layout;
pub mod meter;
mod mutations;
mod random;
mod region_calls;
mod report;
mod script;
mod trial;
mod values;
mod victim;

pub use victim::victim;

use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::lock;
use judge::{Call, Limits, Outcome, Violation, judge};
use report::Report;
use script::{Corpus, Script, Target};

/// How often a trial is repeated alone before its suspicion is dropped.
const REPEATS: usize = 3;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Attack {
    /// Trials.
    pub trials: u64,
    /// Of all that is random.
    pub seed: u64,
    /// The one target, by its name.
    pub only: Option<String>,
    /// The script to repeat, in place of new ones.
    pub repeat: Option<String>,
    /// Trials at once.
    pub jobs: usize,
    /// Whether the report is JSON.
    pub json: bool,
}

/// Public functions that no victim calls, and why.
#[must_use]
pub fn exempt() -> Vec<(&'static str, &'static str)> {
    [&region_calls::EXEMPT[..], &dict_calls::EXEMPT[..]].concat()
}

impl Attack {
    /// Attacks, and prints the report; whether nothing was violated.
    ///
    /// The program must play the role [`victim()`] as `attack_victim`, and have [`meter::Meter`] as
    /// its allocator.
    ///
    /// # Errors
    ///
    /// What is wrong with the target or the script.
    ///
    /// # Panics
    ///
    /// If the system refuses to start processes.
    pub fn run(&self) -> Result<bool, String> {
        if !trial::is_possible() {
            return Err("cannot attack: there is no /dev/shm".to_owned());
        }
        let only = match &self.only {
            Some(text) => Some(Target::of(text).ok_or_else(|| format!("cannot attack {text}: {}", targets()))?),
            None => None,
        };
        let repeat: Option<Script> = self.repeat.as_ref().map(|text| text.parse()).transpose()?;
        let corpus = Mutex::new(Corpus::new(self.seed, only));
        let report = Mutex::new(Report::new());
        let (taken, alone) = (AtomicU64::new(0), RwLock::new(()));
        thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    while taken.fetch_add(1, Ordering::Relaxed) < self.trials {
                        let script = repeat.clone().unwrap_or_else(|| lock(&corpus).next());
                        if let Some(shares) = Attack::trial(&script, &report, &alone) {
                            lock(&corpus).learn(shares, &script);
                        }
                    }
                });
            }
        });
        let report = lock(&report);
        println!("{}", if self.json { report.json(self.seed) } else { report.text(self.seed) });
        Ok(report.is_good())
    }

    /// Makes a trial and notes it; returns the largest shares of the limits that a call took,
    /// `None` after a violation, and
    /// where most calls were refused.
    fn trial(script: &Script, report: &Mutex<Report>, alone: &RwLock<()>) -> Option<[f64; 3]> {
        let limits = Limits::of(script.kind, script.capacity);
        let outcome = {
            let _others = alone.read().unwrap_or_else(PoisonError::into_inner);
            trial::run(script)
        };
        let found = judge(&outcome, &limits);
        let larger = |most: [f64; 3], call: &Call| {
            let shares = call.shares(&limits);
            [most[0].max(shares[0]), most[1].max(shares[1]), most[2].max(shares[2])]
        };
        // Where most calls find no segment, the others find little.
        let refused = outcome.calls.iter().filter(|call| call.outcome == "NotASegment").count();
        let is_useful = found.is_empty() && refused <= outcome.calls.len() / 2;
        let shares = is_useful.then(|| outcome.calls.iter().fold([0.0; 3], larger));
        lock(report).add(script, &outcome);
        for violation in found {
            let confirmed = violation.certain || Attack::again(script, &violation, &limits, alone);
            eprintln!("{}: {:?}: {}", report::command(script), violation.sort, violation.what);
            lock(report).violation(script, violation, confirmed);
        }
        shares
    }

    /// Repeats a trial alone; whether it shows the same sort of violation again.
    fn again(script: &Script, violation: &Violation, limits: &Limits, alone: &RwLock<()>) -> bool {
        let _alone = alone.write().unwrap_or_else(PoisonError::into_inner);
        (0..REPEATS).any(|_| {
            let outcome: Outcome = trial::run(script);
            judge(&outcome, limits).iter().any(|found| found.sort == violation.sort)
        })
    }
}

fn targets() -> String {
    let all: Vec<&str> = Target::ALL.iter().map(|(_, name, _)| *name).collect();
    format!("the targets are {}", all.join(", "))
}
