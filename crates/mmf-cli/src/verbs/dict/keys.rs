//! `mmf keys`.

use super::to_read;
use crate::cli::KeysArgs;
use crate::failure::Result;
use crate::output::{print, print_json};
use crate::quoting::key_line;

pub(crate) fn run(args: KeysArgs) -> Result<()> {
    let mut keys = to_read(&args.object, &args.looking, true)?.keys()?;
    keys.sort_unstable();
    if args.json {
        return print_json(&keys);
    }
    if args.null {
        return print(&keys.iter().flat_map(|key| [key, "\0"]).collect::<String>());
    }
    print(&keys.iter().flat_map(|key| [key_line(key), "\n".into()]).collect::<String>())
}
