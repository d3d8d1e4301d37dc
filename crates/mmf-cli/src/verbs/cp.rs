//! `mmf cp`.

use std::io::{self, IsTerminal};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mmf::{Access, ErrorKind, Mapping};

use crate::cli::CpArgs;
use crate::failure::{EXISTS, FAILED, Failure, Result};
use crate::object::Object;
use crate::output::note;
use crate::size::human;

/// Bytes between two looks at the progress bar.
const STRIDE: usize = 8 << 20;

pub(crate) fn run(args: CpArgs) -> Result<()> {
    let source = args.source.open(Access::ReadOnly, args.any_owner)?;
    let (target, created) = open_target(&args, &source)?;
    let bar = progress(&args, source.len());
    let started = Instant::now();
    let result = copy(&source, &target, &bar);
    bar.finish_and_clear();
    if let Err(failure) = result {
        if let Some(path) = created.then(|| args.target.path()).flatten() {
            // Its size would make half a copy look whole.
            drop(target);
            let _ = std::fs::remove_file(path);
        }
        return Err(failure);
    }
    if !args.quiet {
        let seconds = started.elapsed().as_secs_f64();
        note(&format!("copied {} in {seconds:.3} s ({}/s)", human(source.len() as u64), rate(source.len(), seconds)));
    }
    Ok(())
}

/// The target, large enough, and whether it was made just now.
fn open_target(args: &CpArgs, source: &Mapping) -> Result<(Mapping, bool)> {
    let (object, wanted) = (&args.target, source.len());
    if object.path().is_none() {
        let map = object.open_to_hold(Access::ReadWrite, args.any_owner, &wanted.to_string())?;
        if map.len() < wanted {
            let message = format!("{object} has {} bytes, but {} has {wanted}", map.len(), args.source);
            return Err(Failure::new(FAILED, message).hint("nothing was written"));
        }
        return Ok((map, false));
    }
    match Mapping::options().open(object.source()) {
        Err(error) if *error.kind() == ErrorKind::NotFound => {
            Ok((object.create(&Mapping::options().size(wanted as u64))?, true))
        }
        Err(error) => Err(error.into()),
        Ok(map) if map.len() > wanted => Err(too_long(object, &map, args, wanted)),
        Ok(map) => {
            map.grow(wanted)?;
            Ok((map, false))
        }
    }
}

fn too_long(object: &Object, map: &Mapping, args: &CpArgs, wanted: usize) -> Failure {
    let message = format!("{object} has {} bytes already, but {} has {wanted}", map.len(), args.source);
    Failure::new(EXISTS, message)
        .hint("nothing was written, since its last bytes would stay behind the copy; remove it first, or")
        .hint(format!("try: mmf read {} -o {}", args.source.typed(), object.typed()))
}

fn copy(source: &Mapping, target: &Mapping, bar: &ProgressBar) -> Result<()> {
    let len = source.len();
    let mut at = 0;
    while at < len {
        let step = STRIDE.min(len - at);
        source.copy_to(at..at + step, target, at)?;
        at += step;
        bar.inc(step as u64);
    }
    Ok(())
}

fn progress(args: &CpArgs, len: usize) -> ProgressBar {
    if args.quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(len as u64), ProgressDrawTarget::stderr());
    let template = "{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Bytes a second, for people.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)] // people read 3 digits
fn rate(bytes: usize, seconds: f64) -> String {
    human((bytes as f64 / seconds.max(1e-9)) as u64)
}
