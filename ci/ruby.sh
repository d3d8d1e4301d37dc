#!/usr/bin/env bash
# The gems in bindings/ruby: their Rust side here and as Windows programs under Wine, their Ruby side here, and that a
# packed gem builds from its own sources without a network.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

packages ruby ruby-dev libclang-dev make rake rake-compiler ruby-test-unit ruby-msgpack
bindings="$PWD/bindings/ruby"

counted cargo test --manifest-path "$bindings/Cargo.toml"
log=$(mktemp)
scratch=$(mktemp -d)
trap 'rm -rf "$log" "$scratch"' EXIT
for gem in "$bindings"/*/*.gemspec; do
    (cd "${gem%/*}" && timeout 900 rake test) | tee "$log"
    # The closing line of test-unit: "40 tests, 150 assertions, 0 failures, …".
    tests=$(sed -n 's/^\([0-9]*\) tests, .* 0 failures, 0 errors, 0 pendings, 0 omissions, .*/\1/p' "$log")
    [ "${tests:-0}" -gt 0 ] || fail "every test of $gem must run"
    [ -z "${PASSED:-}" ] || echo "$tests" >>"$PASSED"
done

# As a user does who has neither this clone nor a network; and then what the gem's README shows first.
for gem in "$bindings"/*/*.gemspec; do
    (cd "${gem%/*}" && timeout 300 rake build)
    CARGO_HOME="$scratch/cargo" CARGO_NET_OFFLINE=true timeout 900 \
        gem install --local --no-document --install-dir "$scratch/gems" "${gem%/*}"/pkg/*.gem
    awk '/^```/ { if (inside) exit; inside = /ruby/; next } inside' "${gem%/*}/README.md" >"$scratch/example.rb"
    [ -s "$scratch/example.rb" ] || fail "the README of $gem has no example"
    (cd "$scratch" && GEM_PATH="$scratch/gems:$(gem env gempath)" timeout 60 ruby -w example.rb)
done

# What is Windows' own: the semaphore, sections, sizes.
ci/windows-setup.sh
. ci/wine.sh
wine_up
foreign x86_64-pc-windows-gnu
counted "${FOREIGN[@]}" cargo test "${ARGS[@]}" --manifest-path "$bindings/Cargo.toml" -p win32-mmap-store
