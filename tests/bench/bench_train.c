/* How fast a training step is: samples a second, as a share of what the core can do, and beside
 * PyTorch.
 *
 *     bench_train [--tiny] [--samples N] [--data DIR] [--against pytorch]
 *
 * H = 100, M = 6, d = 64, 4 heads, histories full, 4 actions an item in the mean, one thread:
 *
 *     train_shared       8 samples a user
 *     train_unshared     1 sample a user: nothing to share
 *     train_data         batches of a prepared data set as they are (--data)
 *     train_flop_share   FLOP/s of the unshared step beside OpenBLAS's sgemm 1024^3
 *     train_module_*     share of the time of a step
 *
 * One JSON line a figure: name, value, unit, baseline, ratio, min, max; medians of 7 rounds, in
 * each of which both sides of the ratio are measured, in processor time (the machine may have other
 * things to do). FLOPs are those of the matrix products that are executed, two a multiplication;
 * what the equations of MODEL.md would take without sharing is more.
 */
#include "model/a2gen.h"
#include "model/level.h"
#include "model/params.h"
#include "model/workspace.h"
#include "tests/bench/bench_train_batch.h"

#include <cblas.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 7 };

struct options {
    int tiny, n_samples, pytorch;
    const char *data;
};

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

/* value and baseline of each round; the ratio's median is that of the rounds' ratios */
static void print_figure(const char *name, const char *unit, const char *against, double *value,
                         const double *baseline, int n)
{
    double ratio[ROUNDS], base[ROUNDS];
    for (int i = 0; i < n; i++) {
        base[i] = baseline ? baseline[i] : 1;
        ratio[i] = value[i] / base[i];
    }
    qsort(value, (size_t)n, sizeof(double), ascending);
    qsort(ratio, (size_t)n, sizeof(double), ascending);
    qsort(base, (size_t)n, sizeof(double), ascending);
    printf("{\"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\", ", name, value[n / 2], unit);
    if (baseline)
        printf("\"against\": \"%s\", \"baseline\": %.6g, \"ratio\": %.4g, \"min\": %.4g, \"max\": "
               "%.4g}\n",
               against, base[n / 2], ratio[n / 2], ratio[0], ratio[n - 1]);
    else
        printf("\"baseline\": null, \"ratio\": null, \"min\": %.6g, \"max\": %.6g}\n", value[0],
               value[n - 1]);
    fflush(stdout);
}

struct stepper {
    const struct bench_batch *batch;
    void *workspace;
    struct mdl_grads grads;
    struct mdl_losses losses;
};

/* On huge pages where a worker's workspace is: for both sides alike. */
static void *allocate(size_t size_bytes)
{
    void *memory = NULL;
    size_t got = 0;
    if (mdl_workspace_grow(&memory, &got, size_bytes))
        abort();
    return memory;
}

static void stepper_init(struct stepper *s, const struct bench_batch *batch)
{
    const struct mdl_config *c = &batch->config;
    s->batch = batch;
    s->workspace = allocate(mdl_a2gen_workspace_bytes(c, &batch->view));
    s->grads.dense = allocate(mdl_n_params(c) * sizeof(mdl_real));
    s->grads.user = allocate((size_t)batch->view.n_users * (size_t)c->user_dim * sizeof(mdl_real));
    s->grads.item = allocate((size_t)batch->view.n_items * (size_t)c->item_dim * sizeof(mdl_real));
}

static void stepper_fini(struct stepper *s)
{
    free(s->workspace);
    free(s->grads.dense);
    free(s->grads.user);
    free(s->grads.item);
}

/* seconds of one step */
static double step(struct stepper *s)
{
    double start = seconds_now();
    if (mdl_a2gen_step(&s->batch->config, s->batch->params, &s->batch->view, s->workspace,
                       &s->losses, &s->grads) != 0)
        abort();
    return seconds_now() - start;
}

static double samples_per_s(struct stepper *s, int n_steps)
{
    double seconds = 0;
    for (int i = 0; i < n_steps; i++)
        seconds += step(s);
    return (double)s->batch->view.n_samples * n_steps / seconds;
}

/* GFLOP/s of OpenBLAS's sgemm, n^3 */
static double sgemm_rate(int n)
{
    size_t count = (size_t)n * (size_t)n;
    float *a = allocate(count * 4), *b = allocate(count * 4), *c = allocate(count * 4);
    for (size_t i = 0; i < count; i++)
        a[i] = b[i] = (float)(i % 7) - 3;
    double best = 1e30;
    for (int i = 0; i < 4; i++) {
        double start = seconds_now();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, n, n, 1, a, n, b, n, 0, c, n);
        double seconds = seconds_now() - start;
        best = seconds < best ? seconds : best;
    }
    free(a);
    free(b);
    free(c);
    return 2e-9 * (double)n * n * n / best;
}

