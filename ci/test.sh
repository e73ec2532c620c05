#!/usr/bin/env bash
# README's test command: unit, property, cross-process, command-line and documentation tests.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --locked --all-features
