#!/usr/bin/env bash
# README's first command: four processes on one bus; fails if one message is lost or out of order.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo run --quiet --locked --release --features cli -- demo --seconds 3 --json
