#!/bin/sh
# What is installed can be used: the binary, a man page, and libsluice by two outsiders, one through pkg-config
# and one through find_package, from a prefix that was chosen at install time.
# usage: install.sh BUILD_FOLDER
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$1" --prefix "$work/prefix" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
"$work/prefix/bin/sluice" --version
grep -q "dense\\\\-learning\\\\-rate" "$work/prefix/share/man/man1/sluice-train.1"

cat >"$work/use.c" <<'C'
#include "cluster/hash.h"
#include "worker/dataset.h"
int main(void)
{
    struct wrk_dataset *dataset;
    return clu_mix(0) != 0 || wrk_dataset_open("/nonexistent", &dataset) == 0;
}
C
cat >"$work/CMakeLists.txt" <<'C'
cmake_minimum_required(VERSION 3.25)
project(use LANGUAGES C)
find_package(sluice 0.1 REQUIRED)
add_executable(use use.c)
target_link_libraries(use PRIVATE sluice::sluice)
C
cmake -S "$work" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/prefix" >"$work/log" 2>&1 &&
    cmake --build "$work/build" >>"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
"$work/build/use"
echo "find_package works"

PKG_CONFIG_PATH=$(dirname "$(find "$work/prefix" -name sluice.pc)")
export PKG_CONFIG_PATH
# shellcheck disable=SC2046
cc "$work/use.c" $(pkg-config --cflags --libs sluice) -o "$work/use"
"$work/use"
echo "pkg-config works"
