//! Puts the rows of two adjacent process starts together, and judges each row.

use super::rows::{Measurement, RowId};
use super::stats::{self, Interval};
use crate::report::NANOSECONDS;

/// The rows of all starts so far, in the order of their first appearance.
#[derive(Default)]
pub(super) struct Rows(Vec<Samples>);

/// The values of one row.
struct Samples {
    id: RowId,
    unit: String,
    /// The old and the new value of each pair of starts.
    pairs: Vec<(f64, f64)>,
    /// The other side's values in the same starts.
    controls: Vec<(f64, f64)>,
    /// How often each build had the row where the other had not.
    alone: [usize; 2],
}

impl Rows {
    /// Adds two adjacent starts of the same group.
    pub(super) fn add(&mut self, old: Vec<Measurement>, new: Vec<Measurement>) {
        let mut new: Vec<Option<Measurement>> = new.into_iter().map(Some).collect();
        for old in old {
            let same = |row: &&mut Option<Measurement>| {
                row.as_ref().is_some_and(|row| row.id == old.id && row.unit == old.unit)
            };
            let partner = new.iter_mut().find(same).and_then(Option::take);
            let samples = self.samples(&old);
            match partner {
                Some(new) => {
                    samples.pairs.push((old.ours, new.ours));
                    samples.controls.extend(old.theirs.zip(new.theirs));
                }
                None => samples.alone[0] += 1,
            }
        }
        for new in new.into_iter().flatten() {
            self.samples(&new).alone[1] += 1;
        }
    }

