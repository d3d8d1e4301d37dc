//! `mmf incr`.

use super::{finish, to_fill};
use crate::cli::IncrArgs;
use crate::failure::Result;
use crate::output::print;

pub(crate) fn run(args: IncrArgs) -> Result<()> {
    let dict = to_fill(&args.object, &args.making, &args.changing)?;
    let sum = dict.increment(&args.key, args.by)?;
    finish(&dict, &args.changing)?;
    print(&format!("{sum}\n"))
}
