#!/usr/bin/env bash
# The library stays light: how many crates it brings along, itself counted.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# cap TARGET NUMBER
cap() {
    local crates
    crates=$(cargo tree -p mmf -e normal --target "$1" --prefix none --no-dedupe | awk '{ print $1, $2 }' | sort -u)
    printf '%-28s %d of at most %d\n' "$1" "$(wc -l <<<"$crates")" "$2"
    [ "$(wc -l <<<"$crates")" -le "$2" ] || fail "too many crates for $1:"$'\n'"$crates"
}

cap all 8
cap x86_64-unknown-linux-gnu 5
cap x86_64-pc-windows-msvc 3
cap aarch64-apple-darwin 5
cap x86_64-unknown-freebsd 5
