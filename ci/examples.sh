#!/usr/bin/env bash
# Runs the examples as a reader would: the publisher and the subscriber as two processes on a bus of
# their own.
set -euo pipefail
cd "$(dirname "$0")/.."
RINGBUS_DIR=$(mktemp -d)
export RINGBUS_DIR
trap 'rm -rf "$RINGBUS_DIR"' EXIT

# With the features that the tests were built with: nothing is compiled twice.
cargo build --quiet --locked --all-features --examples
timeout 60 cargo run --quiet --locked --all-features --example zero_copy
timeout 60 cargo run --quiet --locked --all-features --example large
timeout 60 cargo run --quiet --locked --all-features --example request
timeout 60 cargo run --quiet --locked --all-features --example agents
timeout 60 cargo run --quiet --locked --all-features --example lossy
timeout 60 cargo run --quiet --locked --all-features --example access
timeout 60 cargo run --quiet --locked --all-features --example drain
timeout 60 cargo run --quiet --locked --all-features --example pipe
timeout 60 cargo run --quiet --locked --all-features --example tower_service
timeout 60 cargo run --quiet --locked --all-features --example subscribe &
subscriber=$!
timeout 60 cargo run --quiet --locked --all-features --example publish
wait "$subscriber"
