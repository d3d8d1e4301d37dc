//! `mmf demo`: real bytes between real processes, by a named mapping and by the usual ways.
//!
//! Each way is measured by processes of its own: a sender that this process starts, and the readers that the sender starts,
//! all of this same program. So each way's peak of memory is its own, and what fails takes nothing else along.
//!
//! The second part shares attributes in a dict.

mod conductor;
mod data;
mod dict;
mod reader;
mod sender;
mod show;
pub(crate) mod transport;

use std::fmt;
use std::path::PathBuf;

use crate::failure::Failure;
use crate::size;
use dict::Role;
use transport::Way;

/// Share bytes and attributes between processes, and compare it with the usual ways
///
/// One process shares the bytes with all readers: through a named mapping, a pipe each, a Unix socket (on Windows a named
/// pipe) each, and a TCP connection within this machine each. Every reader takes a checksum over all of them.
///
/// Then several processes set, read and watch attributes in a dict, while others that write to it are killed.
#[derive(clap::Args)]
pub(crate) struct DemoArgs {
    /// Share the bytes of this file instead of made ones
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// How many processes read
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    readers: u8,
    /// How much is shared, as 1000000 or 256M; of a file its first bytes [default: 256M, or the whole file]
    #[arg(long, value_name = "N", value_parser = some_bytes)]
    size: Option<u64>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// What a process that the demo starts does in it
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

/// What a process that was started does.
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

/// There must be something to share.
fn some_bytes(text: &str) -> Result<u64, String> {
    match size::parse(text)? {
        0 => Err("there must be something to share".to_owned()),
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
