/* What snapshots cost: the rate of a job that takes one after another against the same job without,
 * the longest interval because of one, and how fast they are written beside dd to the same disk.
 *
 *     bench_snapshot [--tiny] [rows in thousands, default 200]
 */
#include "tests/cluster_e2e/driver.h"
#include "tests/cluster_e2e/small_data.h"

#include <inttypes.h>
#include <stdint.h>

struct figures {
    double samples_per_second; /* median of the intervals */
    double longest_seconds, usual_seconds;
    int n_snapshots;
    double snapshot_bytes, snapshot_seconds; /* the newest: its size, and order to whole */
};

static char set[600];

static int make_data(const struct small_data *d, long users)
{
    char command[1400];
    snprintf(set, sizeof(set), "%s/bench", d->folder);
    snprintf(command, sizeof(command),
             "'%s' generate --users %ld --items %ld --samples %ld --seed 3 --out '%s' >/dev/null",
             SLUICE, users, users / 4 + 200, users * 2, set);
    return system(command);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double number_of(const char *line, const char *name)
{
    const char *at = strstr(line, name);
    return at ? strtod(at + strlen(name), NULL) : 0;
}

/* Reads metrics.jsonl; the first quarter of the intervals is for warming up. */
static int read_metrics(const struct driver *d, struct figures *f)
{
    static double rates[65536], seconds[65536];
    char path[700], line[16384];
    int n = 0;
    snprintf(path, sizeof(path), "%s/out/run/metrics.jsonl", d->folder);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof(line), file) && n < 65536) {
        f->n_snapshots += strstr(line, "\"kind\":\"snapshot\"") && strstr(line, "\"status\":0");
        if (!strstr(line, "\"kind\":\"progress\""))
            continue;
        rates[n] = number_of(line, "\"samples_per_second\":");
        seconds[n++] = number_of(line, "\"step_seconds\":");
    }
    if (file)
        fclose(file);
    int warm = n / 4;
    if (n - warm < 4)
        return -1;
    qsort(rates + warm, (size_t)(n - warm), sizeof(double), by_value);
    qsort(seconds + warm, (size_t)(n - warm), sizeof(double), by_value);
    double sum = 0;
    for (int i = warm; i < n; i++)
        sum += 1 / rates[i]; /* harmonic: what the whole took */
    f->samples_per_second = (n - warm) / sum;
    f->longest_seconds = seconds[n - 1];
    f->usual_seconds = seconds[warm + (n - warm) / 2];
    return 0;
}

static double size_of_newest(const struct driver *d)
{
    char command[1000];
    double bytes = 0;
    snprintf(command, sizeof(command),
             "cd '%s/out/run/snapshot' && du -sb \"$(cat latest)\" | cut -f1", d->folder);
    FILE *pipe = popen(command, "r");
    if (pipe) {
        if (fscanf(pipe, "%lf", &bytes) != 1)
            bytes = 0;
        pclose(pipe);
    }
    return bytes;
}

static int run(int snapshot_every, int steps, struct figures *f)
{
    struct driver d;
    char text[1024];
    memset(f, 0, sizeof(*f));
    snprintf(text, sizeof(text),
             "data: %s\nservers: 2\nshards: 1\nworkers: 1\nwidth: 32\nheads: 2\nhistory: 10\n"
             "batch: 256\nlog_every: 5\nepochs: 1000\nmax_steps: %d\nread: greedy\n"
             "snapshot_every: %d\nkeep: 2\n",
             set, steps, snapshot_every);
    if (driver_open(&d, text) || driver_start(&d, SLUICE, NULL))
        return -1;
    int failed = driver_wait(&d, 900000) != 0 || read_metrics(&d, f);
    f->snapshot_bytes = size_of_newest(&d);
    failed |= driver_left(&d, 2000) > 0;
    driver_close(&d, failed);
    return failed;
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

int main(int argc, char **argv)
{
    bool tiny = argc > 1 && strcmp(argv[1], "--tiny") == 0;
    long rows = tiny ? 2000 : argc > 1 ? atol(argv[1]) * 1000 : 200000;
    int steps = tiny ? 120 : 1500, rounds = tiny ? 1 : 3;
    struct small_data data;
    struct figures with, without;
    double ratio[3], longest = 0, bytes = 0, rate = 0, base = 0, usual = 0;
    if (small_data_open(&data, SLUICE) || make_data(&data, rows))
        return 1;
    int failed = 0, n = 0;
    for (int i = 0; i < rounds && !failed; i++) {
        failed = run(0, steps, &without) || run(tiny ? 30 : 100, steps, &with);
        ratio[i] = failed ? 0 : with.samples_per_second / without.samples_per_second;
        rate = with.samples_per_second;
        base = without.samples_per_second;
        longest = with.longest_seconds > longest ? with.longest_seconds : longest;
        usual = with.usual_seconds;
        bytes = with.snapshot_bytes;
        n = with.n_snapshots;
    }
    if (!failed) {
        qsort(ratio, (size_t)rounds, sizeof(double), by_value);
        printf(
            "{\"name\":\"snapshot_train_rate\",\"value\":%.0f,\"unit\":\"samples/s\",\"baseline\":"
            "%.0f,\"baseline_name\":\"without snapshots\",\"ratio\":%.3f,\"spread\":\"%.3f..%.3f "
            "of %d\",\"snapshots\":%d,\"steps\":%d}\n",
            rate, base, ratio[rounds / 2], ratio[0], ratio[rounds - 1], rounds, n, steps);
        printf(
            "{\"name\":\"snapshot_longest_step\",\"value\":%.4f,\"unit\":\"s\",\"baseline\":%.4f,"
            "\"baseline_name\":\"median step\",\"ratio\":%.2f,\"spread\":\"\"}\n",
            longest, usual, longest / usual);
        printf("{\"name\":\"snapshot_bytes\",\"value\":%.0f,\"unit\":\"bytes\",\"baseline\":%.0f,"
               "\"baseline_name\":\"dd bytes/s to the same disk\",\"ratio\":0,\"spread\":\"\"}\n",
               bytes, dd_rate(&data, bytes));
    }
    small_data_close(&data);
    return failed != 0;
}
