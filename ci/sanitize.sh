#!/usr/bin/env bash
# The library's unit tests with every access checked: by the address sanitizer, which sees Rust's accesses,
# and by valgrind, which sees those of the assembly too.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

target=x86_64-unknown-linux-gnu

# The faults that tests provoke are mmf's to handle; the sanitizer would take them for its own.
ASAN_OPTIONS=handle_segv=0:handle_sigbus=0:handle_abort=0 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=target/sanitize \
    timeout 900 cargo "+$(nightly)" test -p mmf --lib --target "$target"

# Tests that valgrind cannot run, each with the reason.
not_in_valgrind=(
    # It counts the register of `rep` down before the access, so that a fault seems one byte further on.
    faults::a_destination_that_ends_too_soon
    faults::a_source_that_ends_too_soon
    faults::either_side_may_be_gone_when_both_are_shared
    faults::nothing_is_there_at_all
    validated_read::a_page_that_is_gone_is_a_fault_wherever_it_is_missed
    faults::threads_that_fault_at_once_do_not_disturb_each_other
    # It asks by an operation of `rt_sigprocmask` that does not exist, which valgrind answers
    # without a look at the address.
    system_calls::a_page_that_is_gone_cannot_be_read_and_any_other_can
    # They measure time.
    faults::a_fault_takes_microseconds
)

packages valgrind libc6-dbg
# Above level 1 the compiler compares what a tag then says was not there, which valgrind takes for a fault of ours.
binary=$(CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_TARGET_DIR=target/valgrind cargo test -p mmf --lib --release --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -x "$binary" ] || fail "no test binary of mmf"
tests=$("$binary" --list)
skip=()
for name in "${not_in_valgrind[@]}"; do
    grep -q "$name: test" <<<"$tests" || fail "no test is called $name any more"
    skip+=(--skip "$name")
done
# A handler that looks at the registers of a fault needs them as they were at that instruction.
registers=allregs-at-each-insn
# Valgrind runs one thread at a time. Without fair scheduling a thread that loops without a system
# call can keep the others from running for minutes on an idle machine.
timeout 900 valgrind --quiet --error-exitcode=99 --fair-sched=yes --vex-guest-chase=no --px-default="$registers" \
    --px-file-backed="$registers" "$binary" --test-threads=1 "${skip[@]}"