/* multiplications of the products of a small CAM's rows (forward and backward) of which the group
 * has L */
static double row_products(double d, double L)
{
    double forward = 36 * d + 5 * d * d + 2 * L * d;
    double backward = 63 * d + 10 * d * d + 5 * L * d;
    return forward + backward;
}

/* FLOPs of the products of one step, as executed */
static double flops_of(const struct bench_batch *batch)
{
    const struct mdl_config *c = &batch->config;
    const struct mdl_batch *b = &batch->view;
    double d = c->width, f = c->item_dim, M = c->n_actions, n = b->n_samples, total = 0;
    double wc = 2 * d + 16, d_c = c->user_dim + f + d;
    for (int s = 0; s < b->n_seqs; s++) {
        double L = b->seq_offset[s + 1] - b->seq_offset[s];
        total += L * row_products(d, L);
    }
    /* contexts of CAM_act, made twice, and back; X, Q, K, V of CAM_item */
    total += b->n_seqs * (4 * f * wc + 3 * ((d + f) * d + 3 * d * d));
    for (int i = 0; i < b->n_samples; i++) {
        int length = b->hist_offset[i + 1] - b->hist_offset[i];
        double L = length, padded = (length + 15) / 16 * 16;
        total += 2 * L * padded * d + 4 * L * L * d + 15 * L * d * d + 3 * f * wc;
    }
    total += n * ((M - 1) * row_products(d, M - 1) + 4 * d_c * wc);
    total += n * (M - 1) * 3 * (2 * d * d + 2 * d * 16);
    return 2 * total;
}

static void bench_modules(const struct bench_batch *batch, const char *which)
{
    static const char *names[MDL_N_MODULES] = {"act", "item_inputs", "item",
                                               "gen", "decision",    "other"};
    struct stepper s;
    stepper_init(&s, batch);
    struct mdl_clock clock = {.last = seconds_now()};
    for (int i = 0; i < 4; i++) {
        struct mdl_arena arena = {.base = s.workspace};
        struct mdl_fast fast;
        mdl_fast_take(&fast, &arena, &batch->config, &batch->view);
        fast.clock = &clock;
        mdl_level_best()->step(&fast, batch->params, &s.losses, &s.grads);
        if (i == 0)
            memset(clock.seconds, 0, sizeof(clock.seconds)); /* the first warms up */
    }
    double all = 0;
    for (int m = 0; m < MDL_N_MODULES; m++)
        all += clock.seconds[m];
    for (int m = 0; m < MDL_N_MODULES; m++) {
        char name[64];
        double share = 100 * clock.seconds[m] / all;
        snprintf(name, sizeof(name), "train_%s_module_%s", which, names[m]);
        print_figure(name, "% of the step", NULL, &share, NULL, 1);
    }
    stepper_fini(&s);
}

/* One number of the script's JSON line; -1 when it is not there. */
static double json_number(const char *line, const char *key)
{
    char quoted[64];
    snprintf(quoted, sizeof(quoted), "\"%s\": ", key);
    const char *at = strstr(line, quoted);
    return at ? strtod(at + strlen(quoted), NULL) : -1;
}

/* Runs the PyTorch script on a dumped batch; 0 and its line, or -1 where PyTorch is not installed.
 * */
static int run_pytorch(const char *dir, const char *variant, char *line, size_t size)
{
    static const char *const pythons[] = {"python3", "/usr/bin/python3"};
    for (int i = 0; i < 2; i++) {
        char command[4096];
        snprintf(command, sizeof(command),
                 "OMP_NUM_THREADS=1 %s '%s' '%s' --steps 3 --variant %s 2>/dev/null", pythons[i],
                 BENCH_PYTORCH, dir, variant);
        FILE *pipe = popen(command, "r");
        if (!pipe)
            return -1;
        int got = fgets(line, (int)size, pipe) != NULL;
        int status = pclose(pipe);
        if (got && WIFEXITED(status) && WEXITSTATUS(status) == 0 && !strstr(line, "skipped"))
            return 0;
    }
    return -1;
}

static void remove_dump(const char *dir)
{
    char command[600];
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    if (system(command) != 0)
        fprintf(stderr, "bench_train: could not remove %s\n", dir);
}

/* Ours beside PyTorch's on the same batch and weights, a round of each in turn; exits when losses
 * differ. */
