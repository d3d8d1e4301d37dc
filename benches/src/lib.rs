//! The speed of mmf, beside the system's own ways and other crates. `docs/benchmarks.md` tells what each row means.

mod calls;
mod compare;
mod consumer;
mod copies;
#[cfg(target_os = "linux")]
mod dict;
mod lifecycle;
mod locks;
mod machine;
mod peers;
mod report;
mod ring;
mod transfer;
#[cfg(all(windows, feature = "winmmf"))]
mod winmmf;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use mmf_cli::measure::Plan;
use report::Table;

/// How much is done.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "the dict is measured on Linux alone"))]
struct Effort {
    plan: Plan,
    /// Pairs of samples of what takes longer than the system lets a process run at a stretch.
    long_pairs: usize,
    /// Bytes that go to another process.
    transfer: usize,
    /// The largest copy.
    largest: usize,
    /// The most entries of a dict, and of one with values of a page.
    entries: usize,
    entries_of_a_page: usize,
    /// Entries of the file that is opened.
    large_entries: usize,
    /// Bytes of the dict that is filled.
    memory: u64,
    /// Calls that are timed one by one.
    tail: usize,
    /// How often other processes take turns, and for how long each time.
    rounds: usize,
    stretch: Duration,
    /// Whether samples and plot are worth keeping.
    keep: bool,
}

/// Enough for figures.
const FULL: Effort = Effort {
    plan: Plan { pairs: 41, sample: Duration::from_millis(2) },
    long_pairs: 41,
    transfer: 64 << 20,
    largest: 256 << 20,
    entries: 1_000_000,
    entries_of_a_page: 100_000,
    large_entries: 1_000_000,
    memory: 128 << 20,
    tail: 200_000,
    rounds: 11,
    stretch: Duration::from_millis(100),
    keep: true,
};

/// With a file of 10 GiB, and with a million values of a page, which take 13 GiB of memory together on both sides.
const LARGE: Effort = Effort { large_entries: 10_000_000, entries_of_a_page: 1_000_000, ..FULL };

/// For one of the many process starts of a comparison of builds. Takes a third of the time of
/// `FULL`. The samples are much shorter than a time slice, so that most of them are whole ones
/// where other programs want the core.
const COMPARE: Effort = Effort {
    plan: Plan { pairs: 31, sample: Duration::from_micros(200) },
    long_pairs: 7,
    transfer: 32 << 20,
    large_entries: 100_000,
    memory: 16 << 20,
    tail: 20_000,
    rounds: 5,
    stretch: Duration::from_millis(40),
    keep: false,
    ..FULL
};

/// Enough to see that all of it runs.
const QUICK: Effort = Effort {
    plan: Plan { pairs: 3, sample: Duration::from_micros(20) },
    long_pairs: 3,
    transfer: 4 << 20,
    largest: 1 << 20,
    entries: 1_000,
    entries_of_a_page: 1_000,
    large_entries: 4_000,
    memory: 1 << 20,
    tail: 100,
    rounds: 2,
    stretch: Duration::from_millis(1),
    keep: false,
};

/// The efforts by their names.
const EFFORTS: [(&str, Effort); 4] = [("full", FULL), ("large", LARGE), ("compare", COMPARE), ("quick", QUICK)];

type Group = (&'static str, fn(Effort) -> io::Result<Vec<Table>>);

const GROUPS: &[Group] = &[
    ("copies", copies::run),
    ("atomics", calls::atomics),
    ("reserve", calls::reserve),
    ("fault", calls::fault),
    ("lifecycle", lifecycle::run),
    ("locks", locks::run),
    ("transfer", transfer::run),
    ("peers", peers::run),
    #[cfg(target_os = "linux")]
    ("dict", dict::run),
    #[cfg(all(windows, feature = "winmmf"))]
    ("winmmf", winmmf::run),
];

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mmf-benches: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> io::Result<()> {
    if let [first, source] = args {
        if first == consumer::FLAG {
            return consumer::run(source);
        }
        #[cfg(target_os = "linux")]
        if first == locks::FLAG {
            return locks::answer(source);
        }
    }
    #[cfg(target_os = "linux")]
    if let Some(result) = dict::child(args) {
        return result;
    }
    if let [first, rest @ ..] = args {
        if first == "compare" {
            return compare::run(rest);
        }
        if first == compare::GROUPS_FLAG {
            compare::print_groups();
            return Ok(());
        }
    }
    let mut effort = FULL;
    let mut rows = false;
    let mut wanted = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" | "--test" => effort = QUICK,
            "--large" => effort = LARGE,
            "--effort" => effort = effort_named(args.next())?,
            compare::ROWS_FLAG => rows = true,
            // Cargo says so to every benchmark.
            "--bench" | "all" => {}
            name => match GROUPS.iter().find(|(group, _)| *group == name) {
                Some(group) => wanted.push(*group),
                None => return Err(usage(name)),
            },
        }
    }
    if wanted.is_empty() {
        wanted = GROUPS.to_vec();
    }
    // The second core first: without one, the peer would stand in the way of this process.
    let pinned = machine::pin(consumer::CORE) && machine::pin(0);
    if !rows {
        println!("{}", machine::describe(effort.plan.pairs, pinned));
    }
    for (name, group) in wanted {
        for table in group(effort)? {
            if rows {
                compare::print_rows(name, &table);
            } else {
                println!("{table}");
            }
        }
    }
    Ok(())
}

impl Effort {
    /// For what takes some milliseconds or more.
    fn long_plan(self) -> Plan {
        Plan { pairs: self.long_pairs, ..self.plan }
    }
}

fn effort_named(name: Option<&String>) -> io::Result<Effort> {
    let found = EFFORTS.iter().find(|(effort, _)| name.is_some_and(|name| name == effort));
    found.map(|(_, effort)| *effort).ok_or_else(|| {
        let names: Vec<&str> = EFFORTS.iter().map(|(name, _)| *name).collect();
        let text = format!("cannot choose an effort: `--effort` needs one of {}", names.join(", "));
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

fn usage(name: &str) -> io::Error {
    if name == "winmmf" {
        return io::Error::new(
            io::ErrorKind::Unsupported,
            "`winmmf` is for Windows, and for a build with `--features winmmf`",
        );
    }
    let groups: Vec<&str> = GROUPS.iter().map(|(group, _)| *group).collect();
    let text = format!(
        "there is no `{name}`; there are: all {} --quick --large --effort NAME, and compare OLD NEW",
        groups.join(" ")
    );
    io::Error::new(io::ErrorKind::InvalidInput, text)
}
