#!/usr/bin/env bash
# The library's unit tests with every access checked: by the address sanitizer, which sees Rust's accesses,
# and by valgrind, which sees those of the assembly too.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

target=x86_64-unknown-linux-gnu

# The faults that tests provoke are mmf's to handle; the sanitizer would take them for its own.
ASAN_OPTIONS=handle_segv=0:handle_sigbus=0:handle_abort=0 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=target/sanitize \
    timeout 900 cargo "+$(nightly)" test -p mmf --lib --target "$target"

# Tests that valgrind cannot run, one a line: the reason, then the name.
not_in_valgrind=(
)

packages valgrind libc6-dbg
binary=$(cargo test -p mmf --lib --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -x "$binary" ] || fail "no test binary of mmf"
skip=()
for name in "${not_in_valgrind[@]}"; do skip+=(--skip "$name"); done
timeout 900 valgrind --quiet --error-exitcode=99 "$binary" --test-threads=1 "${skip[@]}"
