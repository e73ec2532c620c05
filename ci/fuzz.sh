#!/usr/bin/env bash
# A short run of every fuzz target; `SECONDS_EACH=3600 ci/fuzz.sh` for a long one. Needs a nightly toolchain
# (`rustup toolchain install nightly`); installs cargo-fuzz if it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
each=${SECONDS_EACH:-15}

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "error: fuzzing needs a nightly toolchain: rustup toolchain install nightly" >&2
    exit 1
fi
cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz

targets=$(cargo +nightly fuzz list)
for target in $targets; do
    echo "fuzz: $target for $each s"
    # Quiet unless it finds something: libFuzzer reports on stderr.
    log=$(mktemp)
    if ! cargo +nightly fuzz run "$target" -- -max_total_time="$each" >"$log" 2>&1; then
        cat "$log"
        exit 1
    fi
    grep -E '^Done|stat::number_of_executed_units' "$log" || tail -n 1 "$log"
    rm -f "$log"
done
