//! Tables of Markdown.

use std::fmt;

use crate::measure::{Pair, time};

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
}

impl Row {
    /// Two times and how many times as fast mmf is.
    pub(crate) fn speed(what: impl Into<String>, pair: Pair) -> Row {
        Row {
            what: what.into(),
            ours: time(pair.ours),
            theirs: time(pair.theirs),
            ratio: format!("{:.2} x as fast", pair.speed),
            target: None,
        }
    }

    /// Two times and how much longer mmf takes.
    pub(crate) fn more(what: impl Into<String>, pair: Pair) -> Row {
        Row { ratio: format!("{:+.2} ns", pair.more), ..Row::speed(what, pair) }
    }

    pub(crate) fn target(self, text: &'static str, met: bool) -> Row {
        Row { target: Some((text, met)), ..self }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n", self.title)?;
        writeln!(f, "| | mmf | {} | mmf is | target | |", self.other)?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- |")?;
        for Row { what, ours, theirs, ratio, target } in &self.rows {
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
