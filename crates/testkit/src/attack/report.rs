//! What came of an attack: counts, the worst calls, and each violation with the command that
//! repeats it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::json;

use super::judge::{Call, Limits, Outcome, Violation};
use super::script::{Kind, Script, Target};

/// Calls of one name.
#[derive(Debug, Default)]
struct Calls {
    count: u64,
    /// Those that did not end well.
    errors: u64,
    /// The longest, with its limit.
    worst: Duration,
    limit: Duration,
    heap: u64,
}

#[derive(Debug)]
pub(super) struct Report {
    began: Instant,
    trials: u64,
    kinds: BTreeMap<&'static str, u64>,
    targets: BTreeMap<&'static str, u64>,
    mutations: u64,
    calls: BTreeMap<String, Calls>,
    /// Kinds of errors that calls returned.
    outcomes: BTreeMap<String, u64>,
    /// The largest shares of a limit, and the call.
    worst_time: (f64, String),
    worst_heap: (f64, String),
    worst_space: (f64, String),
    violations: Vec<(Script, Violation)>,
    suspicions: Vec<(Script, Violation)>,
}

/// Returns the command that repeats a trial.
pub(super) fn command(script: &Script) -> String {
    format!("testkit attack --trials 5 --repeat {script}")
}

impl Report {
    pub(super) fn new() -> Report {
        let none = || (0.0, String::new());
        Report {
            began: Instant::now(),
            trials: 0,
            kinds: BTreeMap::new(),
            targets: BTreeMap::new(),
            mutations: 0,
            calls: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            worst_time: none(),
            worst_heap: none(),
            worst_space: none(),
            violations: Vec::new(),
            suspicions: Vec::new(),
        }
    }

    pub(super) fn is_good(&self) -> bool {
        self.violations.is_empty()
    }

    pub(super) fn add(&mut self, script: &Script, outcome: &Outcome) {
        self.trials += 1;
        self.mutations += outcome.mutations;
        *self.kinds.entry(Kind::text(script.kind)).or_default() += 1;
        for step in &script.steps {
            *self.targets.entry(Target::text(step.target)).or_default() += 1;
        }
        for name in &outcome.inner {
            self.calls.entry(name.clone()).or_default().count += 1;
        }
        let limits = Limits::of(script.kind, script.capacity);
        for call in &outcome.calls {
            self.add_call(call, &limits);
        }
    }

    fn add_call(&mut self, call: &Call, limits: &Limits) {
        let first = call.outcome.split(' ').next().unwrap_or_default();
        *self.outcomes.entry(first.to_owned()).or_default() += 1;
        let calls = self.calls.entry(call.name.clone()).or_default();
        calls.count += 1;
        calls.errors += u64::from(call.outcome != "ok");
        calls.heap = calls.heap.max(call.heap);
        if call.time() > calls.worst {
            (calls.worst, calls.limit) = (call.time(), call.limit());
        }
        let raise = |worst: &mut (f64, String), share: f64, what: String| {
            if share > worst.0 {
                *worst = (share, format!("{}: {what}", call.name));
            }
        };
        let (time, limit) = (call.time(), call.limit());
        raise(&mut self.worst_time, time.as_secs_f64() / limit.as_secs_f64(), format!("{time:.1?} of {limit:.1?}"));
        let of = |bytes: u64, limit: u64| format!("{} KiB of {} KiB", bytes >> 10, limit >> 10);
        raise(&mut self.worst_heap, call.heap as f64 / limits.heap as f64, of(call.heap, limits.heap));
        raise(&mut self.worst_space, call.space as f64 / limits.space as f64, of(call.space, limits.space));
    }

    pub(super) fn violation(&mut self, script: &Script, violation: Violation, confirmed: bool) {
        let all = if confirmed { &mut self.violations } else { &mut self.suspicions };
        all.push((script.clone(), violation));
    }

    /// Violations by their sort.
    fn sorts(&self) -> BTreeMap<String, u64> {
        let mut sorts = BTreeMap::new();
        for (_, violation) in &self.violations {
            *sorts.entry(format!("{:?}", violation.sort)).or_default() += 1;
        }
        sorts
    }

    pub(super) fn text(&self, seed: u64) -> String {
        let mut text = String::new();
        let calls: u64 = self.calls.values().map(|calls| calls.count).sum();
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{} trials in {:.1?}, seed {seed}, {build} build: {calls} calls of {} names, {} mutations",
            self.trials,
            self.began.elapsed(),
            self.calls.len(),
            self.mutations
        );
        let _ = writeln!(text, "objects: {:?}", self.kinds);
        let _ = writeln!(text, "targets: {:?}", self.targets);
        let _ = writeln!(text, "outcomes: {:?}", self.outcomes);
        let share = |(share, what): &(f64, String)| format!("{:.0} % of the limit, {what}", share * 100.0);
        let _ = writeln!(text, "worst time: {}", share(&self.worst_time));
        let _ = writeln!(text, "most allocated: {}", share(&self.worst_heap));
        let _ = writeln!(text, "most address space: {}", share(&self.worst_space));
        for (title, all) in [("violation", &self.violations), ("not repeated", &self.suspicions)] {
            for (script, violation) in all {
                let _ = writeln!(text, "{title}: {:?}: {}\n    {}", violation.sort, violation.what, command(script));
            }
        }
        let _ = write!(
            text,
            "{} violations {:?}, {} not repeated",
            self.violations.len(),
            self.sorts(),
            self.suspicions.len()
        );
        text
    }

    pub(super) fn json(&self, seed: u64) -> String {
        let calls: BTreeMap<&str, serde_json::Value> = self
            .calls
            .iter()
            .map(|(name, calls)| {
                let (worst, limit) = (calls.worst.as_secs_f64(), calls.limit.as_secs_f64());
                let about = json!({ "count": calls.count, "errors": calls.errors, "worst_s": worst, "limit_s": limit,
                    "heap": calls.heap });
                (name.as_str(), about)
            })
            .collect();
        let of = |all: &[(Script, Violation)]| -> Vec<serde_json::Value> {
            all.iter()
                .map(|(script, violation)| {
                    let (sort, what) = (format!("{:?}", violation.sort), &violation.what);
                    json!({ "sort": sort, "what": what, "script": script.to_string(), "command": command(script) })
                })
                .collect()
        };
        let worst = |(share, what): &(f64, String)| json!({ "share": share, "what": what });
        json!({
            "trials": self.trials, "seed": seed, "seconds": self.began.elapsed().as_secs_f64(),
            "objects": self.kinds, "targets": self.targets, "mutations": self.mutations, "calls": calls,
            "outcomes": self.outcomes, "worst_time": worst(&self.worst_time), "most_allocated": worst(&self.worst_heap),
            "most_space": worst(&self.worst_space), "violations": of(&self.violations),
            "not_repeated": of(&self.suspicions),
        })
        .to_string()
    }
}
