#!/usr/bin/env bash
# All tests on this machine: in threads of one process as `cargo test` runs them, and where cargo-nextest is
# there, each in a process of its own.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# What the ignored tests need: other languages' programs, and tools that change users and mounts.
packages python3 ruby util-linux mount e2fsprogs btrfs-progs

counted cargo test "$@"
if cargo nextest --version >/dev/null 2>&1; then
    # The tests left out start processes of their own for all that they do, and take long.
    cargo nextest run --run-ignored all \
        -E 'not (binary(attack) | binary(process) & test(/^(death|torture)::/))' "$@"
fi
ci/named_tests.sh
