#!/usr/bin/env bash
# The long forms of what `.ci/run` runs in a short form: several hours on two cores. `ci/full.sh
# PART...` runs these parts alone, by the names below. Each part runs to its end; the script fails
# if one has failed.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# All models, which CI runs as well.
models() { ci/models.sh; }
torture() { ci/torture.sh 20000; }
# Each instruction of each operation that changes shared memory, one death each.
death() {
    cargo build --release -p testkit
    timeout 14400 target/release/testkit death --all
    timeout 14400 target/release/testkit death --dict --all
}
attack() { ci/attack.sh 5000; }
# Seconds for each target.
fuzz() { ci/fuzz.sh 600; }
# Forks of a process in the middle of a first use.
forks() { MMF_FORKS=10000 timeout 7200 cargo test --release -p mmf --test process first_use::; }
# Power cuts of a file's dict.
replays() { MMF_REPLAYS=1000 timeout 14400 cargo test --release -p mmf --lib dict::power_cut_tests; }
# Syncs that fail, and pages that go back.
failures() { MMF_FAILURES=1000 timeout 14400 cargo test --release -p mmf --lib dict::power_cut_tests::failing_syncs; }
# Operations of several processes, compared with a map.
cases() { MMF_CASES=2000 timeout 14400 cargo test --release -p mmf --test dict model::; }
# Space after many changes.
space() { MMF_CHANGES=1000000 timeout 14400 cargo test --release -p mmf --test dict space::; }

parts=(models torture death attack fuzz forks replays failures cases space)
failed=()
for part in "${@:-${parts[@]}}"; do
    [[ " ${parts[*]} " = *" $part "* ]] || fail "no part is called $part: there are ${parts[*]}"
    echo "==== $part"
    start=$SECONDS
    # In a shell of its own, where the first command that fails ends the part.
    set +e
    (set -e; "$part") </dev/null
    status=$?
    set -e
    echo "==== $part: $((SECONDS - start)) s, exit code $status"
    [ $status = 0 ] || failed+=("$part")
done
[ ${#failed[@]} = 0 ] || fail "failed: ${failed[*]}"