static void bench_pytorch(const struct bench_batch *batch, const char *which)
{
    char dir[] = "/tmp/bench_train.XXXXXX", line[4096], name[96];
    if (!mkdtemp(dir) || bench_batch_dump(batch, dir) != 0)
        exit(1);
    struct stepper s;
    stepper_init(&s, batch);
    step(&s);
    static const char *const variants[] = {"padded", "packed"};
    for (int v = 0; v < 2; v++) {
        double ours[ROUNDS], theirs[ROUNDS];
        for (int i = 0; i < ROUNDS; i++) {
            ours[i] = samples_per_s(&s, 3);
            if (run_pytorch(dir, variants[v], line, sizeof(line)) != 0) {
                printf("{\"name\": \"train_%s_pytorch\", \"skipped\": \"PyTorch is not installed "
                       "(Debian: python3-torch)\"}\n",
                       which);
                goto done;
            }
            theirs[i] = json_number(line, "samples_per_s");
            double total = json_number(line, "total"), off = total / s.losses.total - 1;
            if (!(off < 1e-4 && off > -1e-4)) {
                fprintf(stderr, "bench_train: loss %.8g here, %.8g in PyTorch\n", s.losses.total,
                        total);
                exit(1);
            }
        }
        snprintf(name, sizeof(name), "train_%s%s", which, v ? "_packed" : "");
        print_figure(name, "samples/s", v ? "pytorch packed" : "pytorch padded", ours, theirs,
                     ROUNDS);
    }
done:
    stepper_fini(&s);
    remove_dump(dir);
}

static void bench_case(const struct options *o, const struct bench_batch *batch, const char *which,
                       int flop_share)
{
    struct stepper s;
    double rate[ROUNDS], gflops[ROUNDS], sgemm[ROUNDS];
    char name[96];
    int n = o->tiny ? 1 : ROUNDS;
    stepper_init(&s, batch);
    step(&s);
    for (int i = 0; i < n; i++) {
        sgemm[i] = sgemm_rate(o->tiny ? 64 : 1024);
        rate[i] = samples_per_s(&s, o->tiny ? 1 : 3);
        gflops[i] = 1e-9 * flops_of(batch) * rate[i] / batch->view.n_samples;
    }
    stepper_fini(&s);
    snprintf(name, sizeof(name), "train_%s_rate", which);
    print_figure(name, "samples/s", NULL, rate, NULL, n);
    snprintf(name, sizeof(name), flop_share ? "train_flop_share" : "train_%s_flop_share", which);
    print_figure(name, "GFLOP/s", "OpenBLAS sgemm 1024^3", gflops, sgemm, n);
    bench_modules(batch, which);
}

static int parse(int argc, char **argv, struct options *o)
{
    *o = (struct options){.n_samples = 64};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--tiny") == 0)
            o->tiny = 1;
        else if (strcmp(argv[i], "--samples") == 0 && i + 1 < argc)
            o->n_samples = atoi(argv[++i]);
        else if (strcmp(argv[i], "--data") == 0 && i + 1 < argc)
            o->data = argv[++i];
        else if (strcmp(argv[i], "--against") == 0 && i + 1 < argc &&
                 strcmp(argv[i + 1], "pytorch") == 0)
            o->pytorch = i++;
        else
            return -1;
    }
    return o->n_samples > 0 ? 0 : -1;
}

int main(int argc, char **argv)
{
    struct options o;
    if (parse(argc, argv, &o) != 0) {
        fprintf(stderr, "usage: bench_train [--tiny] [--samples N] [--data DIR] "
                        "[--against pytorch]\n");
        return 64;
    }
    struct mdl_config c = {.n_actions = 6,
                           .history = o.tiny ? 10 : 100,
                           .width = 64,
                           .heads = 4,
                           .user_dim = 32,
                           .item_dim = 48,
                           .alpha = 1,
                           .beta = 1,
                           .gamma = 0.1f};
    struct bench_batch batch;
    int n = o.tiny ? 8 : o.n_samples;
    mdl_blas_single_thread();
    for (int shared = 1; shared >= 0; shared--) {
        const char *which = shared ? "shared" : "unshared";
        bench_batch_init(&batch, &c, n, shared ? 8 : 1);
        bench_case(&o, &batch, which, !shared);
        if (o.pytorch)
            bench_pytorch(&batch, which);
        bench_batch_fini(&batch);
    }
    if (o.data) {
        if (bench_batch_load(&batch, o.data, 256) != 0)
            return 1;
        bench_case(&o, &batch, "data", 0);
        if (o.pytorch)
            bench_pytorch(&batch, "data");
        bench_batch_fini(&batch);
    }
    return 0;
}
