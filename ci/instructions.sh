#!/usr/bin/env bash
# Counts the instructions that a message takes (callgrind), and fails if anything takes a tenth more than is
# recorded for this compiler in ci/instructions/; `ci/instructions.sh --record` records what it counts, and
# `ci/instructions.sh --functions 'KERNEL'` shows where they are. Needs valgrind, and installs it where apt can.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v valgrind >/dev/null; then
    echo "valgrind is missing: installing it"
    sudo=$([ "$(id -u)" = 0 ] || echo sudo)
    if ! { $sudo apt-get -qq update && $sudo apt-get -qq install -y valgrind; } >/dev/null; then
        echo "error: valgrind could not be installed: install it by hand" >&2
        exit 1
    fi
fi

record=ci/instructions/$(rustc --version | cut -d' ' -f2).json
case "${1:---compare}" in
--compare | --record) args=("${1:---compare}" "$PWD/$record") ;;
--functions) args=("$@") ;;
*)
    echo "usage: ci/instructions.sh [--record | --functions KERNEL]" >&2
    exit 2
    ;;
esac
cargo bench --quiet --locked --bench instructions -- "${args[@]}"
