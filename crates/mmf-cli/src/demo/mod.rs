//! `mmf demo`: transfers bytes between processes by a named mapping, pipes and sockets.
//!
//! Each way is measured by processes of its own: a sender that this process starts, and the readers
//! that the sender starts. So each way has its own peak of memory, and a failure does not affect
//! the others.
//!
//! The second part shares attributes in a dict.

mod conductor;
mod data;
mod dict;
mod reader;
mod sender;
mod show;

use std::fmt;
use std::path::PathBuf;

use mmf_cli::transport::Way;

use crate::failure::Failure;
use crate::size;
use dict::Role;

/// Share bytes and attributes between processes, and compare with pipes and sockets
///
/// One process sends the same bytes to all readers: through a named mapping, and through a pipe, a
/// Unix socket (on Windows a named pipe) and a local TCP connection for each reader. Every reader
/// computes a checksum over all of them.
///
/// Then several processes set, read and watch keys of a dict, while other writers are killed.
#[derive(clap::Args)]
pub(crate) struct DemoArgs {
    /// Share the bytes of this file instead of generated ones
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Number of reader processes
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    readers: u8,
    /// Number of bytes, as 1000000 or 256M; of a file its first bytes [default: 256M, or the whole
    /// file]
    #[arg(long, value_name = "N", value_parser = some_bytes)]
    size: Option<u64>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// Part of the demo that this process runs
    #[arg(long, hide = true)]
    part: Option<String>,
}

pub(crate) fn run(args: DemoArgs) -> Result<(), Failure> {
    match &args.part {
        None => conductor::run(&args)?,
        Some(part) => match Part::parse(part) {
            Some(Part::MappingReader(taking, name)) => reader::read_mapping(&name, taking)?,
            Some(Part::StreamReader(way)) => reader::read_stream(way)?,
            Some(Part::Actor(role, name)) => dict::act(role, &name)?,
            Some(Part::Sender(route)) => sender::run(&sender::Job {
                route,
                size: args.size.unwrap_or(0),
                readers: args.readers.into(),
                file: args.file,
            })?,
            None => return Err(std::io::Error::other(format!("the demo has no part `{part}`")).into()),
        },
    }
    Ok(())
}

/// How the bytes get to the readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Mapping(Taking),
    Stream(Way),
}

/// How a reader takes the bytes of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taking {
    /// Where they are, unguarded.
    InPlace,
    /// Copied into memory of its own, guarded.
    Copies,
}

impl Route {
    const ALL: [Route; 5] = [
        Route::Mapping(Taking::InPlace),
        Route::Mapping(Taking::Copies),
        Route::Stream(Way::Pipe),
        Route::Stream(Way::Local),
        Route::Stream(Way::Tcp),
    ];

    /// For the command line of a child.
    fn word(self) -> &'static str {
        match self {
            Route::Mapping(taking) => taking.word(),
            Route::Stream(way) => way.word(),
        }
    }

    /// For people.
    fn title(self) -> &'static str {
        match self {
            Route::Mapping(Taking::InPlace) => "mmf, in place",
            Route::Mapping(Taking::Copies) => "mmf, copied out",
            Route::Stream(way) => way.title(),
        }
    }
}

impl Taking {
    fn word(self) -> &'static str {
        match self {
            Taking::InPlace => "place",
            Taking::Copies => "copies",
        }
    }

    fn from_word(word: &str) -> Option<Taking> {
        [Taking::InPlace, Taking::Copies].into_iter().find(|taking| taking.word() == word)
    }
}

/// The part that a started process runs.
enum Part {
    Sender(Route),
    StreamReader(Way),
    MappingReader(Taking, String),
    Actor(Role, String),
}

impl Part {
    fn parse(text: &str) -> Option<Part> {
        let (role, rest) = text.split_once(':')?;
        match role {
            "send" => Route::ALL.into_iter().find(|route| route.word() == rest).map(Part::Sender),
            "read" => Way::from_word(rest).map(Part::StreamReader),
            word => match Role::from_word(word) {
                Some(role) => Some(Part::Actor(role, rest.to_owned())),
                None => Taking::from_word(word).map(|taking| Part::MappingReader(taking, rest.to_owned())),
            },
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Sender(route) => write!(f, "send:{}", route.word()),
            Part::StreamReader(way) => write!(f, "read:{}", way.word()),
            Part::MappingReader(taking, name) => write!(f, "{}:{name}", taking.word()),
            Part::Actor(role, name) => write!(f, "{}:{name}", role.word()),
        }
    }
}

/// Parses a size that is not 0.
fn some_bytes(text: &str) -> Result<u64, String> {
    match size::parse(text)? {
        0 => Err("the size must not be 0".to_owned()),
        bytes => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_survives_the_command_line() {
        for route in Route::ALL {
            let text = Part::Sender(route).to_string();
            assert!(matches!(Part::parse(&text), Some(Part::Sender(same)) if same == route), "{text}");
        }
        let text = Part::MappingReader(Taking::Copies, "a:b".to_owned()).to_string();
        assert!(matches!(Part::parse(&text), Some(Part::MappingReader(Taking::Copies, name)) if name == "a:b"));
        for role in [Role::Reader, Role::Victim, Role::Watcher, Role::Writer(1)] {
            let text = Part::Actor(role, "a:b".to_owned()).to_string();
            assert!(
                matches!(Part::parse(&text), Some(Part::Actor(same, name)) if same == role && name == "a:b"),
                "{text}"
            );
        }
    }
}
