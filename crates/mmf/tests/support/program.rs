//! A program of another language that reads and writes lines.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub(crate) struct Program {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Program {
    /// Starts a program, whose standard error is the test's.
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Program {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdin = child.stdin.take().expect("stdin is piped");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Program { child, stdin, stdout }
    }

    pub(crate) fn hears(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("it listens");
    }

    #[track_caller]
    pub(crate) fn says(&mut self, text: &str) {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        assert_eq!(line.trim_end(), text);
    }

    #[track_caller]
    pub(crate) fn ends(mut self) {
        let status = self.child.wait().expect("it is a child");
        assert!(status.success(), "{status}");
    }

    #[track_caller]
    pub(crate) fn dies(mut self) {
        self.child.kill().expect("it lives");
        assert!(!self.child.wait().expect("it is a child").success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // This fails if the program has ended, and then nothing is left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
