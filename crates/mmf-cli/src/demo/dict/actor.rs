//! The processes of the dict's demo. Each knows the dict's name only.

use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use mmf::{Access, Change, Dict, Name, Watched};
use mmf_cli::transport::say;

use super::{COUNT, FRAME, STOP, WRITERS, frame, frame_number, pair};
use crate::lifetime::Bound;

/// Longer than the whole takes anywhere.
const LIMIT: Duration = Duration::from_secs(60);

/// Between two transactions of a writer, and two looks of a reader: attributes of a program that
/// lives, not a load.
const PAUSE: Duration = Duration::from_micros(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::demo) enum Role {
    Reader,
    Victim,
    Watcher,
    /// With its number.
    Writer(usize),
}

impl Role {
    /// For the command line.
    pub(in crate::demo) fn word(self) -> String {
        match self {
            Role::Reader => "dict-reader".to_owned(),
            Role::Victim => "dict-victim".to_owned(),
            Role::Watcher => "dict-watcher".to_owned(),
            Role::Writer(nth) => format!("dict-writer-{nth}"),
        }
    }

    pub(in crate::demo) fn from_word(word: &str) -> Option<Role> {
        match word {
            "dict-reader" => Some(Role::Reader),
            "dict-victim" => Some(Role::Victim),
            "dict-watcher" => Some(Role::Watcher),
            word => word.strip_prefix("dict-writer-")?.parse().ok().map(Role::Writer),
        }
    }
}

pub(in crate::demo) fn run(role: Role, name: &str) -> io::Result<()> {
    let _bound = Bound::new(LIMIT);
    thread::spawn(|| {
        // The starter says nothing: the end of this is its end.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
    let name = Name::local(name)?;
    match role {
        Role::Reader => read(&Dict::options().access(Access::ReadOnly).open(name)?),
        Role::Victim => write_frames(&Dict::open(name)?),
        Role::Watcher => watch(&Dict::open(name)?),
        Role::Writer(nth) => write(&Dict::open(name)?, nth),
    }
}

/// Without end.
fn write_frames(dict: &Dict) -> io::Result<()> {
    say("ready")?;
    let mut number = dict.get_bytes(FRAME)?.map_or(Ok(0), |bytes| frame_number(&bytes))?;
    loop {
        number += 1;
        dict.set_bytes(FRAME, &frame(number))?;
        say(&number.to_string())?;
    }
}

fn write(dict: &Dict, nth: usize) -> io::Result<()> {
    let [credit, debit] = pair(nth);
    say("ready")?;
    let mut done = 0_i64;
    while !dict.contains_key(STOP)? {
        done += 1;
        dict.transaction(|tx| {
            tx.set(&credit, &done)?;
            tx.set(&debit, &-done)
        })?;
        dict.increment(COUNT, 1)?;
        thread::sleep(PAUSE);
    }
    say(&format!("done {done}"))
}

fn read(dict: &Dict) -> io::Result<()> {
    say("ready")?;
    let (mut reads, mut latest) = (0_u64, 0);
    let mut bytes = Vec::new();
    while !dict.contains_key(STOP)? {
        dict.get_into(FRAME, &mut bytes)?;
        let number = frame_number(&bytes)?;
        if number < latest {
            return Err(io::Error::other(format!("frame {number} came after frame {latest}")));
        }
        latest = number;
        for writer in 0..WRITERS {
            let [credit, debit] = pair(writer);
            let seen = dict.snapshot(|now| Ok((now.get::<i64>(&credit)?, now.get::<i64>(&debit)?)))?;
            if seen.0 != seen.1.map(|debit| -debit) {
                return Err(io::Error::other(format!("a transaction was seen in part: {seen:?}")));
            }
        }
        reads += 1;
        thread::sleep(PAUSE);
    }
    say(&format!("done {reads}"))
}

fn watch(dict: &Dict) -> io::Result<()> {
    let mut changes = dict.watch(Watched::All)?;
    say("ready")?;
    let (mut told, mut missed, mut latest) = (0_u64, 0_u64, 0);
    loop {
        let version = match changes.next_for(LIMIT)? {
            Some(Change::Set { key, .. }) if key == STOP => break,
            Some(Change::Set { version, .. }) => version,
            Some(Change::Missed) => {
                missed += 1;
                if dict.contains_key(STOP)? {
                    break;
                }
                continue;
            }
            other => return Err(io::Error::other(format!("{other:?} was reported, which no process did"))),
        };
        if version <= latest {
            return Err(io::Error::other(format!("version {version} was reported after version {latest}")));
        }
        (told, latest) = (told + 1, version);
    }
    say(&format!("done {told} {missed}"))
}
