/* See restore.h. Marks are (incarnation, seq) pairs as of workers, under incarnations that no
 * worker has: the top bit set. They are kept with the rows, so a store that goes back to an older
 * state also goes back to that state's marks, which is what makes them tell the truth.
 *
 * A store may have held several sets of buckets, one after the other. Each change counts one up,
 * and the count is the seq of the set's mark: only the set whose mark has the newest count is held.
 * As a roll-back takes the count back too, what is held is looked at again after one.
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
#define CHANGES_MARK    (UINT64_MAX - 2)

struct owned {
    const struct clu_bucket_map *map;
    int shard;
};

static bool is_owned(uint32_t bucket, void *arg)
{
    const struct owned *owned = arg;
    return owned->map->shard_of[bucket] == owned->shard;
}

void psv_restore_owned(const struct clu_bucket_map *map, int shard, unsigned char *owned_p)
{
    memset(owned_p, 0, CLU_N_BUCKETS / 8);
    for (uint32_t b = 0; b < CLU_N_BUCKETS; b++)
        if (map->shard_of[b] == shard)
            owned_p[b / 8] |= (unsigned char)(1u << (b % 8));
}

/* an incarnation that stands for exactly this set of buckets */
static uint64_t owner_mark(const unsigned char *owned)
{
    return (clu_hash_bytes(owned, CLU_N_BUCKETS / 8) | (uint64_t)1 << 63) & ~(uint64_t)1;
}

/* True when the store holds exactly the buckets that this mark stands for. */
static bool holds(struct emb_shard *rows, uint64_t mark)
{
    uint64_t seq = emb_shard_last_seq(rows, mark);
    return seq && seq == emb_shard_last_seq(rows, CHANGES_MARK);
}

int psv_restore_note_owned(struct emb_shard *rows, const unsigned char *owned)
{
    uint64_t n = emb_shard_last_seq(rows, CHANGES_MARK) + 1;
    int status = emb_shard_mark(rows, CHANGES_MARK, n);
    return status ? status : emb_shard_mark(rows, owner_mark(owned), n);
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

static bool is_foreign(uint32_t bucket, void *arg)
{
    return !is_owned(bucket, arg);
}

/* Where buckets moved in this life, rows of one may not have been dropped to the last when the
 * process died. */
static int drop_what_left(struct emb_shard *rows, struct owned *owned)
{
    if (emb_shard_last_seq(rows, CHANGES_MARK) < 2)
        return 0;
    int status = emb_shard_drop(rows, is_foreign, owned);
    return status ? status : emb_shard_commit(rows);
}

int psv_restore_shard(struct emb_shard *rows, const struct psv_origin *origin, int index,
                      bool keep_log)
{
    static const unsigned char nothing[CLU_N_BUCKETS / 8];
    unsigned char bits[CLU_N_BUCKETS / 8];
    int status = 0;
    struct owned owned = {origin->map, origin->first_shard + index};
    psv_restore_owned(origin->map, owned.shard, bits);
    uint64_t mark = owner_mark(bits);
    bool owns_nothing = !memcmp(bits, nothing, sizeof(bits));
    bool same_life =
        origin->generation && emb_shard_last_seq(rows, GENERATION_MARK) == origin->generation;
    if (keep_log && same_life && holds(rows, mark) && emb_shard_step(rows) >= origin->step) {
        clu_info("shard %d: %llu steps are here from before", owned.shard,
                 (unsigned long long)emb_shard_step(rows));
        return drop_what_left(rows, &owned);
    }
    if (origin->stand)
        return clu_fail(CLU_E_LOST, "shard %d: the rows that were committed here are gone",
                        owned.shard);
    const char *how = "is empty";
    if (!origin->step || !origin->folder[0] || owns_nothing) {
        if (!is_empty(rows) || emb_shard_last_seq(rows, CHANGES_MARK))
            status = emb_shard_reset(rows);
    } else if (holds(rows, mark) && !emb_shard_rollback(rows, origin->step) && holds(rows, mark)) {
        how = "went back";
    } else {
        status = is_empty(rows) ? 0 : emb_shard_reset(rows);
        if (!status)
            status = load_files(rows, origin, &owned);
        how = "was filled from files";
    }
    if (!status && origin->step)
        clu_info("shard %d %s: step %llu", owned.shard, how, (unsigned long long)origin->step);
    if (!status && !holds(rows, mark))
        status = psv_restore_note_owned(rows, bits);
    if (!status && origin->generation)
        status = emb_shard_mark(rows, GENERATION_MARK, origin->generation);
    return status ? status : emb_shard_commit(rows);
}
