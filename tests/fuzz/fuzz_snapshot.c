/* A shard's snapshot file, read row by row. Changed bytes nearly always break a checksum, so the
 * target mends header and blocks and tries again: the checks behind them are what is tested. */
#include "cluster/hash.h"
#include "cluster/status.h"
#include "embeddings/snapshot_file.h"
#include "tests/fuzz/folder.h"
#include "tests/fuzz/target.h"

#include <string.h>

static uint32_t get_u32(const unsigned char *at)
{
    uint32_t number;
    memcpy(&number, at, sizeof(number));
    return number;
}

static void put_sum(unsigned char *at, const unsigned char *from, size_t size)
{
    uint64_t sum = clu_hash_bytes(from, size);
    memcpy(at, &sum, sizeof(sum));
}

/* Header and blocks as far as their sizes can be followed. */
static void mend(unsigned char *file, size_t size)
{
    if (size < EMB_SNAPSHOT_HEADER)
        return;
    uint64_t at = EMB_SNAPSHOT_HEADER + (uint64_t)EMB_SNAPSHOT_TABLE * get_u32(file + 32);
    if (at + 8 > size)
        return;
    put_sum(file + at, file, at);
    at += 8;
    while (at + EMB_SNAPSHOT_BLOCK <= size) {
        uint64_t payload, left = size - at - EMB_SNAPSHOT_BLOCK;
        memcpy(&payload, file + at + 16, sizeof(payload));
        if (payload <= left)
            put_sum(file + at + 24, file + at + EMB_SNAPSHOT_BLOCK, payload);
        put_sum(file + at + 32, file + at, 32);
        if (payload > left)
            return;
        at += EMB_SNAPSHOT_BLOCK + payload;
    }
}

/* Every number of every row is looked at: a sanitizer sees what is not there. */
static void read_all(const char *path)
{
    struct emb_snapshot_reader *reader;
    struct emb_row row;
    const void *value;
    int is_candidate, status;
    volatile float sum = 0;
    if (emb_snapshot_reader_open(path, &reader))
        return;
    const struct emb_snapshot_info *info = emb_snapshot_reader_info(reader);
    while (!(status = emb_snapshot_reader_entry(reader, &row, &value, &is_candidate)))
        if (row.table < 0 || row.table >= info->n_tables || (value && is_candidate))
            abort();
    emb_snapshot_reader_close(reader);
    if (emb_snapshot_reader_open(path, &reader))
        abort();
    struct emb_snapshot_totals totals;
    emb_snapshot_reader_totals(reader, &totals);
    while (!emb_snapshot_reader_next(reader, &row)) {
        for (int i = 0; !row.is_tombstone && i < row.dim; i++)
            sum += row.embedding[i];
        for (int i = 0; !row.is_tombstone && i < row.n_state; i++)
            sum += row.state[i];
    }
    (void)sum;
    emb_snapshot_reader_close(reader);
    uint64_t digest;
    if (emb_snapshot_verify(path, NULL, NULL) == CLU_OK && status != CLU_E_NOT_FOUND)
        abort(); /* it is whole only when its last row was reached */
    emb_snapshot_digest(path, &digest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[256];
    fuzz_folder_make("snapshot");
    snprintf(path, sizeof(path), "%s/rows", fuzz_folder);
    fuzz_folder_write("rows", data, size);
    read_all(path);
    unsigned char *mended = malloc(size + 1);
    if (!mended)
        abort();
    if (size)
        memcpy(mended, data, size);
    mend(mended, size);
    fuzz_folder_write("rows", mended, size);
    free(mended);
    read_all(path);
    return 0;
}
