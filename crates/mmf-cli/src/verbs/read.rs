//! `mmf read`.

use std::io::Write;
use std::path::Path;

use super::contents::Contents;
use crate::cli::ReadArgs;
use crate::failure::{Failure, Result, USAGE};
use crate::output::{open_bytes, unwritten};

pub(crate) fn run(args: ReadArgs) -> Result<()> {
    let contents = Contents::open(&args.object, &args.reach, &args.range)?;
    if let (Some(from), Some(to)) = (args.object.path(), &args.output) {
        if is_same_file(from, to) {
            return Err(Failure::new(USAGE, format!("cannot replace {} by itself", from.display())));
        }
    }
    let (mut out, target) = open_bytes(args.output.as_deref())?;
    contents.for_chunks(|_, bytes| out.write_all(bytes).map_err(|error| unwritten(error, &target)))
}

/// What does not exist yet is no file.
fn is_same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}
