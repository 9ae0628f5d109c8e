/* Restore: how a shard's store comes to the state that a job's life begins from.
 *
 *     same life, durability log        rows stand as committed          costs nothing
 *     the store holds that step        go back to it                    costs what changed since
 *     anything else                    empty it, read snapshot files    costs the table
 *
 * A server that is started again while the rest of the job stands (origin->stand) may only take the
 * first line: its rows go on as they were committed, or LOST says that they are not there.
 *
 * Marks in the store itself say what it is: the generation that last wrote it, and the set of
 * buckets it holds, which changes when buckets move; so a store of another shape of the job is
 * never taken for ours. Threads: the shard's owner.
 */
#ifndef PS_RESTORE_H
#define PS_RESTORE_H

#include "ps/server.h"

#include <stdbool.h>

struct clu_bucket_map;
struct emb_shard;

/* index: of the shard within this server. keep_log: rows of the same generation stand. */
int psv_restore_shard(struct emb_shard *rows, const struct psv_origin *origin, int index,
                      bool keep_log);

/* The buckets of a shard by a map: owned_p [CLU_N_BUCKETS / 8], a bit each. */
void psv_restore_owned(const struct clu_bucket_map *map, int shard, unsigned char *owned_p);

/* From now on the store holds exactly these buckets. The caller commits. */
int psv_restore_note_owned(struct emb_shard *rows, const unsigned char *owned);

#endif
