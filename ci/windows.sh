#!/usr/bin/env bash
# All tests, doctests too, as Windows programs under Wine. What is given goes to `cargo test`:
# `ci/windows.sh -p testkit --test stories a_killed`; if nothing is, deaths at random come after the tests.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ci/windows-setup.sh
. ci/wine.sh
wine_up
foreign x86_64-pc-windows-gnu
# A program in C whose memory the tests open, and which opens theirs.
mkdir -p target
x86_64-w64-mingw32-gcc -O2 -o target/section.exe crates/mmf/tests/hosts/section.c
MMF_SECTION=$(wine winepath -w "$PWD/target/section.exe" 2>/dev/null | tr -d '\r')
export MMF_SECTION
# Wine can leave a program of the tests behind that was killed while it started.
trap 'pkill -KILL -f "^Z:${PWD//\//.}.target.*peer_entry" || true' EXIT
if [ $# -gt 0 ]; then
    counted "${FOREIGN[@]}" cargo test "${ARGS[@]}" "$@"
    exit 0
fi
# What the ignored tests need is here, so all tests run once, and not first without these.
counted "${FOREIGN[@]}" cargo test "${ARGS[@]}" -- --include-ignored

"${FOREIGN[@]}" cargo build "${ARGS[@]}" -p testkit
# By way of a file, as for the tests.
log=$(mktemp)
status=0
timeout 300 "${FOREIGN[@]}" cargo run --quiet "${ARGS[@]}" -p testkit -- torture --kills 500 >"$log" 2>&1 || status=$?
cat "$log"
rm -f "$log"
[ $status = 0 ] || fail "torture: exit code $status"
