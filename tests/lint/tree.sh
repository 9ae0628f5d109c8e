#!/bin/sh
# The shape of the tree: what may stand at the top, a README of at most 60 lines in each folder, files of at
# most 800 lines, lines of at most 100 columns, no unfinished words.
# usage: tree.sh TREE
set -u
cd "$1"
bad=0
fail() { echo "$1"; bad=1; }
for entry in *; do
    case $entry in
    CMakeLists.txt | CMakePresets.json | README.md | LICENSE) ;;
    cluster | model | embeddings | ps | worker | sched | tests) ;;
    build | sluice-run) ;; # ignored by git
    *) fail "$entry does not belong at the top" ;;
    esac
done
for folder in cluster model embeddings ps worker sched tests; do
    if [ ! -f $folder/README.md ]; then
        fail "$folder/README.md is missing"
    elif [ "$(wc -l <$folder/README.md)" -gt 60 ]; then
        fail "$folder/README.md is longer than 60 lines"
    fi
done
for file in $(find cluster model embeddings ps worker sched tests -name '*.[ch]'); do
    [ "$(wc -l <"$file")" -le 800 ] || fail "$file is longer than 800 lines"
    awk -v f="$file" 'length($0) > 100 { print f ":" NR ": wider than 100 columns"; bad = 1 }
        /TODO|FIXME|(^|[^X])XXX([^X]|$)/ { print f ":" NR ": unfinished"; bad = 1 } END { exit bad }' "$file" || bad=1
done
for file in $(find cluster model embeddings ps worker sched -name '*.c'); do
    grep -q '^/\*' "$file" || fail "$file does not open with its story"
done
[ $bad = 0 ] && echo "the tree has its shape"
exit $bad
