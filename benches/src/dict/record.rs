//! What is kept of each comparison: samples as CSV, medians as a plot.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::time::Instant;

use hdrhistogram::Histogram;
use mmf_cli::measure::{self, Pair, time};

use crate::Effort;

/// All that was measured.
pub(super) struct Record {
    pub(super) effort: Effort,
    csv: String,
    bars: Vec<Bar>,
}

struct Bar {
    what: String,
    other: &'static str,
    pair: Pair,
}

impl Record {
    pub(super) fn new(effort: Effort) -> Record {
        Record { effort, csv: "what,side,sample,nanoseconds\n".to_owned(), bars: Vec::new() }
    }

    /// Measures two ways in turns. Each does its work `per` times a call.
    pub(super) fn compare<E: Into<io::Error>, F: Into<io::Error>>(
        &mut self,
        what: &str,
        other: &'static str,
        per: f64,
        ours: impl FnMut() -> Result<(), E>,
        theirs: impl FnMut() -> Result<(), F>,
    ) -> io::Result<Pair> {
        let (mut failed, mut other_failed) = (None, None);
        let [ours, theirs] = measure::samples(
            self.effort.plan,
            measure::repeated(noted(ours, &mut failed)),
            measure::repeated(noted(theirs, &mut other_failed)),
        );
        if let Some(error) = failed.map(Into::into).or(other_failed.map(Into::into)) {
            return Err(error);
        }
        let each = |samples: Vec<f64>| samples.into_iter().map(|sample| sample / per).collect::<Vec<_>>();
        Ok(self.keep(what, other, &each(ours), &each(theirs)))
    }

    /// Keeps samples that were taken in turns.
    pub(super) fn keep(&mut self, what: &str, other: &'static str, ours: &[f64], theirs: &[f64]) -> Pair {
        for (side, samples) in [("mmf", ours), (other, theirs)] {
            for (nth, sample) in samples.iter().enumerate() {
                let _ = writeln!(self.csv, "\"{what}\",\"{side}\",{nth},{sample:.1}");
            }
        }
        let pair = Pair::of(ours, theirs);
        self.bars.push(Bar { what: what.to_owned(), other, pair });
        pair
    }

    /// Times each of many calls: p50, p99, p99.9 and the longest.
    pub(super) fn tail<E: Into<io::Error>>(
        &mut self,
        what: &str,
        side: &str,
        mut way: impl FnMut() -> Result<(), E>,
    ) -> io::Result<[f64; 4]> {
        let mut times = Histogram::<u64>::new_with_max(LONGEST, 3).map_err(io::Error::other)?;
        for _ in 0..self.effort.tail {
            let began = Instant::now();
            way().map_err(Into::into)?;
            let took = began.elapsed();
            times.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
        let at = |quantile: f64| times.value_at_quantile(quantile) as f64;
        let tail = [at(0.5), at(0.99), at(0.999), times.max() as f64];
        for (name, value) in TAIL.into_iter().zip(tail) {
            let _ = writeln!(self.csv, "\"{what}, {name}\",\"{side}\",0,{value:.1}");
        }
        Ok(tail)
    }

    /// Writes both files.
    pub(super) fn write(&self, to: &Path) -> io::Result<()> {
        std::fs::write(to.join("benchmarks-dict.csv"), &self.csv)?;
        std::fs::write(to.join("benchmarks-dict.svg"), self.plot())
    }

    /// Bars on a logarithmic scale.
    fn plot(&self) -> String {
        const LEFT: f64 = 330.0;
        const WIDE: f64 = 460.0;
        const STEP: f64 = 34.0;
        let all = || self.bars.iter().flat_map(|bar| [bar.pair.ours, bar.pair.theirs]);
        let lowest = all().fold(f64::MAX, f64::min).max(1.0).log10().floor();
        let highest = all().fold(1.0, f64::max).log10().ceil().max(lowest + 1.0);
        let x = |time: f64| LEFT + WIDE * (time.max(1.0).log10() - lowest).max(0.02) / (highest - lowest);
        let height = 60.0 + STEP * self.bars.len() as f64;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"900\" height=\"{height}\" font-family=\"sans-serif\" \
             font-size=\"11\">\n<rect width=\"900\" height=\"{height}\" fill=\"white\"/>\n\
             <text x=\"10\" y=\"20\" font-size=\"14\">mmf::Dict (dark) beside others (light): medians, shorter is \
             better</text>\n"
        );
        let mut decade = lowest;
        while decade <= highest {
            let (at, label) = (x(10_f64.powf(decade)), time(10_f64.powf(decade)));
            let _ = writeln!(svg, "<line x1=\"{at:.1}\" y1=\"45\" x2=\"{at:.1}\" y2=\"{height}\" stroke=\"#ddd\"/>");
            let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"40\" text-anchor=\"middle\">{label}</text>");
            decade += 1.0;
        }
        for (nth, Bar { what, other, pair }) in self.bars.iter().enumerate() {
            let top = 50.0 + STEP * nth as f64;
            let _ = writeln!(svg, "<text x=\"10\" y=\"{:.1}\">{what}; {other}</text>", top + 18.0);
            for (value, fill, from) in [(pair.ours, "#1f4e79", 0.0), (pair.theirs, "#a9c4de", 13.0)] {
                let (end, top, label) = (x(value), top + from, time(value));
                let wide = end - LEFT;
                let _ = writeln!(
                    svg,
                    "<rect x=\"{LEFT}\" y=\"{top:.1}\" width=\"{wide:.1}\" height=\"12\" fill=\"{fill}\"/>"
                );
                let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{label}</text>", end + 4.0, top + 10.0);
            }
        }
        svg + "</svg>\n"
    }
}

/// The longest call that a histogram tells from longer ones, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// The names of what [`Record::tail`] gives.
pub(super) const TAIL: [&str; 4] = ["p50", "p99", "p99.9", "max"];

/// A way that keeps its last error.
fn noted<E>(mut way: impl FnMut() -> Result<(), E>, failed: &mut Option<E>) -> impl FnMut() {
    move || {
        if let Err(error) = way() {
            *failed = Some(error);
        }
    }
}
