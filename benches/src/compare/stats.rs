//! The median of a sample and a 95 % confidence interval for it, without an assumption about the
//! distribution.
//!
//! The sorted sample is x(1) to x(n). The interval from x(k) to x(n+1-k) contains the median of the
//! distribution with the probability c(k) = 1 - 2 P(B < k), where B is binomial with n trials and p
//! = 1/2. For n = 10 this is 97.9 % for k = 2 and 89.1 % for k = 3; no k gives 95 %. The ends are
//! therefore interpolated between the two order statistics as by Hettmansperger and Sheather
//! (Statistics & Probability Letters 4, 1986): with
//!
//! ```text
//! i = (c(k) - 0.95) / (c(k) - c(k+1)),   w = (n-k) i / (k + (n-2k) i)
//! low = (1-w) x(k) + w x(k+1),           high = (1-w) x(n+1-k) + w x(n-k)
//! ```
//!
//! The coverage of the result is close to 95 % for every common distribution; the tests simulate
//! four of them. Fewer than six values have no such interval: even the one from the least to the
//! greatest covers less than 95 %.

/// The confidence of each interval.
pub(super) const CONFIDENCE: f64 = 0.95;

/// The fewest values that have an interval.
pub(super) const FEWEST: usize = 6;

/// The most values that have an interval: 2^-1000 is still a number of 64 bits.
pub(super) const MOST: usize = 1000;

/// A median with the ends of its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// The interval of the median of `values`; `None` for fewer than six or more than 1000 of them.
pub(super) fn interval(values: &[f64]) -> Option<Interval> {
    let n = values.len();
    if !(FEWEST..=MOST).contains(&n) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    // Finds the largest k whose coverage is enough. `below` is P(B < k), `term` is P(B = k).
    let mut k = 1;
    let mut below = 0.5_f64.powi(i32::try_from(n).ok()?);
    let mut term = below * n as f64;
    while 1.0 - 2.0 * (below + term) >= CONFIDENCE {
        below += term;
        term *= (n - k) as f64 / (k + 1) as f64;
        k += 1;
    }
    // c(k) - c(k+1) is 2 P(B = k).
    let i = (1.0 - 2.0 * below - CONFIDENCE) / (2.0 * term);
    let w = (n - k) as f64 * i / (k as f64 + (n as f64 - 2.0 * k as f64) * i);
    Some(Interval {
        median: f64::midpoint(sorted[(n - 1) / 2], sorted[n / 2]),
        low: (1.0 - w) * sorted[k - 1] + w * sorted[k],
        high: (1.0 - w) * sorted[n - k] + w * sorted[n - k - 1],
    })
}

/// The interval of the median of the ratios `new / old`, which are taken within pairs.
///
/// Medians and ends are interpolated between logarithms, so that exchanging old and new gives the
/// reciprocals. Pairs with a value that is not positive have no ratio and are left out.
pub(super) fn ratio(pairs: &[(f64, f64)]) -> Option<Interval> {
    let positive = |value: f64| value > 0.0 && value.is_finite();
    let usable = pairs.iter().filter(|(old, new)| positive(*old) && positive(*new));
    let logarithms: Vec<f64> = usable.map(|(old, new)| new.ln() - old.ln()).collect();
    let Interval { median, low, high } = interval(&logarithms)?;
    Some(Interval { median: median.exp(), low: low.exp(), high: high.exp() })
}

/// The interval of the median of the differences `new - old`, which are taken within pairs.
pub(super) fn difference(pairs: &[(f64, f64)]) -> Option<Interval> {
    let differences: Vec<f64> = pairs.iter().map(|(old, new)| new - old).collect();
    interval(&differences)
}

