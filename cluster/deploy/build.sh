#!/bin/sh
# Builds one preset: configures when needed, compiles what changed, and prints only what went wrong.
#
#   sh cluster/deploy/build.sh release [TARGET...]
set -eu
cd "$(dirname "$0")/../.."
preset=${1:-release}
[ $# -gt 0 ] && shift
mkdir -p build
log="build/$preset.log"
[ -f "build/$preset/build.ninja" ] || cmake --preset "$preset" >"$log" 2>&1 || {
    cat "$log" >&2
    exit 70
}
cmake --build --preset "$preset" ${1:+--target "$@"} >"$log" 2>&1 || {
    cat "$log" >&2
    exit 70
}
