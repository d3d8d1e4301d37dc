//! `mmf write`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use mmf::{Access, Mapping};

use super::CHUNK;
use crate::cli::WriteArgs;
use crate::failure::{FAILED, Failure, Result};

pub(crate) fn run(args: WriteArgs) -> Result<()> {
    let (mut input, from, known) = open_input(args.input.as_deref())?;
    let map = args.object.open(Access::ReadWrite, args.any_owner)?;
    let size = map.len();
    let start = usize::try_from(args.offset).ok().filter(|at| *at <= size);
    let Some(start) = start else {
        return Err(Failure::new(
            FAILED,
            format!("{} has {size} bytes, and none at offset {}", args.object, args.offset),
        ));
    };
    let room = size - start;
    if let Some(bytes) = known.filter(|bytes| *bytes > room as u64) {
        let message = format!("{from} has {bytes} bytes, but {room} fit into {} at offset {start}", args.object);
        return Err(Failure::new(FAILED, message).hint("nothing was written"));
    }
    let written = copy_in(&mut *input, &from, &map, start)?;
    if written == room && has_more(&mut *input, &from)? {
        let message = format!("{from} has more than the {room} bytes that fit into {} at offset {start}", args.object);
        return Err(Failure::new(FAILED, message).hint("those that fit were written"));
    }
    if args.flush {
        map.sync(start..start + written)?;
    }
    Ok(())
}

/// Where bytes come from, what to call it, and how many they are, where that is known before.
fn open_input(path: Option<&Path>) -> Result<(Box<dyn Read>, String, Option<u64>)> {
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

/// Copies until the input or the mapping ends, and tells how much.
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
