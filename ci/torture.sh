#!/usr/bin/env bash
# Death at random, and of holders whose lock somebody waits for, more of it than the tests do. `ci/torture.sh 100000` kills
# that often.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cargo build --release -p testkit
timeout 900 target/release/testkit torture --kills "${1:-5000}"
timeout 900 target/release/testkit torture --dict --kills "${1:-5000}" --seconds 120
timeout 300 target/release/testkit handover --kills 500
