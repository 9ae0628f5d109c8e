/* The writer of snapshot files. A block is collected in three parts (keys, counts, values) that are
 * written one after the other; the block's header, which holds their checksum, goes before them.
 * Because the payload's hash is of the parts in sequence, they are gathered into one buffer first.
 * */
#include "embeddings/snapshot_file.h"

#include "cluster/file.h"
#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/row.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK_BYTES = 1 << 20 };

struct emb_snapshot_writer {
    char *path;
    int fd;
    int n_tables;
    size_t value_bytes[EMB_MAX_TABLES]; /* behind the count */
    int type, table;                    /* of the block being collected */
    uint32_t n, capacity;               /* entries collected, and that fit */
    uint64_t *keys;                     /* [capacity] */
    uint32_t *counts;                   /* [capacity] */
    char *values;                       /* of entries that are not tombstones */
    size_t values_bytes;
    char *out; /* a whole block */
    uint64_t n_rows, n_tombstones, n_candidates, size_bytes;
    struct clu_hash_stream *sum; /* of all bytes so far */
    uint64_t table_hash[EMB_MAX_TABLES];
    uint8_t buckets[EMB_BUCKET_BYTES];
    bool pass_on; /* not to be synced */
};

static int write_bytes(struct emb_snapshot_writer *w, const void *data, size_t size)
{
    const char *at = data;
    clu_hash_stream_add(w->sum, data, size);
    while (size > 0) {
        ssize_t done = write(w->fd, at, size);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return clu_fail(clu_status_from_errno(errno), "%s: cannot write: %s", w->path,
                            strerror(errno));
        at += done;
        size -= (size_t)done;
        w->size_bytes += (uint64_t)done;
    }
    return CLU_OK;
}

static void put_u32(char *at, uint32_t number)
{
    memcpy(at, &number, 4);
}

static void put_u64(char *at, uint64_t number)
{
    memcpy(at, &number, 8);
}

static int write_header(struct emb_snapshot_writer *w, const struct emb_snapshot_info *info)
{
    size_t size = EMB_SNAPSHOT_HEADER + EMB_SNAPSHOT_TABLE * (size_t)info->n_tables;
    char *header = calloc(1, size + 8);
    if (!header)
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory for the header", w->path);
    memcpy(header, EMB_SNAPSHOT_MAGIC, 8);
    put_u32(header + 8, EMB_SNAPSHOT_VERSION);
    put_u32(header + 12, info->is_delta);
    put_u64(header + 16, info->step);
    put_u64(header + 24, info->base_step);
    put_u32(header + 32, (uint32_t)info->n_tables);
    for (int t = 0; t < info->n_tables; t++) {
        const struct emb_table_spec *spec = &info->tables[t];
        char *at = header + EMB_SNAPSHOT_HEADER + EMB_SNAPSHOT_TABLE * (size_t)t;
        float range = (float)spec->init_range;
        memcpy(at, spec->name, strnlen(spec->name, EMB_NAME_BYTES));
        put_u32(at + 64, (uint32_t)spec->dim);
        put_u32(at + 68, spec->optimizer);
        put_u32(at + 72, spec->dtype);
        put_u32(at + 76, (uint32_t)emb_optimizer_n_state(spec->optimizer, spec->dim));
        put_u64(at + 80, spec->seed);
        memcpy(at + 88, &range, 4);
        put_u32(at + 92, (uint32_t)w->value_bytes[t]);
        put_u64(at + 96, (uint64_t)spec->expire_steps);
    }
    put_u64(header + size, clu_hash_bytes(header, size));
    int status = write_bytes(w, header, size + 8);
    free(header);
    return status;
}

int emb_snapshot_writer_open(const char *path, const struct emb_snapshot_info *info,
                             struct emb_snapshot_writer **writer_p)
{
    struct emb_snapshot_writer *w = calloc(1, sizeof(*w));
    if (!w)
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory for a snapshot", path);
    w->fd = -1;
    w->n_tables = info->n_tables;
    size_t smallest = BLOCK_BYTES, largest = 0;
    for (int t = 0; t < info->n_tables; t++) {
        size_t bytes = w->value_bytes[t] = emb_value_bytes(&info->tables[t]) - 4;
        w->table_hash[t] = clu_table_hash(info->tables[t].name);
        smallest = bytes < smallest ? bytes : smallest;
        largest = bytes > largest ? bytes : largest;
    }
    w->capacity = (uint32_t)(BLOCK_BYTES / (smallest + 12)) + 1;
    w->path = strdup(path);
    w->keys = malloc(w->capacity * (size_t)8);
    w->counts = malloc(w->capacity * (size_t)4);
    w->values = malloc(BLOCK_BYTES + largest);
    w->out = malloc(EMB_SNAPSHOT_BLOCK + w->capacity * (size_t)12 + BLOCK_BYTES + largest);
    w->sum = clu_hash_stream_create();
    int status = CLU_OK;
    if (!w->sum || !w->path || !w->keys || !w->counts || !w->values || !w->out)
        status = clu_fail(CLU_E_NO_MEMORY, "%s: no memory for a snapshot", path);
    if (!status) {
        w->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (w->fd < 0)
            status = clu_fail(clu_status_from_errno(errno), "%s: cannot create: %s", path,
                              strerror(errno));
    }
    if (!status)
        status = write_header(w, info);
    if (status) {
        emb_snapshot_writer_abort(w);
        return status;
    }
    *writer_p = w;
    return CLU_OK;
}

