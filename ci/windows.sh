#!/usr/bin/env bash
# All tests, doctests too, as Windows programs under Wine. What is given goes to `cargo test`:
# `ci/windows.sh -p testkit --test stories a_killed`.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ci/windows-setup.sh
. ci/wine.sh
wine_up
foreign x86_64-pc-windows-gnu
counted "${FOREIGN[@]}" cargo test "${ARGS[@]}" "$@"
