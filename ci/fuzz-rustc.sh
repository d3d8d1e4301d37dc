#!/usr/bin/env bash
# Starts rustc for `ci/fuzz.sh`. The crate that only computes checksums is compiled without coverage
# counters and debug assertions, since the target `dict` spends much of its time in it.
set -euo pipefail

rustc=$1
shift
arguments=()
[[ " $* " == *" --crate-name xxhash_rust "* ]] || exec "$rustc" "$@"
for argument in "$@"; do
    case $argument in
        -Cdebug-assertions | -Cpasses=sancov-module | -Cllvm-args=-sanitizer-coverage-*) ;;
        *) arguments+=("$argument") ;;
    esac
done
exec "$rustc" "${arguments[@]}"
