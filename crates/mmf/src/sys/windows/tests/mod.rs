//! Objects and views directly, without the layers above.

mod files;
mod memory;
mod segments;
mod views;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::name::{Name, Source};
use crate::sys::ViewRequest;
use crate::types::{Access, LargePages, Spec};

use super::{Object, View};

/// Text that no other test of any process has.
fn unique(what: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    format!("test {what} {} {}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

fn local(what: &str) -> Source {
    Name::local(unique(what)).unwrap().into()
}

fn sized(size: u64) -> Spec {
    Spec { size: Some(size), ..Spec::default() }
}

fn request(offset: u64, address_len: usize, access: Access) -> ViewRequest {
    ViewRequest { offset, address_len, access, large_pages: LargePages::Never, base_address: None }
}

fn view(object: &Object, offset: u64, address_len: usize) -> View {
    View::map(object, &request(offset, address_len, Access::ReadWrite)).unwrap()
}

fn write(view: &View, offset: usize, bytes: &[u8]) {
    assert!(offset + bytes.len() <= view.address_len());
    // SAFETY: the range lies in the view, as just checked, and tests share it with nobody at the same time.
    unsafe { view.base().wrapping_add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
}

fn read(view: &View, offset: usize, len: usize) -> Vec<u8> {
    assert!(offset + len <= view.address_len());
    let mut bytes = vec![0; len];
    // SAFETY: as above.
    unsafe { view.base().wrapping_add(offset).copy_to_nonoverlapping(bytes.as_mut_ptr(), len) };
    bytes
}

/// Another process that runs one test of this program, which follows orders given line by line and otherwise returns at once.
struct Peer {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Peer {
    fn new(test: &str, argument: &str) -> Peer {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("sys::windows::tests::{test}"), "--nocapture", "--test-threads=1"])
            .env("MMF_TEST_PEER", argument)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Peer { child, said }
    }

    /// In the peer: what it was given; `None` in a process that is none.
    fn argument() -> Option<String> {
        std::env::var("MMF_TEST_PEER").ok()
    }

    /// What the peer tells next, past what the test harness prints.
    fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.said.read_line(&mut line).unwrap(), 0, "the peer ended");
            if let Some((_, told)) = line.trim_end().split_once("peer: ") {
                return told.to_owned();
            }
        }
    }

    fn order(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// In the peer.
fn tell(what: impl std::fmt::Display) {
    println!("peer: {what}");
    std::io::stdout().flush().unwrap();
}

/// In the peer.
fn await_order() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}
