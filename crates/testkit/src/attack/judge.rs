//! The verdict on a trial: what a call may take, what counts as a violation, and what a lock that
//! is lost is.
//!
//! # Limits
//!
//! - A call with a deadline takes at most twice the deadline plus 100 ms. A call without one
//!   (`check`, `flush`, `sync`, the creation, and the opening of a file, which may have
//!   to be made anew) takes at most 2 s and 1 s more for each 128 MiB of capacity.
//!   `repair` has the default deadline of 10 s.
//! - The time that counts is that of the clock less that in which the thread was ready to run and
//!   had no processor. A call whose processor time alone is above the limit is a violation at once;
//!   any other is one if the trial, repeated alone up to three times, shows it again.
//! - Allocated memory is at most the capacity plus 64 MiB. So is the address space, to which each
//!   of a victim's three handles may add twice the capacity: a view that was outgrown stays mapped.
//! - Memory that the system refuses a victim, whose limit is 512 MiB higher, is a violation as
//!   well.
//!
//! # A lost lock
//!
//! When the attack is over, the attacker restores the header's first KiB and the length of the
//! object, and nothing else. Each living victim then takes the lock within a second, or is told of
//! damage; so does a fresh process. The living take two turns, and only the second counts: a lock
//! word that names a living handle keeps others out until that handle is used, which is a peer's
//! documented power.

use std::time::Duration;

use super::layout::PAYLOAD;
use super::script::Kind;
use super::victim::Bound;

const MIB: u64 = 1 << 20;

/// What a victim of one object may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Bytes that are allocated at once.
    pub(super) heap: u64,
    /// Bytes by which the address space grows.
    pub(super) space: u64,
    /// Bytes of address space above that, which the system refuses beyond.
    pub(super) space_beyond: u64,
    /// Time of a call without a deadline.
    pub(super) work: Duration,
}

impl Limits {
    pub(super) fn of(kind: Kind, capacity: u64) -> Limits {
        let total = PAYLOAD as u64 + if kind.is_dict() { capacity.max(MIB) } else { capacity };
        Limits {
            heap: total + 64 * MIB,
            space: 7 * total + 64 * MIB,
            space_beyond: 512 * MIB,
            work: Duration::from_secs(2) + Duration::from_millis(1000 * total / (128 * MIB)),
        }
    }
}

/// One call of a victim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) victim: usize,
    pub(super) name: String,
    pub(super) bound: Bound,
    pub(super) wall: Duration,
    pub(super) cpu: Duration,
    /// How long its thread waited for a processor.
    pub(super) delay: Duration,
    pub(super) heap: u64,
    pub(super) space: u64,
    pub(super) outcome: String,
    /// Whether it ended; else its process was killed or died in it.
    pub(super) ended: bool,
}

impl Call {
    pub(super) fn limit(&self) -> Duration {
        match self.bound {
            Bound::Deadline(time) => 2 * time + Duration::from_millis(100),
            Bound::Work(time) => time,
        }
    }

    /// The time that counts.
    pub(super) fn time(&self) -> Duration {
        self.wall.saturating_sub(self.delay)
    }

    /// How much of its limits it took: 1 is all of the time, the allocated memory, or the address
    /// space.
    pub(super) fn shares(&self, limits: &Limits) -> [f64; 3] {
        let time = self.time().as_secs_f64() / self.limit().as_secs_f64();
        [time, self.heap as f64 / limits.heap as f64, self.space as f64 / limits.space as f64]
    }
}

/// How a victim's process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) victim: usize,
    /// The signal or the code.
    pub(super) status: String,
    /// Whether it was told to end, and did so well.
    pub(super) good: bool,
    /// What it wrote to its stderr.
    pub(super) stderr: String,
}

/// What was seen of a trial.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    pub(super) calls: Vec<Call>,
    /// Names of the calls that others made in turn.
    pub(super) inner: Vec<String>,
    pub(super) ends: Vec<End>,
    /// What the victims were told that took the lock when the attack was over, each by its last
    /// attempt.
    pub(super) locks: Vec<(usize, String)>,
    /// What came of the repair.
    pub(super) repaired: Option<String>,
    /// Mutations that the attacker made.
    pub(super) mutations: u64,
}

