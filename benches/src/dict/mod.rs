//! A dict beside LMDB, a hash map and Redis.

mod keys;
mod others;
mod record;
mod sides;
mod speed;

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Effort;
use crate::report::Table;
use record::Record;

pub(crate) fn run(effort: Effort) -> io::Result<Vec<Table>> {
    let mut record = Record::new(effort);
    let mut tables = speed::run(&mut record)?;
    tables.extend(others::run(&mut record)?);
    record.write(&place(effort))?;
    Ok(tables)
}

/// Where samples and plot go: beside the page that shows them, if they are worth it.
fn place(effort: Effort) -> PathBuf {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    if effort.keep && docs.is_dir() { docs } else { std::env::temp_dir() }
}

/// What this program does where it was started as another process of these benchmarks.
pub(crate) fn child(args: &[String]) -> Option<io::Result<()>> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["--dict-read", name, core] => Some(others::read(name, core)),
        ["--dict-watch", name, stamps] => Some(others::watch(name, stamps)),
        ["--futex-wait", stamps] => Some(others::wait(stamps)),
        ["--dict-write", file] => Some(others::write(file)),
        _ => None,
    }
}

/// Another process. Dropped, it is killed.
struct Child(std::process::Child);

impl Child {
    /// This program, up to its first line.
    fn start(args: &[&str]) -> io::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Child(command.spawn()?);
        child.line()?;
        Ok(child)
    }

    /// What it says next, in one line.
    fn line(&mut self) -> io::Result<String> {
        let out = self.0.stdout.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut line = String::new();
        // It says one line at a time, so nothing behind it gets lost.
        match BufReader::new(out).read_line(&mut line)? {
            0 => Err(io::Error::other("the other process has ended")),
            _ => Ok(line),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
