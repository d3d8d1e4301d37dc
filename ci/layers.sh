#!/usr/bin/env bash
# A module of the library uses only the layers below it, as docs/design.md draws them; within the
# dict, a folder uses only the folders below it.
#
# It reads each `crate::MODULE` and `crate::dict::FOLDER` of the sources, without comments. Tests
# and the models may use every layer: the files and folders tests, models and model, and the end of
# a file from its `mod tests` on.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The layers below each module. No module names what lib.rs reexports.
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
    [dict]="once error name types sys mem mapping segment"
)

# The layers below each folder of the dict; handle is the file of the struct Dict.
declare -A folders=(
    [format]=""
    [store]="format"
    [handle]="format store"
    [read]="format store handle"
    [recovery]="format store handle read"
    [write]="format store handle read recovery"
    [api]="format store handle read recovery write"
)
# The layers of the names that dict/mod.rs reexports.
declare -A reexports=(
    [Dict]=handle [Encoding]=format [Entry]=read [Report]=recovery [Problem]=recovery [Stats]=recovery
    [DictOptions]=api [Entries]=api
)

cd crates/mmf/src
files=0 wrong=0

# Prints the number of the line and the name behind each PREFIX of a file.
names() {
    awk -v prefix="$1" '
        /^[[:space:]]*(pub(\([a-z]+\))? )?mod tests \{/ { exit }
        { sub(/\/\/.*/, ""); rest = $0 }
        {
            while (i = index(rest, prefix)) {
                rest = substr(rest, i + length(prefix))
                if (sub(/^\{/, "", rest)) {
                    n = split(rest, all, /[{}, ]+/)
                    for (k = 1; k <= n; k++) { sub(/::.*/, "", all[k]); if (all[k] ~ /^[A-Za-z_]+$/) print NR, all[k] }
                } else if (match(rest, /^[A-Za-z_]+/)) print NR, substr(rest, 1, RLENGTH)
            }
        }' "$2"
}

refuse() {
    echo "crates/mmf/src/$1:$2: $3 may not use $4, only: ${5:-nothing}" >&2
    wrong=$((wrong + 1))
}

while read -r file; do
    files=$((files + 1))
    module=${file%%/*}
    module=${module%.rs}
    [ -n "${below[$module]+known}" ] || fail "ci/layers.sh does not know the module $module of $file"
    while read -r line used; do
        case " $module ${below[$module]} " in
            *" $used "*) ;;
            *) refuse "$file" "$line" "$module" "$used" "${below[$module]}" ;;
        esac
    done < <(names crate:: "$file")
    [[ $file = dict/* && $file != dict/mod.rs ]] || continue
    folder=${file#dict/}
    folder=${folder%%/*}
    folder=${folder%.rs}
    [ -n "${folders[$folder]+known}" ] || fail "ci/layers.sh does not know the folder $folder of $file"
    while read -r line used; do
        used=${reexports[$used]-$used}
        case " $folder ${folders[$folder]} " in
            *" $used "*) ;;
            *) refuse "$file" "$line" "dict/$folder" "$used" "${folders[$folder]}" ;;
        esac
    done < <(names crate::dict:: "$file")
done < <(find . -name '*.rs' | sed 's|^\./||' | grep -vE '(^|/)(tests|models|model|power_cut_tests|[a-z_]*_tests|golden)(/|\.rs$)|^lib\.rs$' | sort)
# Shared memory is loaded, stored and copied by `mem` alone.
if grep -rnE 'sys::(memory|guard::(Word|copy|fill)\b)' --include='*.rs' . | grep -vE '^\./(mem|sys)/' >&2; then
    fail "an access to shared memory that is not in mem"
fi
[ "$files" -gt 50 ] || fail "only $files files were read"
[ "$wrong" = 0 ] || fail "$wrong uses of a layer that is not below"
echo "$files files use only the layers below them"
