#!/usr/bin/env bash
# Programs with 32 bits: the library's tests, all of which compile, the tests between programs with
# 32 and with 64 bits, and the program `mmf` of both kinds on one region.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ "$(uname -sm)" = "Linux x86_64" ] || fail "needs Linux on x86_64"
packages gcc-multilib
mkdir -p target

# The tests between processes that are run with one kind playing the peers of the other.
# Each is a test binary and the filters of its modules.
tests=("mapping atomics::" "region sharing:: life::" "names lifetime::")
# executables SUFFIX: from cargo's messages, a line `NAME-SUFFIX PATH` for each program that was built.
executables() {
    sed -n 's/.*"target":{[^}]*"name":"\([^"]*\)".*"executable":"\([^"]*\)".*/\1'"$1"' \2/p'
}
# binaries BITS: builds the programs and the tests as FOREIGN and ARGS say, and notes where each is.
binaries() {
    "${FOREIGN[@]}" cargo build "${ARGS[@]}" -p mmf-cli -p testkit --message-format=json |
        executables "" >"target/bits-$1"
    "${FOREIGN[@]}" cargo test "${ARGS[@]}" -p mmf --test mapping --test region --test names --no-run --message-format=json |
        executables -tests >>"target/bits-$1"
}
FOREIGN=(env)
ARGS=()
binaries 64
foreign i686-unknown-linux-gnu
binaries 32
# path BITS NAME: where it is.
path() {
    local found
    found=$(awk -v name="$2" '$1 == name { print $2 }' "target/bits-$1")
    [ -x "$found" ] || fail "no $2 with $1 bits"
    echo "$found"
}

echo "== the library with 32 bits"
# All test binaries compile, and these modules run.
"${FOREIGN[@]}" cargo test "${ARGS[@]}" -p mmf --tests --no-run
counted "${FOREIGN[@]}" cargo test "${ARGS[@]}" -p mmf --lib
counted "${FOREIGN[@]}" cargo test "${ARGS[@]}" -p mmf --test dict -- operations:: damage:: full::
counted "${FOREIGN[@]}" cargo test "${ARGS[@]}" -p mmf --test hostile -- dict::
counted "${FOREIGN[@]}" cargo test "${ARGS[@]}" -p mmf --test mapping -- conformance:: cursor:: options::

for test in "${tests[@]}"; do
    read -r binary filters <<<"$test"
    for bits in 64 32; do
        echo "== $test: a program with $bits bits, its peers with $((96 - bits))"
        # shellcheck disable=SC2086
        TESTKIT_PROGRAM=$(path $((96 - bits)) "$binary-tests") timeout 300 "$(path "$bits" "$binary-tests")" $filters
    done
done

echo "== deaths at random among processes of both kinds"
TESTKIT_PROGRAM=$(path 32 testkit) timeout 300 "$(path 64 testkit)" torture --kills 500 --seconds 60

echo "== mmf of both kinds on one region"
name=bits-$$
scratch=$(mktemp -d)
holder=
trap 'rm -rf "$scratch"; [ -z "$holder" ] || kill "$holder"' EXIT
# says TEXT COMMAND...: runs the command and wants this output of it.
says() {
    local found
    found=$(timeout 30 "${@:2}") || fail "failed: ${*:2}"
    [ "$found" = "$1" ] || fail "$found came instead of $1 from: ${*:2}"
}
for bits in 64 32; do
    # Of 4 GiB a program with 32 bits uses what it can address; it cannot make them.
    capacity=4G
    [ "$bits" = 64 ] || capacity=256M
    ours=$(path "$bits" mmf)
    theirs=$(path $((96 - bits)) mmf)
    holder=$("$ours" hold "$name" --region --capacity "$capacity" --detach)
    "$theirs" watch "$name" --count 1 --timeout 60 >"$scratch/watched" &
    watcher=$!
    # Once it watches, it holds the region too, and so is one of those who take part.
    for _ in $(seq 300); do
        "$ours" info "$name" | grep -q "^ *$watcher " && break
        sleep 0.1
    done
    echo "from $bits" | "$ours" write "$name"
    wait "$watcher"
    grep -q "8 bytes" "$scratch/watched" || fail "watched: $(cat "$scratch/watched")"
    says "from $bits" "$theirs" read "$name"
    echo "back from $((96 - bits))" | "$theirs" write "$name"
    says "back from $((96 - bits))" "$ours" read "$name"
    head -c 3000000 /dev/urandom >"$scratch/much"
    "$theirs" write "$name" --input "$scratch/much"
    "$ours" read "$name" | cmp - "$scratch/much" || fail "what was written came back otherwise"
    kill "$holder"
    holder=
    for _ in $(seq 300); do
        "$theirs" info "$name" >/dev/null 2>&1 || continue 2
        sleep 0.1
    done
    fail "$name outlives its holder"
done
