#!/usr/bin/env bash
# Clippy has nothing to say, on Linux and on Windows; and the code compiles with the oldest compiler promised.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

component clippy clippy
for manifest in Cargo.toml benches/Cargo.toml fuzz/Cargo.toml; do
    cargo clippy --manifest-path "$manifest" --workspace --all-targets -- -D warnings
done
foreign_clippy x86_64-pc-windows-gnu --workspace --all-targets
ci/msrv.sh
