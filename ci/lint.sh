#!/usr/bin/env bash
# Form: formatting, clippy with all features and with none, documentation, and how small the library is.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTDOCFLAGS="${RUSTDOCFLAGS:-} -D warnings"

cargo fmt --all --check
cargo clippy --quiet --locked --all-targets --all-features -- -D warnings
cargo clippy --quiet --locked --all-targets --no-default-features -- -D warnings
# Each feature adds to the library by itself.
for feature in cli pipe tower; do
    cargo clippy --quiet --locked --lib --features "$feature" -- -D warnings
done
cargo doc --quiet --locked --no-deps --all-features

# The library without features: what every user of it builds.
crates=$(cargo tree --locked --edges normal,build --no-default-features --prefix none --format '{p}' |
    sed 's/ (.*//' | sort -u | wc -l)
echo "library without features: $crates crates (at most 40)"
test "$crates" -le 40
