//! `mmf incr`.

use mmf::ErrorKind;

use super::{finish, to_fill};
use crate::cli::IncrArgs;
use crate::failure::{FAILED, Failure, Result};
use crate::output::print;

pub(crate) fn run(args: IncrArgs) -> Result<()> {
    let dict = to_fill(&args.object, &args.making, &args.changing)?;
    let sum = dict.increment(&args.key, args.by).map_err(|error| match error.kind() {
        ErrorKind::Mismatch { .. } => {
            let message =
                format!("the value of {:?} in {} is not an integer from -2^63 to 2^63 - 1", args.key, args.object);
            Failure::new(FAILED, message).hint(format!("see: mmf get --json {} {}", args.object.typed(), args.key))
        }
        _ => error.into(),
    })?;
    finish(&dict, &args.changing)?;
    print(&format!("{sum}\n"))
}
