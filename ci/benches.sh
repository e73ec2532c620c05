#!/usr/bin/env bash
# Compiles the benchmarks and runs each once, for correctness: no time is looked at.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo bench --quiet --locked --benches -- --test
