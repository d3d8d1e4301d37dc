#!/usr/bin/env bash
# Every test that docs/reliability.md, SECURITY.md and docs/tests.md name exists: the modules
# `BINARY::MODULE`, the test files and filters of `cargo test`, and the tests of the gems. And each
# file with tests that not every system compiles is in the list of docs/tests.md.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

documents=(docs/reliability.md SECURITY.md docs/tests.md)
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
# Of each file whose tests depend on the system: its name in the list.
depends() {
    find crates/*/tests -name '*.rs' ! -path '*/support/*' | sort | while IFS= read -r file; do
        awk -v file="${file#crates/}" '
            function name(module,   part) {
                split(file, part, "/")
                if (part[1] != "mmf") return part[1] "`: `" substr(part[3], 1, length(part[3]) - 3)
                sub(/\.rs$/, "", part[4])
                if (part[4] == "") return substr(part[3], 1, length(part[3]) - 3)
                return part[3] "::" (part[4] == "main" ? module : part[4])
            }
            /^#!\[cfg\((all\()?(unix|windows|target)/ { print name(""); exit }
            /^#\[cfg\((all\()?(unix|windows|target)/ { waiting = 1; next }
            waiting && /^mod / { print name(substr($2, 1, length($2) - (/;$/ ? 1 : 0))) }
            waiting && /^#\[test\]/ { print name("") }
            !/^#\[/ { waiting = 0 }' "$file"
    done | sort -u
}
while IFS= read -r name; do
    want grep -F "\`$name\`" docs/tests.md -- "$name in docs/tests.md"
done < <(depends)
[ "$checked" -gt 60 ] || fail "only $checked names were found"
[ ${#missing[@]} = 0 ] || fail "these tests do not exist: ${missing[*]}"
echo "$checked named tests exist"
