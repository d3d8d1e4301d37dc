#!/usr/bin/env bash
# The library stays light: how many crates it brings along, itself counted.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# cap TARGET NUMBER [OPTIONS]: with the default features, unless the options say otherwise.
cap() {
    local crates
    crates=$(cargo tree -p mmf -e normal --target "$1" "${@:3}" --prefix none --no-dedupe | awk '{ print $1, $2 }' | sort -u)
    printf '%-28s %d of at most %d %s\n' "$1" "$(wc -l <<<"$crates")" "$2" "${*:3}"
    [ "$(wc -l <<<"$crates")" -le "$2" ] || fail "too many crates for $1:"$'\n'"$crates"
}

for target in x86_64-unknown-linux-gnu x86_64-pc-windows-msvc aarch64-apple-darwin x86_64-unknown-freebsd; do
    cap "$target" 12
    cap "$target" 20 --all-features
    cap "$target" 7 --no-default-features
done
