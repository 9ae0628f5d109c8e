/* Synthetic batches, the same on every run: the seed is fixed. */
#include "tests/bench/bench_train_batch.h"

#include "model/params.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static uint64_t next(uint64_t *state_p)
{
    uint64_t x = (*state_p += 0x9e3779b97f4a7c15u);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static double uniform(uint64_t *state_p, double lo, double hi)
{
    return lo + (hi - lo) * (double)(next(state_p) >> 11) * 0x1p-53;
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory)
        abort();
    return memory;
}

/* 2..M tokens: start, then distinct other actions at growing times; returns their number */
static int add_tokens(uint64_t *state_p, int M, uint8_t *action, float *time)
{
    int m = 2 + (int)(next(state_p) % (uint64_t)(M - 1));
    uint8_t types[MDL_MAX_ACTIONS];
    float t = 0;
    for (int a = 0; a < M - 1; a++)
        types[a] = (uint8_t)(a + 2);
    action[0] = 1;
    time[0] = 0;
    for (int k = 1; k < m; k++) {
        int pick = k - 1 + (int)(next(state_p) % (uint64_t)(M - k));
        uint8_t type = types[pick];
        types[pick] = types[k - 1];
        types[k - 1] = type;
        t += (float)uniform(state_p, 0, 0.3);
        action[k] = type;
        time[k] = t;
    }
    return m;
}

static mdl_real *random_rows(uint64_t *state_p, size_t n)
{
    mdl_real *rows = allocate(n, sizeof(*rows));
    for (size_t i = 0; i < n; i++)
        rows[i] = (mdl_real)uniform(state_p, -0.3, 0.3);
    return rows;
}

void bench_batch_init(struct bench_batch *batch, const struct mdl_config *config, int n_samples,
                      int samples_per_user)
{
    int H = config->history, M = config->n_actions;
    int n_users = (n_samples + samples_per_user - 1) / samples_per_user;
    int timeline = H + samples_per_user, n_items = n_users * timeline;
    uint64_t state = 20260101;
    int *sample_user = allocate((size_t)n_samples, sizeof(int));
    int *sample_item = allocate((size_t)n_samples, sizeof(int));
    int *seq_item = allocate((size_t)n_items, sizeof(int));
    int *seq_offset = allocate((size_t)n_items + 1, sizeof(int));
    int *hist_offset = allocate((size_t)n_samples + 1, sizeof(int));
    int *hist_seq = allocate((size_t)n_samples * (size_t)H, sizeof(int));
    int *target_offset = allocate((size_t)n_samples + 1, sizeof(int));
    uint8_t *seq_action = allocate((size_t)n_items * (size_t)M, 1);
    float *seq_time = allocate((size_t)n_items * (size_t)M, sizeof(float));
    uint8_t *target_action = allocate((size_t)n_samples * (size_t)M, 1);
    float *target_time = allocate((size_t)n_samples * (size_t)M, sizeof(float));
    for (int s = 0; s < n_items; s++) {
        seq_item[s] = s;
        seq_offset[s + 1] = seq_offset[s] + add_tokens(&state, M, seq_action + seq_offset[s],
                                                       seq_time + seq_offset[s]);
    }
    for (int i = 0; i < n_samples; i++) {
        int user = i / samples_per_user, k = i % samples_per_user;
        sample_user[i] = user;
        sample_item[i] = user * timeline + H + k;
        hist_offset[i + 1] = hist_offset[i] + H;
        for (int j = 0; j < H; j++)
            hist_seq[hist_offset[i] + j] = user * timeline + k + j;
        target_offset[i + 1] =
            target_offset[i] +
            add_tokens(&state, M, target_action + target_offset[i], target_time + target_offset[i]);
    }
    batch->config = *config;
    batch->view = (struct mdl_batch){
        .n_samples = n_samples,
        .n_global = n_samples,
        .n_users = n_users,
        .n_items = n_items,
        .n_seqs = n_items,
        .user = random_rows(&state, (size_t)n_users * (size_t)config->user_dim),
        .item = random_rows(&state, (size_t)n_items * (size_t)config->item_dim),
        .sample_user = sample_user,
        .sample_item = sample_item,
        .seq_item = seq_item,
        .seq_offset = seq_offset,
        .seq_action = seq_action,
        .seq_time = seq_time,
        .hist_offset = hist_offset,
        .hist_seq = hist_seq,
        .target_offset = target_offset,
        .target_action = target_action,
        .target_time = target_time,
    };
    batch->params = allocate(mdl_n_params(config), sizeof(mdl_real));
    mdl_params_init(config, 1, batch->params);
    /* no parameter at a special value: recency and gates take part */
    for (size_t i = 0; i < mdl_n_params(config); i++)
        batch->params[i] += (mdl_real)uniform(&state, -0.05, 0.05);
}

