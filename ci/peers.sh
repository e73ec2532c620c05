#!/usr/bin/env bash
# Builds ringbus beside its peers (those that need nothing but Rust) and runs each row once, for a moment: all have
# to work, no figure is looked at. The first build takes minutes.
set -euo pipefail
cd "$(dirname "$0")/../benches/peers"
cargo fmt --check
cargo clippy --quiet --locked -- -D warnings
cargo test --quiet --release --locked
cargo run --quiet --release --locked -- --quick
