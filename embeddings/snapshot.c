/* The reader of snapshot files: header, then block by block, nothing believed before its checksum
 * agreed.
 *
 * (R1) No length read from the file is used before the hash over it has been checked, and none
 *      larger than the file itself is ever allocated.
 * (R2) "The last row" is only reported once the end block was found, its totals agree and nothing
 *      follows.
 * (R3) Tables do not go back and keys of a table ascend, so merging readers may rely on order.
 */
#include "embeddings/snapshot.h"

#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/optimizer.h"
#include "embeddings/row.h"
#include "embeddings/snapshot_file.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct emb_snapshot_reader {
    char *path;
    int fd;
    struct emb_snapshot_info info;
    size_t value_bytes[EMB_MAX_TABLES], embedding_bytes[EMB_MAX_TABLES];
    uint64_t file_bytes, at; /* at: offset of the next block */
    uint64_t n_rows, n_tombstones, n_candidates;
    char *block; /* payload of the current block */
    size_t block_capacity;
    uint32_t type, table, n, i; /* of the current block; entry i is next */
    size_t value_at;            /* offset of the next value in block */
    bool has_last, at_end;
    uint32_t last_type;
    uint64_t last_key;
    uint8_t buckets[EMB_BUCKET_BYTES]; /* at_end: as the end block says */
    float *embedding, *state;          /* [largest dim], [largest n_state]: aligned copies */
};

static int damaged(const struct emb_snapshot_reader *r, const char *what)
{
    return clu_fail(CLU_E_CORRUPT, "%s: damaged at byte %llu: %s", r->path,
                    (unsigned long long)r->at, what);
}

