#!/usr/bin/env bash
# Every benchmark compiles and runs once, unmeasured.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ -f benches/Cargo.toml ] || { echo "no benches yet"; exit 0; }
cargo bench --manifest-path benches/Cargo.toml -- --test
