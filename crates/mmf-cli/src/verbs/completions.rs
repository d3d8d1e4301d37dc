//! `mmf completions`.

use clap::CommandFactory;

use crate::cli::{Cli, CompletionsArgs};
use crate::failure::Result;
use crate::output::print;

pub(crate) fn run(args: CompletionsArgs) -> Result<()> {
    // Into memory first: the generator would panic when the reader goes away.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "mmf", &mut script);
    print(&String::from_utf8_lossy(&script))
}
