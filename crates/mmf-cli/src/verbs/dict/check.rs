//! `mmf check` and `mmf repair`.

use mmf::{Dict, ErrorKind, Problem, Report};
use serde::Serialize;

use super::to_read;
use crate::cli::{CheckArgs, RepairArgs};
use crate::failure::{FAILED, Failure, Result};
use crate::output::{print, print_json};

pub(crate) fn check(args: CheckArgs) -> Result<()> {
    let object = &args.object;
    let report = to_read(object, &args.looking, true)?.check()?;
    if args.json {
        print_json(&About::from(&report))?;
    } else {
        print(&text(&report, "whole"))?;
    }
    if report.is_whole() {
        return Ok(());
    }
    let problems = report.problems.len() as u64 + report.more_problems;
    Err(Failure::new(FAILED, format!("{object} is damaged: {}", count(problems, "problem")))
        .hint(format!("to keep its valid records: mmf repair {}", object.typed())))
}

pub(crate) fn repair(args: RepairArgs) -> Result<()> {
    let object = &args.object;
    let report = Dict::repair(object.source()).map_err(|error| match error.kind() {
        // An object of another release or program needs no repair.
        ErrorKind::NotASegment { reason } if reason.contains("damaged") => {
            Failure::from(error).hint("it cannot be repaired without its header, the first 1024 bytes")
        }
        ErrorKind::NotASegment { .. } => error.into(),
        _ => object.advise_opener(error, super::HOLDING),
    })?;
    if args.json {
        return print_json(&About::from(&report));
    }
    print(&text(&report, "whole and kept"))
}

/// For people; the keys are what `state` says.
fn text(report: &Report, state: &str) -> String {
    let mut text: String = report.problems.iter().map(|problem| format!("{problem}\n")).collect();
    if report.more_problems > 0 {
        text += &format!("and {}\n", count(report.more_problems, "more problem"));
    }
    for key in &report.undated {
        text += &format!("{key:?}: kept, but it may have been removed before\n");
    }
    if report.more_undated > 0 {
        text += &format!("and {} that may have been removed\n", count(report.more_undated, "more key"));
    }
    let nothing = if report.is_whole() { "; nothing is damaged" } else { "" };
    let are = if report.entries == 1 { "is" } else { "are" };
    text + &format!("{} {are} {state}{nothing}\n", count(report.entries, "key"))
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A report as JSON.
#[derive(Serialize)]
struct About<'a> {
    whole: bool,
    entries: u64,
    problems: Vec<AboutProblem<'a>>,
    more_problems: u64,
    undated: &'a [String],
    more_undated: u64,
}

#[derive(Serialize)]
struct AboutProblem<'a> {
    key: Option<&'a str>,
    offset: Option<u64>,
    what: &'a str,
}

impl<'a> From<&'a Report> for About<'a> {
    fn from(report: &'a Report) -> Self {
        let problem = |problem: &'a Problem| AboutProblem {
            key: problem.key.as_deref(),
            offset: problem.offset,
            what: &problem.what,
        };
        About {
            whole: report.is_whole(),
            entries: report.entries,
            problems: report.problems.iter().map(problem).collect(),
            more_problems: report.more_problems,
            undated: &report.undated,
            more_undated: report.more_undated,
        }
    }
}
