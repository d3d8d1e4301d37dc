#!/usr/bin/env bash
# A hostile peer against every public call, for about a minute. `ci/attack.sh 5000` makes that many
# trials. The seed is printed, and each violation comes with the command that repeats it.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cargo build --release -p testkit
timeout 7200 target/release/testkit attack --trials "${1:-250}"