void bench_batch_share_history(struct bench_batch *batch)
{
    int *hist_seq = (int *)(uintptr_t)batch->view.hist_seq, H = batch->config.history;
    for (int i = 1; i < batch->view.n_samples; i++)
        memcpy(hist_seq + (size_t)i * (size_t)H, hist_seq, (size_t)H * sizeof(int));
}

void bench_batch_fini(struct bench_batch *batch)
{
    const struct mdl_batch *b = &batch->view;
    const void *owned[] = {b->user,        b->item,       b->sample_user,   b->sample_item,
                           b->seq_item,    b->seq_offset, b->hist_offset,   b->hist_seq,
                           b->seq_action,  b->seq_time,   b->target_offset, b->target_action,
                           b->target_time, batch->params};
    for (size_t i = 0; i < sizeof(owned) / sizeof(owned[0]); i++)
        free((void *)(uintptr_t)owned[i]);
}

static int dump(const char *dir, FILE *index, const char *name, const char *type, const void *data,
                size_t count, size_t size)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s.bin", dir, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, size, count, file) != count || fclose(file) != 0) {
        perror(path);
        return -1;
    }
    fprintf(index, "%s %s %zu\n", name, type, count);
    return 0;
}

int bench_batch_dump(const struct bench_batch *batch, const char *dir)
{
    const struct mdl_batch *b = &batch->view;
    const struct mdl_config *c = &batch->config;
    size_t n = (size_t)b->n_samples, seqs = (size_t)b->n_seqs;
    size_t tokens = (size_t)b->seq_offset[seqs], targets = (size_t)b->target_offset[n];
    char path[4096];
    snprintf(path, sizeof(path), "%s/arrays.txt", dir);
    mkdir(dir, 0700);
    FILE *index = fopen(path, "w");
    if (!index) {
        perror(path);
        return -1;
    }
    int sizes[] = {c->n_actions, c->history,  c->width,   c->heads,
                   c->user_dim,  c->item_dim, b->n_global};
    float weights[] = {c->alpha, c->beta, c->gamma};
    int bad = dump(dir, index, "sizes", "int32", sizes, 7, 4);
    bad |= dump(dir, index, "weights", "float32", weights, 3, 4);
    bad |=
        dump(dir, index, "user", "float32", b->user, (size_t)b->n_users * (size_t)c->user_dim, 4);
    bad |=
        dump(dir, index, "item", "float32", b->item, (size_t)b->n_items * (size_t)c->item_dim, 4);
    bad |= dump(dir, index, "sample_user", "int32", b->sample_user, n, 4);
    bad |= dump(dir, index, "sample_item", "int32", b->sample_item, n, 4);
    bad |= dump(dir, index, "seq_item", "int32", b->seq_item, seqs, 4);
    bad |= dump(dir, index, "seq_offset", "int32", b->seq_offset, seqs + 1, 4);
    bad |= dump(dir, index, "seq_action", "uint8", b->seq_action, tokens, 1);
    bad |= dump(dir, index, "seq_time", "float32", b->seq_time, tokens, 4);
    bad |= dump(dir, index, "hist_offset", "int32", b->hist_offset, n + 1, 4);
    bad |= dump(dir, index, "hist_seq", "int32", b->hist_seq, (size_t)b->hist_offset[n], 4);
    bad |= dump(dir, index, "target_offset", "int32", b->target_offset, n + 1, 4);
    bad |= dump(dir, index, "target_action", "uint8", b->target_action, targets, 1);
    bad |= dump(dir, index, "target_time", "float32", b->target_time, targets, 4);
    for (int i = 0; i < mdl_n_tensors(c) && !bad; i++) {
        struct mdl_tensor t;
        mdl_tensor(c, i, &t);
        bad |= dump(dir, index, t.name, "float32", batch->params + t.offset,
                    (size_t)t.rows * (size_t)t.cols, 4);
    }
    return fclose(index) != 0 || bad ? -1 : 0;
}
