//! Rows as lines of text: what a measuring process prints and the comparing process reads.
//!
//! A line has seven fields with tabs between them: the word `row`, the group, the table, the name,
//! the unit, mmf's value, and the other side's value or `-`. Group, table and name identify a row.

use std::io;

use crate::report::Table;

/// Asks a build which groups it has. The answer is [`FORMAT`] and one group a line.
pub(crate) const GROUPS_FLAG: &str = "--groups";

/// Asks a build for rows in place of tables.
pub(crate) const ROWS_FLAG: &str = "--rows";

/// The first line of the answer to [`GROUPS_FLAG`]. The number changes with the format of the
/// lines.
pub(super) const FORMAT: &str = "mmf-benches rows 1";

const MARK: &str = "row";
const ABSENT: &str = "-";

/// Identifies a row in every build.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RowId {
    pub(super) group: String,
    pub(super) table: String,
    pub(super) name: String,
}

impl RowId {
    /// Whether the row belongs to the group or to the table of this name.
    pub(super) fn is_in(&self, part: &str) -> bool {
        self.group == part || self.table == part
    }
}

/// What one process start measured for one row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Measurement {
    pub(super) id: RowId,
    pub(super) unit: String,
    pub(super) ours: f64,
    pub(super) theirs: Option<f64>,
}

/// Prints the groups of this build.
pub(crate) fn print_groups() {
    println!("{FORMAT}");
    for (group, _) in crate::GROUPS {
        println!("{group}");
    }
}

/// Prints the rows of a table.
pub(crate) fn print_rows(group: &str, table: &Table) {
    for figure in table.rows.iter().filter_map(|row| row.figure.as_ref()) {
        let id = RowId { group: group.to_owned(), table: table.title.to_owned(), name: figure.name.clone() };
        let (unit, ours, theirs) = (figure.unit.to_owned(), figure.ours, figure.theirs);
        println!("{}", Measurement { id, unit, ours, theirs }.to_line());
    }
}

impl Measurement {
    fn to_line(&self) -> String {
        let RowId { group, table, name } = &self.id;
        let theirs = self.theirs.map_or_else(|| ABSENT.to_owned(), |value| value.to_string());
        // The tab separates fields, so a name has none.
        let text = |text: &str| text.replace(['\t', '\n', '\r'], " ");
        [MARK, group, &text(table), &text(name), &self.unit, &self.ours.to_string(), &theirs].join("\t")
    }

    fn from_line(line: &str) -> Option<Measurement> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [MARK, group, table, name, unit, ours, theirs] = fields[..] else { return None };
        Some(Measurement {
            id: RowId { group: group.to_owned(), table: table.to_owned(), name: name.to_owned() },
            unit: unit.to_owned(),
            ours: ours.parse().ok()?,
            theirs: if theirs == ABSENT { None } else { Some(theirs.parse().ok()?) },
        })
    }
}

/// Reads what a measuring process printed.
pub(super) fn parse(text: &str) -> io::Result<Vec<Measurement>> {
    let mut rows: Vec<Measurement> = Vec::new();
    for line in text.lines() {
        let row = Measurement::from_line(line)
            .ok_or_else(|| io::Error::other(format!("cannot read the row `{line}`: it has another format")))?;
        if rows.iter().any(|earlier| earlier.id == row.id) {
            return Err(io::Error::other(format!("cannot tell two rows apart: `{line}` came twice")));
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Reads the groups of a build; `None` if it does not print rows of this format.
pub(super) fn parse_groups(text: &str) -> Option<Vec<String>> {
    let mut lines = text.lines();
    (lines.next() == Some(FORMAT)).then(|| lines.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Row;
    use mmf_cli::measure::Pair;

    fn measurement(theirs: Option<f64>) -> Measurement {
        let id = RowId { group: "g".to_owned(), table: "t, `x`".to_owned(), name: "a b".to_owned() };
        Measurement { id, unit: "ns".to_owned(), ours: 0.1 + 0.2, theirs }
    }

    #[test]
    fn a_line_gives_back_what_was_measured() {
        for row in [measurement(None), measurement(Some(1e-9))] {
            assert_eq!(parse(&row.to_line()).expect("one row"), [row]);
        }
    }

    #[test]
    fn lines_that_are_no_rows_are_refused() {
        let good = measurement(None).to_line();
        let with = |field: usize, value: &str| {
            let mut fields: Vec<&str> = good.split('\t').collect();
            fields[field] = value;
            fields.join("\t")
        };
        let twice = format!("{good}\n{good}");
        for bad in [&with(0, "Row"), &with(5, "fast"), &with(6, ""), "| 8 B | 4.85 ns |", &format!("{good}\t1"), &twice]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse("").expect("no rows"), []);
    }

    #[test]
    fn a_name_with_a_tab_is_one_field() {
        let mut row = measurement(None);
        row.id.name = "a\tb\nc".to_owned();
        assert_eq!(parse(&row.to_line()).expect("one row")[0].id.name, "a b c");
    }

    #[test]
    fn groups_are_read_in_the_known_format_alone() {
        let groups = parse_groups(&format!("{FORMAT}\nlocks\ndict\n"));
        assert_eq!(groups, Some(vec!["locks".to_owned(), "dict".to_owned()]));
        assert_eq!(parse_groups("mmf-benches rows 2\nlocks"), None);
        assert_eq!(parse_groups(""), None);
    }

    #[test]
    fn a_row_keeps_the_numbers_that_its_table_rounds() {
        let pair = Pair { ours: 1.23456, theirs: 2.34567, speed: 1.9, more: -1.1 };
        let figure = Row::more("a", pair).target("b", true).figure.expect("a row of two times");
        assert_eq!((figure.ours, figure.theirs), (1.23456, Some(2.34567)));
        assert_eq!(Row::speed("a", pair).without_control().figure.expect("a figure").theirs, None);
    }
}
