#!/usr/bin/env bash
# Every benchmark compiles and runs once, unmeasured. The comparison of builds passes its tests, and
# compares a build with itself.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cargo bench --manifest-path benches/Cargo.toml -- --test
cargo test --release --lib --manifest-path benches/Cargo.toml
cargo build --release --manifest-path benches/Cargo.toml
build=${CARGO_TARGET_DIR:-benches/target}/release/mmf-benches
# These groups take a few seconds, also on a busy machine.
"$build" compare "$build" "$build" --quick copies atomics reserve fault lifecycle locks
# Programs can read the result, and every row has an interval.
packages python3
"$build" compare "$build" "$build" --quick --json atomics lifecycle | python3 -c '
import json, sys
rows = json.load(sys.stdin)["rows"]
assert len(rows) > 20 and all(row["ratio"]["low"] <= row["ratio"]["high"] for row in rows), rows
print(len(rows), "rows compared")'
