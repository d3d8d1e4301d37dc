//! `mmf get`.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use super::{no_key, to_read};
use crate::cli::GetArgs;
use crate::failure::{Failure, Result, USAGE};
use crate::json;
use crate::output::{open_bytes, print, unwritten};
use crate::quoting::escaped_but;

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
    let to_terminal = args.output.is_none() && io::stdout().is_terminal();
    if is_text && args.output.is_none() {
        let text = String::from_utf8_lossy(&bytes);
        // A pipe gets it as it is.
        return if to_terminal { print(&escaped_but(&text, &['\n', '\t'])) } else { print(&text) };
    }
    if to_terminal && !matches!(escaped_but(&String::from_utf8_lossy(&bytes), &['\n', '\t']), Cow::Borrowed(_)) {
        let message =
            format!("cannot write the bytes of {:?} to a terminal: they contain control characters", args.key);
        return Err(Failure::new(USAGE, message)
            .hint("try: the same command with -o FILE, with --json, or with a pipe to `xxd`"));
    }
    let (mut out, target) = open_bytes(args.output.as_deref())?;
    out.write_all(&bytes).map_err(|error| unwritten(error, &target))
}

fn line(mut text: String) -> Vec<u8> {
    text.push('\n');
    text.into_bytes()
}
