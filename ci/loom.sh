#!/usr/bin/env bash
# Model-checks the ring: the shipped reader, writer, gates and waiters under every interleaving that loom
# explores; arguments select models by name. They stand in src/ring/models.rs; each states its preemption bound.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- ring::models
# A target directory of its own: --cfg loom rebuilds everything, and would do so again for the next step.
RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom" \
    cargo test --quiet --profile loom --locked --lib -- "$@"
