/* The bucket map: which shard owns which of the 4096 buckets, and where each shard listens.
 *
 *     (table, key) --clu_bucket_of--> bucket --shard_of[]--> shard --endpoint[]--> tcp://host:port
 *
 * The scheduler makes it, everyone else reads it; a change (a server drained, added, or come back
 * at another port) is a new version of the whole map, never an edit. Shards are numbered server by
 * server: shard j of server r is first_shard(r) + j, and a number is never given to another server.
 * A shard that was drained keeps its number and owns no bucket; one that has never joined has an
 * empty endpoint. Whoever owns no bucket takes no part: nothing is sent there.
 *
 * Two versions, for two kinds of change. `version` counts whole maps as the scheduler makes them.
 * `owners` counts changes of shard_of alone, which happen between two steps and are what requests
 * carry (cluster/wire.h): a shard must not answer by owners it has not heard of.
 *
 * Plain data, about 140 KiB: keep it in a struct, not on a thread's stack. Threads: any on distinct
 * objects.
 */
#ifndef CLUSTER_MAP_H
#define CLUSTER_MAP_H

#include "cluster/hash.h"
#include "cluster/pack.h"

#include <stdbool.h>
#include <stdint.h>

enum { CLU_MAX_SHARDS = 1024, CLU_ENDPOINT_BYTES = 128 };

struct clu_bucket_map {
    uint64_t version; /* 0: no map yet */
    uint64_t owners;  /* of shard_of; from 1 */
    int n_shards;
    uint16_t server_of[CLU_MAX_SHARDS];                /* [n_shards] rank of the shard's server */
    char endpoint[CLU_MAX_SHARDS][CLU_ENDPOINT_BYTES]; /* [n_shards] */
    bool leaving[CLU_MAX_SHARDS];                      /* [n_shards] is to own nothing */
    uint16_t shard_of[CLU_N_BUCKETS];                  /* each < n_shards */
};

/* A fresh map of n_servers x shards_per_server shards, version 1, owners 1, buckets dealt in even
 * contiguous runs (bucket b to shard b * n / 4096), no endpoints. USAGE when there are no shards or
 * too many. */
int clu_map_init(struct clu_bucket_map *map, int n_servers, int shards_per_server);

/* True when every shard that owns a bucket has an endpoint. */
bool clu_map_is_complete(const struct clu_bucket_map *map);

/* The number of a server's first shard, or -1 when it has none. */
int clu_map_first_shard(const struct clu_bucket_map *map, int server);

/* How many buckets a shard owns. */
int clu_map_n_buckets(const struct clu_bucket_map *map, int shard);

/* Adds a server with n more shards that own nothing yet, at the end of the map. Not a new version.
 * USAGE when the map would be too large. */
int clu_map_add_server(struct clu_bucket_map *map, int server, int n);

/* takes_part_p [n_shards]: owns a bucket. */
void clu_map_members(const struct clu_bucket_map *map, bool *takes_part_p);

/* The servers that stay: alive_p [CLU_MAX_SHARDS] by rank, true where a shard of it is not leaving.
 * What clu_map_plan is asked for a change of shape. */
void clu_map_staying(const struct clu_bucket_map *map, bool *alive_p);

/* The buckets to move so that the shards of the servers for which alive[rank] is true own all
 * buckets evenly (counts differ by at most one) and as few as possible move: bucket_p[i] goes to
 * shard to_p[i]. Both [CLU_N_BUCKETS]. alive has n_servers entries; other servers count as not
 * alive. Returns the number of moves, or USAGE when no shard is left. Deterministic. */
int clu_map_plan(const struct clu_bucket_map *map, const bool *alive, int n_servers,
                 uint16_t *bucket_p, uint16_t *to_p);

/* The map as one msgpack array. */
void clu_map_pack(const struct clu_bucket_map *map, struct clu_packer *packer);

/* Reads and checks one: PROTOCOL for a malformed one, a bucket of a shard that is not there, an
 * endpoint that is too long. */
int clu_map_unpack(struct clu_unpacker *unpacker, struct clu_bucket_map *map_p);

#endif
