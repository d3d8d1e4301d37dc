//! The process that the user started: it starts a sender for each way, and prints the results.

use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mmf_cli::transport::{alone, line};

use super::sender::Outcome;
use super::show::{self, Story};
use super::{DemoArgs, Part, Route, dict};
use crate::failure::Failure;
use crate::output::print;

/// Enough that reading and writing dominate, little enough that a small machine has it.
const SIZE: u64 = 256 << 20;

/// Each way is measured this often, in turns, and shown with its median.
const ROUNDS: usize = 3;

/// No further round begins after this time.
const ROUND_TIMEOUT: Duration = Duration::from_secs(6);

/// How long a sender may take to end once it is asked to.
const GRACE: Duration = Duration::from_secs(3);

/// The result of one run of a way.
pub(super) type Measured = Result<Outcome, String>;

pub(super) fn run(args: &DemoArgs) -> Result<(), Failure> {
    let wanted = match &args.file {
        Some(path) => of_file(path, args.size)?,
        None => args.size.unwrap_or(SIZE),
    };
    let began = Instant::now();
    let mut size = wanted;
    let mut outcomes: [Vec<Measured>; Route::ALL.len()] = Default::default();
    for round in 0..ROUNDS {
        if round > 0 && began.elapsed() > ROUND_TIMEOUT {
            break;
        }
        for (route, outcomes) in Route::ALL.into_iter().zip(&mut outcomes) {
            progress(&format!("{} ({} of {ROUNDS})", route.title(), round + 1));
            let outcome = measure(route, size, args);
            if let (Route::Mapping(_), Ok(outcome)) = (route, &outcome) {
                // Where memory is short the mapping was made smaller; all others then get as much.
                size = size.min(outcome.size);
            }
            outcomes.push(outcome);
        }
    }
    progress("");
    let story = Story::new(args.file.as_deref(), wanted, size, outcomes)?;
    if !args.json {
        print(&show::text(&story))?;
    }
    progress("a dict");
    let shared = dict::run();
    progress("");
    let shared = shared.map_err(|error| io::Error::other(format!("the dict: {error}")))?;
    match args.json {
        true => print(&show::json(&story, &shared)?),
        false => print(&dict::text(&shared)),
    }
}

fn of_file(path: &Path, size: Option<u64>) -> io::Result<u64> {
    let wrong = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let metadata = std::fs::File::open(path).and_then(|file| file.metadata()).map_err(wrong)?;
    if !metadata.is_file() {
        return Err(wrong(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    if metadata.len() == 0 {
        return Err(wrong(io::Error::new(io::ErrorKind::InvalidInput, "it is empty")));
    }
    Ok(size.map_or(metadata.len(), |size| size.min(metadata.len())))
}

/// Shows the present step on a terminal.
fn progress(what: &str) {
    let mut error = io::stderr().lock();
    if error.is_terminal() {
        let text = if what.is_empty() { String::new() } else { format!("measuring {what} ...") };
        let _ = write!(error, "\r{text:<50}\r").and_then(|()| error.flush());
    }
}

/// Has one way measured by processes of its own.
fn measure(route: Route, size: u64, args: &DemoArgs) -> Measured {
    let mut command = Command::new(std::env::current_exe().map_err(|error| error.to_string())?);
    command.args(["demo", "--part", &Part::Sender(route).to_string(), "--size", &size.to_string()]);
    command.args(["--readers", &args.readers.to_string()]);
    if let Some(path) = &args.file {
        command.arg("--file").arg(path);
    }
    alone(&mut command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot start a process: {error}"))?;
    let output = collect(child.stdout.take());
    let errors = collect(child.stderr.take());
    // 20 MB/s a reader is slower than anything that is worth waiting for.
    let limit = Duration::from_secs(20 + size / 20_000_000 * u64::from(args.readers));
    let ended = wait(&mut child, limit);
    let (output, errors) = (text(output), text(errors));
    match (ended, line(&mut output.as_bytes()).ok().and_then(|line| Outcome::parse(&line))) {
        (Ok(()), Some(outcome)) => Ok(outcome),
        (Ok(()), None) => Err(format!("the sender said `{}`\n{errors}", output.trim_end()).trim_end().to_owned()),
        (Err(how), _) => Err(format!("{how}\n{errors}").trim_end().to_owned()),
    }
}

/// Waits for the sender's end, and enforces it after `limit`.
fn wait(child: &mut Child, limit: Duration) -> Result<(), String> {
    let ended = poll(child, limit)?;
    let late = ended.is_none();
    let status = match ended {
        Some(status) => status,
        None => {
            // The end of its input asks it to end.
            drop(child.stdin.take());
            match poll(child, GRACE)? {
                Some(status) => status,
                None => {
                    let _ = child.kill();
                    child.wait().map_err(|error| error.to_string())?
                }
            }
        }
    };
    match (late, status.success()) {
        (true, _) => Err(format!("it did not finish in {} s", limit.as_secs())),
        (false, true) => Ok(()),
        (false, false) => Err(format!("the sender ended with {status}")),
    }
}

fn poll(child: &mut Child, limit: Duration) -> Result<Option<std::process::ExitStatus>, String> {
    let until = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(Some(status)),
            Ok(None) if Instant::now() >= until => return Ok(None),
            Ok(None) => thread::sleep(Duration::from_millis(2)),
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn collect(from: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn text(collected: JoinHandle<String>) -> String {
    collected.join().unwrap_or_default()
}