/// What is violated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Sort {
    /// A call panicked.
    Panic,
    /// A victim's process died.
    Crash,
    /// A call did not end.
    Hang,
    /// A call took longer than its limit.
    Late,
    /// More memory was allocated, or asked for, than allowed.
    Memory,
    /// More address space was taken, or asked for, than allowed.
    Space,
    /// The lock was not to be had after the attack.
    LockLost,
    /// A repair left damage.
    NotRepaired,
}

/// A violation, or what looks like one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) sort: Sort,
    pub(super) what: String,
    /// Whether the load of the machine can be no reason for it.
    pub(super) certain: bool,
}

/// Number by which Linux tells that there is no memory or address space.
const ENOMEM: &str = "os=12";

/// Returns the first violation of each sort.
pub(super) fn judge(outcome: &Outcome, limits: &Limits) -> Vec<Violation> {
    let calls = outcome.calls.iter().flat_map(|call| of_call(call, limits));
    let ends = outcome.ends.iter().filter(|end| !end.good).map(of_end);
    let locks = outcome.locks.iter().filter_map(|(victim, text)| of_lock(*victim, text));
    let repaired = outcome.repaired.iter().filter_map(|text| of_repair(text));
    let mut found: Vec<Violation> = Vec::new();
    for violation in ends.chain(calls).chain(locks).chain(repaired) {
        if found.iter().all(|known| known.sort != violation.sort) {
            found.push(violation);
        }
    }
    found
}

fn of_call(call: &Call, limits: &Limits) -> Vec<Violation> {
    let mut found = Vec::new();
    let name = &call.name;
    let mut add =
        |sort, what: String, certain| found.push(Violation { sort, what: format!("{name}: {what}"), certain });
    if call.outcome.starts_with("panic") {
        add(Sort::Panic, call.outcome.clone(), true);
    }
    if !call.ended {
        if call.time() > call.limit() {
            let (wall, cpu) = (call.wall, call.cpu);
            add(Sort::Hang, format!("did not end in {wall:.1?} (processor {cpu:.1?})"), cpu > call.limit());
        }
        return found;
    }
    let limit = call.limit();
    if call.time() > limit {
        let (wall, cpu, delay) = (call.wall, call.cpu, call.delay);
        let what = format!("took {wall:.1?} (processor {cpu:.1?}, waited for one {delay:.1?}), limit {limit:.1?}");
        add(Sort::Late, what, cpu > limit);
    }
    if call.heap > limits.heap {
        add(Sort::Memory, format!("allocated {} MiB, limit {} MiB", call.heap / MIB, limits.heap / MIB), true);
    }
    if call.space > limits.space {
        let (space, limit) = (call.space / MIB, limits.space / MIB);
        add(Sort::Space, format!("address space grew by {space} MiB, limit {limit} MiB"), true);
    }
    if call.outcome.contains(ENOMEM) {
        let limit = (limits.space + limits.space_beyond) / MIB;
        add(Sort::Space, format!("asked for more than {limit} MiB of address space: {}", call.outcome), true);
    }
    found
}

fn of_end(end: &End) -> Violation {
    let lines: Vec<&str> = end.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    let text = lines[lines.len().saturating_sub(4)..].join(" | ");
    let what = format!("victim {} ended with {}: {text}", end.victim, end.status);
    let sort = if end.stderr.contains("memory allocation of") { Sort::Memory } else { Sort::Crash };
    Violation { sort, what, certain: true }
}

/// Errors of an attempt to lock that say nothing but that others have the lock or the object.
const LOCKED_OUT: [&str; 5] = ["Timeout", "Deadlock", "WouldBlock", "Contended", "Busy"];

fn of_lock(victim: usize, text: &str) -> Option<Violation> {
    let lost = LOCKED_OUT.iter().any(|kind| text.starts_with(kind));
    let who = if victim == 2 { "a fresh process".to_owned() } else { format!("victim {victim}") };
    let what = format!("{who} cannot lock after the attack: {text}");
    lost.then_some(Violation { sort: Sort::LockLost, what, certain: false })
}

