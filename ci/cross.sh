#!/usr/bin/env bash
# The other systems, as far as a compiler for them tells. `cargo check` and clippy do not assemble the
# assembly; building the library does, and needs no linker.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

for target in x86_64-pc-windows-msvc aarch64-pc-windows-msvc i686-pc-windows-msvc aarch64-apple-darwin; do
    echo "== $target: build"
    foreign "$target"
    "${FOREIGN[@]}" cargo build "${ARGS[@]}" -p mmf --lib
done
for target in aarch64-apple-darwin x86_64-apple-darwin x86_64-unknown-freebsd aarch64-unknown-linux-gnu \
    x86_64-unknown-linux-musl i686-unknown-linux-gnu; do
    echo "== $target: lint"
    foreign_clippy "$target" -p mmf -p mmf-cli
done
