//! `mmf del`.

use super::{finish, to_change};
use crate::cli::DelArgs;
use crate::failure::{FAILED, Failure, Result};

pub(crate) fn run(args: DelArgs) -> Result<()> {
    let dict = to_change(&args.object, &args.changing)?;
    let missing = dict.transaction(|tx| {
        let mut missing = Vec::new();
        for key in &args.keys {
            if !tx.remove(key)? {
                missing.push(format!("{key:?}"));
            }
        }
        Ok(missing)
    })?;
    finish(&dict, &args.changing)?;
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(FAILED, format!("{} has no key {}", args.object, missing.join(", ")))),
    }
}
