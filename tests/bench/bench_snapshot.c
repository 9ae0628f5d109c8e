/* What snapshots cost, within one running job: windows without, and windows in which one is
 * written, take turns; full ones and deltas alternate.
 *
 *     without --ask--> while it is written --whole--> after it (its layers are merged) --> without
 *
 * Figures: the rate of steps while and after against without (medians over the rounds), the longest
 * step because of one, and how fast full snapshots and deltas are written beside dd to the same
 * disk.
 *
 *     bench_snapshot [--tiny] [--rounds N] [rows in thousands, default 200]
 */
#include "tests/bench/bench_job.h"

enum { MAX_ROUNDS = 15, WITHIN_MS = 120000 };

struct round {
    double without, with, after;          /* steps a second */
    double longest_with, longest_without; /* seconds */
    double bytes, seconds;                /* of the snapshot, from order to whole */
    bool is_delta;
};

/* The lines of the next ms milliseconds, or until the n-th snapshot is whole. */
static struct bench_window watch(const struct driver *d, struct bench_metrics *m, int64_t ms,
                                 int n_snapshots)
{
    bench_look(d, m);
    struct bench_window window = {m->n_steps > 0 ? m->n_steps - 1 : 0, 0};
    int64_t until = bench_wall_ms() + (n_snapshots ? WITHIN_MS : ms);
    while (bench_wall_ms() < until && !(n_snapshots && m->n_snapshots >= n_snapshots)) {
        driver_nap(5);
        bench_look(d, m);
    }
    window.last = m->n_steps - 1;
    return window;
}

/* Bytes of the newest snapshot, and whether it stands upon another. */
static void look_at_newest(const struct driver *d, struct round *round)
{
    char command[1000], word[64] = "";
    snprintf(command, sizeof(command),
             "cd '%s/out/run/snapshot' && cd \"$(cat latest)\" && du -sb . | cut -f1 && "
             "grep -c '\"base\": {' manifest.json",
             d->folder);
    FILE *pipe = popen(command, "r");
    if (!pipe)
        return;
    if (fgets(word, sizeof(word), pipe))
        round->bytes = strtod(word, NULL);
    round->is_delta = fgets(word, sizeof(word), pipe) && atoi(word) > 0;
    pclose(pipe);
}

static int measure(const struct driver *d, struct bench_metrics *m, int64_t window_ms,
                   struct round *round)
{
    char command[1200];
    struct bench_window without = watch(d, m, window_ms, 0);
    int64_t asked_ms = bench_wall_ms();
    snprintf(command, sizeof(command), "'%s' snapshot '%s/out' >/dev/null", SLUICE, d->folder);
    int n = m->n_snapshots + 1;
    if (system(command) != 0)
        return -1;
    struct bench_window with = watch(d, m, 0, n), after = watch(d, m, window_ms, 0);
    if (m->n_snapshots < n || m->n_steps == BENCH_MAX_LINES)
        return -1;
    *round = (struct round){
        .without = bench_rate(m, without),
        .with = bench_rate(m, with),
        .after = bench_rate(m, after),
        .longest_without = bench_longest_step(m, without),
        .longest_with = bench_longest_step(m, with),
        .seconds = (double)(m->snapshot_ms - asked_ms) / 1000,
    };
    look_at_newest(d, round);
    return 0;
}

static void print_ratio(const char *name, const struct round *rounds, int n, bool after)
{
    double ratio[MAX_ROUNDS], value[MAX_ROUNDS], base[MAX_ROUNDS];
    for (int i = 0; i < n; i++) {
        value[i] = after ? rounds[i].after : rounds[i].with;
        base[i] = rounds[i].without;
        ratio[i] = value[i] / base[i];
    }
    qsort(ratio, (size_t)n, sizeof(double), bench_by_value);
    qsort(value, (size_t)n, sizeof(double), bench_by_value);
    qsort(base, (size_t)n, sizeof(double), bench_by_value);
    printf(
        "{\"name\":\"%s\",\"value\":%.2f,\"unit\":\"steps/s\",\"baseline\":%.2f,"
        "\"baseline_name\":\"without\",\"ratio\":%.3f,\"min\":%.3f,\"max\":%.3f,\"rounds\":%d}\n",
        name, value[n / 2], base[n / 2], ratio[n / 2], ratio[0], ratio[n - 1], n);
}

