//! The result of a comparison, as tables for people and as JSON for programs.

use std::fmt::Write;

use mmf_cli::measure::time;

use super::builds::Build;
use super::pairing::{Judged, Verdict};
use super::rows::RowId;
use super::stats::{CONFIDENCE, Interval};
use crate::machine;
use crate::report::NANOSECONDS;

/// Everything that a comparison found.
pub(super) struct Comparison {
    pub(super) old: Build,
    pub(super) new: Build,
    pub(super) effort: String,
    pub(super) starts: usize,
    pub(super) rows: Vec<Judged>,
    /// The rows that the old and the new build alone have.
    pub(super) alone: [Vec<RowId>; 2],
    /// The load of the machine before and after, where the system tells it.
    pub(super) load: [Option<String>; 2],
}

impl Comparison {
    pub(super) fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|row| row.verdict == verdict).count()
    }

    /// Of the other sides' values, which both builds share: all, slower, faster.
    fn controls(&self) -> [usize; 3] {
        let verdicts: Vec<Verdict> =
            self.rows.iter().map(|row| Verdict::of(row.control)).filter(|found| *found != Verdict::Unknown).collect();
        let count = |wanted: Verdict| verdicts.iter().filter(|found| **found == wanted).count();
        [verdicts.len(), count(Verdict::Slower), count(Verdict::Faster)]
    }

    /// By how much the ends of the ratios' intervals differ from the middle: the median and the
    /// 90th percentile of all rows, as factors.
    fn widths(&self) -> Option<[f64; 2]> {
        let ratios = self.rows.iter().filter_map(|row| row.ratio);
        let mut widths: Vec<f64> = ratios.map(|ratio| (ratio.high / ratio.low).sqrt()).collect();
        widths.sort_by(f64::total_cmp);
        let at = |tenths: usize| widths.get(widths.len() * tenths / 10).copied();
        Some([at(5)?, at(9)?])
    }

    /// Markdown.
    pub(super) fn tables(&self) -> String {
        let mut text = format!("# {} beside {}\n\n", self.new.label(), self.old.label());
        let load = |load: &Option<String>| load.clone().unwrap_or_else(|| "unknown".to_owned());
        let [before, after] = &self.load;
        let _ = writeln!(text, "- Processor: {}", machine::processor());
        let _ = writeln!(text, "- System: {}; load {} before, {} after", machine::system(), load(before), load(after));
        let _ =
            writeln!(text, "- {}, {} starts of each build, effort `{}`", machine::today(), self.starts, self.effort);
        let _ = writeln!(
            text,
            "- Ratios are medians of new / old over pairs of adjacent starts, with {:.0} % intervals",
            CONFIDENCE * 100.0
        );
        for (side, build) in [("Old", &self.old), ("New", &self.new)] {
            let _ = writeln!(text, "- {side}: `{}`", build.executable.display());
            if build.own_benches {
                let _ = writeln!(text, "  - measured by its own benchmarks: the current ones do not compile with it");
            }
        }
        let mut table = None;
        for row in &self.rows {
            let place = (&row.id.group, &row.id.table);
            if table.replace(place) != Some(place) {
                let _ = writeln!(text, "\n### `{}`: {}\n", row.id.group, row.id.table);
                text.push_str("| | old | new | new / old | interval | difference | control | |\n");
                text.push_str("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
            }
            text.push_str(&line(row));
        }
        for (side, rows) in [("old", &self.alone[0]), ("new", &self.alone[1])] {
            if !rows.is_empty() {
                let _ = writeln!(text, "\n### Rows of the {side} build alone\n");
            }
            for RowId { group, table, name } in rows {
                let _ = writeln!(text, "- `{group}`: {table}: {name}");
            }
        }
        text + "\n### Summary\n\n" + &self.summary()
    }

    fn summary(&self) -> String {
        let mut text = String::new();
        let counts = Verdict::ALL.map(|verdict| (verdict.word(), self.count(verdict)));
        let counts: Vec<String> =
            counts.iter().filter(|(_, count)| *count > 0).map(|(word, count)| format!("{count} {word}")).collect();
        let _ = writeln!(text, "- {} rows: {}", self.rows.len(), counts.join(", "));
        let [controls, slower, faster] = self.controls();
        let _ = writeln!(
            text,
            "- {controls} controls, whose code both builds share: {slower} slower, {faster} faster; by chance alone, \
             {:.1} each",
            controls as f64 * (1.0 - CONFIDENCE) / 2.0
        );
        if let Some([half, most]) = self.widths() {
            let percent = |factor: f64| (factor - 1.0) * 100.0;
            let _ = writeln!(
                text,
                "- Half of the intervals are at most ±{:.1} % wide, 90 % of them at most ±{:.1} %",
                percent(half),
                percent(most)
            );
        }
        for row in self.rows.iter().filter(|row| row.verdict == Verdict::Slower) {
            let RowId { group, table, name } = &row.id;
            let again = if row.rechecked { ", in two runs" } else { "" };
            let _ = writeln!(text, "- Slower{again}: `{group}`: {table}: {name}: {}", interval(row.ratio, factor));
        }
        text
    }

    /// One JSON object.
    pub(super) fn json(&self) -> String {
        let rows: Vec<String> = self.rows.iter().map(json_row).collect();
        let alone = |rows: &[RowId]| {
            let rows: Vec<String> = rows.iter().map(|id| format!("{{{}}}", json_id(id))).collect();
            rows.join(",")
        };
        let verdicts: Vec<String> =
            Verdict::ALL.iter().map(|verdict| format!("\"{}\":{}", verdict.word(), self.count(*verdict))).collect();
        let [controls, slower, faster] = self.controls();
        let load: Vec<String> = self.load.iter().map(|load| json_option(load.as_deref())).collect();
        format!(
            "{{\"old\":{},\"new\":{},\"effort\":{},\"starts\":{},\"confidence\":{CONFIDENCE},\"date\":{},\
             \"processor\":{},\"system\":{},\"load\":[{}],\n\"rows\":[\n{}\n],\n\"old_alone\":[{}],\
             \"new_alone\":[{}],\n\"verdicts\":{{{}}},\"controls\":{{\"all\":{controls},\"slower\":{slower},\
             \"faster\":{faster}}}}}\n",
            json_build(&self.old),
            json_build(&self.new),
            json_string(&self.effort),
            self.starts,
            json_string(&machine::today()),
            json_string(&machine::processor()),
            json_string(&machine::system()),
            load.join(","),
            rows.join(",\n"),
            alone(&self.alone[0]),
            alone(&self.alone[1]),
            verdicts.join(",")
        )
    }
}

