//! Output: text, tables, JSON. If the reader of a pipe has closed it, the program ends without an
//! error.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::failure::{FAILED, Failure, Result, USAGE};
use crate::quoting::{escaped, escaped_but, safe_json};
use crate::{size, system};

/// Prints text to standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| unwritten(error, "standard output"))
}

/// Prints a value as JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&(safe_json(text) + "\n")),
        Err(error) => Err(Failure::new(FAILED, format!("cannot write JSON: {error}"))),
    }
}

/// Prints a note to standard error; it is no part of the result.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", escaped_but(text, &['\n']));
}

/// A pipe that its reader has closed is a success.
pub(crate) fn unwritten(error: io::Error, target: &str) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::silent(0),
        _ => Failure::io("write to", target, error),
    }
}

/// Opens the destination of bytes: a file, or standard output.
pub(crate) fn open_bytes(path: Option<&Path>) -> Result<(File, String)> {
    match path {
        Some(path) => match File::create(path) {
            Ok(file) => Ok((file, path.display().to_string())),
            Err(error) => Err(Failure::io("create", path.display(), error)),
        },
        None if !system::TERMINAL_TAKES_BYTES && io::stdout().is_terminal() => {
            Err(Failure::new(USAGE, "cannot write bytes to a console, which takes text only")
                .hint("try: the same command with -o FILE, or mmf dump"))
        }
        None => match system::raw_stdout() {
            Ok(file) => Ok((file, "standard output".to_owned())),
            Err(error) => Err(Failure::io("open", "standard output", error)),
        },
    }
}

/// A progress bar on a terminal, hidden otherwise; `len` is the total, if known.
pub(crate) fn progress(quiet: bool, len: Option<u64>, known: &str, unknown: &str) -> ProgressBar {
    if quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(len, ProgressDrawTarget::stderr());
    match ProgressStyle::with_template(if len.is_some() { known } else { unknown }) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// How sizes are shown: exactly if requested, or if the output is not a terminal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    exact: bool,
}

impl Sizes {
    pub(crate) fn for_stdout(exact: bool) -> Self {
        Sizes { exact: exact || !io::stdout().is_terminal() }
    }

    pub(crate) fn show(self, bytes: u64) -> String {
        if self.exact { bytes.to_string() } else { size::human(bytes) }
    }
}

/// The alignment of a column's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Columns under headings, as wide as their widest cell.
pub(crate) struct Table<const N: usize> {
    align: [Align; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(columns: [(&str, Align); N]) -> Self {
        Table { align: columns.map(|(_, align)| align), rows: vec![columns.map(|(heading, _)| heading.to_owned())] }
    }

    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| escaped(&cell).into_owned()));
    }

    pub(crate) fn text(&self) -> String {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, &width), align) in row.iter().zip(&widths).zip(self.align) {
                // Writing to a string cannot fail.
                let _ = match align {
                    Align::Left => write!(line, "{cell:<width$}  "),
                    Align::Right => write!(line, "{cell:>width$}  "),
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new([("NAME", Align::Left), ("SIZE", Align::Right), ("OWNER", Align::Left)]);
        table.row(["name:größer".into(), "1".into(), "me".into()]);
        table.row(["x".into(), "123456".into(), String::new()]);
        assert_eq!(table.text(), "NAME           SIZE  OWNER\nname:größer       1  me\nx            123456\n");
    }
}
