//! `mmf-benches compare OLD NEW`: whether a change of the library made it slower.
//!
//! 1. OLD and NEW become executables ([`builds`]): a file is started as it is, a git revision or a
//!    directory is built with the current benchmarks, so that both builds measure the same.
//! 2. Both are started in turns, at least ten times each, each time for one group of rows
//!    ([`starts`]). An executable prints its rows as lines ([`rows`]). What is compared of a row is
//!    mmf's own median of that start, not its ratio to the other side.
//! 3. Two adjacent starts are a pair. Each row has one ratio new / old for each pair ([`pairing`]).
//! 4. The result is the median of the ratios and an interval that contains the true median in 95 %
//!    of all runs, by interpolated order statistics ([`stats`]), with a verdict ([`output`]).
//!
//! Many starts are needed, and not many samples within one: where the system puts a process's pages
//! and stack differs between starts, and changes a row by more than the samples of one start
//! differ.
//!
//! The other side of a row, which is not mmf's code, is the control: it is the same code in both
//! builds, so its ratio shows what the machine, and another placement of the code, do to an
//! unchanged row.
//!
//! Of 40 unchanged rows, one is found slower by chance. `--recheck` measures the groups
//! with slower rows again, and the second run decides about these rows.

mod builds;
mod output;
mod pairing;
mod rows;
mod starts;
mod stats;

use std::io::{self, Write};
use std::path::Path;

use builds::Build;
use output::Comparison;
use pairing::Verdict;
use starts::Plan;

pub(crate) use rows::{GROUPS_FLAG, ROWS_FLAG, print_groups, print_rows};

/// The fewest starts of each build, and how many there are by default.
const STARTS: usize = 10;

/// How often as many starts the second run has.
const RECHECK: usize = 2;

/// The words of the command line.
#[derive(Debug, PartialEq)]
struct Options {
    old: String,
    new: String,
    groups: Vec<String>,
    starts: usize,
    effort: String,
    /// Nanoseconds that the rows of a group or of a table may take longer.
    allowances: Vec<(String, f64)>,
    recheck: bool,
    fail_if_slower: bool,
    json: bool,
}

/// Runs the whole comparison.
pub(crate) fn run(args: &[String]) -> io::Result<()> {
    let options = Options::parse(args).map_err(|reason| {
        let usage = "compare OLD NEW [GROUP...] [--starts N] [--effort NAME] [--quick] [--allow PART=TIME] \
                     [--recheck] [--fail-if-slower] [--json]";
        io::Error::new(io::ErrorKind::InvalidInput, format!("cannot compare: {reason}\nusage: {usage}"))
    })?;
    let comparison = compare(&options)?;
    let text = if options.json { comparison.json() } else { comparison.tables() };
    io::stdout().write_all(text.as_bytes())?;
    match comparison.count(Verdict::Slower) {
        slower if options.fail_if_slower && slower > 0 => Err(io::Error::other(format!("{slower} rows are slower"))),
        _ => Ok(()),
    }
}

fn compare(options: &Options) -> io::Result<Comparison> {
    let here = Path::new(".");
    let (old, new) = (builds::find(&options.old, here)?, builds::find(&options.new, here)?);
    let groups = groups(options, &old, &new)?;
    let before = load();
    if old.executable == new.executable {
        eprintln!("compare: both builds are the same executable; the result shows the machine's noise");
    }
    let (effort, starts) = (options.effort.as_str(), options.starts);
    let found = starts::run(&Plan { old: &old, new: &new, groups: &groups, effort, starts })?;
    let mut rows = found.judge(&options.allowances);
    if options.recheck {
        let slower = |group: &String| rows.iter().any(|row| row.verdict == Verdict::Slower && row.id.group == *group);
        let groups: Vec<String> = groups.into_iter().filter(slower).collect();
        if !groups.is_empty() {
            eprintln!("compare: again, for rows that were slower: {}", groups.join(" "));
            let plan = Plan { old: &old, new: &new, groups: &groups, effort, starts: starts * RECHECK };
            pairing::recheck(&mut rows, &starts::run(&plan)?.judge(&options.allowances));
        }
    }
    for (part, _) in options.allowances.iter().filter(|(part, _)| rows.iter().all(|row| !row.id.is_in(part))) {
        eprintln!("compare: `--allow {part}` has no effect: no group and no table of this run has this name");
    }
    let (alone, effort) = (found.alone(), options.effort.clone());
    Ok(Comparison { old, new, effort, starts, rows, alone, load: [before, load()] })
}

