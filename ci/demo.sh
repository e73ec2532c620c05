#!/usr/bin/env bash
# README's first command: four processes on one bus, one of which is killed; fails if a message is lost or out of
# order, a call does not end, or the death is not seen.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo run --quiet --locked --release --features cli -- demo --seconds 3 --json
