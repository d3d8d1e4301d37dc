#!/usr/bin/env bash
# The checks for every edit: the format, the layers, clippy, the library's unit tests and the test
# binaries that take seconds. Under two minutes on two cores once the dependencies are compiled.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

component rustfmt fmt
component clippy clippy
cargo fmt --all -- --check
ci/layers.sh
cargo clippy --workspace --all-targets -- -D warnings
cargo test -q -p mmf --lib --test format --test mapping --test names --test region
