//! Starts the two builds in turns: old, new, new, old, and so on.
//!
//! A start is one process that measures one group once. The two starts of a pair follow each other
//! at once, so that a slow change of the machine's speed affects both; the order within a pair
//! alternates, so that what remains of it cancels over the pairs. All groups take a pair each
//! before the first one takes its second: the pairs of a group are spread over the whole run, and a
//! disturbance of some seconds affects few pairs of each row.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::builds::Build;
use super::pairing::Rows;
use super::rows::{self, Measurement, ROWS_FLAG};

/// The longest time that one start may take. The slowest group takes a minute with full effort on
/// an idle machine.
const LIMIT: Duration = Duration::from_secs(1800);

/// What to run.
pub(super) struct Plan<'a> {
    pub(super) old: &'a Build,
    pub(super) new: &'a Build,
    pub(super) groups: &'a [String],
    pub(super) effort: &'a str,
    pub(super) starts: usize,
}

/// Measures all groups in as many pairs of starts as planned.
pub(super) fn run(plan: &Plan<'_>) -> io::Result<Rows> {
    let mut rows = Rows::default();
    let began = Instant::now();
    for round in 0..plan.starts {
        for group in plan.groups {
            let [old, new] = pair(plan, group, round)?;
            rows.add(old, new);
        }
        let done = round + 1;
        let took = began.elapsed();
        let left = took / u32::try_from(done).unwrap_or(1) * u32::try_from(plan.starts - done).unwrap_or(0);
        eprintln!("compare: {done} of {} starts, {} s, about {} s left", plan.starts, took.as_secs(), left.as_secs());
    }
    Ok(rows)
}

/// One start of each build.
fn pair(plan: &Plan<'_>, group: &str, round: usize) -> io::Result<[Vec<Measurement>; 2]> {
    let mut results = [Vec::new(), Vec::new()];
    for side in order(round) {
        let build = [plan.old, plan.new][side];
        if build.groups.iter().any(|known| known == group) {
            results[side] = start(&build.executable, plan.effort, group)?;
        }
    }
    Ok(results)
}

/// Which side comes first in a round: 0 is old, 1 is new.
fn order(round: usize) -> [usize; 2] {
    if round % 2 == 0 { [0, 1] } else { [1, 0] }
}

fn start(executable: &Path, effort: &str, group: &str) -> io::Result<Vec<Measurement>> {
    let mut command = Command::new(executable);
    command.args([ROWS_FLAG, "--effort", effort, group]).stdin(Stdio::null()).stdout(Stdio::piped());
    let text = output(command, LIMIT).map_err(|error| {
        io::Error::other(format!("cannot measure `{group}` with {}: {error}", executable.display()))
    })?;
    rows::parse(&text)
}

/// The standard output of a command that has to succeed in time.
fn output(mut command: Command, limit: Duration) -> io::Result<String> {
    let mut child = command.spawn()?;
    let mut pipe = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let (sender, receiver) = mpsc::channel();
    // The reader ends with the child, which is waited for or killed below.
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = pipe.read_to_string(&mut text).map(|_| text);
        let _ = sender.send(read);
    });
    let Ok(text) = receiver.recv_timeout(limit) else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(io::Error::new(io::ErrorKind::TimedOut, format!("it did not end within {} s", limit.as_secs())));
    };
    let status = child.wait()?;
    if !status.success() {
        return Err(io::Error::other(format!("it failed with {status}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_alternates() {
        let sides: Vec<usize> = (0..4).flat_map(order).collect();
        assert_eq!(sides, [0, 1, 1, 0, 0, 1, 1, 0]);
    }

    #[cfg(unix)]
    #[test]
    fn a_start_that_fails_or_hangs_is_an_error() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdout(Stdio::piped());
            command
        };
        let hour = Duration::from_secs(3600);
        assert_eq!(output(shell("echo row"), hour).expect("it succeeds"), "row\n");
        assert!(output(shell("echo row; exit 3"), hour).is_err());
        let error = output(shell("exec sleep 600"), Duration::from_millis(20)).expect_err("it hangs");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
