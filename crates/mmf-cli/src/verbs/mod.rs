//! The verbs, one file each.

mod completions;
mod contents;
mod cp;
pub(crate) mod dict;
mod dump;
mod hold;
mod info;
mod ls;
mod man;
mod read;
mod rm;
pub(crate) mod selftest;
mod watch;
mod write;

use mmf::{ErrorKind, Mapping};

use crate::cli::{Range, Verb};
use crate::failure::{FAILED, Failure, Result};
use crate::{bench, demo};

/// Bytes copied at a time: enough that calls cost nothing, little enough for a cache.
const CHUNK: usize = 1 << 20;

pub(crate) fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Demo(args) => demo::run(args),
        Verb::Hold(args) => hold::run(args),
        Verb::Ls(args) => ls::run(args),
        Verb::Info(args) => info::run(args),
        Verb::Read(args) => read::run(args),
        Verb::Write(args) => write::run(args),
        Verb::Set(args) => dict::set::run(args),
        Verb::Get(args) => dict::get::run(args),
        Verb::Del(args) => dict::del::run(args),
        Verb::Keys(args) => dict::keys::run(args),
        Verb::Incr(args) => dict::incr::run(args),
        Verb::Export(args) => dict::export::run(args),
        Verb::Import(args) => dict::import::run(args),
        Verb::Stats(args) => dict::stats::run(args),
        Verb::Check(args) => dict::check::check(args),
        Verb::Repair(args) => dict::check::repair(args),
        Verb::Watch(args) => watch::run(args),
        Verb::Dump(args) => dump::run(args),
        Verb::Cp(args) => cp::run(args),
        Verb::Rm(args) => rm::run(args),
        Verb::Bench(args) => bench::run(args),
        Verb::Selftest(args) => selftest::run(args),
        Verb::Completions(args) => completions::run(args),
        Verb::Man(args) => man::run(args),
    }
}

/// Gives a range of a mapping's bytes to `take`, a chunk at a time; of a page that is gone, the
/// bytes before it.
fn for_chunks(
    map: &Mapping,
    (from, end): (usize, usize),
    mut take: impl FnMut(usize, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut chunk = vec![0; CHUNK.min(end - from)];
    let mut at = from;
    while at < end {
        let part = &mut chunk[..CHUNK.min(end - at)];
        let result = map.read_at(at, part);
        let got = match result.as_ref().map_err(mmf::Error::kind) {
            Ok(()) => part.len(),
            Err(ErrorKind::Fault { done, .. }) => *done,
            Err(_) => 0,
        };
        take(at, &part[..got])?;
        result?;
        at += got;
    }
    Ok(())
}

/// The offsets of a range in `size` bytes, or an error.
fn resolve(range: &Range, size: usize, object: &dyn std::fmt::Display) -> Result<(usize, usize)> {
    let from = usize::try_from(range.offset).ok().filter(|from| *from <= size);
    let Some(from) = from else {
        return Err(Failure::new(FAILED, format!("{object} has {size} bytes, and none at offset {}", range.offset)));
    };
    match range.length {
        None => Ok((from, size)),
        Some(length) => match usize::try_from(length).ok().filter(|length| *length <= size - from) {
            Some(length) => Ok((from, from + length)),
            None => Err(Failure::new(
                FAILED,
                format!("{object} has {size} bytes: {} from offset {from} on, not {length}", size - from),
            )),
        },
    }
}
