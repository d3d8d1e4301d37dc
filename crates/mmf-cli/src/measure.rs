//! How times are taken: two ways of doing the same thing in turns, so that what disturbs the
//! machine disturbs both, and medians, so that a disturbance now and then does not count.

use std::time::{Duration, Instant};

/// How much effort is spent.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Pairs of samples.
    pub pairs: usize,
    /// How long one sample takes at least; what is shorter is repeated.
    pub sample: Duration,
}

/// Two ways of doing the same thing.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// The median time of the one, in nanoseconds.
    pub ours: f64,
    /// The median time of the other, in nanoseconds.
    pub theirs: f64,
    /// The median of their ratios within a pair: how many times as fast ours is.
    pub speed: f64,
    /// The median of their differences within a pair: how many nanoseconds more ours takes.
    pub more: f64,
}

impl Pair {
    /// From samples that were taken in turns.
    pub fn of(ours: &[f64], theirs: &[f64]) -> Pair {
        let both = || ours.iter().zip(theirs);
        Pair {
            ours: median(ours.to_vec()),
            theirs: median(theirs.to_vec()),
            speed: median(both().map(|(ours, theirs)| theirs / ours).collect()),
            more: median(both().map(|(ours, theirs)| ours - theirs).collect()),
        }
    }
}

/// Measures two ways in turns. Each is told how often to do it, and gives the time that took.
pub fn pairs(plan: Plan, ours: impl FnMut(u64) -> Duration, theirs: impl FnMut(u64) -> Duration) -> Pair {
    let [ours, theirs] = samples(plan, ours, theirs);
    Pair::of(&ours, &theirs)
}

/// The samples of two ways, in nanoseconds.
pub fn samples(
    plan: Plan,
    mut ours: impl FnMut(u64) -> Duration,
    mut theirs: impl FnMut(u64) -> Duration,
) -> [Vec<f64>; 2] {
    let times = [calibrate(plan, &mut ours), calibrate(plan, &mut theirs)];
    let (mut samples, mut others) = (Vec::new(), Vec::new());
    for pair in 0..plan.pairs {
        let mut one = || samples.push(nanoseconds(ours(times[0]), times[0]));
        let mut other = || others.push(nanoseconds(theirs(times[1]), times[1]));
        // Neither always comes first, where the clock of the processor may differ.
        if pair % 2 == 0 {
            one();
            other();
        } else {
            other();
            one();
        }
    }
    [samples, others]
}

/// The median time of one way, in nanoseconds.
pub fn alone(plan: Plan, mut way: impl FnMut(u64) -> Duration) -> f64 {
    let times = calibrate(plan, &mut way);
    median((0..plan.pairs).map(|_| nanoseconds(way(times), times)).collect())
}

/// Does it so many times, and gives the time.
pub fn repeated(mut what: impl FnMut()) -> impl FnMut(u64) -> Duration {
    move |times| {
        let began = Instant::now();
        for _ in 0..times {
            what();
        }
        began.elapsed()
    }
}

/// How often it has to be done for one sample. Also the warming up.
fn calibrate(plan: Plan, way: &mut impl FnMut(u64) -> Duration) -> u64 {
    let mut times = 1;
    loop {
        let took = way(times);
        if took >= plan.sample || times >= 1 << 40 {
            return times;
        }
        // Half of what is missing by the last measurement, so that one that was too fast does not
        // mislead.
        let wanted = plan.sample.as_nanos() / took.as_nanos().max(1) / 2;
        times *= u64::try_from(wanted).unwrap_or(u64::MAX).clamp(2, 1000);
    }
}

fn nanoseconds(took: Duration, times: u64) -> f64 {
    took.as_secs_f64() * 1e9 / times as f64
}

/// The median; of an even number the upper one. Zero of none.
pub fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(0.0)
}

/// A time for people.
pub fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 100.0 => format!("{ns:.2} ns"),
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.1} µs", ns / 1e3),
        ns => format!("{:.2} ms", ns / 1e6),
    }
}

/// A speed for people.
pub fn rate(bytes: usize, nanoseconds: f64) -> String {
    format!("{:.1} GB/s", bytes as f64 / nanoseconds)
}

/// A size for people.
pub fn size(bytes: usize) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| bytes >> shift > 0 && (bytes >> shift) << shift == bytes) {
        Some((shift, unit)) => format!("{} {unit}", bytes >> shift),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_compares_within_the_pair() {
        // The machine was ten times slower in the middle; the ratio does not see it.
        let pair = Pair::of(&[1.0, 10.0, 1.0], &[2.0, 20.0, 2.0]);
        assert_eq!((pair.speed, pair.more, pair.ours, pair.theirs), (2.0, -1.0, 1.0, 2.0));
    }

    #[test]
    fn samples_are_long_enough_and_as_many_as_planned() {
        let plan = Plan { pairs: 5, sample: Duration::from_micros(100) };
        let mut samples = Vec::new();
        let time = alone(plan, |times| {
            samples.push(times);
            Duration::from_nanos(10) * u32::try_from(times).expect("few")
        });
        assert_eq!(time, 10.0);
        assert!(samples.iter().rev().take(5).all(|times| *times >= 10_000), "{samples:?}");
        assert!(samples.len() > 5, "{samples:?}");
    }
}
