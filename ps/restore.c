/* See restore.h. Marks are (incarnation, seq) pairs as of workers, under incarnations that no
 * worker has: the top bit set. They are kept with the rows, so a store that goes back to an older
 * state also goes back to that state's marks, which is what makes them tell the truth.
 */
#include "ps/restore.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/map.h"
#include "cluster/snapshot.h"
#include "cluster/status.h"
#include "embeddings/shard.h"

#include <stdlib.h>
#include <string.h>

#define GENERATION_MARK UINT64_MAX

struct owned {
    const struct clu_bucket_map *map;
    int shard;
};

static bool is_owned(uint32_t bucket, void *arg)
{
    const struct owned *owned = arg;
    return owned->map->shard_of[bucket] == owned->shard;
}

/* an incarnation that stands for exactly this set of buckets */
static uint64_t owner_mark(struct owned *owned)
{
    unsigned char bits[CLU_N_BUCKETS / 8] = {0};
    for (uint32_t b = 0; b < CLU_N_BUCKETS; b++)
        if (is_owned(b, owned))
            bits[b / 8] |= (unsigned char)(1u << (b % 8));
    return (clu_hash_bytes(bits, sizeof(bits)) | (uint64_t)1 << 63) & ~(uint64_t)1;
}

static bool is_empty(struct emb_shard *rows)
{
    struct emb_shard_stats stats;
    emb_shard_stats(rows, &stats);
    return stats.n_rows == 0 && emb_shard_step(rows) == 0;
}

/* Reads what is owned out of the files of a snapshot and of the links below it. */
static int load_files(struct emb_shard *rows, const struct psv_origin *origin, struct owned *owned)
{
    struct clu_snapshot snapshot;
    const char **paths = NULL;
    size_t n = 0;
    int status = clu_snapshot_open(origin->folder, &snapshot);
    if (status)
        return status;
    status = clu_snapshot_row_files(&snapshot, &paths, &n);
    if (!status)
        status = emb_shard_load(rows, paths, n, is_owned, owned);
    if (!status && emb_shard_step(rows) != origin->step)
        status =
            clu_fail(CLU_E_CORRUPT, "%s: its rows are of step %llu, expected %llu", origin->folder,
                     (unsigned long long)emb_shard_step(rows), (unsigned long long)origin->step);
    free(paths);
    clu_snapshot_fini(&snapshot);
    return status;
}

int psv_restore_shard(struct emb_shard *rows, const struct psv_origin *origin, int index,
                      bool keep_log)
{
    int status = 0;
    struct owned owned = {origin->map, origin->first_shard + index};
    uint64_t mark = owner_mark(&owned);
    bool same_buckets = emb_shard_last_seq(rows, mark) != 0;
    bool same_life =
        origin->generation && emb_shard_last_seq(rows, GENERATION_MARK) == origin->generation;
    if (keep_log && same_life && same_buckets && emb_shard_step(rows) >= origin->step) {
        clu_info("shard %d: %llu steps are here from before", owned.shard,
                 (unsigned long long)emb_shard_step(rows));
        return 0;
    }
    const char *how = "is empty";
    if (!origin->step || !origin->folder[0]) {
        if (!is_empty(rows) || same_buckets)
            status = emb_shard_reset(rows);
    } else if (same_buckets && !emb_shard_rollback(rows, origin->step)) {
        how = "went back";
    } else {
        status = is_empty(rows) ? 0 : emb_shard_reset(rows);
        if (!status)
            status = load_files(rows, origin, &owned);
        how = "was filled from files";
    }
    if (!status && origin->step)
        clu_info("shard %d %s: step %llu", owned.shard, how, (unsigned long long)origin->step);
    if (!status)
        status = emb_shard_mark(rows, mark, 1);
    if (!status && origin->generation)
        status = emb_shard_mark(rows, GENERATION_MARK, origin->generation);
    return status ? status : emb_shard_commit(rows);
}
