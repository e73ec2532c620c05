#!/usr/bin/env bash
# Runs the examples as a reader would: the publisher and the subscriber as two processes on a bus of
# their own.
set -euo pipefail
cd "$(dirname "$0")/.."
RINGBUS_DIR=$(mktemp -d)
export RINGBUS_DIR
trap 'rm -rf "$RINGBUS_DIR"' EXIT

cargo build --quiet --locked --examples
timeout 60 cargo run --quiet --locked --example zero_copy
timeout 60 cargo run --quiet --locked --example large
timeout 60 cargo run --quiet --locked --example request
timeout 60 cargo run --quiet --locked --example agents
timeout 60 cargo run --quiet --locked --example lossy
timeout 60 cargo run --quiet --locked --example access
timeout 60 cargo run --quiet --locked --example drain
timeout 60 cargo run --quiet --locked --example pipe --features pipe
timeout 60 cargo run --quiet --locked --example tower_service --features tower
timeout 60 cargo run --quiet --locked --example subscribe &
subscriber=$!
timeout 60 cargo run --quiet --locked --example publish
wait "$subscriber"