/* Bytes a second that dd writes to the same disk, fsync included. */
static double dd_rate(const struct small_data *d, double bytes)
{
    char command[1000];
    long blocks = (long)(bytes / 65536) + 16;
    snprintf(command, sizeof(command),
             "dd if=/dev/zero of='%s/dd' bs=64k count=%ld conv=fsync 2>/dev/null", d->folder,
             blocks);
    int64_t began_ms = driver_now_ms();
    if (system(command) != 0)
        return 0;
    int64_t ms = driver_now_ms() - began_ms;
    return (double)blocks * 65536 / ((double)(ms ? ms : 1) / 1000);
}

static void print_speed(const struct small_data *d, const struct round *rounds, int n, bool delta)
{
    double speed[MAX_ROUNDS], bytes = 0, seconds = 0;
    int count = 0;
    for (int i = 0; i < n; i++)
        if (rounds[i].is_delta == delta) {
            speed[count++] = rounds[i].bytes / rounds[i].seconds;
            bytes = rounds[i].bytes;
            seconds = rounds[i].seconds;
        }
    if (!count)
        return;
    qsort(speed, (size_t)count, sizeof(double), bench_by_value);
    double disk = dd_rate(d, bytes);
    printf("{\"name\":\"snapshot_%s\",\"value\":%.1f,\"unit\":\"MB/s\",\"baseline\":%.1f,"
           "\"baseline_name\":\"dd with fsync\",\"ratio\":%.3f,\"min\":%.1f,\"max\":%.1f,"
           "\"bytes\":%.0f,\"seconds\":%.2f,\"count\":%d}\n",
           delta ? "delta" : "full", speed[count / 2] / 1e6, disk / 1e6, speed[count / 2] / disk,
           speed[0] / 1e6, speed[count - 1] / 1e6, bytes, seconds, count);
}

static void print_all(const struct small_data *d, const struct round *rounds, int n)
{
    double with = 0, without = 0;
    print_ratio("snapshot_train_rate", rounds, n, false);
    print_ratio("snapshot_after_rate", rounds, n, true);
    for (int i = 0; i < n; i++) {
        with = rounds[i].longest_with > with ? rounds[i].longest_with : with;
        without = rounds[i].longest_without > without ? rounds[i].longest_without : without;
    }
    printf("{\"name\":\"snapshot_longest_step\",\"value\":%.3f,\"unit\":\"s\",\"baseline\":%.3f,"
           "\"baseline_name\":\"the longest without\",\"ratio\":%.2f}\n",
           with, without, without > 0 ? with / without : 0);
    print_speed(d, rounds, n, false);
    print_speed(d, rounds, n, true);
}

int main(int argc, char **argv)
{
    static struct bench_metrics metrics;
    static struct round rounds[MAX_ROUNDS];
    bool tiny = false;
    long users = 200000;
    int n_rounds = 7, n = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--tiny") == 0)
            tiny = true;
        else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc)
            n_rounds = atoi(argv[++i]);
        else
            users = atol(argv[i]) * 1000;
    }
    if (tiny) {
        users = 2000;
        n_rounds = 2;
    }
    if (n_rounds < 1 || n_rounds > MAX_ROUNDS || users < 1000)
        return 64;
    struct small_data data;
    struct driver d;
    char text[1024], set[600];
    if (small_data_open(&data, SLUICE) || bench_make_data(&data, users, set, sizeof(set)))
        return 1;
    snprintf(text, sizeof(text),
             "data: %s\nservers: 2\nshards: 1\nworkers: 1\nwidth: 32\nheads: 2\nhistory: 10\n"
             "batch: 256\nlog_every: 1\nepochs: 1000\nread: greedy\nsnapshot_full_every: 2\n"
             "keep: 2\n",
             set);
    int64_t window_ms = tiny ? 300 : 3000;
    bool failed = driver_open(&d, text) || driver_start(&d, SLUICE, NULL) ||
                  !driver_await_text(&d, "metrics.jsonl", "\"step\":20,", 60000);
    if (!failed)
        watch(&d, &metrics, window_ms, 0); /* warm */
    for (; !failed && n < n_rounds; n++)
        failed = measure(&d, &metrics, window_ms, &rounds[n]) != 0;
    kill(d.pid, SIGTERM);
    failed |= driver_wait(&d, 60000) != 75;
    if (!failed)
        print_all(&data, rounds, n);
    failed |= driver_left(&d, 2000) > 0;
    driver_close(&d, failed);
    small_data_close(&data);
    return failed;
}
