#!/bin/sh
# The main job from nothing: installs what is missing, builds, makes or prepares a data set, trains A2Gen with
# 1 scheduler, 2 parameter servers (2 shard threads each) and 2 MPI workers on this machine, evaluates,
# snapshots, exports, scores the test samples from the export in a fresh process, and prints a report.
#
#   sh cluster/quickstart.sh                                  # a generated short-video data set
#   sh cluster/quickstart.sh --schema deskdrop FILE.csv.gz    # a real log (further files may follow)
#   sh cluster/quickstart.sh --data DIR                       # a data set that is prepared already
#   sh cluster/quickstart.sh --out DIR                        # where everything goes (sluice-run)
#   sh cluster/quickstart.sh --staleness 1 --epochs 3         # further flags go to `sluice train`
#
# Run again, it continues: what is there and still fits its inputs is kept.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
sluice="$here/build/release/sluice"

fail() {
    echo "quickstart: $1" >&2
    exit "${2:-70}"
}

# ---- arguments: ours are taken out, the rest is kept, quoted, for `sluice train` ----
out=sluice-run
schema=""
data=""
prepare=""  # words for `sluice prepare`, shell-quoted: the logs and their flags
train=""    # words for `sluice train`, shell-quoted
quote() { printf " '%s'" "$(printf %s "$1" | sed "s/'/'\\\\''/g")"; }
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        sed -n '2,13s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    --out | --schema | --data | --item-attributes | --item-counts | --max-bad | --label-window | --split)
        [ $# -ge 2 ] || fail "$1 needs a value" 64
        case $1 in
        --out) out=$2 ;;
        --schema) schema=$2 ;;
        --data) data=$2 ;;
        *) prepare="$prepare$(quote "$1")$(quote "$2")" ;;
        esac
        shift
        ;;
    --out=* | --schema=* | --data=*) fail "write $(echo "$1" | sed 's/=/ /')" 64 ;;
    --*=*) train="$train$(quote "$1")" ;;
    --*)
        train="$train$(quote "$1")"
        case ${2:-} in
        "" | --*) ;;
        *) [ -f "$2" ] || { train="$train$(quote "$2")"; shift; } ;;
        esac
        ;;
    *)
        [ -f "$1" ] || fail "no such log: $1" 66
        prepare="$prepare$(quote "$1")"
        ;;
    esac
    shift
done
[ -n "$schema" ] || [ -z "$prepare" ] || fail "a log needs --schema NAME (sluice prepare --help lists them)" 64
[ -z "$schema" ] || [ -n "$prepare" ] || fail "--schema $schema needs a log file" 64
[ -z "$schema" ] || [ -z "$data" ] || fail "--schema and --data exclude each other" 64

# ---- steps that are done stay done: a stamp holds what a step was made from ----
stamped() { [ -f "$out/.stamp-$1" ] && [ "$(cat "$out/.stamp-$1")" = "$2" ]; }
stamp() { printf '%s\n' "$2" >"$out/.stamp-$1"; }
# discard WHAT STAMP: removes an earlier result, but only one that this script made
discard() {
    if [ -e "$out/$1" ]; then
        [ -f "$out/.stamp-$2" ] || fail "$out/$1 is there and not from an earlier quickstart; use another --out" 73
        rm -rf "${out:?}/$1"
    fi
    rm -f "$out/.stamp-$2"
}
say() { printf '%s\n' "== $1"; }

started=$(date +%s)
say "dependencies and build"
sh "$here/cluster/deploy/install-deps.sh"
sh "$here/cluster/deploy/build.sh" release sluice
built=$(date +%s)
mkdir -p "$out"

if [ -n "$data" ]; then
    [ -f "$data/manifest.json" ] || fail "$data is not a data set (no manifest.json); see sluice prepare --help" 66
else
    data="$out/data"
    version=$("$sluice" --version)
    if [ -n "$schema" ]; then
        inputs="$version prepare $schema$prepare $(eval "ls -lLn$prepare 2>/dev/null" | cksum)"
    else
        inputs="$version generate"
    fi
    if stamped data "$inputs"; then
        say "data set: $data is there already"
    else
        say "data set"
        discard data data
        stamp data "being made"
        if [ -n "$schema" ]; then
            eval "\"\$sluice\" prepare --schema \"\$schema\" --out \"\$data\"$prepare"
        else
            "$sluice" generate --users 400 --items 600 --samples 40000 --seed 1 --out "$data"
        fi
        stamp data "$inputs"
    fi
fi

[ -f "$out/job.yaml" ] || cat >"$out/job.yaml" <<'JOB'
# The quickstart's job; `sluice help train` lists every key. Edit it and run the quickstart again.
servers: 2
shards: 2
workers: 2
staleness: 1
JOB

inputs="$(cksum <"$out/job.yaml") $(cksum <"$data/manifest.json") $data$train"
if stamped train "$inputs" && [ -f "$out/run/snapshot/latest" ]; then
    say "training: $out/run is finished already"
else
    say "training"
    discard run train
    stamp train "being made"
    eval "\"\$sluice\" train \"\$out/job.yaml\" --data \"\$data\" --out \"\$out\"$train"
    stamp train "$inputs"
    rm -rf "$out/.stamp-export" "$out/scores.jsonl" "$out/report.json"
fi

if ! stamped export "$inputs"; then
    say "export"
    "$sluice" export --snapshot "$out/run/snapshot" --out "$out/export"
    stamp export "$inputs"
fi
if [ ! -f "$out/scores.jsonl" ]; then
    say "score"
    "$sluice" score --export "$out/export" --data "$data" --out "$out/scores.jsonl"
fi
finished=$(date +%s)

say "report"
"$sluice" report "$out" --data "$data" --build-seconds $((built - started)) \
    --total-seconds $((finished - started))
