//! A peer process that becomes another user and changes files as the test orders, one line at a
//! time.
//!
//! ```text
//! link FROM TO | symlink FROM TO | rename FROM TO | remove PATH | mkdir PATH | make PATH MODE
//! write PATH OFFSET TEXT
//! hold PATH        opens it, and holds a shared lock on its live byte until the peer ends
//! hold-again       takes that lock on the descriptor that `hold` opened last
//! let-go           releases that lock, and keeps the descriptor
//! flock PATH       holds an exclusive `flock` on it until the peer ends
//! fill DIR PREFIX COUNT
//! toggle FROM TO   makes and removes a hard link until the next line comes; ends with a link
//! ```
//!
//! It answers `ok`, or the error of the system.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, thread};

use testkit::{Peer, peer};

use super::system::{become_user, lock_byte};

/// The byte that each holder of a named object locks.
pub(crate) const LIVE: i64 = 1 << 62;

/// The role of the peer; the argument is the user id.
pub(crate) fn intruder(args: &[&str]) {
    become_user(args[0].parse().unwrap());
    let mut open = Vec::new();
    let mut next = peer::hear();
    while let Some(line) = next.take() {
        let words: Vec<&str> = line.split(' ').collect();
        if words[0] == "toggle" {
            let ended = AtomicBool::new(false);
            next = thread::scope(|scope| {
                scope.spawn(|| toggle(words[1], words[2], &ended));
                peer::say("ok");
                let line = peer::hear();
                ended.store(true, Ordering::Relaxed);
                line
            });
            continue;
        }
        peer::say(match act(&mut open, &words) {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.to_string(),
        });
        next = peer::hear();
    }
}

fn toggle(from: &str, to: &str, ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        let _ = fs::hard_link(from, to);
        if ended.load(Ordering::Relaxed) || !Path::new(from).exists() {
            // The attack succeeded: the name is gone, and the link is left.
            break;
        }
        let _ = fs::remove_file(to);
    }
}

fn act(open: &mut Vec<File>, words: &[&str]) -> io::Result<()> {
    match words[0] {
        "link" => fs::hard_link(words[1], words[2]),
        "symlink" => symlink(words[1], words[2]),
        "rename" => fs::rename(words[1], words[2]),
        "remove" => fs::remove_file(words[1]),
        "mkdir" => fs::create_dir(words[1]),
        "make" => {
            fs::write(words[1], [b'i'; 8192])?;
            let mode = u32::from_str_radix(words[2], 8).unwrap();
            fs::set_permissions(words[1], fs::Permissions::from_mode(mode))
        }
        "write" => {
            let file = File::options().write(true).open(words[1])?;
            file.write_all_at(words[3].as_bytes(), words[2].parse().unwrap())
        }
        "hold" => {
            let file = File::options().read(true).write(true).open(words[1])?;
            assert!(lock_byte(&file, libc::F_RDLCK, LIVE));
            open.push(file);
            Ok(())
        }
        "hold-again" => {
            assert!(lock_byte(open.last().unwrap(), libc::F_RDLCK, LIVE));
            Ok(())
        }
        "let-go" => {
            assert!(lock_byte(open.last().unwrap(), libc::F_UNLCK, LIVE));
            Ok(())
        }
        "flock" => {
            let file = File::open(words[1])?;
            // SAFETY: an open descriptor and a number.
            let outcome = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
            if outcome != 0 {
                return Err(io::Error::last_os_error());
            }
            open.push(file);
            Ok(())
        }
        "fill" => {
            let count: u32 = words[3].parse().unwrap();
            (0..count).try_for_each(|number| File::create(format!("{}/{}{number}", words[1], words[2])).map(drop))
        }
        verb => panic!("an intruder cannot {verb}"),
    }
}

/// An intruder, seen from the test.
pub(crate) struct Intruder(Peer);

impl Intruder {
    pub(crate) fn of(uid: u32) -> Intruder {
        Intruder(Peer::spawn("intruder", &[&uid.to_string()]))
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.0.send(line);
        self.0.expect_line()
    }

    #[track_caller]
    pub(crate) fn does(&mut self, line: &str) {
        assert_eq!(self.ask(line), "ok", "{line}");
    }

    #[track_caller]
    pub(crate) fn leaves(self) {
        self.0.finish();
    }
}
