//! `mmf get`.

use std::io::Write;

use super::{no_key, to_read};
use crate::cli::GetArgs;
use crate::failure::Result;
use crate::json;
use crate::output::{open_bytes, print, unwritten};

pub(crate) fn run(args: GetArgs) -> Result<()> {
    let dict = to_read(&args.object, &args.looking, false)?;
    let mut value = Vec::new();
    let encoding = dict.get_into(&args.key, &mut value)?.ok_or_else(|| no_key(&args.object, &args.key))?;
    // The file to write to may be the dict's.
    drop(dict);
    let (bytes, is_text) = if args.json {
        (line(json::readable(encoding, &value).line()), true)
    } else if let Some(text) = json::text(encoding, &value) {
        (line(text), true)
    } else {
        match json::bytes(encoding, value) {
            Ok(bytes) => (bytes, false),
            Err(value) => (line(json::readable(encoding, &value).line()), true),
        }
    };
    if is_text && args.output.is_none() {
        return print(&String::from_utf8_lossy(&bytes));
    }
    let (mut out, target) = open_bytes(args.output.as_deref())?;
    out.write_all(&bytes).map_err(|error| unwritten(error, &target))
}

fn line(mut text: String) -> Vec<u8> {
    text.push('\n');
    text.into_bytes()
}
