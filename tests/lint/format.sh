#!/bin/sh
# clang-format over every C file of the tree; exit 77 (skipped) where the tool is missing.
# usage: format.sh TREE
set -eu
command -v clang-format >/dev/null 2>&1 || { echo "skipped: clang-format is not installed"; exit 77; }
cd "$1"
find cluster model embeddings ps worker sched tests -name '*.[ch]' -print0 |
    xargs -0 clang-format --dry-run -Werror
