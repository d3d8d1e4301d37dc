//! `mmf import`.

use std::io::{BufRead, BufReader};

use mmf::Dict;

use super::export::Line;
use super::{finish, to_fill};
use crate::cli::ImportArgs;
use crate::failure::{FAILED, Failure, Result};
use crate::json::{self, exact};
use crate::output::{note, progress};
use crate::verbs::write::open_input;

pub(crate) fn run(args: ImportArgs) -> Result<()> {
    let (input, from, len) = open_input(args.input.as_deref())?;
    let dict = to_fill(&args.object, &args.making, &args.changing)?;
    let known = "{wide_bar} {binary_bytes}/{binary_total_bytes} {eta}";
    let bar = progress(args.quiet, len, known, "{spinner} {binary_bytes}");
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    let (mut number, mut set) = (0_u64, 0_u64);
    let result = loop {
        line.clear();
        match input.read_until(b'\n', &mut line) {
            Ok(0) => break Ok(()),
            Ok(read) => bar.inc(read as u64),
            Err(error) => break Err(Failure::io("read", &from, error)),
        }
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        if let Err(failure) = import(&dict, &line, &from, number) {
            break Err(failure);
        }
        set += 1;
    };
    bar.finish_and_clear();
    let told = format!("{} keys of {}", set, args.object);
    result.map_err(|failure| failure.hint(format!("{told} were set from the previous lines")))?;
    finish(&dict, &args.changing)?;
    if !args.quiet {
        note(&format!("set {told}"));
    }
    Ok(())
}

fn import(dict: &Dict, line: &[u8], from: &str, number: u64) -> Result<()> {
    let wrong = |reason: String| Failure::new(FAILED, format!("line {number} of {from} is invalid: {reason}"));
    let line: Line = json::read(line).map_err(wrong)?;
    let (encoding, bytes) = exact::parse(line.value).map_err(wrong)?;
    dict.set_encoded(&line.key, encoding, &bytes)?;
    Ok(())
}
