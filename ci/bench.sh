#!/usr/bin/env bash
# Every benchmark compiles and runs once, unmeasured.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cargo bench --manifest-path benches/Cargo.toml -- --test
