#!/usr/bin/env bash
# What the feature `aeron` needs to build: CMake 3.30 or later and libclang, from PyPI, in a venv under target/.
# Prints the settings for a shell:
#
#     eval "$(benches/peers/tools.sh)"
set -euo pipefail
cd "$(dirname "$0")"

need() {
    if ! command -v "$1" >/dev/null; then
        echo "error: $1 is missing: apt-get install $2" >&2
        exit 1
    fi
}
need python3 python3-venv
need c++ g++
need pkg-config pkg-config
if ! pkg-config --exists uuid; then
    echo "error: libuuid's headers are missing: apt-get install uuid-dev" >&2
    exit 1
fi

venv=$PWD/target/tools
if [ ! -x "$venv/bin/cmake" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet 'cmake>=3.30,<4' libclang >&2
fi
libclang=$(find "$venv" -name 'libclang.so*' -printf '%h\n' -quit)
# The wheel has libclang without its headers: those of the compiler serve as well.
headers=$(cc -print-file-name=include)

echo "export PATH='$venv/bin':\"\$PATH\""
echo "export LIBCLANG_PATH='$libclang'"
echo "export BINDGEN_EXTRA_CLANG_ARGS='-I$headers'"
