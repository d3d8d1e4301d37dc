//! Failures: an exit code for scripts, one line with the error, and lines with advice.

use std::fmt::{self, Display};
use std::io::{self, Write};

use mmf::ErrorKind;
use serde::{Deserialize, Serialize};

use crate::quoting::escaped;

pub(crate) const FAILED: i32 = 1;
pub(crate) const USAGE: i32 = 2;
pub(crate) const NOT_FOUND: i32 = 3;
pub(crate) const EXISTS: i32 = 4;
pub(crate) const DENIED: i32 = 5;
pub(crate) const NO_SPACE: i32 = 6;
/// The shell's own codes for a command that cannot be run (POSIX, "Exit Status for Commands").
pub(crate) const CANNOT_RUN: i32 = 126;
pub(crate) const NO_COMMAND: i32 = 127;
/// The shell's code for a program that Ctrl-C ended.
pub(crate) const INTERRUPTED: i32 = 130;

/// Part of `--help` and of the man page.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  success; also if the reader of a pipe closed it
  1  the operation failed
  2  wrong usage, a wrong name or options that contradict each other
  3  the object does not exist
  4  the object exists already
  5  not permitted, read-only, or the object belongs to another user
  6  no memory or disk space left
130  ended by Ctrl-C before the work was done
`mmf hold ... -- COMMAND` exits as COMMAND does: 128 + n if signal n ended it,
126 if it cannot be run, 127 if it is not found.";

/// An exit code, with a message unless it is silent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    code: i32,
    message: Option<String>,
    hints: Vec<String>,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn new(code: i32, message: impl Into<String>) -> Self {
        Failure { code, message: Some(message.into()), hints: Vec::new() }
    }

    /// A failure without a message: another process has printed it, or no process reads it.
    pub(crate) fn silent(code: i32) -> Self {
        Failure { code, message: None, hints: Vec::new() }
    }

    /// A failure of the system: `doing` is what the program tried on `target`.
    pub(crate) fn io(doing: &str, target: impl Display, error: io::Error) -> Self {
        match error.downcast::<mmf::Error>() {
            Ok(error) => error.into(),
            Err(error) => Failure::new(code_of_io(error.kind()), format!("cannot {doing} {target}: {error}")),
        }
    }

    /// Adds a line of advice.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub(crate) fn code(&self) -> i32 {
        self.code
    }

    /// Prints the failure to standard error. An error of that is ignored.
    pub(crate) fn report(&self) {
        let _ = write!(io::stderr().lock(), "{self}");
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(message) = &self.message {
            writeln!(f, "mmf: {}", escaped(message))?;
        }
        self.hints.iter().try_for_each(|hint| writeln!(f, "  {}", escaped(hint)))
    }
}

impl From<mmf::Error> for Failure {
    fn from(error: mmf::Error) -> Self {
        let code = match error.kind() {
            ErrorKind::NotFound => NOT_FOUND,
            ErrorKind::AlreadyExists => EXISTS,
            ErrorKind::PermissionDenied
            | ErrorKind::ForeignOwner { .. }
            | ErrorKind::HardLinked { .. }
            | ErrorKind::ReadOnly => DENIED,
            ErrorKind::InvalidName { .. } | ErrorKind::InvalidInput { .. } => USAGE,
            ErrorKind::NoSpace => NO_SPACE,
            _ => FAILED,
        };
        let text = error.to_string();
        match error.help() {
            Some(help) => {
                let message = text.strip_suffix(&format!("; {help}")).unwrap_or(&text);
                Failure::new(code, message).hint(help)
            }
            None => Failure::new(code, text),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.downcast::<mmf::Error>() {
            Ok(error) => error.into(),
            Err(error) => Failure::new(code_of_io(error.kind()), error.to_string()),
        }
    }
}

fn code_of_io(kind: io::ErrorKind) -> i32 {
    match kind {
        io::ErrorKind::NotFound => NOT_FOUND,
        io::ErrorKind::AlreadyExists => EXISTS,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => DENIED,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::OutOfMemory => NO_SPACE,
        _ => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_s_advice_becomes_a_line_of_its_own() {
        let error = mmf::Mapping::options().size(0).anonymous().expect_err("no size");
        let failure = Failure::from(error);
        assert_eq!(failure.code(), USAGE);
        assert_eq!(
            failure.to_string(),
            "mmf: cannot create anonymous memory: memory needs a size\n  give one with `size`\n"
        );
    }

    #[test]
    fn what_a_peer_wrote_does_not_reach_the_terminal_by_an_error() {
        let failure = Failure::new(FAILED, "no key \x1b[2J").hint("see\nthere");
        assert_eq!(failure.to_string(), "mmf: no key \\u{1b}[2J\n  see\\nthere\n");
    }

    #[test]
    fn an_error_of_the_library_keeps_its_code_inside_one_of_io() {
        let error = mmf::Name::local("a/b").expect_err("a slash");
        assert_eq!(Failure::io("read", "it", error.into()).code(), USAGE);
    }
}
