# Sourced by the scripts beside it. Goes to the top of the tree, and holds what several of them need.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH="$HOME/.cargo/bin:$PATH"

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# packages NAME...: makes sure that these Debian packages are there.
packages() {
    local missing=() name
    for name in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null || true)" = installed ] || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || fail "needs these Debian packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q </dev/null
    apt-get install -y -q --no-install-recommends "${missing[@]}" </dev/null
}

# Rust links with the system's C compiler, build scripts too.
command -v cc >/dev/null || packages gcc libc6-dev

# component NAME VERB: makes sure that cargo has this verb, which that part of rustup's toolchain brings.
component() {
    cargo "$2" --version >/dev/null 2>&1 || rustup component add "$1" || fail "needs rustup's component $1"
}

# nightly: the name of the nightly toolchain.
nightly() {
    rustup toolchain list | awk '/^nightly/ && !found { print $1; found = 1 } END { exit !found }' ||
        fail "needs a nightly toolchain of rustup"
}

# foreign TARGET: how to build for another system. Sets FOREIGN, the words before `cargo`, and ARGS, those
# after its verb. Where rustup cannot fetch the target's std, Debian's compiler builds one from its sources.
foreign() {
    if [ -z "${WITHOUT_RUSTUP_TARGETS:-}" ] && timeout 300 rustup target add "$1" >/dev/null 2>&1 </dev/null; then
        FOREIGN=(env)
        ARGS=(--target "$1")
    else
        packages rustc-web rust-web-src rust-web-clippy
        # Its cargo-clippy starts the cargo that it is told of, and the clippy-driver beside itself.
        FOREIGN=(env RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc RUSTC_BOOTSTRAP=1
            CARGO="$(rustup which cargo)" CARGO_TARGET_DIR=target/debian)
        ARGS=(-Zbuild-std=std,panic_abort,panic_unwind,test --target "$1")
    fi
}

# foreign_clippy TARGET ARG...: lints for another system, after which the build of it has no warnings either.
foreign_clippy() {
    foreign "$1"
    local clippy=(cargo clippy)
    [ ${#FOREIGN[@]} = 1 ] || clippy=(/usr/bin/cargo-clippy clippy)
    "${FOREIGN[@]}" "${clippy[@]}" "${ARGS[@]}" "${@:2}" -- -D warnings
}

# counted COMMAND...: runs a `cargo test`, then the tests that it has left out, and fails if any is
# left out even then, or if there is none at all. COMMAND may end with `--` and filters. Adds the number that passed to the file $PASSED,
# from which `.ci/run` makes a sum.
counted() {
    local passed failed ignored ran left_out
    run_and_sum "$@"
    if [ "$ignored" -gt 0 ]; then
        ran=$passed left_out=$ignored
        if [[ " $* " = *" -- "* ]]; then
            run_and_sum "$@" --ignored
        else
            run_and_sum "$@" -- --ignored
        fi
        [ "$passed" -ge "$left_out" ] || fail "$left_out tests were left out, and $passed of them run"
        passed=$((ran + passed))
    fi
    echo "$passed passed, $failed failed, $ignored ignored"
    [ "$passed" -gt 0 ] && [ $((failed + ignored)) = 0 ] || fail "every test must run"
    [ -z "${PASSED:-}" ] || echo "$passed" >>"$PASSED"
}

# run_and_sum COMMAND...: sets passed, failed and ignored. Shows the output by way of a file: a pipe would be waited for
# until whatever the tests have left, under Wine a program killed while it starts, lets go of it.
run_and_sum() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 &
    tail -n +1 -s 0.2 --pid=$! -f "$log" || true
    wait $! || status=$?
    read -r passed failed ignored < <(awk '
        match($0, /test result: ok\. [0-9]+ passed; [0-9]+ failed; [0-9]+ ignored/) {
            split(substr($0, RSTART, RLENGTH), word, /[ ;]+/)
            passed += word[4]; failed += word[6]; ignored += word[8]
        }
        END { print passed + 0, failed + 0, ignored + 0 }' "$log")
    rm -f "$log"
    return $status
}