fn of_repair(text: &str) -> Option<Violation> {
    let left = text.starts_with("damaged") || text.starts_with("unchecked") || text.starts_with("unopened");
    left.then(|| Violation { sort: Sort::NotRepaired, what: format!("after a repair: {text}"), certain: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(300);

    fn limits() -> Limits {
        Limits::of(Kind::DictName, MIB)
    }

    /// A call with a deadline of 100 ms that keeps all limits.
    fn call() -> Call {
        Call {
            victim: 0,
            name: "Dict::get".to_owned(),
            bound: Bound::Deadline(Duration::from_millis(100)),
            wall: LIMIT,
            cpu: LIMIT,
            delay: Duration::ZERO,
            heap: limits().heap,
            space: limits().space,
            outcome: "Damaged".to_owned(),
            ended: true,
        }
    }

    fn sorts(outcome: Outcome) -> Vec<(Sort, bool)> {
        judge(&outcome, &limits()).iter().map(|violation| (violation.sort, violation.certain)).collect()
    }

    fn of(calls: Vec<Call>) -> Vec<(Sort, bool)> {
        sorts(Outcome { calls, ..Outcome::default() })
    }

    fn changed(change: impl FnOnce(&mut Call)) -> Vec<(Sort, bool)> {
        let mut call = call();
        change(&mut call);
        of(vec![call])
    }

    #[test]
    fn a_call_that_keeps_its_limits_is_no_violation() {
        assert_eq!(of(vec![call()]), []);
    }

    #[test]
    fn each_limit_of_a_call_is_judged() {
        let tick = Duration::from_millis(1);
        assert_eq!(changed(|call| call.outcome = "panic index out of bounds".to_owned()), [(Sort::Panic, true)]);
        assert_eq!(changed(|call| call.heap += 1), [(Sort::Memory, true)]);
        assert_eq!(changed(|call| call.space += 1), [(Sort::Space, true)]);
        assert_eq!(changed(|call| call.outcome = "Other os=12".to_owned()), [(Sort::Space, true)]);
        // By the clock it may be the machine's load, but not by the processor's time.
        assert_eq!(changed(|call| call.wall += tick), [(Sort::Late, false)]);
        assert_eq!(changed(|call| (call.wall, call.cpu) = (call.wall + tick, call.cpu + tick)), [(Sort::Late, true)]);
        assert_eq!(changed(|call| (call.wall, call.delay) = (call.wall + tick, tick)), []);
        assert_eq!(changed(|call| (call.wall, call.ended) = (LIMIT + tick, false)), [(Sort::Hang, false)]);
    }

    #[test]
    fn work_without_a_deadline_has_a_bound_by_the_capacity() {
        let work = limits().work;
        let of_work = |wall| changed(|call| (call.bound, call.wall, call.cpu) = (Bound::Work(work), wall, wall));
        assert_eq!(of_work(work), []);
        assert_eq!(of_work(work + Duration::from_millis(1)), [(Sort::Late, true)]);
        assert!(Limits::of(Kind::DictFile, 64 * MIB).work > work);
    }

    #[test]
    fn a_process_that_dies_is_a_violation() {
        let end = |good, stderr: &str| {
            let end = End { victim: 1, status: "signal 6".to_owned(), good, stderr: stderr.to_owned() };
            sorts(Outcome { ends: vec![end], ..Outcome::default() })
        };
        assert_eq!(end(true, ""), []);
        assert_eq!(end(false, "thread 'victim' has overflowed its stack"), [(Sort::Crash, true)]);
        assert_eq!(end(false, "memory allocation of 2147483648 bytes failed"), [(Sort::Memory, true)]);
    }

    #[test]
    fn a_lock_is_lost_where_nothing_but_its_holder_is_told() {
        let lock = |text: &str| sorts(Outcome { locks: vec![(2, text.to_owned())], ..Outcome::default() });
        for text in ["ok", "Damaged", "Full", "NotASegment", "Fault"] {
            assert_eq!(lock(text), [], "{text}");
        }
        for text in ["Timeout", "Deadlock"] {
            assert_eq!(lock(text), [(Sort::LockLost, false)], "{text}");
        }
    }

    #[test]
    fn a_repair_that_leaves_damage_is_a_violation() {
        let repair = |text: &str| sorts(Outcome { repaired: Some(text.to_owned()), ..Outcome::default() });
        assert_eq!(repair("whole"), []);
        assert_eq!(repair("NotASegment"), []);
        assert_eq!(repair("damaged a value"), [(Sort::NotRepaired, true)]);
    }

    #[test]
    fn one_violation_of_a_sort_is_told() {
        let mut late = call();
        late.heap += 1;
        assert_eq!(of(vec![late.clone(), late]), [(Sort::Memory, true)]);
    }
}
