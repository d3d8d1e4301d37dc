#!/usr/bin/env bash
# A module of the library uses only the layers below it, as docs/design.md draws them.
#
# It reads each `crate::MODULE` of the sources, without comments. Tests and the models may use every
# layer: the files and folders tests, models and model, and the end of a file from its `mod tests`
# on.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# What each module may use besides itself. What lib.rs reexports counts as the layer it comes from,
# so no module names it there.
declare -A below=(
    [once]=""
    [error]=""
    [name]="error"
    [types]="error name"
    [sys]="once error name types"
    [mem]="error types sys"
    [mapping]="once error name types sys mem"
    [wait]="error sys mapping"
    [lock]="error sys mapping wait"
    [segment]="error name types sys mapping wait lock"
    [region]="error name types sys mapping lock segment"
    [dict]="once error name types sys mapping segment"
)

cd crates/mmf/src
files=0 wrong=0
while read -r file; do
    files=$((files + 1))
    module=${file%%/*}
    module=${module%.rs}
    [ -n "${below[$module]+known}" ] || fail "ci/layers.sh does not know the module $module of $file"
    while read -r line used; do
        case " $module ${below[$module]} " in
            *" $used "*) ;;
            *)
                echo "crates/mmf/src/$file:$line: $module may not use $used, only: ${below[$module]:-nothing}" >&2
                wrong=$((wrong + 1))
                ;;
        esac
    done < <(awk '
        /^[[:space:]]*(pub(\([a-z]+\))? )?mod tests \{/ { exit }
        { sub(/\/\/.*/, ""); rest = $0 }
        match(rest, /crate::\{/) { print NR, "a list of modules after crate::" }
        { while (match(rest, /crate::[A-Za-z_]+/)) {
            print NR, substr(rest, RSTART + 7, RLENGTH - 7)
            rest = substr(rest, RSTART + RLENGTH)
        } }' "$file")
done < <(find . -name '*.rs' | sed 's|^\./||' | grep -vE '(^|/)(tests|models|model|power_cut_tests)(/|\.rs$)|^lib\.rs$' | sort)
# Shared memory is loaded, stored and copied by `mem` alone.
if grep -rnE 'sys::(memory|guard::(Word|copy|fill)\b)' --include='*.rs' . | grep -vE '^\./(mem|sys)/' >&2; then
    fail "an access to shared memory that is not in mem"
fi
[ "$files" -gt 50 ] || fail "only $files files were read"
[ "$wrong" = 0 ] || fail "$wrong uses of a layer that is not below"
echo "$files files use only the layers below them"
