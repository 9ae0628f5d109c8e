#!/bin/sh
# Installs what Sluice is built and run with, from Debian's packages. Does nothing (and needs no rights) when
# everything is there already.
#
#   sh cluster/deploy/install-deps.sh          # build and run
#   sh cluster/deploy/install-deps.sh --tests  # what only the tests use, too
#   sh cluster/deploy/install-deps.sh --slow   # and what only the slow tests use: clang with libFuzzer
set -eu

packages="build-essential cmake ninja-build pkg-config git
libopenmpi-dev openmpi-bin libzmq3-dev libmsgpack-dev liblmdb-dev libopenblas-dev libyaml-dev
libxxhash-dev libzstd-dev zlib1g-dev libcsv-dev libjansson-dev libmicrohttpd-dev libcunit1-dev"
case ${1:-} in
--tests | --slow) packages="$packages python3 python3-numpy python3-lmdb
python3-xxhash iproute2 procps clang-format" ;;
esac
[ "${1:-}" = "--slow" ] && packages="$packages clang libclang-rt-dev"

command -v dpkg-query >/dev/null 2>&1 || {
    echo "install-deps: this is not a Debian system; install the equivalents of:" $packages >&2
    exit 69
}
missing=""
for package in $packages; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || {
        echo "install-deps: not root and no sudo; as root, run: apt-get install$missing" >&2
        exit 77
    }
    as_root=sudo
fi
echo "install-deps: installing$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if ! { $as_root apt-get update && $as_root apt-get install -y --no-install-recommends $missing; } \
    >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "install-deps: apt-get failed, its whole output is in $log" >&2
    exit 69
fi
rm -f "$log"
