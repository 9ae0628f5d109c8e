/* What snapshots cost, within one running job: windows without, and windows in which one is
 * written, take turns; full ones and deltas alternate.
 *
 *     without --ask--> while it is written --whole--> after it (its layers are merged) --> without
 *
 * A snapshot is written over a quarter of the time since the one before (snapshot_spread), so in
 * some seconds, and the machine's moods count in them. Each is therefore set beside the mean of the
 * windows without before and after it, and so is, to tell the noise, a window as short from the
 * middle of the one without before it. Of both kinds the figures are the mean of all rounds, each
 * by its length, and the standard error of that.
 *
 * Figures: the rate of steps while and after against without, the longest step because of one, and
 * how fast full snapshots and deltas are written beside dd to the same disk.
 *
 *     bench_snapshot [--tiny] [--rounds N] [--data DIR] [users in thousands, default 200]
 */
#include "tests/bench/bench_job.h"

#include <math.h>

enum { WITHIN_MS = 120000, WINDOW_MS = 5000 };

struct round {
    double base, with, noise, after;      /* steps a second; base: without, around it */
    double with_s, after_s;               /* seconds that were looked at */
    double longest_with, longest_without; /* seconds */
    double bytes, seconds;                /* of the snapshot, from order to whole */
    bool is_delta;
};

/* Looks until the n-th snapshot is whole. */
static struct bench_window watch_snapshot(const struct driver *d, struct bench_metrics *m, int n)
{
    bench_look(d, m);
    struct bench_window window = {m->n_steps > 0 ? m->n_steps - 1 : 0, 0};
    for (int64_t until = bench_wall_ms() + WITHIN_MS; bench_wall_ms() < until && m->n_snapshots < n;
         driver_nap(5))
        bench_look(d, m);
    window.last = m->n_steps - 1;
    return window;
}

/* The same for some time. */
static struct bench_window watch(const struct driver *d, struct bench_metrics *m, int64_t ms)
{
    bench_look(d, m);
    struct bench_window window = {m->n_steps > 0 ? m->n_steps - 1 : 0, 0};
    bench_watch(d, m, ms);
    window.last = m->n_steps - 1;
    return window;
}

