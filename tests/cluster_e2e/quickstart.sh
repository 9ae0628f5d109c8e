#!/bin/sh
# The README's first command, as its users type it: from nothing, a second time, with a real log's shape, with a
# prepared data set, and with wrong words.
# usage: quickstart.sh TREE
set -u
tree=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
check() { # check SENTENCE COMMAND...
    sentence=$1
    shift
    if "$@" >/dev/null 2>&1; then echo "ok: $sentence"; else
        echo "FAILED: $sentence"
        failures=$((failures + 1))
    fi
}
quickstart() { sh "$tree/cluster/quickstart.sh" "$@" >"$work/log" 2>&1; }
says() { grep -q -- "$1" "$work/log"; }
exits() { # exits CODE COMMAND...
    code=$1
    shift
    "$@"
    [ $? = "$code" ]
}
# the same AUC to 1e-3 by the workers and from the export in a fresh process, for every action
agrees() {
    python3 - "$1/report.json" <<'PY'
import json, sys
report = json.load(open(sys.argv[1]))
actions = report["actions"]
assert len(actions) >= 3 and report["scored_samples"] > 0
for figures in actions.values():
    if figures["auc"] is not None:
        assert abs(figures["auc"] - figures["scored_auc"]) < 1e-3, figures
assert any(figures["auc"] is not None for figures in actions.values())
PY
}

a=$work/a
check "from nothing it ends with 0" quickstart --out "$a" --max-steps 30 --history 20
for thing in data/manifest.json job.yaml run/metrics.jsonl run/log run/snapshot/latest export/manifest.json \
    export/dense.safetensors scores.jsonl report.json; do
    check "it leaves $thing" test -e "$a/$thing"
done
check "the report names every action and the best possible" says "leave"
check "the report says where things lie" says "$a/scores.jsonl"
check "trained and scored figures agree" agrees "$a"
before=$(cat "$a/run/snapshot/latest" "$a/scores.jsonl" | cksum)
check "a second run ends with 0" quickstart --out "$a" --max-steps 30 --history 20
check "a second run trains nothing again" says "finished already"
check "a second run changes nothing" test "$before" = "$(cat "$a/run/snapshot/latest" "$a/scores.jsonl" | cksum)"
check "other flags train again" quickstart --out "$a" --max-steps 10 --history 20
check "ten steps were asked for and done" says "training: 10 steps"
check "a prepared data set is taken" quickstart --out "$work/b" --data "$a/data" --max-steps 5 --history 10

# a log of Deskdrop's shape: 60 users who view 12 of 40 articles each, and like every third
awk 'BEGIN { print "timestamp,eventType,contentId,personId,sessionId"
    for (u = 1; u <= 60; u++) for (i = 1; i <= 12; i++) {
        t = 1460000000 + u * 977 + i * 86400; c = (u * 7 + i * 3) % 40
        print t ",VIEW," c "," u ",1"
        if ((u + i) % 3 == 0) print t + 60 ",LIKE," c "," u ",1" } }' | gzip >"$work/log.csv.gz"
check "a real log's shape is prepared and trained" quickstart --out "$work/c" --schema deskdrop \
    "$work/log.csv.gz" --max-steps 5 --history 10
check "its figures agree" agrees "$work/c"

check "a log without a schema is refused with 64" exits 64 quickstart "$work/log.csv.gz"
check "a missing log is refused with 66" exits 66 quickstart --schema deskdrop "$work/none.csv"
check "an unknown train flag is refused with 64" exits 64 quickstart --out "$work/d" --data "$a/data" --no-such 1
check "a data set that is none is refused with 66" exits 66 quickstart --out "$work/d" --data "$work"
mkdir -p "$work/e/run"
check "a run folder of somebody else is not touched" exits 73 quickstart --out "$work/e" --data "$a/data"

echo "$failures failures"
[ $failures = 0 ]
