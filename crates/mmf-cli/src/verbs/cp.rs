//! `mmf cp`.

use std::time::Instant;

use indicatif::ProgressBar;
use mmf::{Access, ErrorKind, Mapping, Region};

use super::contents::replace;
use crate::cli::CpArgs;
use crate::failure::{EXISTS, FAILED, Failure, Result};
use crate::object::{Object, Opened};
use crate::output::{note, progress};
use crate::size::human;

/// Bytes between two looks at the progress bar.
const STRIDE: usize = 8 << 20;

/// The source: raw memory in place, or a copy of a region's contents.
enum Origin {
    Raw(Box<Mapping>),
    Contents(Vec<u8>),
}

impl Origin {
    fn len(&self) -> usize {
        match self {
            Origin::Raw(map) => map.len(),
            Origin::Contents(bytes) => bytes.len(),
        }
    }
}

enum Target {
    Raw(Box<Mapping>),
    Region(Box<Region>),
}

pub(crate) fn run(args: CpArgs) -> Result<()> {
    let source = open_source(&args)?;
    let (target, created) = open_target(&args, source.len())?;
    let template = "{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
    let bar = progress(args.quiet, Some(source.len() as u64), template, template);
    let started = Instant::now();
    let result = match &target {
        Target::Raw(map) => copy(&source, map, &bar),
        Target::Region(region) => copy_in(&source, region),
    };
    bar.finish_and_clear();
    if let Err(failure) = result {
        if let Some(path) = created.then(|| args.target.path()).flatten() {
            // Its size would make half a copy look whole.
            drop(target);
            let _ = std::fs::remove_file(path);
        }
        return Err(failure);
    }
    if !args.quiet {
        let seconds = started.elapsed().as_secs_f64();
        note(&format!("copied {} in {seconds:.3} s ({}/s)", human(source.len() as u64), rate(source.len(), seconds)));
    }
    Ok(())
}

fn open_source(args: &CpArgs) -> Result<Origin> {
    let object = &args.source;
    let opened = object.open_to_read(args.any_owner, args.timeout_option.timeout);
    match opened.map_err(|error| object.advise_opener(error, "--size 1M"))? {
        Opened::Raw(map) => Ok(Origin::Raw(map)),
        Opened::Region(region) => Ok(Origin::Contents(region.to_vec()?)),
        Opened::Dict(_) => {
            let typed = object.typed();
            Err(Failure::new(FAILED, format!("cannot copy {object}: it is a dict, which has no contents"))
                .hint(format!("try: mmf export {typed}"))
                .hint(format!("for its raw bytes: mmf read --raw {typed}")))
        }
        Opened::Unusable(error) => {
            Err(Failure::from(error).hint(format!("for its raw bytes, try: mmf read --raw {}", object.typed())))
        }
    }
}

/// Opens or creates the target, large enough. Returns whether it was created.
fn open_target(args: &CpArgs, wanted: usize) -> Result<(Target, bool)> {
    let object = &args.target;
    let is_file = object.path().is_some();
    let map = match object.open_as_is(Access::ReadWrite, args.any_owner, args.timeout_option.timeout) {
        Err(error) if is_file && *error.kind() == ErrorKind::NotFound => {
            let created = Mapping::options().size(wanted as u64).create_new(object.source());
            return Ok((Target::Raw(Box::new(created.map_err(|error| object.advise_creator(error))?)), true));
        }
        Err(error) => return Err(object.advise_opener(error, &format!("--size {wanted}"))),
        Ok(Opened::Unusable(error)) => {
            return Err(Failure::from(error)
                .hint(format!("nothing was written; to overwrite its bytes: mmf write --raw {}", object.typed())));
        }
        Ok(Opened::Dict(_)) => {
            let typed = object.typed();
            return Err(Failure::new(
                FAILED,
                format!("cannot copy to {object}: it is a dict, which the copy would destroy"),
            )
            .hint(format!("nothing was written; to set keys: mmf import {typed}"))
            .hint(format!("to overwrite its bytes: mmf write --raw {typed}")));
        }
        Ok(Opened::Region(region)) if region.capacity() < wanted as u64 => {
            return Err(too_small(args, wanted, &format!("room for {} bytes", region.capacity())));
        }
        Ok(Opened::Region(region)) => return Ok((Target::Region(region), false)),
        Ok(Opened::Raw(map)) => map,
    };
    match map.len() {
        len if is_file && len > wanted => Err(too_long(object, len, args, wanted)),
        len if !is_file && len < wanted => Err(too_small(args, wanted, &format!("{len} bytes"))),
        _ => {
            if is_file {
                map.grow(wanted)?;
            }
            Ok((Target::Raw(map), false))
        }
    }
}

fn too_small(args: &CpArgs, wanted: usize, has: &str) -> Failure {
    let message = format!("{} has {has}, but {} has {wanted}", args.target, args.source);
    Failure::new(FAILED, message).hint("nothing was written")
}

fn too_long(object: &Object, len: usize, args: &CpArgs, wanted: usize) -> Failure {
    let message = format!("{object} has {len} bytes already, but {} has {wanted}", args.source);
    Failure::new(EXISTS, message)
        .hint("nothing was written, because its last bytes would stay after the copy; remove it first, or")
        .hint(format!("try: mmf read {} -o {}", args.source.typed(), object.typed()))
}

fn copy(source: &Origin, target: &Mapping, bar: &ProgressBar) -> Result<()> {
    let len = source.len();
    let mut at = 0;
    while at < len {
        let step = STRIDE.min(len - at);
        match source {
            Origin::Raw(map) => map.copy_to(at..at + step, target, at)?,
            Origin::Contents(bytes) => target.write_at(at, &bytes[at..at + step])?,
        }
        at += step;
        bar.inc(step as u64);
    }
    Ok(())
}

/// A source that fails half way leaves the contents as they were.
fn copy_in(source: &Origin, target: &Region) -> Result<()> {
    match source {
        Origin::Raw(map) => replace(target, &map.read_to_vec(0, map.len())?),
        Origin::Contents(bytes) => replace(target, bytes),
    }
}

/// Bytes a second, for people.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)] // people read 3 digits
fn rate(bytes: usize, seconds: f64) -> String {
    human((bytes as f64 / seconds.max(1e-9)) as u64)
}