/// The median of `values`, between the two in the middle if their number is even; 0 if there are
/// none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n => f64::midpoint(values[(n - 1) / 2], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, expected: f64) -> bool {
        (value - expected).abs() <= 1e-3 * expected.abs()
    }

    #[test]
    fn known_samples_have_known_intervals() {
        // n = 10: c(2) = 1002/1024, c(3) = 912/1024. i = (1002 - 972.8) / 90 = 0.32444, w = 8 i /
        // (2 + 6 i) = 0.65766.
        let values: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        let Interval { median, low, high } = interval(&values).expect("ten values");
        assert!(close(median, 5.5) && close(low, 2.65766) && close(high, 8.34234), "{median} {low} {high}");
        // n = 6: c(1) = 62/64, c(2) = 50/64. i = (62 - 60.8) / 12 = 0.1, w = 5 i / (1 + 4 i) =
        // 0.35714.
        let Interval { low, high, .. } = interval(&[6.0, 1.0, 5.0, 2.0, 4.0, 3.0]).expect("six values");
        assert!(close(low, 1.35714) && close(high, 5.64286), "{low} {high}");
        // n = 20: c(6) = 0.9586, c(7) = 0.8847: i = 0.11635, w = 14 i / (6 + 8 i) = 0.23502.
        let values: Vec<f64> = (1..=20).map(f64::from).collect();
        let Interval { low, high, .. } = interval(&values).expect("twenty values");
        assert!(close(low, 6.23502) && close(high, 14.76498), "{low} {high}");
    }

    #[test]
    fn too_few_and_too_many_values_have_no_interval() {
        assert_eq!(interval(&[1.0; 5]), None);
        assert_eq!(interval(&[1.0; 1001]), None);
        assert_eq!(interval(&[1.0; 1000]), Some(Interval { median: 1.0, low: 1.0, high: 1.0 }));
        assert_eq!(ratio(&[]), None);
    }

    #[test]
    fn an_interval_contains_its_median_and_more_values_narrow_it() {
        let width = |n: u32| {
            let values: Vec<f64> = (0..n).map(|nth| f64::from(nth) / f64::from(n)).collect();
            let Interval { median, low, high } = interval(&values).expect("enough values");
            assert!(low <= median && median <= high, "{n}: {low} {median} {high}");
            high - low
        };
        assert!((6..=999).all(|n| width(n) > 0.0));
        assert!(width(1000) < width(100) && width(100) < width(10));
    }

    #[test]
    fn exchanging_old_and_new_gives_the_reciprocal() {
        let pairs = [(2.0, 3.0), (5.0, 4.0), (1.0, 1.5), (7.0, 7.7), (3.0, 3.1), (2.0, 2.5), (9.0, 8.0)];
        let exchanged = pairs.map(|(old, new)| (new, old));
        let (one, other) = (ratio(&pairs).expect("seven"), ratio(&exchanged).expect("seven"));
        assert!(close(one.median * other.median, 1.0), "{one:?} {other:?}");
        assert!(close(one.low * other.high, 1.0) && close(one.high * other.low, 1.0), "{one:?} {other:?}");
    }

    #[test]
    fn a_pair_without_a_ratio_is_left_out() {
        let mut pairs = vec![(1.0, 2.0); 6];
        pairs.push((0.0, 1.0));
        pairs.push((1.0, f64::NAN));
        assert!(close(ratio(&pairs).expect("six").median, 2.0));
        assert_eq!(ratio(&pairs[1..]), None);
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), 0.0);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    /// Uniform numbers between 0 and 1, both excluded, the same in each run (splitmix64).
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = self.0;
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (((word ^ (word >> 31)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
        }

        /// A normal number, by Box and Muller.
        fn normal(&mut self) -> f64 {
            (-2.0 * self.next().ln()).sqrt() * (std::f64::consts::TAU * self.next()).cos()
        }
    }

    /// The share of simulated samples whose interval contains the true median.
    fn coverage(n: usize, median: f64, mut draw: impl FnMut(&mut Random) -> f64) -> f64 {
        const SAMPLES: usize = 20_000;
        let mut random = Random(n as u64);
        let inside = (0..SAMPLES).filter(|_| {
            let values: Vec<f64> = (0..n).map(|_| draw(&mut random)).collect();
            let Interval { low, high, .. } = interval(&values).expect("enough values");
            low <= median && median <= high
        });
        inside.count() as f64 / SAMPLES as f64
    }

    #[test]
    fn intervals_contain_the_median_in_95_percent_of_all_samples() {
        for n in [6, 10, 11, 15, 20, 40] {
            let coverages = [
                ("normal", coverage(n, 0.0, Random::normal)),
                // Of times on a machine where other programs run: a few are much longer.
                ("log-normal", coverage(n, 1.0, |random| random.normal().exp())),
                ("Cauchy", coverage(n, 0.0, |random| (std::f64::consts::PI * (random.next() - 0.5)).tan())),
                ("exponential", coverage(n, std::f64::consts::LN_2, |random| -random.next().ln())),
            ];
            for (distribution, coverage) in coverages {
                println!("{n} {distribution}: {coverage}");
                assert!((coverage - CONFIDENCE).abs() <= 0.02, "{n} values, {distribution}: {coverage}");
            }
        }
    }

    #[test]
    fn ratios_of_paired_starts_contain_one_where_nothing_changed() {
        // Drift of the machine that both starts of a pair see, disturbances that one of them sees,
        // and no change.
        let mut random = Random(9);
        let (mut inside, mut drift) = (0_u32, 0.0);
        for _ in 0..20_000 {
            let mut start = |drift: f64| 100.0 * (drift + 0.02 * random.normal()).exp() + 5.0 * -random.next().ln();
            let pairs: Vec<(f64, f64)> = (0..10)
                .map(|_| {
                    drift += 0.05 * start(0.0) / 100.0 - 0.05;
                    (start(drift), start(drift))
                })
                .collect();
            let ratio = ratio(&pairs).expect("ten pairs");
            inside += u32::from(ratio.low <= 1.0 && 1.0 <= ratio.high);
        }
        let coverage = f64::from(inside) / 20_000.0;
        assert!((coverage - CONFIDENCE).abs() <= 0.02, "{coverage}");
    }
}
