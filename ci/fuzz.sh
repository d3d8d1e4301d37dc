#!/usr/bin/env bash
# A short run of every fuzz target: `ci/fuzz.sh [SECONDS]`, 12 for each unless told otherwise.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

packages g++
target=x86_64-unknown-linux-gnu
# What cargo-fuzz sets, so that it need not be installed.
flags="--cfg fuzzing -Zsanitizer=address -Ccodegen-units=1 -Cdebug-assertions -Cpasses=sancov-module"
for flag in level=4 inline-8bit-counters pc-table trace-compares; do
    flags+=" -Cllvm-args=-sanitizer-coverage-$flag"
done
RUSTC_WRAPPER="$PWD/ci/fuzz-rustc.sh" RUSTFLAGS="$flags" CARGO_TARGET_DIR=target/fuzz \
    cargo "+$(nightly)" build --manifest-path fuzz/Cargo.toml --release --target "$target" --bins
ran=0
# Files of the targets are in memory: what they flush must not wait for a disk. A target that is
# interrupted or crashes leaves its directory.
TMPDIR=$(mktemp -d /dev/shm/mmf-fuzz.XXXXXX)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
# The defaults keep 256 MiB of freed memory and 30 frames of each allocation, which costs a fifth of
# the time.
export ASAN_OPTIONS=handle_segv=0:handle_sigbus=0:quarantine_size_mb=8:malloc_context_size=8
while read -r name; do
    mkdir -p "fuzz/corpus/$name" "fuzz/artifacts/$name"
    "target/fuzz/$target/release/$name" -max_total_time="${1:-12}" -len_control=0 -max_len=512 \
        -timeout=60 -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$name/" "fuzz/corpus/$name"
    ran=$((ran + 1))
done < <(cargo metadata --manifest-path fuzz/Cargo.toml --no-deps --format-version 1 |
    grep -o '"kind":\["bin"\],"crate_types":\["bin"\],"name":"[^"]*"' | sed 's/.*"name":"//; s/"$//')
[ "$ran" -gt 0 ] || fail "fuzz/ holds no target"
