#!/usr/bin/env bash
# Clippy has nothing to say, on Linux and on Windows; and the code compiles with the oldest compiler promised.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

component clippy clippy
# What the gems' crates are made against.
packages ruby ruby-dev libclang-dev
for manifest in Cargo.toml benches/Cargo.toml fuzz/Cargo.toml bindings/ruby/Cargo.toml; do
    cargo clippy --manifest-path "$manifest" --workspace --all-targets -- -D warnings
done
# Each feature works without the other.
for features in "" dict serde; do
    cargo clippy -p mmf --lib --no-default-features --features "$features" -- -D warnings
done
foreign_clippy x86_64-pc-windows-gnu --workspace --all-targets
foreign_clippy x86_64-pc-windows-gnu --manifest-path bindings/ruby/Cargo.toml -p win32-mmap-store --all-targets
ci/msrv.sh
