/* What a live move of buckets costs, within one running job of 4 servers whose tables hold the rows
 * asked for (bench_fill.h): one is drained, so that the other three get its quarter of the buckets,
 * then one is added and gets a quarter of each.
 *
 *     before (a window) --ask--> [joins] --> buckets move --> [leaves] --> after (a window) --> ...
 *
 * Figures: the rate of steps while buckets move against the mean of before and after (they have
 * another number of servers), the longest step meanwhile, the seconds that the move takes, rows
 * moved and how many a second, rows that the servers held.
 *
 *     bench_move [--tiny] [--rounds N] [--keep DIR] [rows in thousands, default 200]
 */
#include "tests/bench/bench_fill.h"

enum { WITHIN_MS = 60000, SERVERS = 4 };

struct round {
    bool adds;
    double before, with, after;           /* steps a second */
    double longest_with, longest_without; /* seconds */
    double seconds, whole_seconds;        /* buckets moved in, the change took */
    double rows, held;                    /* moved, of how many */
    int n_buckets;
};

static int measure(const struct driver *d, struct bench_metrics *m, int64_t window_ms,
                   struct round *round)
{
    char command[1200];
    int n = m->n_changes + 1;
    bench_watch(d, m, window_ms);
    int64_t asked_ms = bench_wall_ms();
    struct bench_rows rows = bench_count_rows(d, "rows");
    if (rows.rank < 0)
        return -1;
    round->rows = rows.newest;
    round->held = rows.all;
    snprintf(command, sizeof(command), "'%s' drain '%s/out' --servers %d >/dev/null", SLUICE,
             d->folder, round->adds ? SERVERS : SERVERS - 1);
    if (system(command) != 0)
        return -1;
    for (int64_t until = bench_wall_ms() + WITHIN_MS; m->n_changes < n; driver_nap(5)) {
        bench_look(d, m);
        if (bench_wall_ms() > until)
            return -1;
    }
    bench_watch(d, m, window_ms);
    if (m->n_steps == BENCH_MAX_LINES || m->moved_ms <= m->moving_ms)
        return -1;
    for (int i = 0; round->adds && i < 50; i++) { /* it tells of them with one of its next beats */
        rows = bench_count_rows(d, "rows_moved_in_total");
        round->rows = rows.newest;
        if (rows.rank >= 0 && rows.newest > 0)
            break;
        driver_nap(100);
    }
    struct bench_window before = bench_between(m, asked_ms - window_ms, asked_ms),
                        with = bench_between(m, m->moving_ms, m->moved_ms),
                        after = bench_between(m, m->changed_ms, bench_wall_ms());
    double longest_before = bench_longest_step(m, before),
           longest_after = bench_longest_step(m, after);
    round->before = bench_rate(m, before);
    round->with = bench_rate(m, with);
    round->after = bench_rate(m, after);
    round->longest_with = bench_longest_step(m, with);
    round->longest_without = longest_before > longest_after ? longest_before : longest_after;
    round->seconds = (double)(m->moved_ms - m->moving_ms) * 1e-3;
    round->whole_seconds = (double)(m->changed_ms - asked_ms) * 1e-3;
    round->n_buckets = m->n_moved;
    return round->before > 0 && round->with > 0 && round->after > 0 ? 0 : -1;
}

static void print_kind(const char *name, const struct round *rounds, int n, bool adds)
{
    double ratio[BENCH_MAX_ROUNDS], with[BENCH_MAX_ROUNDS], base[BENCH_MAX_ROUNDS],
        seconds[BENCH_MAX_ROUNDS];
    double whole[BENCH_MAX_ROUNDS], rows[BENCH_MAX_ROUNDS], held[BENCH_MAX_ROUNDS];
    double longest = 0, longest_without = 0;
    int k = 0, n_buckets = 0;
    for (int i = 0; i < n; i++) {
        const struct round *r = &rounds[i];
        if (r->adds != adds)
            continue;
        with[k] = r->with;
        base[k] = (r->before + r->after) / 2;
        ratio[k] = r->with / base[k];
        seconds[k] = r->seconds;
        whole[k] = r->whole_seconds;
        held[k] = r->held;
        rows[k++] = r->rows;
        longest = r->longest_with > longest ? r->longest_with : longest;
        longest_without =
            r->longest_without > longest_without ? r->longest_without : longest_without;
        n_buckets = r->n_buckets;
    }
    if (!k)
        return;
    double half = bench_middle(ratio, k), took = bench_middle(seconds, k),
           moved = bench_middle(rows, k);
    printf("{\"name\":\"%s_rate\",\"value\":%.1f,\"unit\":\"steps/s\",\"baseline\":%.1f,"
           "\"baseline_name\":\"before and after\",\"ratio\":%.3f,\"min\":%.3f,\"max\":%.3f,"
           "\"rounds\":%d}\n",
           name, bench_middle(with, k), bench_middle(base, k), half, ratio[0], ratio[k - 1], k);
    printf("{\"name\":\"%s_longest_step\",\"value\":%.3f,\"unit\":\"s\",\"baseline\":%.3f,"
           "\"baseline_name\":\"the longest before or after\",\"ratio\":%.2f}\n",
           name, longest, longest_without, longest_without > 0 ? longest / longest_without : 0);
    printf("{\"name\":\"%s_rows\",\"value\":%.0f,\"unit\":\"rows/s\",\"rows\":%.0f,"
           "\"of\":%.0f,\"buckets\":%d,\"seconds\":%.3f,\"min\":%.3f,\"max\":%.3f,\"from_asked\":%."
           "3f}\n",
           name, moved / took, moved, bench_middle(held, k), n_buckets, took, seconds[0],
           seconds[k - 1], bench_middle(whole, k));
}

int main(int argc, char **argv)
{
    static struct bench_metrics metrics;
    static struct round rounds[BENCH_MAX_ROUNDS];
    static struct bench_job job;
    struct driver *d = &job.d;
    struct bench_args args = {.rounds = 8, .n = 200000};
    int n = 0;
    if (!bench_args_take(argc, argv, &args))
        return 64;
    if (args.tiny)
        args.rounds = 2;
    int64_t window_ms = args.tiny ? 300 : 3000;
    bool failed = bench_filled_open(&job, &args, "servers: 4\nshards: 1\nworkers: 1\n") != 0;
    if (failed || args.rounds == 0)
        return bench_filled_close(&job, &args, failed);
    bench_look(d, &metrics); /* the fill */
    failed = driver_start(d, SLUICE, NULL) ||
             bench_await_step(d, &metrics, metrics.highest + 20, WITHIN_MS) < 0 ||
             bench_await_rows(d, args.n, WITHIN_MS).rank < 0;
    for (; !failed && n < args.rounds; n++) {
        rounds[n].adds = n % 2 == 1;
        failed = measure(d, &metrics, window_ms, &rounds[n]) != 0;
    }
    kill(d->pid, SIGTERM);
    failed |= driver_wait(d, 60000) != 75;
    if (!failed) {
        print_kind("move_drain", rounds, n, false);
        print_kind("move_add", rounds, n, true);
    }
    return bench_filled_close(&job, &args, failed);
}
