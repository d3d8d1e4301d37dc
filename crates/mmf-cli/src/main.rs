//! `mmf`: share memory between processes from the shell.

mod bench;
mod cli;
mod demo;
mod failure;
mod json;
mod lifetime;
mod object;
mod output;
mod quoting;
mod size;
mod system;
mod time;
mod verbs;

use clap::Parser;

fn main() {
    let cli = cli::Cli::parse();
    let code = match verbs::run(cli.verb) {
        Ok(()) => 0,
        Err(failure) => {
            failure.report();
            failure.code()
        }
    };
    std::process::exit(code);
}
