//! `cargo bench` does the same as `cargo run --release`; `cargo bench -- --test` is its `--quick`.

use std::process::ExitCode;

fn main() -> ExitCode {
    mmf_benches::main()
}