    fn samples(&mut self, row: &Measurement) -> &mut Samples {
        let found = self.0.iter().position(|samples| samples.id == row.id && samples.unit == row.unit);
        let at = found.unwrap_or_else(|| {
            let (id, unit) = (row.id.clone(), row.unit.clone());
            self.0.push(Samples { id, unit, pairs: Vec::new(), controls: Vec::new(), alone: [0; 2] });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    /// Judges the rows that both builds have.
    pub(super) fn judge(&self, allowances: &[(String, f64)]) -> Vec<Judged> {
        let common = self.0.iter().filter(|samples| !samples.pairs.is_empty());
        common.map(|samples| samples.judge(allowances)).collect()
    }

    /// The rows that one build alone has: first those of the old one, then those of the new one.
    pub(super) fn alone(&self) -> [Vec<RowId>; 2] {
        [0, 1].map(|side| {
            let alone = self.0.iter().filter(|samples| samples.pairs.is_empty() && samples.alone[side] > 0);
            alone.map(|samples| samples.id.clone()).collect()
        })
    }
}

/// What the comparison says about a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The whole interval of the ratio lies below 1.
    Faster,
    /// The interval of the ratio contains 1.
    Same,
    /// The whole interval of the ratio lies above 1, and that of the difference not above what is
    /// allowed.
    Allowed,
    /// The whole interval of the ratio lies above 1.
    Slower,
    /// Too few starts of both builds had the row.
    Unknown,
}

impl Verdict {
    pub(super) const ALL: [Verdict; 5] =
        [Verdict::Faster, Verdict::Same, Verdict::Allowed, Verdict::Slower, Verdict::Unknown];

    pub(super) fn word(self) -> &'static str {
        match self {
            Verdict::Faster => "faster",
            Verdict::Same => "same",
            Verdict::Allowed => "allowed",
            Verdict::Slower => "slower",
            Verdict::Unknown => "unknown",
        }
    }

    pub(super) fn of(ratio: Option<Interval>) -> Verdict {
        match ratio {
            None => Verdict::Unknown,
            Some(ratio) if ratio.high < 1.0 => Verdict::Faster,
            Some(ratio) if ratio.low > 1.0 => Verdict::Slower,
            Some(_) => Verdict::Same,
        }
    }
}

/// A row with its verdict.
#[derive(Clone)]
pub(super) struct Judged {
    pub(super) id: RowId,
    pub(super) unit: String,
    /// Pairs of starts.
    pub(super) pairs: usize,
    /// The medians over all starts.
    pub(super) old: f64,
    pub(super) new: f64,
    pub(super) ratio: Option<Interval>,
    pub(super) difference: Option<Interval>,
    /// The ratio of the other side's values, which both builds share.
    pub(super) control: Option<Interval>,
    pub(super) verdict: Verdict,
    /// Whether the values are those of a second run, because the first one found the row slower.
    pub(super) rechecked: bool,
}

impl Samples {
    fn judge(&self, allowances: &[(String, f64)]) -> Judged {
        let (ratio, difference) = (stats::ratio(&self.pairs), stats::difference(&self.pairs));
        let allowed = allowances.iter().filter(|(part, _)| self.id.is_in(part) && self.unit == NANOSECONDS);
        let allowed = allowed.map(|(_, most)| *most).fold(0.0, f64::max);
        let verdict = match Verdict::of(ratio) {
            Verdict::Slower if allowed > 0.0 && difference.is_some_and(|more| more.low <= allowed) => Verdict::Allowed,
            verdict => verdict,
        };
        Judged {
            id: self.id.clone(),
            unit: self.unit.clone(),
            pairs: self.pairs.len(),
            old: stats::median(self.pairs.iter().map(|(old, _)| *old).collect()),
            new: stats::median(self.pairs.iter().map(|(_, new)| *new).collect()),
            ratio,
            difference,
            control: stats::ratio(&self.controls),
            verdict,
            rechecked: false,
        }
    }
}

/// Replaces each row that was slower in the first run by the same row of the second run.
pub(super) fn recheck(first: &mut [Judged], second: &[Judged]) {
    for row in first.iter_mut().filter(|row| row.verdict == Verdict::Slower) {
        if let Some(again) = second.iter().find(|again| again.id == row.id && again.unit == row.unit) {
            *row = Judged { rechecked: true, ..again.clone() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, ours: f64, theirs: Option<f64>) -> Measurement {
        let id = RowId { group: "g".to_owned(), table: "t".to_owned(), name: name.to_owned() };
        Measurement { id, unit: NANOSECONDS.to_owned(), ours, theirs }
    }

    /// Ten pairs of starts in which the new build takes `factor` times as long, with 1 % of noise.
    fn ten(name: &str, factor: f64) -> Rows {
        let mut rows = Rows::default();
        for nth in 0..10 {
            let noise = 1.0 + 0.01 * f64::from((nth * 7) % 10 - 5) / 5.0;
            let old = row(name, 100.0, Some(50.0));
            rows.add(vec![old], vec![row(name, 100.0 * factor * noise, Some(50.0 * noise))]);
        }
        rows
    }

    #[test]
    fn the_verdict_follows_from_the_interval() {
        for (factor, expected) in [(1.0, Verdict::Same), (1.1, Verdict::Slower), (0.9, Verdict::Faster)] {
            let judged = ten("a", factor).judge(&[]);
            assert_eq!((judged.len(), judged[0].verdict, judged[0].pairs), (1, expected, 10));
            assert!((judged[0].ratio.expect("ten").median - factor).abs() < 0.01);
            assert_eq!(Verdict::of(judged[0].control), Verdict::Same);
        }
    }

    #[test]
    fn a_group_or_a_table_may_take_longer_by_its_allowance() {
        let verdict = |part: &str, most: f64| ten("a", 1.1).judge(&[(part.to_owned(), most)])[0].verdict;
        assert_eq!(verdict("g", 20.0), Verdict::Allowed);
        assert_eq!(verdict("g", 5.0), Verdict::Slower);
        assert_eq!(verdict("t", 20.0), Verdict::Allowed);
        assert_eq!(verdict("h", 20.0), Verdict::Slower);
    }

    #[test]
    fn rows_meet_by_their_names_and_not_by_their_places() {
        let mut rows = Rows::default();
        for _ in 0..6 {
            rows.add(
                vec![row("gone", 1.0, None), row("a", 2.0, None), row("b", 3.0, None)],
                vec![row("b", 6.0, None), row("a", 4.0, Some(1.0)), row("come", 5.0, None)],
            );
        }
        let judged = rows.judge(&[]);
        let names: Vec<&str> = judged.iter().map(|row| row.id.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(judged.iter().all(|row| (row.ratio.expect("six").median - 2.0).abs() < 1e-9 && row.control.is_none()));
        let [old, new] = rows.alone().map(|rows| rows.into_iter().map(|id| id.name).collect::<Vec<_>>());
        assert_eq!((old, new), (vec!["gone".to_owned()], vec!["come".to_owned()]));
    }

    #[test]
    fn a_row_that_few_starts_have_is_unknown() {
        let mut rows = Rows::default();
        for nth in 0..10 {
            let new = if nth < 5 { vec![row("a", 2.0, None)] } else { Vec::new() };
            rows.add(vec![row("a", 1.0, None)], new);
        }
        let judged = rows.judge(&[]);
        assert_eq!((judged[0].verdict, judged[0].pairs), (Verdict::Unknown, 5));
        assert_eq!(rows.alone(), [vec![], vec![]]);
    }

    #[test]
    fn a_second_run_decides_about_rows_that_were_slower() {
        let mut first = ten("a", 1.1).judge(&[]);
        first.extend(ten("b", 0.9).judge(&[]));
        let mut second = ten("a", 1.0).judge(&[]);
        second.extend(ten("b", 1.1).judge(&[]));
        recheck(&mut first, &second);
        assert_eq!((first[0].verdict, first[0].rechecked), (Verdict::Same, true));
        assert_eq!((first[1].verdict, first[1].rechecked), (Verdict::Faster, false));
    }
}
