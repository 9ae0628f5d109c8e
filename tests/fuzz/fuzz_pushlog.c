/* A shard's push log, replayed as after a crash: any bytes are groups, a torn end that is cut off,
 * or damage that is refused. The target also mends the checksums of the groups and tries again. */
#include "cluster/hash.h"
#include "cluster/status.h"
#include "embeddings/pushlog.h"
#include "tests/fuzz/folder.h"
#include "tests/fuzz/target.h"

#include <string.h>

enum { GROUP_HEADER = 40 };

static const char file_name[] = "push-0000000000000001.log";
static const int dims[2] = {2, 3};

static void put_sum(unsigned char *at, const unsigned char *from, size_t size)
{
    uint64_t sum = clu_hash_bytes(from, size);
    memcpy(at, &sum, sizeof(sum));
}

static void mend(unsigned char *file, size_t size)
{
    for (uint64_t at = 0; at + GROUP_HEADER <= size;) {
        uint64_t payload, left = size - at - GROUP_HEADER;
        memcpy(&payload, file + at + 16, sizeof(payload));
        if (payload > left)
            return;
        put_sum(file + at + 24, file + at + GROUP_HEADER, payload);
        put_sum(file + at + 32, file + at, 32);
        at += GROUP_HEADER + payload;
    }
}

/* Every key and gradient is looked at: a sanitizer sees what is not there. */
static int apply(void *context, uint64_t lsn, const struct emb_pushlog_record *record)
{
    uint64_t *sum = context;
    *sum += lsn + record->step + record->seq;
    if (record->kind != EMB_LOG_PUSH)
        return CLU_OK;
    if (record->table < 0 || record->table > 1)
        abort();
    for (size_t i = 0; i < record->n; i++)
        *sum += record->keys[i];
    size_t n_floats = record->n * (size_t)dims[record->table];
    *sum += n_floats ? clu_hash_bytes(record->grads, n_floats * sizeof(float)) : 0;
    return CLU_OK;
}

/* What was replayed once is replayed again, for the log goes on behind it. */
static void replay(const void *data, size_t size)
{
    struct emb_pushlog *log;
    uint64_t first = 0, second = 0;
    fuzz_folder_write(file_name, data, size);
    if (!emb_pushlog_open(fuzz_folder, dims, 2, 0, apply, &first, &log)) {
        emb_pushlog_close(log);
        if (emb_pushlog_open(fuzz_folder, dims, 2, 0, apply, &second, &log) || first != second)
            abort();
        emb_pushlog_close(log);
    }
    if (emb_pushlog_open(fuzz_folder, dims, 2, 0, NULL, NULL, NULL)) /* removes the files */
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_folder_make("pushlog");
    replay(data, size);
    unsigned char *mended = malloc(size + 1);
    if (!mended)
        abort();
    if (size)
        memcpy(mended, data, size);
    mend(mended, size);
    replay(mended, size);
    free(mended);
    return 0;
}
