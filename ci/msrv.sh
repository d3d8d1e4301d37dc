#!/usr/bin/env bash
# The workspace compiles with the compiler that Cargo.toml promises as the oldest. Where rustup cannot fetch
# it, Debian 12's own packages of that release are unpacked, beside whatever release is installed.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

oldest=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
if [ -z "${WITHOUT_RUSTUP_TARGETS:-}" ] &&
    timeout 300 rustup toolchain install "$oldest" --profile minimal >/dev/null 2>&1 </dev/null; then
    compiler=$(rustup which --toolchain "$oldest" rustc)
else
    root="$PWD/target/debian-$oldest"
    compiler="$root/usr/bin/rustc"
    if [ ! -x "$compiler" ]; then
        # What the compiler is linked against, and what it links with.
        packages libllvm19 gcc libc6-dev
        version=$(apt-cache madison rustc-web | awk -v oldest="$oldest." 'index($3, oldest) == 1 { version = $3 } END { print version }')
        [ -n "$version" ] || fail "neither rustup nor Debian has Rust $oldest"
        mkdir -p "$root"
        (cd "$root" &&
            apt-get download -q "rustc-web=$version" "libstd-rust-web-dev=$version" "libstd-rust-web-$oldest=$version" &&
            for package in *.deb; do dpkg-deb -x "$package" . && rm "$package"; done)
    fi
    export LD_LIBRARY_PATH="$root/usr/lib/x86_64-linux-gnu"
fi
"$compiler" --version
RUSTC="$compiler" CARGO_TARGET_DIR=target/oldest cargo check --workspace --all-targets
