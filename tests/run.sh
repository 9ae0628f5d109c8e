#!/bin/sh
# Every test: installs what is missing, builds, runs the normal suite on the release build and the unit tests
# again under the address and thread sanitizers. The last line is "N passed, N failed".
#
#   sh tests/run.sh                 # everything but the label `slow`
#   sh tests/run.sh --slow          # the label `slow` only
#   sh tests/run.sh --quick         # release build only, no sanitizers
#   sh tests/run.sh -- -R ps        # further words go to ctest
set -u
cd "$(dirname "$0")/.."
mode=normal
while [ $# -gt 0 ]; do
    case $1 in
    --slow) mode=slow ;;
    --quick) mode=quick ;;
    --) shift; break ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "run.sh: unknown flag $1 (see --help)" >&2; exit 64 ;;
    esac
    shift
done
if [ "$mode" = slow ]; then deps=--slow; else deps=--tests; fi
sh cluster/deploy/install-deps.sh "$deps" || exit $?

passed=0
failed=0
# run_preset PRESET CTEST_ARGUMENTS...: builds, tests and counts; a build that fails is one failure.
run_preset() {
    preset=$1
    shift
    echo "== $preset"
    if ! sh cluster/deploy/build.sh "$preset"; then
        failed=$((failed + 1))
        return
    fi
    report="build/$preset/tests.xml"
    rm -f "$report"
    # Tests of real processes share the machine with others: a failure is shown, and tried once more.
    ctest --test-dir "build/$preset" --output-on-failure --no-tests=error --output-junit tests.xml \
        --repeat until-pass:2 "$@"
    counts=$(sed -n 's/.*tests="\([0-9]*\)".*/n=\1/p; s/.*failures="\([0-9]*\)".*/f=\1/p
        s/.*disabled="\([0-9]*\)".*/d=\1/p; s/.*skipped="\([0-9]*\)".*/s=\1/p' "$report" 2>/dev/null | head -n 4)
    n=0 f=1 d=0 s=0
    eval "$counts"
    passed=$((passed + n - f - d - s))
    failed=$((failed + f))
}

export OPENBLAS_NUM_THREADS=1 # threads of its own would race with nothing of ours, and slow it
# The normal suite repeats one seed, so that a red run is a red commit; the label slow draws its seeds.
[ "$mode" = slow ] || export SLUICE_TEST_SEED="${SLUICE_TEST_SEED:-7}"
jobs=$(nproc 2>/dev/null || echo 2)
case $mode in
slow)
    run_preset release -L slow "$@"
    # Hostile bytes: a million malformed messages under the address sanitizer, and each decoder's fuzz target for a
    # minute where clang has its runtime.
    export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1:allocator_may_return_null=1}"
    run_preset asan -L slow -R 'ps[.]crowd_long' "$@"
    if echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d && n ? 0 : 0; }' |
        clang -x c -fsanitize=fuzzer,address -o /dev/null - 2>/dev/null; then
        run_preset fuzz -L slow -R '^fuzz[.]' -j "$jobs" "$@"
    else
        echo "run.sh: fuzzing is left out: clang with libFuzzer is missing (cluster/deploy/install-deps.sh --slow)"
    fi
    ;;
quick) run_preset release -LE slow -j "$jobs" "$@" ;;
normal)
    run_preset release -LE slow -j "$jobs" "$@"
    export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1:allocator_may_return_null=1}"
    run_preset asan -L unit -LE slow -j "$jobs" "$@"
    run_preset tsan -L unit -LE slow -j "$jobs" "$@"
    ;;
esac
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
