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

log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
export log each

# Quiet unless something is found: compilers and libFuzzer report on stderr.
if ! cargo +nightly fuzz build >"$log/build" 2>&1; then
    cat "$log/build"
    exit 1
fi

fuzz() { # TARGET
    if ! cargo +nightly fuzz run "$1" -- -max_total_time="$each" >"$log/$1" 2>&1; then
        cat "$log/$1"
        echo "fuzz: $1 failed"
        return 1
    fi
    echo "fuzz: $1 for $each s: $(grep -E '^Done|stat::number_of_executed_units' "$log/$1" || tail -n 1 "$log/$1")"
}
export -f fuzz

# One for each of the two processors that this takes.
cargo +nightly fuzz list | xargs -P 2 -I '{}' bash -c 'fuzz {}'
