//! Tables of Markdown.

use std::fmt;

use mmf_cli::measure::{Pair, time};

/// A table with its heading, and what has to be said about it.
pub(crate) struct Table {
    pub(crate) title: &'static str,
    /// What the other column is.
    pub(crate) other: &'static str,
    pub(crate) rows: Vec<Row>,
    /// What the other does that mmf does not, and the reverse.
    pub(crate) notes: &'static str,
}

pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) ours: String,
    pub(crate) theirs: String,
    pub(crate) ratio: String,
    /// What was aimed at, and whether it was met.
    pub(crate) target: Option<(&'static str, bool)>,
    /// What `--rows` prints for this row; `None` where the row measures nothing of its own.
    pub(crate) figure: Option<Figure>,
}

/// The numbers of a row, for a program that compares builds. Less is better in every unit.
pub(crate) struct Figure {
    /// Identifies the row within its table, in every process start.
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// The median of mmf's samples.
    pub(crate) ours: f64,
    /// The median of the other side's samples, if the row has another side that does not use mmf.
    pub(crate) theirs: Option<f64>,
}

impl Figure {
    /// A time in nanoseconds.
    pub(crate) fn time(name: impl Into<String>, ours: f64, theirs: Option<f64>) -> Figure {
        Figure { name: name.into(), unit: NANOSECONDS, ours, theirs }
    }
}

/// The unit of times.
pub(crate) const NANOSECONDS: &str = "ns";

impl Row {
    /// Two times and how many times as fast mmf is.
    pub(crate) fn speed(what: impl Into<String>, pair: Pair) -> Row {
        let what = what.into();
        Row {
            ours: time(pair.ours),
            theirs: time(pair.theirs),
            ratio: format!("{:.2} x as fast", pair.speed),
            target: None,
            figure: Some(Figure::time(&what, pair.ours, Some(pair.theirs))),
            what,
        }
    }

    /// Two times and how much longer mmf takes.
    pub(crate) fn more(what: impl Into<String>, pair: Pair) -> Row {
        Row { ratio: format!("{:+.2} ns", pair.more), ..Row::speed(what, pair) }
    }

    pub(crate) fn target(self, text: &'static str, met: bool) -> Row {
        Row { target: Some((text, met)), ..self }
    }

    /// Marks the other side as one that uses mmf too. Such a side is no control in a comparison of
    /// builds.
    pub(crate) fn without_control(mut self) -> Row {
        if let Some(figure) = &mut self.figure {
            figure.theirs = None;
        }
        self
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n", self.title)?;
        writeln!(f, "| | mmf | {} | mmf is | target | |", self.other)?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- |")?;
        for Row { what, ours, theirs, ratio, target, figure: _ } in &self.rows {
            let (target, verdict) = match target {
                Some((text, true)) => (*text, "met"),
                Some((text, false)) => (*text, "**short**"),
                None => ("", ""),
            };
            writeln!(f, "| {what} | {ours} | {theirs} | {ratio} | {target} | {verdict} |")?;
        }
        writeln!(f, "\n{}", self.notes)
    }
}
