//! `mmf write`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use mmf::{Access, Mapping, Region};

use super::CHUNK;
use super::contents::{locked, replace};
use crate::cli::WriteArgs;
use crate::failure::{FAILED, Failure, Result};
use crate::object::Opened;

pub(crate) fn run(args: WriteArgs) -> Result<()> {
    let input = open_input(args.input.as_deref())?;
    let reach = &args.reach;
    if reach.raw {
        return write_raw(&args, input, &args.object.open(Access::ReadWrite, reach.any_owner)?);
    }
    let opened = args.object.open_as_is(Access::ReadWrite, reach.any_owner, reach.timeout_option.timeout);
    match opened.map_err(|error| args.object.advise_opener(error, "--size 1M"))? {
        Opened::Raw(map) => write_raw(&args, input, &map),
        Opened::Region(region) => write_region(&args, input, region),
        Opened::Dict(_) => Err(Failure::new(
            FAILED,
            format!("cannot write to {}: it is a dict, which raw bytes would destroy", args.object),
        )
        .hint(format!("nothing was written; to set keys: mmf set {} KEY=TEXT, or mmf import", args.object.typed()))
        .hint("to overwrite its bytes anyway: --raw")),
        Opened::Unusable(error) => Err(Failure::from(error)
            .hint("nothing was written, because that could destroy data of other programs")
            .hint("to overwrite its bytes anyway: --raw")),
    }
}

fn write_raw(args: &WriteArgs, (mut input, from, known): Input, map: &Mapping) -> Result<()> {
    let (start, room) = room(args, map.len() as u64, "bytes")?;
    if let Some(bytes) = known.filter(|bytes| *bytes > room as u64) {
        return Err(too_long(args, &from, bytes, start, room));
    }
    let written = copy_in(&mut *input, &from, map, start)?;
    if written == room && has_more(&mut *input, &from)? {
        let message = format!("{from} has more than the {room} bytes that fit into {} at offset {start}", args.object);
        return Err(Failure::new(FAILED, message).hint("the bytes that fit were written"));
    }
    if args.flush {
        map.sync(start..start + written)?;
    }
    Ok(())
}

fn write_region(args: &WriteArgs, (input, from, known): Input, region: Box<Region>) -> Result<()> {
    let (start, room) = room(args, region.capacity(), "bytes of capacity")?;
    if let Some(bytes) = known.filter(|bytes| *bytes > room as u64) {
        return Err(too_long(args, &from, bytes, start, room));
    }
    // The input is read before the lock is taken, so that no process waits for a slow input. One
    // byte too many shows that it does not fit.
    let mut bytes = Vec::new();
    input
        .take((room as u64).saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::io("read", &from, error))?;
    if bytes.len() > room {
        let message = format!("{from} has more than the {room} bytes that fit into {} at offset {start}", args.object);
        return Err(Failure::new(FAILED, message).hint("nothing was written"));
    }
    match args.offset {
        None => replace(&region, &bytes)?,
        Some(_) => match locked(region.write())? {
            (mut guard, false) => guard.write_at(start, &bytes)?,
            (_, true) => {
                let message =
                    format!("{} is poisoned: a writer died or panicked in the middle of a change", args.object);
                return Err(Failure::new(FAILED, message).hint(
                    "nothing was written; without --offset the input replaces all contents, and the poison is cleared",
                ));
            }
        },
    }
    if args.flush {
        // The region's view is closed first; a new mapping of the file then syncs its changes.
        drop(region);
        args.object.open(Access::ReadWrite, args.reach.any_owner)?.sync(..)?;
    }
    Ok(())
}

/// The offset of the first byte, and the number of bytes that fit.
fn room(args: &WriteArgs, size: u64, of: &str) -> Result<(usize, usize)> {
    let offset = args.offset.unwrap_or(0);
    match size.checked_sub(offset).map(|room| (usize::try_from(offset), room)) {
        // A region may have room for more than this process could hold.
        Some((Ok(start), room)) => Ok((start, usize::try_from(room).unwrap_or(usize::MAX))),
        _ => Err(Failure::new(FAILED, format!("{} has {size} {of}, and none at offset {offset}", args.object))),
    }
}

fn too_long(args: &WriteArgs, from: &str, bytes: u64, start: usize, room: usize) -> Failure {
    let message = format!("{from} has {bytes} bytes, but {room} fit into {} at offset {start}", args.object);
    Failure::new(FAILED, message).hint("nothing was written")
}

/// The source of bytes, its name in messages, and its length, if known.
pub(super) type Input = (Box<dyn Read>, String, Option<u64>);

pub(super) fn open_input(path: Option<&Path>) -> Result<Input> {
    let Some(path) = path else {
        return Ok((Box::new(io::stdin().lock()), "standard input".to_owned(), None));
    };
    let failed = |error| Failure::io("open", path.display(), error);
    let file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if about.is_dir() {
        return Err(Failure::new(FAILED, format!("cannot read {}: it is a directory", path.display())));
    }
    Ok((Box::new(file), path.display().to_string(), about.is_file().then_some(about.len())))
}

/// Copies until the input or the mapping ends. Returns the number of bytes.
fn copy_in(input: &mut dyn Read, from: &str, map: &Mapping, start: usize) -> Result<usize> {
    let end = map.len();
    let mut chunk = vec![0; CHUNK.min(end - start)];
    let mut at = start;
    while at < end {
        let room = CHUNK.min(end - at);
        match input.read(&mut chunk[..room]) {
            Ok(0) => break,
            Ok(got) => {
                map.write_at(at, &chunk[..got])?;
                at += got;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::io("read", from, error)),
        }
    }
    Ok(at - start)
}

fn has_more(input: &mut dyn Read, from: &str) -> Result<bool> {
    loop {
        match input.read(&mut [0]) {
            Ok(got) => return Ok(got > 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::io("read", from, error)),
        }
    }
}