static int read_at(const struct emb_snapshot_reader *r, uint64_t offset, void *data, size_t size)
{
    char *to = data;
    while (size > 0) {
        ssize_t done = pread(r->fd, to, size, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return clu_fail(clu_status_from_errno(errno), "%s: cannot read: %s", r->path,
                            strerror(errno));
        if (done == 0)
            return damaged(r, "the file ends too early");
        to += done;
        offset += (uint64_t)done;
        size -= (size_t)done;
    }
    return CLU_OK;
}

static uint32_t get_u32(const char *at)
{
    return emb_value_u32(at, 0);
}

static uint64_t get_u64(const char *at)
{
    uint64_t number;
    memcpy(&number, at, 8);
    return number;
}

/* One table of the header into a spec; what a header does not hold keeps its default. */
static int parse_table(struct emb_snapshot_reader *r, int t, const char *at)
{
    struct emb_table_spec *spec = &r->info.tables[t];
    float range;
    emb_table_spec_init(spec);
    memcpy(spec->name, at, EMB_NAME_BYTES);
    spec->dim = (int)get_u32(at + 64);
    spec->optimizer = (enum emb_optimizer)get_u32(at + 68);
    spec->dtype = (enum emb_dtype)get_u32(at + 72);
    spec->seed = get_u64(at + 80);
    memcpy(&range, at + 88, 4);
    spec->init_range = range;
    spec->expire_steps = (int64_t)get_u64(at + 96);
    if (emb_table_spec_check(spec) != CLU_OK ||
        get_u32(at + 76) != (uint32_t)emb_optimizer_n_state(spec->optimizer, spec->dim) ||
        get_u32(at + 92) != emb_value_bytes(spec) - 4)
        return damaged(r, "a table's description makes no sense");
    r->value_bytes[t] = emb_value_bytes(spec) - 4;
    r->embedding_bytes[t] = emb_embedding_bytes(spec);
    return CLU_OK;
}

static int read_header(struct emb_snapshot_reader *r)
{
    char fixed[EMB_SNAPSHOT_HEADER], *header = NULL;
    if (r->file_bytes < EMB_SNAPSHOT_HEADER + 8)
        return damaged(r, "the file is too short for a header");
    int status = read_at(r, 0, fixed, sizeof(fixed));
    if (status)
        return status;
    if (memcmp(fixed, EMB_SNAPSHOT_MAGIC, 8) != 0)
        return damaged(r, "it is no snapshot of a shard");
    if (get_u32(fixed + 8) != EMB_SNAPSHOT_VERSION)
        return clu_fail(CLU_E_DATA, "%s: snapshot format %u, this program reads %d", r->path,
                        get_u32(fixed + 8), EMB_SNAPSHOT_VERSION);
    uint32_t n_tables = get_u32(fixed + 32);
    if (n_tables > EMB_MAX_TABLES)
        return damaged(r, "the number of tables makes no sense");
    size_t size = EMB_SNAPSHOT_HEADER + EMB_SNAPSHOT_TABLE * (size_t)n_tables;
    header = malloc(size + 8);
    if (!header)
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory for the header", r->path);
    status = read_at(r, 0, header, size + 8);
    if (!status && get_u64(header + size) != clu_hash_bytes(header, size))
        status = damaged(r, "the header's checksum does not agree");
    r->info.is_delta = get_u32(fixed + 12) != 0;
    r->info.step = get_u64(fixed + 16);
    r->info.base_step = get_u64(fixed + 24);
    r->info.n_tables = (int)n_tables;
    int max_dim = 1, max_state = 1;
    for (int t = 0; t < r->info.n_tables && !status; t++) {
        status = parse_table(r, t, header + EMB_SNAPSHOT_HEADER + EMB_SNAPSHOT_TABLE * (size_t)t);
        const struct emb_table_spec *spec = &r->info.tables[t];
        if (status)
            break;
        int n_state = emb_optimizer_n_state(spec->optimizer, spec->dim);
        max_dim = spec->dim > max_dim ? spec->dim : max_dim;
        max_state = n_state > max_state ? n_state : max_state;
    }
    free(header);
    if (status)
        return status;
    r->at = size + 8;
    r->embedding = malloc((size_t)max_dim * 4);
    r->state = malloc((size_t)max_state * 4);
    if (!r->embedding || !r->state)
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory for a row", r->path);
    return CLU_OK;
}

int emb_snapshot_reader_open(const char *path, struct emb_snapshot_reader **reader_p)
{
    struct emb_snapshot_reader *r = calloc(1, sizeof(*r));
    if (!r)
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory for a reader", path);
    int status = CLU_OK;
    struct stat st;
    r->path = strdup(path);
    r->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (!r->path)
        status = clu_fail(CLU_E_NO_MEMORY, "%s: no memory for a reader", path);
    else if (r->fd < 0 || fstat(r->fd, &st) != 0)
        status =
            clu_fail(clu_status_from_errno(errno), "%s: cannot open: %s", path, strerror(errno));
    else
        r->file_bytes = (uint64_t)st.st_size;
    if (!status)
        status = read_header(r);
    if (status) {
        emb_snapshot_reader_close(r);
        return status;
    }
    posix_fadvise(r->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    *reader_p = r;
    return CLU_OK;
}

const struct emb_snapshot_info *emb_snapshot_reader_info(const struct emb_snapshot_reader *r)
{
    return &r->info;
}

void emb_snapshot_reader_close(struct emb_snapshot_reader *r)
{
    if (!r)
        return;
    if (r->fd >= 0)
        close(r->fd);
    free(r->path);
    free(r->block);
    free(r->embedding);
    free(r->state);
    free(r);
}

/* The end block (R2). */
static int read_end(struct emb_snapshot_reader *r, uint64_t payload_bytes)
{
    if (payload_bytes != EMB_SNAPSHOT_END || get_u64(r->block) != r->n_rows ||
        get_u64(r->block + 8) != r->n_tombstones || get_u64(r->block + 16) != r->n_candidates)
        return damaged(r, "the totals at the end do not agree");
    if (r->at + EMB_SNAPSHOT_BLOCK + EMB_SNAPSHOT_END != r->file_bytes)
        return damaged(r, "something follows the end");
    memcpy(r->buckets, r->block + 24, EMB_BUCKET_BYTES);
    r->at_end = true;
    return CLU_E_NOT_FOUND;
}

/* Checks that the payload has the size its entries need. */
static int check_block(const struct emb_snapshot_reader *r, uint64_t payload_bytes)
{
    uint64_t expected = (uint64_t)r->n * 12;
    if (r->type > EMB_BLOCK_CANDIDATES || r->table >= (uint32_t)r->info.n_tables || r->n == 0 ||
        r->n > EMB_SNAPSHOT_MAX_ENTRIES || payload_bytes < expected)
        return damaged(r, "a block's header makes no sense");
    if (r->type == EMB_BLOCK_ROWS)
        for (uint32_t i = 0; i < r->n; i++)
            if (get_u32(r->block + r->n * (size_t)8 + i * (size_t)4) != 0)
                expected += r->value_bytes[r->table];
    return payload_bytes == expected ? CLU_OK : damaged(r, "a block has the wrong size");
}

static int next_block(struct emb_snapshot_reader *r)
{
    char header[EMB_SNAPSHOT_BLOCK];
    if (r->at_end)
        return CLU_E_NOT_FOUND;
    if (r->at == r->file_bytes)
        return damaged(r, "the end block is missing");
    int status = read_at(r, r->at, header, sizeof(header));
    if (status)
        return status;
    if (memcmp(header, EMB_BLOCK_MAGIC, 4) != 0 ||
        get_u64(header + 32) != clu_hash_bytes(header, 32))
        return damaged(r, "a block's header does not agree with its checksum");
    uint64_t payload_bytes = get_u64(header + 16);
    if (payload_bytes > r->file_bytes - r->at - EMB_SNAPSHOT_BLOCK) /* (R1) */
        return damaged(r, "a block is cut short");
    if (payload_bytes > r->block_capacity) {
        char *block = realloc(r->block, payload_bytes);
        if (!block)
            return clu_fail(CLU_E_NO_MEMORY, "%s: no memory for a block", r->path);
        r->block = block;
        r->block_capacity = payload_bytes;
    }
    status = read_at(r, r->at + EMB_SNAPSHOT_BLOCK, r->block, payload_bytes);
    if (status)
        return status;
    if (get_u64(header + 24) != clu_hash_bytes(r->block, payload_bytes))
        return damaged(r, "a block's content does not agree with its checksum");
    uint32_t previous = r->table;
    r->type = get_u32(header + 4);
    r->table = get_u32(header + 8);
    r->n = get_u32(header + 12);
    if (r->type == EMB_BLOCK_END)
        return read_end(r, payload_bytes);
    status = check_block(r, payload_bytes);
    if (status)
        return status;
    if (r->table != previous || r->type != r->last_type)
        r->has_last = false;
    r->last_type = r->type;
    if (r->table < previous) /* (R3) */
        return damaged(r, "tables are out of order");
    r->i = 0;
    r->value_at = r->n * (size_t)12;
    r->at += EMB_SNAPSHOT_BLOCK + payload_bytes;
    return CLU_OK;
}

int emb_snapshot_reader_entry(struct emb_snapshot_reader *r, struct emb_row *row_p,
                              const void **value_p, int *is_candidate_p)
{
    if (r->i == r->n || r->at_end) {
        int status = next_block(r);
        if (status)
            return status;
    }
    const struct emb_table_spec *spec = &r->info.tables[r->table];
    struct emb_row row = {.table = (int)r->table, .dim = spec->dim};
    row.key = get_u64(r->block + r->i * (size_t)8);
    row.count = get_u32(r->block + r->n * (size_t)8 + r->i * (size_t)4);
    row.n_state = emb_optimizer_n_state(spec->optimizer, spec->dim);
    if (r->has_last && row.key <= r->last_key) /* (R3) */
        return damaged(r, "keys are out of order");
    r->has_last = true;
    r->last_key = row.key;
    r->i++;
    *is_candidate_p = r->type == EMB_BLOCK_CANDIDATES;
    *value_p = NULL;
    if (*is_candidate_p) {
        r->n_candidates++;
    } else if (row.count == 0) {
        row.is_tombstone = 1;
        r->n_tombstones++;
    } else {
        const char *value = r->block + r->value_at;
        row.last_step = get_u32(value);
        *value_p = value;
        r->value_at += r->value_bytes[r->table];
        r->n_rows++;
    }
    *row_p = row;
    return CLU_OK;
}

int emb_snapshot_reader_next(struct emb_snapshot_reader *r, struct emb_row *row_p)
{
    const void *value;
    int is_candidate, status;
    do
        status = emb_snapshot_reader_entry(r, row_p, &value, &is_candidate);
    while (!status && is_candidate);
    if (!status && value)
        emb_snapshot_reader_widen(r, value, row_p);
    return status;
}

void emb_snapshot_reader_widen(struct emb_snapshot_reader *r, const void *value,
                               struct emb_row *row_p)
{
    const char *at = (const char *)value + 4;
    const size_t embedding_bytes = r->embedding_bytes[row_p->table];
    if (r->info.tables[row_p->table].dtype == EMB_BF16)
        emb_bf16_widen((const uint16_t *)(const void *)at, row_p->dim, r->embedding);
    else
        memcpy(r->embedding, at, embedding_bytes);
    memcpy(r->state, at + embedding_bytes, 4 * (size_t)row_p->n_state);
    row_p->embedding = r->embedding;
    row_p->state = r->state;
}

int emb_snapshot_reader_totals(struct emb_snapshot_reader *r, struct emb_snapshot_totals *totals_p)
{
    char end[EMB_SNAPSHOT_BLOCK + EMB_SNAPSHOT_END];
    if (r->file_bytes < r->at + sizeof(end))
        return damaged(r, "the end block is missing");
    int status = read_at(r, r->file_bytes - sizeof(end), end, sizeof(end));
    if (status)
        return status;
    if (memcmp(end, EMB_BLOCK_MAGIC, 4) != 0 || get_u32(end + 4) != EMB_BLOCK_END ||
        get_u64(end + 16) != EMB_SNAPSHOT_END || get_u64(end + 32) != clu_hash_bytes(end, 32) ||
        get_u64(end + 24) != clu_hash_bytes(end + EMB_SNAPSHOT_BLOCK, EMB_SNAPSHOT_END))
        return clu_fail(CLU_E_CORRUPT, "%s: its last %zu bytes are no end block", r->path,
                        sizeof(end));
    totals_p->n_rows = get_u64(end + EMB_SNAPSHOT_BLOCK);
    totals_p->n_tombstones = get_u64(end + EMB_SNAPSHOT_BLOCK + 8);
    totals_p->n_candidates = get_u64(end + EMB_SNAPSHOT_BLOCK + 16);
    memcpy(totals_p->buckets, end + EMB_SNAPSHOT_BLOCK + 24, EMB_BUCKET_BYTES);
    return CLU_OK;
}

void emb_snapshot_reader_progress(const struct emb_snapshot_reader *r, uint64_t *read_p,
                                  uint64_t *total_p)
{
    *read_p += r->at_end ? r->file_bytes : r->at;
    *total_p += r->file_bytes;
}

int emb_snapshot_verify(const char *path, uint64_t *n_rows_p, uint64_t *n_tombstones_p)
{
    struct emb_snapshot_reader *reader;
    int status = emb_snapshot_reader_open(path, &reader);
    if (status)
        return status;
    struct emb_row row;
    const void *value;
    int is_candidate;
    uint64_t hash[EMB_MAX_TABLES];
    uint8_t buckets[EMB_BUCKET_BYTES] = {0};
    for (int t = 0; t < reader->info.n_tables; t++)
        hash[t] = clu_table_hash(reader->info.tables[t].name);
    while ((status = emb_snapshot_reader_entry(reader, &row, &value, &is_candidate)) == CLU_OK)
        emb_bucket_add(buckets, clu_bucket_of(hash[row.table], row.key));
    if (status == CLU_E_NOT_FOUND && memcmp(buckets, reader->buckets, sizeof(buckets)) != 0)
        status = damaged(reader, "the buckets at the end are not those of the entries");
    if (status == CLU_E_NOT_FOUND) {
        status = CLU_OK;
        if (n_rows_p)
            *n_rows_p = reader->n_rows;
        if (n_tombstones_p)
            *n_tombstones_p = reader->n_tombstones;
    }
    emb_snapshot_reader_close(reader);
    return status;
}

uint64_t emb_row_digest(const char *table_name, const struct emb_row *row)
{
    uint64_t parts[5] = {
        clu_table_hash(table_name),
        row->key,
        (uint64_t)row->count << 32 | row->last_step,
        clu_hash_bytes(row->embedding, 4 * (size_t)row->dim),
        row->n_state ? clu_hash_bytes(row->state, 4 * (size_t)row->n_state) : 0,
    };
    return clu_hash_bytes(parts, sizeof(parts));
}

int emb_snapshot_digest(const char *path, uint64_t *digest_p)
{
    struct emb_snapshot_reader *reader;
    int status = emb_snapshot_reader_open(path, &reader);
    if (status)
        return status;
    struct emb_row row;
    uint64_t sum = 0;
    while ((status = emb_snapshot_reader_next(reader, &row)) == CLU_OK)
        if (!row.is_tombstone)
            sum += emb_row_digest(reader->info.tables[row.table].name, &row);
    emb_snapshot_reader_close(reader);
    if (status != CLU_E_NOT_FOUND)
        return status;
    *digest_p = sum;
    return CLU_OK;
}