impl Build {
    fn label(&self) -> String {
        match &self.commit {
            Some(id) if !id.starts_with(&self.given) => format!("`{}` ({})", self.given, id.get(..12).unwrap_or(id)),
            _ => format!("`{}`", self.given),
        }
    }
}

fn line(row: &Judged) -> String {
    let value = |value: f64| {
        if row.unit == NANOSECONDS { time(value) } else { format!("{value:.1} {}", row.unit) }
    };
    let difference = row.difference.map_or_else(String::new, |more| {
        let sign = if more.median < 0.0 { "-" } else { "+" };
        format!("{sign}{}", value(more.median.abs()))
    });
    let ratio = row.ratio.map_or_else(|| format!("{} starts", row.pairs), |ratio| factor(ratio.median));
    let verdict = match row.verdict {
        Verdict::Same => String::new(),
        Verdict::Slower => "**slower**".to_owned(),
        other => other.word().to_owned(),
    };
    let again = if row.rechecked { " (second run)" } else { "" };
    format!(
        "| {} | {} | {} | {ratio} | {} | {difference} | {} | {verdict}{again} |\n",
        row.id.name,
        value(row.old),
        value(row.new),
        ends(row.ratio),
        interval(row.control, factor),
    )
}

fn factor(value: f64) -> String {
    format!("{value:.3}")
}

fn ends(interval: Option<Interval>) -> String {
    interval.map_or_else(String::new, |found| format!("{} to {}", factor(found.low), factor(found.high)))
}

fn interval(interval: Option<Interval>, show: impl Fn(f64) -> String) -> String {
    interval.map_or_else(String::new, |found| {
        format!("{} ({} to {})", show(found.median), show(found.low), show(found.high))
    })
}

fn json_row(row: &Judged) -> String {
    format!(
        "{{{},\"unit\":{},\"pairs\":{},\"old\":{},\"new\":{},\"ratio\":{},\"difference\":{},\"control\":{},\
         \"verdict\":\"{}\",\"rechecked\":{}}}",
        json_id(&row.id),
        json_string(&row.unit),
        row.pairs,
        json_number(row.old),
        json_number(row.new),
        json_interval(row.ratio),
        json_interval(row.difference),
        json_interval(row.control),
        row.verdict.word(),
        row.rechecked
    )
}

fn json_id(id: &RowId) -> String {
    let [group, table, name] = [&id.group, &id.table, &id.name].map(|text| json_string(text));
    format!("\"group\":{group},\"table\":{table},\"name\":{name}")
}