static double seconds_of(const struct bench_metrics *m, struct bench_window w)
{
    return (double)(m->time_ms[w.last] - m->time_ms[w.first]) / 1000;
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

/* A window as long as that one from the middle of another. */
static struct bench_window middle_of(const struct bench_metrics *m, struct bench_window outer,
                                     struct bench_window like)
{
    int64_t ms = m->time_ms[like.last] - m->time_ms[like.first],
            from = (m->time_ms[outer.first] + m->time_ms[outer.last] - ms) / 2;
    return bench_between(m, from, from + ms);
}

/* without: the window before this round; on return that after it. */
static int measure(const struct driver *d, struct bench_metrics *m, int64_t window_ms,
                   struct bench_window *without, struct round *round)
{
    char command[1200];
    int64_t asked_ms = bench_wall_ms();
    snprintf(command, sizeof(command), "'%s' snapshot '%s/out' >/dev/null", SLUICE, d->folder);
    int n = m->n_snapshots + 1;
    if (system(command) != 0)
        return -1;
    struct bench_window before = *without, with = watch_snapshot(d, m, n);
    struct bench_window after = watch(d, m, window_ms), next = watch(d, m, window_ms);
    if (m->n_snapshots < n || m->n_steps == BENCH_MAX_LINES)
        return -1;
    *without = next;
    *round = (struct round){
        .base = (bench_rate(m, before) + bench_rate(m, next)) / 2,
        .with = bench_rate(m, with),
        .noise = bench_rate(m, middle_of(m, before, with)),
        .after = bench_rate(m, after),
        .with_s = seconds_of(m, with),
        .after_s = seconds_of(m, after),
        .longest_without = bench_longest_step(m, before),
        .longest_with = bench_longest_step(m, with),
        .seconds = (double)(m->snapshot_ms - asked_ms) / 1000,
    };
    look_at_newest(d, round);
    return 0;
}

struct ratio {
    double value, error, min, max;
};

/* Of all rounds, by how long each was: rate [n], base [n], seconds [n]. */
static struct ratio ratio_of(const double *rate, const double *base, const double *seconds, int n)
{
    struct ratio r = {.min = INFINITY};
    double steps = 0, would_be = 0, squares = 0;
    for (int i = 0; i < n; i++) {
        double one = rate[i] / base[i];
        steps += rate[i] * seconds[i];
        would_be += base[i] * seconds[i];
        r.min = one < r.min ? one : r.min;
        r.max = one > r.max ? one : r.max;
    }
    r.value = steps / would_be;
    for (int i = 0; i < n; i++)
        squares += (rate[i] / base[i] - r.value) * (rate[i] / base[i] - r.value);
    r.error = n > 1 ? sqrt(squares / (n - 1) / n) : 0;
    return r;
}

static void print_ratios(const struct round *rounds, int n)
{
    double rate[3][BENCH_MAX_ROUNDS], seconds[3][BENCH_MAX_ROUNDS], base[BENCH_MAX_ROUNDS];
    static const char *const names[] = {"snapshot_train_rate", "snapshot_noise",
                                        "snapshot_after_rate"};
    for (int i = 0; i < n; i++) {
        base[i] = rounds[i].base;
        rate[0][i] = rounds[i].with;
        rate[1][i] = rounds[i].noise;
        rate[2][i] = rounds[i].after;
        seconds[0][i] = seconds[1][i] = rounds[i].with_s;
        seconds[2][i] = rounds[i].after_s;
    }
    for (int k = 0; k < 3; k++) {
        struct ratio r = ratio_of(rate[k], base, seconds[k], n);
        double all = 0, all_base = 0;
        for (int i = 0; i < n; i++) {
            all += rate[k][i] / n;
            all_base += base[i] / n;
        }
        printf("{\"name\":\"%s\",\"value\":%.1f,\"unit\":\"steps/s\",\"baseline\":%.1f,"
               "\"baseline_name\":\"without\",\"ratio\":%.3f,\"standard_error\":%.3f,"
               "\"min\":%.3f,\"max\":%.3f,\"rounds\":%d}\n",
               names[k], all, all_base, r.value, r.error, r.min, r.max, n);
    }
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
    double speed[BENCH_MAX_ROUNDS], bytes = 0, seconds = 0;
    int count = 0;
    for (int i = 0; i < n; i++)
        if (rounds[i].is_delta == delta) {
            speed[count++] = rounds[i].bytes / rounds[i].seconds;
            bytes = rounds[i].bytes;
            seconds = rounds[i].seconds;
        }
    if (!count)
        return;
    (void)bench_middle(speed, count);
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
    print_ratios(rounds, n);
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
    static struct round rounds[BENCH_MAX_ROUNDS];
    static struct bench_job job;
    struct driver *d = &job.d;
    struct bench_args args = {.rounds = 8, .n = 200000};
    int n = 0;
    int code = bench_job_begin(argc, argv, &args, 2, &job, 1,
                               "servers: 2\nshards: 1\nworkers: 1\nwidth: 32\n"
                               "snapshot_full_every: 2\nkeep: 2\n");
    if (code)
        return code;
    int64_t window_ms = args.tiny ? 300 : WINDOW_MS;
    bool failed = driver_start(d, SLUICE, NULL) || bench_await_step(d, &metrics, 20, 60000) < 0;
    struct bench_window without = {0, 0};
    if (!failed) {
        bench_watch(d, &metrics, 2 * window_ms); /* warm */
        without = watch(d, &metrics, window_ms);
    }
    for (; !failed && n < args.rounds; n++)
        failed = measure(d, &metrics, window_ms, &without, &rounds[n]) != 0;
    kill(d->pid, SIGTERM);
    failed |= driver_wait(d, 60000) != 75;
    if (!failed)
        print_all(&job.data, rounds, n);
    return bench_job_close(&job, failed);
}
