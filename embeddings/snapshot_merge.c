/* A k-way merge of snapshot files.
 *
 * A job of 64 shards with nine deltas upon a full snapshot has 640 files; so the files stand in a
 * heap by their next entry, and a row costs the logarithm of their number. The entry handed out is
 * a view into its file's block: files move on only when the next one is asked for.
 *
 * (M1) heap[0] has the smallest head by (table, rows before waiting keys, key, newest step first,
 *      row before tombstone). So of equal keys the first out is the one that counts.
 * (M2) "After the last" is said only when every file that is read was read to its end block.
 */
#include "embeddings/snapshot_merge.h"

#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/snapshot_file.h"

#include <stdlib.h>
#include <string.h>

struct source {
    struct emb_snapshot_reader *reader;
    const char *path; /* the caller's, while opening */
    uint64_t step;
    struct emb_row row; /* the head */
    const void *value;
    int is_candidate;
};

struct emb_snapshot_merge {
    struct source *sources; /* [n_sources] */
    size_t n_sources;
    struct source **heap; /* [n_heap] (M1) */
    size_t n_heap;
    struct emb_snapshot_info info;
    uint64_t hash[EMB_MAX_TABLES];
    uint8_t buckets[EMB_BUCKET_BYTES];
    bool has_buckets, has_last;
    struct source last; /* what was handed out, or passed over: table, key and kind of the head */
};

static bool has_bucket(const uint8_t *buckets, uint32_t bucket)
{
    return buckets[bucket / 8] >> bucket % 8 & 1;
}

/* By place in the order of files: less than 0, 0, greater. */
static int compare_keys(const struct source *a, const struct source *b)
{
    if (a->row.table != b->row.table)
        return a->row.table < b->row.table ? -1 : 1;
    if (a->is_candidate != b->is_candidate)
        return a->is_candidate ? 1 : -1;
    return (a->row.key > b->row.key) - (a->row.key < b->row.key);
}

static bool comes_first(const struct source *a, const struct source *b) /* (M1) */
{
    int order = compare_keys(a, b);
    if (order)
        return order < 0;
    if (a->step != b->step)
        return a->step > b->step;
    return a->row.is_tombstone < b->row.is_tombstone;
}

static void sift_down(struct emb_snapshot_merge *m, size_t i)
{
    struct source *moving = m->heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= m->n_heap)
            break;
        if (child + 1 < m->n_heap && comes_first(m->heap[child + 1], m->heap[child]))
            child++;
        if (!comes_first(m->heap[child], moving))
            break;
        m->heap[i] = m->heap[child];
        i = child;
    }
    m->heap[i] = moving;
}

/* The file's next entry of a wanted bucket; NOT_FOUND at its end. */
static int read_head(const struct emb_snapshot_merge *m, struct source *s)
{
    int status;
    do
        status = emb_snapshot_reader_entry(s->reader, &s->row, &s->value, &s->is_candidate);
    while (!status && m->has_buckets &&
           !has_bucket(m->buckets, clu_bucket_of(m->hash[s->row.table], s->row.key)));
    return status;
}

/* Moves the file on top on. */
static int advance_top(struct emb_snapshot_merge *m)
{
    int status = read_head(m, m->heap[0]);
    if (status == CLU_E_NOT_FOUND)
        m->heap[0] = m->heap[--m->n_heap];
    else if (status)
        return status;
    if (m->n_heap)
        sift_down(m, 0);
    return CLU_OK;
}

/* ---- opening ---- */

static bool same_tables(const struct emb_snapshot_info *a, const struct emb_snapshot_info *b)
{
    if (a->n_tables != b->n_tables)
        return false;
    for (int t = 0; t < a->n_tables; t++) {
        const struct emb_table_spec *x = &a->tables[t], *y = &b->tables[t];
        if (strcmp(x->name, y->name) != 0 || x->dim != y->dim || x->optimizer != y->optimizer ||
            x->dtype != y->dtype || x->seed != y->seed || x->init_range != y->init_range ||
            x->expire_steps != y->expire_steps)
            return false;
    }
    return true;
}

static int open_source(struct emb_snapshot_merge *m, const char *path)
{
    struct source *s = &m->sources[m->n_sources];
    int status = emb_snapshot_reader_open(path, &s->reader);
    if (status)
        return status;
    const struct emb_snapshot_info *info = emb_snapshot_reader_info(s->reader);
    s->path = path;
    s->step = info->step;
    if (m->n_sources++ == 0)
        m->info = *info;
    else if (!same_tables(info, &m->info))
        return clu_fail(CLU_E_CORRUPT, "%s: its tables are not those of the files beside it", path);
    if (s->step > m->info.step)
        m->info.step = s->step;
    return CLU_OK;
}

/* Every delta needs what it starts from among the files. */
static int check_bases(const struct emb_snapshot_merge *m)
{
    for (size_t i = 0; i < m->n_sources; i++) {
        const struct emb_snapshot_info *info = emb_snapshot_reader_info(m->sources[i].reader);
        bool found = !info->is_delta;
        for (size_t j = 0; j < m->n_sources && !found; j++)
            found = m->sources[j].step == info->base_step;
        if (!found)
            return clu_fail(CLU_E_DATA, "%s: is a delta on step %llu, which is not among the files",
                            m->sources[i].path, (unsigned long long)info->base_step);
    }
    return CLU_OK;
}