fn json_build(build: &Build) -> String {
    let own = build.own_benches;
    let [given, path] = [json_string(&build.given), json_string(&build.executable.to_string_lossy())];
    let commit = json_option(build.commit.as_deref());
    format!("{{\"given\":{given},\"commit\":{commit},\"executable\":{path},\"own_benches\":{own}}}")
}

fn json_interval(interval: Option<Interval>) -> String {
    interval.map_or_else(
        || "null".to_owned(),
        |Interval { median, low, high }| {
            let [median, low, high] = [median, low, high].map(json_number);
            format!("{{\"median\":{median},\"low\":{low},\"high\":{high}}}")
        },
    )
}

/// JSON has no number for what is not finite.
fn json_number(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { "null".to_owned() }
}

fn json_option(text: Option<&str>) -> String {
    text.map_or_else(|| "null".to_owned(), json_string)
}

fn json_string(text: &str) -> String {
    let mut json = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => json.extend(['\\', char]),
            control if u32::from(control) < 0x20 => {
                let _ = write!(json, "\\u{:04x}", u32::from(control));
            }
            other => json.push(other),
        }
    }
    json + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(name: &str, verdict: Verdict, median: f64) -> Judged {
        let id = RowId { group: "g".to_owned(), table: "t \"x\"".to_owned(), name: name.to_owned() };
        let ratio = Some(Interval { median, low: median - 0.01, high: median + 0.01 });
        let difference = Some(Interval { median: -1500.0, low: -1600.0, high: -1400.0 });
        let unit = NANOSECONDS.to_owned();
        let (old, new) = (100.0, 100.0 * median);
        Judged { id, unit, pairs: 10, old, new, ratio, difference, control: ratio, verdict, rechecked: false }
    }

    fn comparison() -> Comparison {
        let build = |given: &str, commit: Option<&str>| Build {
            given: given.to_owned(),
            commit: commit.map(str::to_owned),
            executable: "/x".into(),
            groups: Vec::new(),
            own_benches: false,
        };
        let mut unknown = judged("c", Verdict::Unknown, 1.0);
        (unknown.ratio, unknown.difference, unknown.control, unknown.pairs) = (None, None, None, 3);
        Comparison {
            old: build("4c1b4d7", Some("4c1b4d7aaaaaaaaaaaaa")),
            new: build("HEAD", Some("0123456789abcdef")),
            effort: "compare".to_owned(),
            starts: 10,
            rows: vec![judged("a", Verdict::Slower, 1.5), judged("b", Verdict::Same, 1.0), unknown],
            alone: [Vec::new(), vec![judged("d", Verdict::Same, 1.0).id]],
            load: [Some("0.10".to_owned()), None],
        }
    }

    #[test]
    fn tables_show_each_row_and_what_is_slower() {
        let text = comparison().tables();
        for line in [
            "# `HEAD` (0123456789ab) beside `4c1b4d7`",
            "| a | 100 ns | 150 ns | 1.500 | 1.490 to 1.510 | -1.5 µs | 1.500 (1.490 to 1.510) | **slower** |",
            "| c | 100 ns | 100 ns | 3 starts |  |  |  | unknown |",
            "### Rows of the new build alone",
            "- `g`: t \"x\": d",
            "- 3 rows: 1 same, 1 slower, 1 unknown",
            "- 2 controls, whose code both builds share: 1 slower, 0 faster; by chance alone, 0.1 each",
            "- Slower: `g`: t \"x\": a: 1.500 (1.490 to 1.510)",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
        assert_eq!(text.matches("| | old |").count(), 1, "{text}");
    }

    #[test]
    fn json_has_every_row() {
        let json = comparison().json();
        let row = "{\"group\":\"g\",\"table\":\"t \\\"x\\\"\",\"name\":\"c\",\"unit\":\"ns\",\"pairs\":3,\"old\":100,\
                   \"new\":100,\"ratio\":null,\"difference\":null,\"control\":null,\"verdict\":\"unknown\",\
                   \"rechecked\":false}";
        assert!(json.contains(row), "{json}");
        assert!(
            json.contains("\"verdicts\":{\"faster\":0,\"same\":1,\"allowed\":0,\"slower\":1,\"unknown\":1}"),
            "{json}"
        );
        assert_eq!(json.matches(['{', '[']).count(), json.matches(['}', ']']).count());
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(json_string("a\"b\\c\nµ"), "\"a\\\"b\\\\c\\u000aµ\"");
        assert_eq!(json_number(f64::NAN), "null");
    }
}
