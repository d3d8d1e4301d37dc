//! `mmf read`.

use std::io::Write;

use mmf::{Access, ErrorKind};

use super::{CHUNK, resolve};
use crate::cli::ReadArgs;
use crate::failure::Result;
use crate::output::{open_bytes, unwritten};

pub(crate) fn run(args: ReadArgs) -> Result<()> {
    let map = args.object.open(Access::ReadOnly, args.any_owner)?;
    let (mut at, end) = resolve(&args.range, &map, &args.object)?;
    let (mut out, target) = open_bytes(args.output.as_deref())?;
    let mut chunk = vec![0; CHUNK.min(end - at)];
    while at < end {
        let part = &mut chunk[..CHUNK.min(end - at)];
        let result = map.read_at(at, part);
        let got = match result.as_ref().map_err(mmf::Error::kind) {
            Ok(()) => part.len(),
            Err(ErrorKind::Fault { done, .. }) => *done,
            Err(_) => 0,
        };
        out.write_all(&part[..got]).map_err(|error| unwritten(error, &target))?;
        result?;
        at += got;
    }
    Ok(())
}
