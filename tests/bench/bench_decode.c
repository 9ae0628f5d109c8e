/* How fast candidates are scored: 100 candidates for one user with a full history of 100, one
 * thread.
 *
 *     bench_decode [--tiny] [--candidates N]
 *
 *     decode_greedy, decode_exact    candidates/s; the baseline is the reference of the same mode,
 *                                    which shares nothing and keeps nothing
 *     decode_exact_cost              time of exact over time of greedy, M = 6: at most 4
 *
 * One JSON line a figure: name, value, unit, baseline, ratio, min, max; medians of 7 rounds,
 * processor time.
 */
#include "model/a2gen.h"
#include "model/read.h"
#include "model/reference.h"
#include "model/workspace.h"
#include "tests/bench/bench_train_batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 7 };

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int ascending(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void print_figure(const char *name, const char *unit, const char *against, double *value,
                         const double *baseline, double *ratio, int n)
{
    double base[ROUNDS];
    memcpy(base, baseline, (size_t)n * sizeof(double));
    qsort(value, (size_t)n, sizeof(double), ascending);
    qsort(base, (size_t)n, sizeof(double), ascending);
    qsort(ratio, (size_t)n, sizeof(double), ascending);
    printf(
        "{\"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\", \"against\": \"%s\", \"baseline\": "
        "%.6g, \"ratio\": %.4g, \"min\": %.4g, \"max\": %.4g}\n",
        name, value[n / 2], unit, against, base[n / 2], ratio[n / 2], ratio[0], ratio[n - 1]);
}

/* candidates a second over n_times readings */
static double rate(int fast, const struct bench_batch *batch, enum mdl_read_mode mode,
                   void *workspace, struct mdl_reading *reading, int n_times)
{
    double start = seconds_now();
    for (int i = 0; i < n_times; i++)
        if ((fast ? mdl_a2gen_read : mdl_reference_read)(
                &batch->config, batch->params, &batch->view, mode, workspace, reading) != 0)
            abort();
    return (double)batch->view.n_samples * n_times / (seconds_now() - start);
}

int main(int argc, char **argv)
{
    int tiny = 0, candidates = 100;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--tiny") == 0) {
            tiny = 1;
        } else if (strcmp(argv[i], "--candidates") == 0 && i + 1 < argc) {
            candidates = atoi(argv[++i]);
        } else {
            fprintf(stderr, "usage: bench_decode [--tiny] [--candidates N]\n");
            return 64;
        }
    }
    struct mdl_config c = {.n_actions = 6,
                           .history = tiny ? 10 : 100,
                           .width = 64,
                           .heads = 4,
                           .user_dim = 32,
                           .item_dim = 48};
    struct bench_batch batch;
    int n = tiny ? 1 : ROUNDS;
    if (tiny)
        candidates = 10;
    if (candidates < 1)
        return 64;
    mdl_blas_single_thread();
    bench_batch_init(&batch, &c, candidates, candidates);
    bench_batch_share_history(&batch);
    size_t C = (size_t)c.n_actions + 1;
    struct mdl_reading reading = {.p = malloc((size_t)candidates * C * sizeof(mdl_real)),
                                  .time = malloc((size_t)candidates * C * sizeof(mdl_real))};
    double value[2][ROUNDS], plain[2][ROUNDS], ratio[ROUNDS], cost[ROUNDS];
    for (int i = 0; i < n; i++) {
        for (int mode = MDL_READ_GREEDY; mode <= MDL_READ_EXACT; mode++) {
            size_t bytes = mdl_read_workspace_bytes(&c, &batch.view, mode);
            size_t plain_bytes = mdl_reference_read_workspace_bytes(&c, &batch.view, mode);
            bytes = bytes > plain_bytes ? bytes : plain_bytes;
            void *workspace = NULL;
            size_t got = 0;
            if (mdl_workspace_grow(&workspace, &got, bytes))
                abort();
            rate(1, &batch, mode, workspace, &reading, 1);
            value[mode][i] = rate(1, &batch, mode, workspace, &reading, tiny ? 1 : 10);
            plain[mode][i] = rate(0, &batch, mode, workspace, &reading, 1);
            free(workspace);
        }
        cost[i] = value[MDL_READ_GREEDY][i] / value[MDL_READ_EXACT][i];
    }
    double exact[ROUNDS], greedy[ROUNDS];
    memcpy(exact, value[MDL_READ_EXACT], sizeof(exact));
    memcpy(greedy, value[MDL_READ_GREEDY], sizeof(greedy));
    for (int mode = MDL_READ_GREEDY; mode <= MDL_READ_EXACT; mode++) {
        for (int i = 0; i < n; i++)
            ratio[i] = value[mode][i] / plain[mode][i];
        print_figure(mode == MDL_READ_GREEDY ? "decode_greedy" : "decode_exact", "candidates/s",
                     "reference", value[mode], plain[mode], ratio, n);
    }
    print_figure("decode_exact_cost", "candidates/s", "greedy", exact, greedy, cost, n);
    free(reading.p);
    free(reading.time);
    bench_batch_fini(&batch);
    return 0;
}
