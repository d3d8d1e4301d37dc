//! `mmf read`.

use std::io::Write;

use super::contents::Contents;
use crate::cli::ReadArgs;
use crate::failure::{Failure, Result, USAGE};
use crate::output::{open_bytes, unwritten};
use crate::system;

pub(crate) fn run(args: ReadArgs) -> Result<()> {
    let contents = Contents::open(&args.object, &args.reach, &args.range)?;
    if let (Some(from), Some(to)) = (args.object.path(), &args.output) {
        if system::is_same_file(from, to) {
            return Err(Failure::new(USAGE, format!("cannot replace {} by itself", from.display())));
        }
    }
    let (mut out, target) = open_bytes(args.output.as_deref())?;
    contents.for_chunks(|_, bytes| out.write_all(bytes).map_err(|error| unwritten(error, &target)))
}
