/* The bucket map. 4096 buckets are enough to spread rows evenly over a thousand shards (four each)
 * and few enough that the whole map is a 140 KiB message: nobody ever needs a part of it, or a
 * difference.
 *
 * Invariants:
 * (M1) every bucket belongs to exactly one shard of the map;
 * (M2) a shard's number, once given, names the same place on the same server for the job's whole
 * life, so that a client may keep per-shard state across versions.
 */
#include "cluster/map.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <assert.h>
#include <string.h>

int clu_map_init(struct clu_bucket_map *map, int n_servers, int shards_per_server)
{
    if (n_servers < 1 || shards_per_server < 1 || n_servers > CLU_MAX_SHARDS / shards_per_server)
        return clu_fail(CLU_E_USAGE,
                        "%d servers with %d shards each: from 1 to %d shards are possible in all",
                        n_servers, shards_per_server, CLU_MAX_SHARDS);
    memset(map, 0, sizeof(*map));
    map->version = map->owners = 1;
    for (int server = 0; server < n_servers; server++)
        clu_map_add_server(map, server, shards_per_server);
    for (int b = 0; b < CLU_N_BUCKETS; b++)
        map->shard_of[b] = (uint16_t)(b * map->n_shards / CLU_N_BUCKETS);
    return CLU_OK;
}

bool clu_map_is_complete(const struct clu_bucket_map *map)
{
    if (map->version == 0 || map->n_shards == 0)
        return false;
    for (int b = 0; b < CLU_N_BUCKETS; b++)
        if (!map->endpoint[map->shard_of[b]][0])
            return false;
    return true;
}

int clu_map_first_shard(const struct clu_bucket_map *map, int server)
{
    for (int i = 0; i < map->n_shards; i++)
        if (map->server_of[i] == server)
            return i;
    return -1;
}

int clu_map_n_buckets(const struct clu_bucket_map *map, int shard)
{
    int n = 0;
    for (int b = 0; b < CLU_N_BUCKETS; b++)
        n += map->shard_of[b] == shard;
    return n;
}

int clu_map_add_server(struct clu_bucket_map *map, int server, int n)
{
    if (n < 1 || n > CLU_MAX_SHARDS - map->n_shards)
        return clu_fail(CLU_E_USAGE, "server %d with %d more shards: the map has %d of at most %d",
                        server, n, map->n_shards, CLU_MAX_SHARDS);
    for (int i = 0; i < n; i++) {
        map->server_of[map->n_shards] = (uint16_t)server;
        map->endpoint[map->n_shards][0] = '\0';
        map->leaving[map->n_shards] = false;
        map->n_shards++;
    }
    return CLU_OK;
}

void clu_map_members(const struct clu_bucket_map *map, bool *takes_part_p)
{
    memset(takes_part_p, 0, (size_t)map->n_shards * sizeof(*takes_part_p));
    for (int b = 0; b < CLU_N_BUCKETS; b++)
        takes_part_p[map->shard_of[b]] = true;
}

void clu_map_staying(const struct clu_bucket_map *map, bool *alive_p)
{
    memset(alive_p, 0, CLU_MAX_SHARDS * sizeof(*alive_p));
    for (int i = 0; i < map->n_shards; i++)
        if (!map->leaving[i] && map->server_of[i] < CLU_MAX_SHARDS)
            alive_p[map->server_of[i]] = true;
}

/* want[i]: how many buckets shard i shall own. The larger shares go to those that own most already,
 * so that fewest buckets move. Returns the number of shards that stay. */
static int share_out(const struct clu_bucket_map *map, const bool *alive, int n_servers,
                     const int *have, int *want)
{
    int n_alive = 0;
    for (int i = 0; i < map->n_shards; i++) {
        want[i] = -1;
        if (map->server_of[i] < n_servers && alive[map->server_of[i]])
            n_alive++;
    }
    for (int given = 0; given < n_alive; given++) {
        int best = -1;
        for (int i = 0; i < map->n_shards; i++) {
            bool stays = map->server_of[i] < n_servers && alive[map->server_of[i]];
            if (stays && want[i] < 0 && (best < 0 || have[i] > have[best]))
                best = i;
        }
        want[best] = CLU_N_BUCKETS / n_alive + (given < CLU_N_BUCKETS % n_alive ? 1 : 0);
    }
    for (int i = 0; i < map->n_shards; i++)
        if (want[i] < 0)
            want[i] = 0;
    return n_alive;
}