/* Closes a file that has nothing that is wanted. */
static int pass_over(const struct emb_snapshot_merge *m, struct source *s)
{
    struct emb_snapshot_totals totals;
    int status = emb_snapshot_reader_totals(s->reader, &totals);
    for (int i = 0; i < EMB_BUCKET_BYTES && !status; i++)
        if (totals.buckets[i] & m->buckets[i])
            return CLU_OK;
    if (!status) {
        emb_snapshot_reader_close(s->reader);
        s->reader = NULL;
    }
    return status;
}

static int fill_heap(struct emb_snapshot_merge *m)
{
    for (size_t i = 0; i < m->n_sources; i++) {
        struct source *s = &m->sources[i];
        int status = m->has_buckets ? pass_over(m, s) : CLU_OK;
        if (!status && s->reader)
            status = read_head(m, s);
        if (status && status != CLU_E_NOT_FOUND)
            return status;
        if (!status && s->reader)
            m->heap[m->n_heap++] = s;
    }
    for (size_t i = m->n_heap / 2; i-- > 0;)
        sift_down(m, i);
    return CLU_OK;
}

int emb_snapshot_merge_open(const char *const *paths, size_t n_paths, const uint8_t *buckets,
                            struct emb_snapshot_merge **merge_p)
{
    struct emb_snapshot_merge *m = calloc(1, sizeof(*m));
    if (m) {
        m->sources = calloc(n_paths + 1, sizeof(*m->sources));
        m->heap = calloc(n_paths + 1, sizeof(struct source *));
    }
    int status = m && m->sources && m->heap
                     ? CLU_OK
                     : clu_fail(CLU_E_NO_MEMORY, "no memory to read %zu snapshot files", n_paths);
    if (!status && buckets) {
        memcpy(m->buckets, buckets, EMB_BUCKET_BYTES);
        m->has_buckets = true;
    }
    for (size_t i = 0; i < n_paths && !status; i++)
        status = open_source(m, paths[i]);
    if (!status)
        status = check_bases(m);
    for (int t = 0; !status && t < m->info.n_tables; t++)
        m->hash[t] = clu_table_hash(m->info.tables[t].name);
    if (!status)
        status = fill_heap(m);
    if (status) {
        emb_snapshot_merge_close(m);
        return status;
    }
    m->info.is_delta = false;
    m->info.base_step = 0;
    *merge_p = m;
    return CLU_OK;
}

void emb_snapshot_merge_close(struct emb_snapshot_merge *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->n_sources; i++)
        emb_snapshot_reader_close(m->sources[i].reader);
    free(m->sources);
    free(m->heap);
    free(m);
}

const struct emb_snapshot_info *emb_snapshot_merge_info(const struct emb_snapshot_merge *m)
{
    return &m->info;
}

/* ---- reading ---- */

/* Whether the entry, the newest of its key, is part of the state at the newest step. */
static bool counts(const struct emb_snapshot_merge *m, const struct source *s)
{
    if (s->is_candidate)
        return s->step == m->info.step;
    int64_t expire = m->info.tables[s->row.table].expire_steps;
    return s->value && (expire == 0 || m->info.step <= s->row.last_step + (uint64_t)expire);
}

/* Moves to the next entry that counts; it is then heap[0]. */
static int next_source(struct emb_snapshot_merge *m)
{
    for (;;) {
        while (m->has_last && m->n_heap && compare_keys(m->heap[0], &m->last) == 0) {
            int status = advance_top(m);
            if (status)
                return status;
        }
        if (!m->n_heap)
            return CLU_E_NOT_FOUND; /* (M2) */
        m->last = *m->heap[0];
        m->has_last = true;
        if (counts(m, m->heap[0]))
            return CLU_OK;
    }
}

int emb_snapshot_merge_entry(struct emb_snapshot_merge *m, struct emb_row *row_p,
                             const void **value_p, bool *is_candidate_p)
{
    int status = next_source(m);
    if (status)
        return status;
    *row_p = m->heap[0]->row;
    *value_p = m->heap[0]->value;
    *is_candidate_p = m->heap[0]->is_candidate;
    return CLU_OK;
}

int emb_snapshot_merge_next(struct emb_snapshot_merge *m, struct emb_row *row_p)
{
    int status;
    do
        status = next_source(m);
    while (!status && m->heap[0]->is_candidate);
    if (status)
        return status;
    struct source *s = m->heap[0];
    emb_snapshot_reader_widen(s->reader, s->value, &s->row);
    *row_p = s->row;
    return CLU_OK;
}

void emb_snapshot_merge_progress(const struct emb_snapshot_merge *m, uint64_t *read_p,
                                 uint64_t *total_p)
{
    *read_p = *total_p = 0;
    for (size_t i = 0; i < m->n_sources; i++)
        if (m->sources[i].reader)
            emb_snapshot_reader_progress(m->sources[i].reader, read_p, total_p);
}
