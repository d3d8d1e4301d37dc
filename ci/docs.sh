#!/usr/bin/env bash
# The documentation builds without a warning: what users read, and what developers read. The program's crate
# is left out, whose pages would fall on those of the library of the same name.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

export RUSTDOCFLAGS="-D warnings"
cargo doc --no-deps -p mmf -p testkit
cargo doc --no-deps -p mmf -p testkit --document-private-items
