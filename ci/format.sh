#!/usr/bin/env bash
# All Rust code has the one format.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

component rustfmt fmt
for manifest in Cargo.toml benches/Cargo.toml fuzz/Cargo.toml bindings/ruby/Cargo.toml; do
    cargo fmt --manifest-path "$manifest" --all -- --check
done
