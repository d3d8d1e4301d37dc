#!/usr/bin/env bash
# Every test that docs/reliability.md and SECURITY.md name exists: the modules `BINARY::MODULE`, the
# test files and filters of `cargo test`, and the tests of the gems.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

documents=(docs/reliability.md SECURITY.md)
# named PATTERN: the distinct matches in the tables.
named() {
    grep -hE '^\|' "${documents[@]}" | { grep -oE "$1" || true; } | tr -d '`' | sort -u
}
missing=() checked=0
# want CONDITION... -- NAME: counts the name, and notes it if the command fails.
want() {
    local name=${*: -1}
    checked=$((checked + 1))
    "${@:1:$#-2}" >/dev/null || missing+=("$name")
}

while IFS= read -r name; do
    want test -f "crates/mmf/tests/${name%%::*}/${name#*::}.rs" -- "$name"
done < <(named '`[a-z_]+::[a-z_]+`')
while read -r package file; do
    want ls "crates/$package/tests/$file.rs" -- "$package: $file"
done < <(named 'cargo test -p [a-z-]+ --test [a-z_]+' | awk '{ print $4, $6 }')
# One line a test of the library: what a filter of `cargo test -p mmf --lib` has to match.
tests=$(cargo test -q -p mmf --lib -- --list)
while read -r filter; do
    want grep -F "$filter" -- "lib $filter" <<<"$tests"
done < <(named '(-p mmf --lib|`lib) [a-z_:]+' | awk '{ print $NF }')
while IFS= read -r name; do
    want ls bindings/ruby/*/test/"$name" -- "$name"
done < <(named '`test_[a-z_]+\.rb`')
[ "$checked" -gt 60 ] || fail "only $checked names were found"
[ ${#missing[@]} = 0 ] || fail "these tests do not exist: ${missing[*]}"
echo "$checked named tests exist"