int clu_map_plan(const struct clu_bucket_map *map, const bool *alive, int n_servers,
                 uint16_t *bucket_p, uint16_t *to_p)
{
    int have[CLU_MAX_SHARDS] = {0}, want[CLU_MAX_SHARDS];
    for (int b = 0; b < CLU_N_BUCKETS; b++)
        have[map->shard_of[b]]++;
    if (share_out(map, alive, n_servers, have, want) == 0)
        return clu_fail(CLU_E_USAGE, "no server is left to take the buckets");
    int n_moves = 0, to = 0;
    for (int b = CLU_N_BUCKETS - 1; b >= 0; b--) {
        int from = map->shard_of[b];
        if (have[from] <= want[from])
            continue;
        while (have[to] >= want[to])
            to++;
        assert(to < map->n_shards);
        have[from]--;
        have[to]++;
        bucket_p[n_moves] = (uint16_t)b;
        to_p[n_moves++] = (uint16_t)to;
    }
    return n_moves;
}

/* [version, owners, [[server, endpoint, leaving]...], bin: 4096 x u16 little-endian] */
void clu_map_pack(const struct clu_bucket_map *map, struct clu_packer *packer)
{
    uint8_t owners[2 * CLU_N_BUCKETS];
    for (int b = 0; b < CLU_N_BUCKETS; b++) {
        owners[2 * b] = (uint8_t)map->shard_of[b];
        owners[2 * b + 1] = (uint8_t)(map->shard_of[b] >> 8);
    }
    clu_pack_array(packer, 4);
    clu_pack_uint(packer, map->version);
    clu_pack_uint(packer, map->owners);
    clu_pack_array(packer, (size_t)map->n_shards);
    for (int i = 0; i < map->n_shards; i++) {
        clu_pack_array(packer, 3);
        clu_pack_uint(packer, map->server_of[i]);
        clu_pack_text(packer, map->endpoint[i]);
        clu_pack_bool(packer, map->leaving[i]);
    }
    clu_pack_bin(packer, owners, sizeof(owners));
}

static int unpack_shard(struct clu_unpacker *unpacker, struct clu_bucket_map *map)
{
    size_t n, size;
    uint64_t server;
    const char *endpoint;
    int status = clu_unpack_array(unpacker, &n);
    if (!status && n != 3)
        status = CLU_E_PROTOCOL;
    if (!status)
        status = clu_unpack_uint(unpacker, &server);
    if (!status)
        status = clu_unpack_text(unpacker, &endpoint, &size);
    if (!status)
        status = clu_unpack_bool(unpacker, &map->leaving[map->n_shards]);
    if (status)
        return status;
    if (server >= UINT16_MAX || size >= CLU_ENDPOINT_BYTES || memchr(endpoint, '\0', size))
        return CLU_E_PROTOCOL;
    map->server_of[map->n_shards] = (uint16_t)server;
    memcpy(map->endpoint[map->n_shards], endpoint, size);
    map->endpoint[map->n_shards][size] = '\0';
    map->n_shards++;
    return CLU_OK;
}

int clu_map_unpack(struct clu_unpacker *unpacker, struct clu_bucket_map *map_p)
{
    size_t n, n_shards, size;
    const void *bin;
    int status = clu_unpack_array(unpacker, &n);
    if (!status && n != 4)
        status = CLU_E_PROTOCOL;
    if (!status)
        status = clu_unpack_uint(unpacker, &map_p->version);
    if (!status)
        status = clu_unpack_uint(unpacker, &map_p->owners);
    if (!status)
        status = clu_unpack_array(unpacker, &n_shards);
    if (!status && (n_shards < 1 || n_shards > CLU_MAX_SHARDS))
        status = CLU_E_PROTOCOL;
    if (status)
        return status;
    map_p->n_shards = 0;
    for (size_t i = 0; i < n_shards && !status; i++)
        status = unpack_shard(unpacker, map_p);
    if (!status)
        status = clu_unpack_bin(unpacker, &bin, &size);
    if (status || size != 2 * CLU_N_BUCKETS)
        return status ? status : CLU_E_PROTOCOL;
    const uint8_t *owners = bin;
    for (int b = 0; b < CLU_N_BUCKETS; b++) {
        unsigned shard = owners[2 * b] | (unsigned)owners[2 * b + 1] << 8;
        if (shard >= n_shards)
            return CLU_E_PROTOCOL;
        map_p->shard_of[b] = (uint16_t)shard;
    }
    return CLU_OK;
}