static int write_block(struct emb_snapshot_writer *w, int type, int table, uint32_t n,
                       size_t payload_bytes)
{
    char *out = w->out;
    memcpy(out, EMB_BLOCK_MAGIC, 4);
    put_u32(out + 4, (uint32_t)type);
    put_u32(out + 8, (uint32_t)table);
    put_u32(out + 12, n);
    put_u64(out + 16, payload_bytes);
    put_u64(out + 24, clu_hash_bytes(out + EMB_SNAPSHOT_BLOCK, payload_bytes));
    put_u64(out + 32, clu_hash_bytes(out, 32));
    return write_bytes(w, out, EMB_SNAPSHOT_BLOCK + payload_bytes);
}

static int flush(struct emb_snapshot_writer *w)
{
    if (w->n == 0)
        return CLU_OK;
    char *at = w->out + EMB_SNAPSHOT_BLOCK;
    memcpy(at, w->keys, w->n * (size_t)8);
    memcpy(at + w->n * (size_t)8, w->counts, w->n * (size_t)4);
    memcpy(at + w->n * (size_t)12, w->values, w->values_bytes);
    int status = write_block(w, w->type, w->table, w->n, w->n * (size_t)12 + w->values_bytes);
    w->n = 0;
    w->values_bytes = 0;
    return status;
}

static int add(struct emb_snapshot_writer *w, int type, int table, uint64_t key, uint32_t count)
{
    int status = CLU_OK;
    if (w->type != type || w->table != table || w->n == w->capacity ||
        w->values_bytes >= BLOCK_BYTES)
        status = flush(w);
    if (status)
        return status;
    w->type = type;
    w->table = table;
    emb_bucket_add(w->buckets, clu_bucket_of(w->table_hash[table], key));
    w->keys[w->n] = key;
    w->counts[w->n++] = count;
    return CLU_OK;
}

int emb_snapshot_writer_row(struct emb_snapshot_writer *w, int table, uint64_t key,
                            const void *value)
{
    uint32_t count = value ? emb_value_u32(value, EMB_VALUE_COUNT) : 0;
    int status = add(w, EMB_BLOCK_ROWS, table, key, count);
    if (status)
        return status;
    if (!value) {
        w->n_tombstones++;
        return CLU_OK;
    }
    memcpy(w->values + w->values_bytes, (const char *)value + EMB_VALUE_STEP,
           w->value_bytes[table]);
    w->values_bytes += w->value_bytes[table];
    w->n_rows++;
    return CLU_OK;
}

int emb_snapshot_writer_candidate(struct emb_snapshot_writer *w, int table, uint64_t key,
                                  uint32_t pushes)
{
    int status = add(w, EMB_BLOCK_CANDIDATES, table, key, pushes);
    if (!status)
        w->n_candidates++;
    return status;
}

static void writer_free(struct emb_snapshot_writer *w)
{
    if (w->fd >= 0)
        close(w->fd);
    clu_hash_stream_free(w->sum);
    free(w->path);
    free(w->keys);
    free(w->counts);
    free(w->values);
    free(w->out);
    free(w);
}

void emb_snapshot_writer_pass_on(struct emb_snapshot_writer *w)
{
    w->pass_on = true;
}

int emb_snapshot_writer_finish(struct emb_snapshot_writer *w,
                               struct emb_snapshot_written *written_p)
{
    int status = flush(w);
    if (!status) {
        char *payload = w->out + EMB_SNAPSHOT_BLOCK;
        put_u64(payload, w->n_rows);
        put_u64(payload + 8, w->n_tombstones);
        put_u64(payload + 16, w->n_candidates);
        memcpy(payload + 24, w->buckets, EMB_BUCKET_BYTES);
        status = write_block(w, EMB_BLOCK_END, 0, 0, EMB_SNAPSHOT_END);
    }
    if (!status && !w->pass_on && fsync(w->fd) != 0)
        status =
            clu_fail(clu_status_from_errno(errno), "%s: cannot sync: %s", w->path, strerror(errno));
    if (status) {
        emb_snapshot_writer_abort(w);
        return status;
    }
    if (written_p)
        *written_p = (struct emb_snapshot_written){w->n_rows, w->n_tombstones, w->size_bytes,
                                                   clu_hash_stream_value(w->sum)};
    writer_free(w);
    return CLU_OK;
}

void emb_snapshot_writer_abort(struct emb_snapshot_writer *w)
{
    if (!w)
        return;
    if (w->fd >= 0)
        unlink(w->path);
    writer_free(w);
}
