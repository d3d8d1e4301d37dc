//! Scripts of attacks, the text that repeats one, and the corpus that makes the attacker adaptive.
//!
//! A script names the object, the manner and the mutations, each with a seed. A trial is repeated
//! from its text: the timing of processes aside, nothing else enters it. The corpus keeps the
//! scripts that led to the slowest calls and to the most memory, and new scripts are mutations of
//! those.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::random::Random;

/// What is attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A region by name.
    RegionName,
    /// A dict by name.
    DictName,
    /// A dict in a file.
    DictFile,
}

impl Kind {
    pub(super) const ALL: [Kind; 3] = [Kind::RegionName, Kind::DictName, Kind::DictFile];

    pub(super) fn text(self) -> &'static str {
        match self {
            Kind::RegionName => "region-name",
            Kind::DictName => "dict-name",
            Kind::DictFile => "dict-file",
        }
    }

    pub(super) fn of(text: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.text() == text)
    }

    pub(super) fn is_dict(self) -> bool {
        self != Kind::RegionName
    }
}

/// Which bytes a mutation aims at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Target {
    Header,
    Lock,
    Slots,
    Version,
    Length,
    Bits,
    RedoLog,
    Directory,
    Buckets,
    Records,
    Values,
    Spans,
    Ring,
    Words,
    Pending,
    Boot,
}

impl Target {
    /// Each target, with how many variants of mutations it has.
    pub(super) const ALL: [(Target, &'static str, u8); 16] = [
        (Target::Header, "header", 9),
        (Target::Lock, "lock", 8),
        (Target::Slots, "slots", 6),
        (Target::Version, "version", 6),
        (Target::Length, "length", 8),
        (Target::Bits, "bits", 4),
        (Target::RedoLog, "journal", 6),
        (Target::Directory, "directory", 7),
        (Target::Buckets, "buckets", 8),
        (Target::Records, "records", 10),
        (Target::Values, "values", 8),
        (Target::Spans, "spans", 8),
        (Target::Ring, "ring", 7),
        (Target::Words, "words", 6),
        (Target::Pending, "pending", 5),
        (Target::Boot, "boot", 5),
    ];

    /// Whether an object of this kind has such bytes.
    pub(super) fn is_in(self, kind: Kind) -> bool {
        match self {
            Target::Header | Target::Lock | Target::Slots | Target::Version | Target::Length | Target::Bits => true,
            Target::Boot => kind == Kind::DictFile,
            _ => kind.is_dict(),
        }
    }

    pub(super) fn text(self) -> &'static str {
        Target::ALL.iter().find(|(target, ..)| *target == self).map_or("?", |(_, text, _)| text)
    }

    pub(super) fn of(text: &str) -> Option<Target> {
        Target::ALL.iter().find(|(_, name, _)| *name == text).map(|(target, ..)| *target)
    }

    fn variants(self) -> u8 {
        Target::ALL.iter().find(|(target, ..)| *target == self).map_or(1, |(_, _, variants)| *variants)
    }
}

/// When the mutations are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// All of them once, at a random moment.
    Once,
    /// All of them in turn, in a tight loop.
    Loop,
    /// All of them each millisecond.
    Pulse,
    /// Each in turn, undone a moment later.
    Flicker,
}

impl Manner {
    const ALL: [(Manner, &'static str); 4] =
        [(Manner::Once, "once"), (Manner::Loop, "loop"), (Manner::Pulse, "pulse"), (Manner::Flicker, "flicker")];
}

/// One mutation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) target: Target,
    pub(super) variant: u8,
    pub(super) seed: u32,
}

impl Step {
    fn random(random: &mut Random, kind: Kind, only: Option<Target>) -> Step {
        let all: Vec<Target> = targets(kind, only);
        let target = all[random.index(all.len())];
        Step { target, variant: variant(random, target), seed: random.half() }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "below a number of 8 bits")]
fn variant(random: &mut Random, target: Target) -> u8 {
    random.below(u64::from(target.variants())) as u8
}

/// The targets that an object of this kind has, or the one that was asked for.
fn targets(kind: Kind, only: Option<Target>) -> Vec<Target> {
    let all = Target::ALL.iter().map(|(target, ..)| *target).filter(|target| target.is_in(kind));
    match only.filter(|only| only.is_in(kind)) {
        Some(only) => vec![only],
        None => all.collect(),
    }
}

/// All that a trial is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) kind: Kind,
    /// Bytes of the capacity that the object is created with.
    pub(super) capacity: u64,
    /// The deadline of the victims' calls.
    pub(super) timeout: Duration,
    pub(super) manner: Manner,
    /// Of the victims' orders of calls and of the attacker's moments.
    pub(super) seed: u32,
    pub(super) steps: Vec<Step>,
}

