//! `mmf hold`: an object lives while this process, or one that it leaves in the background, holds
//! it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mmf::{Dict, Mapping, Region};
use serde::{Deserialize, Serialize};

use crate::cli::HoldArgs;
use crate::failure::{CANNOT_RUN, FAILED, Failure, INTERRUPTED, NO_COMMAND, Result};
use crate::output::{note, print};
use crate::size::human;
use crate::system;

/// The environment variable that names the held object to the command.
const VARIABLE: &str = "MMF_OBJECT";

/// The most that a background process may report.
const REPORT_MAX: u64 = 1 << 16;

/// The report of the background process to its starter, as a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Ready { held: String },
    Failed(Failure),
}

pub(crate) fn run(args: HoldArgs) -> Result<()> {
    match (args.detach, args.background) {
        (true, false) => start_background(&args),
        (_, false) => hold(&args, |held| {
            if args.command.is_empty() {
                // The object is held even if no process reads this.
                let _ = print(&format!("holding {} ({held}); Ctrl-C ends it\n", args.object));
            }
            Ok(())
        }),
        (_, true) => {
            let result = hold(&args, |held| {
                if args.command.is_empty() {
                    // A directory that some process works in cannot be unmounted.
                    let _ = std::env::set_current_dir(Path::new("/"));
                }
                report(&Report::Ready { held })
            });
            match result {
                // The starter has stopped reading if the object was held already.
                Err(failure) => report(&Report::Failed(failure)).and(Err(Failure::silent(FAILED))),
                Ok(()) => Ok(()),
            }
        }
    }
}

fn report(report: &Report) -> Result<()> {
    match serde_json::to_string(report) {
        Ok(line) => print(&(line + "\n")),
        Err(error) => Err(Failure::new(FAILED, format!("cannot report to the starting process: {error}"))),
    }
}

/// Creates the object, calls `ready`, and holds the object.
fn hold(args: &HoldArgs, ready: impl FnOnce(String) -> Result<()>) -> Result<()> {
    if args.background {
        system::leave_terminal().map_err(|error| Failure::io("leave", "the terminal", error))?;
    }
    // Before there is anything to clean up.
    let child = Arc::new(Mutex::new(None));
    let wishes = listen(Arc::clone(&child))?;
    let held = create(args)?;
    let Some((program, arguments)) = args.command.split_first() else {
        ready(held.about())?;
        // An error means that the listener is gone, and with it every way to end in order.
        let _ = wishes.recv();
        return Ok(());
    };
    let mut command = Command::new(program);
    command.args(arguments).env(VARIABLE, args.object.absolute());
    if args.background {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    }
    let shown = program.to_string_lossy();
    // Locked, so that no request comes between the check for one and the start of the child.
    let mut pid = lock(&child);
    if wishes.try_recv().is_ok() {
        return Err(Failure::silent(INTERRUPTED));
    }
    let mut running = command.spawn().map_err(|error| {
        let code = if error.kind() == std::io::ErrorKind::NotFound { NO_COMMAND } else { CANNOT_RUN };
        Failure::new(code, format!("cannot run {shown}: {error}"))
    })?;
    *pid = Some(running.id());
    drop(pid);
    let told = ready(held.about());
    let status = running.wait();
    *lock(&child) = None;
    told?;
    match system::exit_code(status.map_err(|error| Failure::io("wait for", shown, error))?) {
        0 => Ok(()),
        code => Err(Failure::silent(code)),
    }
}

fn lock(child: &Mutex<Option<u32>>) -> MutexGuard<'_, Option<u32>> {
    // One word is never half changed.
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The held object.
enum Held {
    Raw(Box<Mapping>),
    Region(Box<Region>),
    Dict(Box<Dict>),
}

impl Held {
    /// A description for messages.
    fn about(&self) -> String {
        match self {
            Held::Raw(map) => human(map.len() as u64),
            Held::Region(region) => format!("a region of up to {}", human(region.capacity())),
            Held::Dict(dict) => format!("a dict of up to {}", human(dict.capacity())),
        }
    }
}

fn create(args: &HoldArgs) -> Result<Held> {
    let source = args.object.source();
    let created = match (args.size, args.capacity) {
        // The command line has one of the two, and no other option of raw memory beside a capacity.
        (_, Some(capacity)) if args.dict => Dict::options()
            .capacity(capacity)
            .permissions(args.permissions.clone())
            .create_new(source)
            .map(|dict| Held::Dict(Box::new(dict))),
        (_, Some(capacity)) => Region::options()
            .capacity(capacity)
            .permissions(args.permissions.clone())
            .create_new(source)
            .map(|region| Held::Region(Box::new(region))),
        (size, None) => {
            let mut options = Mapping::options()
                .size(size.unwrap_or(0))
                .permissions(args.permissions.clone())
                .large_pages(args.large_pages.into())
                .prefault(args.prefault);
            if let Some(reserve) = args.reserve {
                options = options.reserve(reserve);
            }
            options.create_new(source).map(|map| Held::Raw(Box::new(map)))
        }
    };
    created.map_err(|error| args.object.advise_creator(error))
}

/// Listens for requests to end. While a command runs, Ctrl-C is left to the command, to which the
/// terminal sends it too; every other request is passed on to the command.
fn listen(child: Arc<Mutex<Option<u32>>>) -> Result<Receiver<()>> {
    let (wish, wishes) = mpsc::channel();
    system::on_interrupt(move |interrupt| match *lock(&child) {
        Some(_) if interrupt.to_all => {}
        Some(pid) => system::terminate(pid),
        // The receiver is gone once this process is ending.
        None => drop(wish.send(())),
    })
    .map_err(|error| Failure::io("listen for", "interrupts", error))?;
    Ok(wishes)
}

/// Starts a process that holds the object, and returns once it does.
fn start_background(args: &HoldArgs) -> Result<()> {
    let cannot = |error| Failure::io("start", "a process in the background", error);
    let mut command = Command::new(std::env::current_exe().map_err(cannot)?);
    // The verb comes first, and what follows is as it was given.
    command.args(["hold", "--background"]).args(std::env::args_os().skip(2));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    system::detach(&mut command).map_err(cannot)?;
    let mut child = command.spawn().map_err(cannot)?;
    match child.stdout.take().and_then(read_report) {
        Some(Report::Ready { held }) => {
            let pid = child.id();
            note(&format!("process {pid} holds {} ({held}); to end it: {}", args.object, system::how_to_end(pid)));
            print(&format!("{pid}\n"))
        }
        Some(Report::Failed(failure)) => Err(failure),
        None => Err(died(&mut child)),
    }
}

fn read_report(from: ChildStdout) -> Option<Report> {
    let mut line = String::new();
    BufReader::new(from.take(REPORT_MAX)).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

fn died(child: &mut Child) -> Failure {
    let how = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
    Failure::new(FAILED, format!("the process in the background ended before it held the object ({how})"))
}
