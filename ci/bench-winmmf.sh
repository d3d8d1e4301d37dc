#!/usr/bin/env bash
# mmf beside winmmf, as Windows programs under Wine. What is given goes to the program: `--quick`, say.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# winmmf's C has `__try`, which GCC does not know.
packages clang
export CC_x86_64_pc_windows_gnu=clang CFLAGS_x86_64_pc_windows_gnu="--target=x86_64-w64-mingw32 -fms-extensions"
ci/windows-setup.sh
. ci/wine.sh
wine_up
foreign x86_64-pc-windows-gnu
"${FOREIGN[@]}" cargo run --release "${ARGS[@]}" --manifest-path benches/Cargo.toml --features winmmf -- winmmf "$@"