const CAPACITIES: [u64; 3] = [64 << 10, 1 << 20, 4 << 20];
/// For dicts alone, in one of ten scripts each. They are sparse.
const LARGE: [u64; 2] = [64 << 20, 512 << 20];
const TIMEOUTS: [u64; 3] = [50, 100, 200];
/// Steps that a script has at the most.
const MOST_STEPS: usize = 6;

impl Script {
    /// Makes a script at random.
    pub(super) fn random(random: &mut Random, kind: Kind, only: Option<Target>) -> Script {
        let count = 1 + random.index(3);
        let steps = (0..count).map(|_| Step::random(random, kind, only)).collect();
        Script::with(random, kind, steps)
    }

    /// Makes a script of these steps, the rest at random.
    fn with(random: &mut Random, kind: Kind, steps: Vec<Step>) -> Script {
        let capacity = match random.index(10) {
            nth @ 0..2 if kind.is_dict() => LARGE[nth],
            _ => CAPACITIES[random.index(3).max(usize::from(kind.is_dict()))],
        };
        let timeout = if random.once_in(10) { 500 } else { random.pick(&TIMEOUTS) };
        let manner = random.pick(&Manner::ALL).0;
        let seed = random.half();
        Script { kind, capacity, timeout: Duration::from_millis(timeout), manner, seed, steps }
    }

    /// Makes the script that differs from this one in one or two things.
    fn mutated(&self, random: &mut Random, other: &Script, only: Option<Target>) -> Script {
        let mut script = self.clone();
        script.seed = random.half();
        for _ in 0..1 + random.below(2) {
            let at = random.index(script.steps.len());
            match random.below(8) {
                0 => script.steps.push(Step::random(random, script.kind, only)),
                1 if script.steps.len() > 1 => drop(script.steps.remove(at)),
                2 => script.steps[at].variant = variant(random, script.steps[at].target),
                3 => script.manner = random.pick(&Manner::ALL).0,
                4 => script.steps.extend(other.steps.iter().filter(|step| step.target.is_in(self.kind)).copied()),
                // More work, or less time for it.
                5 if script.kind.is_dict() => script.capacity = random.pick(&LARGE),
                6 => script.timeout = Duration::from_millis(TIMEOUTS[0]),
                _ => script.steps[at].seed = random.half(),
            }
            script.steps.truncate(MOST_STEPS);
        }
        script
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manner = Manner::ALL.iter().find(|(manner, _)| *manner == self.manner).map_or("?", |(_, text)| text);
        let (kind, timeout) = (self.kind.text(), self.timeout.as_millis());
        write!(f, "{kind}/{}/{timeout}/{manner}/{:x}/", self.capacity, self.seed)?;
        for (nth, step) in self.steps.iter().enumerate() {
            let plus = if nth == 0 { "" } else { "+" };
            write!(f, "{plus}{}.{}.{:x}", step.target.text(), step.variant, step.seed)?;
        }
        Ok(())
    }
}

impl FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Script, String> {
        let bad = || format!("{text:?} is no script: KIND/CAPACITY/MILLISECONDS/MANNER/SEED/TARGET.VARIANT.SEED+...");
        let words: Vec<&str> = text.split('/').collect();
        let [kind, capacity, timeout, manner, seed, steps] = words[..] else { return Err(bad()) };
        let step = |text: &str| {
            let mut words = text.splitn(3, '.');
            let target = Target::of(words.next()?)?;
            let variant = words.next()?.parse().ok()?;
            Some(Step { target, variant, seed: u32::from_str_radix(words.next()?, 16).ok()? })
        };
        let manner = Manner::ALL.iter().find(|(_, name)| *name == manner).map(|(manner, _)| *manner);
        Ok(Script {
            kind: Kind::of(kind).ok_or_else(bad)?,
            capacity: capacity.parse().map_err(|_| bad())?,
            timeout: Duration::from_millis(timeout.parse().map_err(|_| bad())?),
            manner: manner.ok_or_else(bad)?,
            seed: u32::from_str_radix(seed, 16).map_err(|_| bad())?,
            steps: steps.split('+').map(step).collect::<Option<_>>().ok_or_else(bad)?,
        })
    }
}