/// The groups to run: those asked for, or all that either build has.
fn groups(options: &Options, old: &Build, new: &Build) -> io::Result<Vec<String>> {
    let mut known = new.groups.clone();
    known.extend(old.groups.iter().filter(|group| !new.groups.contains(group)).cloned());
    let unknown = |group: &&String| !known.contains(group);
    if let Some(group) = options.groups.iter().find(unknown) {
        let text = format!("cannot compare `{group}`: neither build has this group; there are {}", known.join(" "));
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(if options.groups.is_empty() { known } else { options.groups.clone() })
}

impl Options {
    fn parse(args: &[String]) -> Result<Options, String> {
        let mut words = Vec::new();
        let mut options = Options {
            old: String::new(),
            new: String::new(),
            groups: Vec::new(),
            starts: STARTS,
            effort: "compare".to_owned(),
            allowances: Vec::new(),
            recheck: false,
            fail_if_slower: false,
            json: false,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("`{arg}` needs a value"));
            match arg.as_str() {
                "--json" => options.json = true,
                "--recheck" => options.recheck = true,
                "--fail-if-slower" => options.fail_if_slower = true,
                "--quick" => options.effort = "quick".to_owned(),
                "--effort" => options.effort.clone_from(value()?),
                "--starts" => options.starts = starts_of(value()?)?,
                "--allow" => options.allowances.push(allowance(value()?)?),
                option if option.starts_with('-') => return Err(format!("there is no option `{option}`")),
                word => words.push(word.to_owned()),
            }
        }
        if !crate::EFFORTS.iter().any(|(name, _)| *name == options.effort) {
            let names: Vec<&str> = crate::EFFORTS.iter().map(|(name, _)| *name).collect();
            return Err(format!("there is no effort `{}`; there are {}", options.effort, names.join(", ")));
        }
        let mut words = words.into_iter();
        let (Some(old), Some(new)) = (words.next(), words.next()) else {
            return Err("two builds are needed, each as a file, a directory or a git revision".to_owned());
        };
        options.groups = words.filter(|word| word != "all").collect();
        Ok(Options { old, new, ..options })
    }
}

fn starts_of(text: &str) -> Result<usize, String> {
    // The second run of `--recheck` has more, and needs an interval too.
    let most = stats::MOST / RECHECK;
    match text.parse() {
        Ok(starts) if (STARTS..=most).contains(&starts) => Ok(starts),
        _ => Err(format!("`--starts {text}` is not a number from {STARTS} to {most}")),
    }
}

/// `PART=TIME`, where the part is a group or a table and the time has a unit: `lifecycle=2us`.
fn allowance(text: &str) -> Result<(String, f64), String> {
    let parsed = text.rsplit_once('=').and_then(|(part, time)| {
        let digits = time.trim_end_matches(char::is_alphabetic);
        let unit = match &time[digits.len()..] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            _ => return None,
        };
        let number: f64 = digits.parse().ok()?;
        (number.is_finite() && number >= 0.0).then(|| (part.to_owned(), number * unit))
    });
    parsed.ok_or_else(|| format!("`--allow {text}` is not of the form PART=TIME, as in lifecycle=2us"))
}

/// The load of the last minute, where the system tells it.
fn load() -> Option<String> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Result<Options, String> {
        let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
        Options::parse(&args)
    }

    #[test]
    fn options_are_read_in_any_order() {
        let options = parse("--json a b locks --starts 12 dict --quick --allow dict=2us --recheck").expect("all known");
        let expected = Options {
            old: "a".to_owned(),
            new: "b".to_owned(),
            groups: vec!["locks".to_owned(), "dict".to_owned()],
            starts: 12,
            effort: "quick".to_owned(),
            allowances: vec![("dict".to_owned(), 2000.0)],
            recheck: true,
            fail_if_slower: false,
            json: true,
        };
        assert_eq!(options, expected);
        let options = parse("a b all --fail-if-slower").expect("all known");
        assert_eq!((options.starts, options.groups.len(), options.fail_if_slower), (10, 0, true));
        assert_eq!(options.effort, "compare");
    }

    #[test]
    fn wrong_words_are_refused() {
        for wrong in [
            "",
            "a",
            "a b --starts 9",
            "a b --starts 501",
            "a b --starts many",
            "a b --starts",
            "a b --effort huge",
            "a b --unknown",
            "a b --allow dict",
            "a b --allow dict=2",
            "a b --allow dict=-2us",
            "a b --allow dict=twous",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(allowance("a=1.5ns"), Ok(("a".to_owned(), 1.5)));
        assert_eq!(allowance("a=2µs"), Ok(("a".to_owned(), 2000.0)));
        assert_eq!(allowance("Dict: a = b=3ms"), Ok(("Dict: a = b".to_owned(), 3e6)));
    }

    #[test]
    fn unknown_groups_are_refused_and_all_are_the_default() {
        let build = |groups: &[&str]| Build {
            given: String::new(),
            commit: None,
            executable: "/x".into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            own_benches: false,
        };
        let (old, new) = (build(&["locks", "gone"]), build(&["dict", "locks"]));
        let all = |args: &str| groups(&parse(args).expect("right"), &old, &new);
        assert_eq!(all("a b").expect("all"), ["dict", "locks", "gone"]);
        assert_eq!(all("a b locks").expect("one"), ["locks"]);
        assert!(all("a b lock").is_err());
    }
}
