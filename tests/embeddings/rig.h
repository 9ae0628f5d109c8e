/* What the tests of a shard share: a folder of their own, and a model of a table that is too simple
 * to be wrong: an array of rows over a small set of keys, one step after the other. */
#ifndef TESTS_EMBEDDINGS_RIG_H
#define TESTS_EMBEDDINGS_RIG_H

#include "cluster/file.h"
#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/optimizer.h"
#include "embeddings/shard.h"
#include "embeddings/snapshot.h"
#include "tests/suite.h"

#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

/* A fresh folder, by process and name: under TMPDIR, else in memory where there is such a place
 * (what is tested is processes dying, not machines, and disks are slow), else /tmp. */
static inline void rig_folder(char *path, size_t path_bytes, const char *name)
{
    const char *top = getenv("TMPDIR");
    if (!top)
        top = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(path, path_bytes, "%s/sluice-test-%s-%d", top, name, (int)getpid());
    clu_remove_tree(path);
    CU_ASSERT_EQUAL_FATAL(clu_mkdirs(path), CLU_OK);
}

/* Sends the log nowhere while hundreds of refusals are provoked, and back again. */
static inline void rig_quiet(bool quiet)
{
    static int saved = -1;
    fflush(stderr);
    if (quiet) {
        int nowhere = open("/dev/null", O_WRONLY);
        saved = dup(STDERR_FILENO);
        dup2(nowhere, STDERR_FILENO);
        close(nowhere);
    } else {
        dup2(saved, STDERR_FILENO);
        close(saved);
    }
}

enum { RIG_KEYS = 3000, RIG_DIM = 8, RIG_STATE = 16 };

struct rig_row {
    uint32_t count, last_step; /* count 0: there is none */
    uint32_t waiting;          /* pushes counted by admission */
    float embedding[RIG_DIM], state[RIG_STATE];
};

struct rig_model {
    struct emb_table_spec spec;
    struct emb_updater updater;
    uint64_t clock;
    struct rig_row row[RIG_KEYS];
};

static inline uint64_t rig_key(uint32_t i)
{
    return clu_mix(i);
}

static inline bool rig_exists(const struct rig_model *model, uint32_t i)
{
    const struct rig_row *row = &model->row[i];
    return row->count && (model->spec.expire_steps == 0 ||
                          model->clock <= row->last_step + (uint64_t)model->spec.expire_steps);
}

static inline void rig_initial(const struct rig_model *model, uint32_t i, float *out)
{
    clu_row_init(model->spec.seed, clu_table_hash(model->spec.name), rig_key(i),
                 (float)model->spec.init_range, model->spec.dim, out);
}

static inline void rig_narrow(const struct rig_model *model, uint32_t i, uint32_t count, float *w)
{
    uint16_t narrow[RIG_DIM];
    if (model->spec.dtype != EMB_BF16)
        return;
    emb_bf16_narrow(w, model->spec.dim, rig_key(i), count, narrow);
    emb_bf16_widen(narrow, model->spec.dim, w);
}

static inline void rig_push(struct rig_model *model, uint32_t i, const float *grad, uint64_t step)
{
    struct rig_row *row = &model->row[i];
    if (!rig_exists(model, i)) {
        row->count = 0;
        if (model->spec.min_count > 1 && ++row->waiting < model->spec.min_count)
            return;
        row->waiting = 0;
        memset(row->state, 0, sizeof(row->state));
        rig_initial(model, i, row->embedding);
        rig_narrow(model, i, 0, row->embedding);
    }
    row->count++;
    row->last_step = (uint32_t)step;
    emb_update(&model->updater, row->embedding, row->state, grad, row->count);
    rig_narrow(model, i, row->count, row->embedding);
}

static inline void rig_pull(const struct rig_model *model, uint32_t i, float *out)
{
    if (rig_exists(model, i))
        memcpy(out, model->row[i].embedding, (size_t)model->spec.dim * 4);
    else
        rig_initial(model, i, out);
}

/* Compares every row of the shard's table 0 with the model; prints the first difference. */
static inline bool rig_agrees(struct emb_shard *shard, const struct rig_model *model)
{
    for (uint32_t i = 0; i < RIG_KEYS; i++) {
        struct emb_row row;
        int status = emb_shard_row(shard, 0, rig_key(i), &row);
        bool exists = rig_exists(model, i);
        if (status != (exists ? CLU_OK : CLU_E_NOT_FOUND)) {
            printf("  key %u: status %s, model says %s\n", i, clu_status_name(status),
                   exists ? "there" : "not there");
            return false;
        }
        if (exists &&
            (row.count != model->row[i].count || row.last_step != model->row[i].last_step ||
             memcmp(row.embedding, model->row[i].embedding, 4 * (size_t)row.dim) != 0 ||
             memcmp(row.state, model->row[i].state, 4 * (size_t)row.n_state) != 0)) {
            printf("  key %u: count %u and %u, last step %u and %u\n", i, row.count,
                   model->row[i].count, row.last_step, model->row[i].last_step);
            return false;
        }
    }
    return true;
}

static inline int rig_count_one(const struct emb_row *row, void *arg)
{
    *(uint64_t *)arg += !row->is_tombstone;
    return CLU_OK;
}

/* Rows that a walk over the shard finds: expired ones are none, swept or not. */
static inline uint64_t rig_count(struct emb_shard *shard)
{
    uint64_t n = 0;
    CU_ASSERT_EQUAL(emb_shard_each(shard, NULL, rig_count_one, &n), CLU_OK);
    return n;
}

/* n distinct key numbers below RIG_KEYS, mostly small ones. */
static inline size_t rig_pick(uint64_t *random, size_t n, uint32_t *numbers)
{
    static uint8_t taken[RIG_KEYS];
    size_t got = 0;
    memset(taken, 0, sizeof(taken));
    for (size_t i = 0; i < n; i++) {
        double u = suite_uniform(random, 0, 1);
        uint32_t number = (uint32_t)(u * u * RIG_KEYS);
        if (!taken[number]) {
            taken[number] = 1;
            numbers[got++] = number;
        }
    }
    return got;
}

/* One step: a push of about n rows, a mark, the tick, the commit; in the shard and in the model. */
static inline int rig_step(struct emb_shard *shard, struct rig_model *model, uint64_t *random,
                           size_t n)
{
    static uint32_t numbers[RIG_KEYS];
    static uint64_t keys[RIG_KEYS];
    static float grads[RIG_KEYS * RIG_DIM];
    uint64_t step = model->clock + 1;
    n = rig_pick(random, n, numbers);
    for (size_t i = 0; i < n; i++) {
        keys[i] = rig_key(numbers[i]);
        for (int j = 0; j < model->spec.dim; j++)
            grads[i * (size_t)model->spec.dim + (size_t)j] = (float)suite_uniform(random, -1, 1);
    }
    int status = emb_shard_push(shard, 0, keys, n, grads, step);
    if (status)
        return status;
    for (size_t i = 0; i < n; i++)
        rig_push(model, numbers[i], grads + i * (size_t)model->spec.dim, step);
    status = emb_shard_mark(shard, 7, step);
    if (!status)
        status = emb_shard_tick(shard, step);
    if (!status)
        status = emb_shard_commit(shard);
    model->clock = step;
    return status;
}

#endif
