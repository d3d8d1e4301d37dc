//! `cargo run --release -- all`: see `docs/benchmarks.md`.

use std::process::ExitCode;

fn main() -> ExitCode {
    mmf_benches::main()
}
