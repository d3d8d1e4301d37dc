#!/usr/bin/env bash
# The lock, the wait queues, the recovery from deaths, and a dict's readers without a lock, in every order of events that loom
# finds within bounds: docs/decisions/0009-models.md. `ci/models.sh queue` runs those of one part.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Not together with what is built without loom.
export CARGO_TARGET_DIR=target/models
component clippy clippy
RUSTFLAGS="--cfg loom" cargo clippy -p mmf --lib --profile test -- -D warnings
RUSTFLAGS="--cfg loom" counted timeout 1800 cargo test -p mmf --lib --release "models::${1:-}"
