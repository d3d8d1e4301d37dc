#!/usr/bin/env bash
# The library stays light: how many crates it brings along, itself counted.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# cap TARGET NUMBER [OPTIONS]: with all features, unless the options say otherwise.
cap() {
    local crates
    crates=$(cargo tree -p mmf -e normal --target "$1" "${@:3}" --prefix none --no-dedupe | awk '{ print $1, $2 }' | sort -u)
    printf '%-28s %d of at most %d %s\n' "$1" "$(wc -l <<<"$crates")" "$2" "${*:3}"
    [ "$(wc -l <<<"$crates")" -le "$2" ] || fail "too many crates for $1:"$'\n'"$crates"
}

# What encodes values is five crates.
cap x86_64-unknown-linux-gnu 11
cap x86_64-pc-windows-msvc 9
cap aarch64-apple-darwin 11
cap x86_64-unknown-freebsd 11
cap x86_64-unknown-linux-gnu 6 --no-default-features
cap x86_64-pc-windows-msvc 4 --no-default-features