/// The scripts that came closest to a limit, and the source of new ones.
#[derive(Debug)]
pub(super) struct Corpus {
    random: Random,
    only: Option<Target>,
    /// Scripts of one step each, which are tried first: every variant of every target once.
    first: Vec<Script>,
    /// For time, allocated memory and address space: scripts with the share of the limit that the
    /// worst call took.
    best: [Vec<(f64, Script)>; 3],
}

/// Scripts that the corpus keeps of each.
const KEPT: usize = 12;

impl Corpus {
    pub(super) fn new(seed: u64, only: Option<Target>) -> Corpus {
        let mut random = Random::new(seed);
        let mut first = Vec::new();
        for (target, _, variants) in Target::ALL {
            for variant in 0..variants {
                let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| target.is_in(*kind)).collect();
                let kind = kinds[random.index(kinds.len())];
                if only.is_none_or(|only| only == target) {
                    let step = Step { target, variant, seed: random.half() };
                    first.push(Script::with(&mut random, kind, vec![step]));
                }
            }
        }
        // In any order, so that few trials have a sample of all targets.
        for nth in (1..first.len()).rev() {
            first.swap(nth, random.index(nth + 1));
        }
        Corpus { random, only, first, best: [const { Vec::new() }; 3] }
    }

    /// Returns the script of the next trial.
    pub(super) fn next(&mut self) -> Script {
        if let Some(script) = self.first.pop() {
            return script;
        }
        let best = &self.best[self.random.index(3)];
        if best.is_empty() || self.random.once_in(2) {
            let kinds: Vec<Kind> =
                Kind::ALL.into_iter().filter(|kind| self.only.is_none_or(|only| only.is_in(*kind))).collect();
            let kind = kinds[self.random.index(kinds.len())];
            return Script::random(&mut self.random, kind, self.only);
        }
        // The better ones more often.
        let at = self.random.index(best.len()).min(self.random.index(best.len()));
        let other = self.random.index(best.len());
        best[at].1.mutated(&mut self.random, &best[other].1, self.only)
    }

    /// Keeps a script if it is among the best. One that violates a limit is reported and not kept:
    /// what is made of it would mostly violate that limit again.
    pub(super) fn learn(&mut self, shares: [f64; 3], script: &Script) {
        for (best, share) in self.best.iter_mut().zip(shares) {
            let at = best.partition_point(|(kept, _)| *kept >= share);
            if at < KEPT {
                best.insert(at, (share, script.clone()));
                best.truncate(KEPT);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_repeated_from_its_text() {
        let mut random = Random::new(7);
        for kind in Kind::ALL {
            for _ in 0..50 {
                let script = Script::random(&mut random, kind, None);
                assert_eq!(script.to_string().parse(), Ok(script));
            }
        }
        assert!("dict-file/1/2/once/0/nonsense".parse::<Script>().is_err());
    }

    #[test]
    fn each_variant_of_each_target_is_tried_first() {
        let mut corpus = Corpus::new(1, None);
        let all: usize = Target::ALL.iter().map(|(.., variants)| usize::from(*variants)).sum();
        let mut tried: Vec<(Target, u8)> =
            (0..all).map(|_| corpus.next().steps[0]).map(|step| (step.target, step.variant)).collect();
        tried.sort_unstable();
        tried.dedup();
        assert_eq!(tried.len(), all);
    }

    #[test]
    fn the_corpus_keeps_what_came_closest_to_a_limit() {
        let mut corpus = Corpus::new(1, Some(Target::Lock));
        let scripts: Vec<Script> = (0..100).map(|_| corpus.next()).collect();
        for (nth, script) in scripts.iter().enumerate() {
            corpus.learn([nth as f64, 0.0, -(nth as f64)], script);
        }
        let [time, heap, space] = &corpus.best;
        assert_eq!([time.len(), heap.len(), space.len()], [KEPT; 3]);
        assert_eq!((&time[0].1, &space[0].1), (&scripts[99], &scripts[0]));
        // What is made of them aims at the same target.
        assert!((0..100).all(|_| corpus.next().steps.iter().all(|step| step.target == Target::Lock)));
    }
}
