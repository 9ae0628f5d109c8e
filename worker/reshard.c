/* Streaming from folder to folder: embeddings/snapshot_split.h moves the rows, everything else of
 * the newest link (dense weights, moments, data position) is copied byte for byte, and the commit
 * is cluster/snapshot.h's. A crash leaves a .part, which the next run on that step removes.
 */
#include "worker/reshard.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/map.h"
#include "cluster/snapshot.h"
#include "cluster/status.h"
#include "embeddings/snapshot_split.h"
#include "worker/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct reshard {
    const struct wrk_reshard_options *options;
    struct wrk_reshard_result *result;
    struct clu_snapshot chain;
    char part[CLU_PATH_BYTES];
    int lock; /* on that folder: a job that starts there must not sweep it */
    struct clu_bucket_map *map;
    const char **in;
    size_t n_in;
    char (*out_text)[CLU_PATH_BYTES]; /* [n_shards] */
    const char **out;                 /* [n_shards] views of it */
    struct emb_snapshot_result *written;
    struct clu_manifest manifest; /* what is told to the commit */
};

static double now_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static const struct clu_snapshot_link *newest_link(const struct reshard *r)
{
    return &r->chain.links[r->chain.n_links - 1];
}

static bool is_row_file(const struct clu_manifest_file *file)
{
    return strncmp(file->path, "rows/", 5) == 0;
}

static int choose_shape(struct reshard *r)
{
    const struct wrk_reshard_options *o = r->options;
    const struct clu_manifest *old = &newest_link(r)->manifest;
    int servers = o->n_servers ? o->n_servers : old->n_servers;
    int shards = o->n_shards;
    if (shards == 0)
        shards = old->n_servers > 0 ? old->n_shards / old->n_servers : 1;
    shards = shards < 1 ? 1 : shards;
    servers = servers < 1 ? 1 : servers;
    r->map = malloc(sizeof(*r->map));
    if (!r->map)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a bucket map");
    if (clu_map_init(r->map, servers, shards))
        return clu_fail(CLU_E_USAGE, "%d servers of %d shards: at most %d shards in all", servers,
                        shards, CLU_MAX_SHARDS);
    r->result->n_servers = servers;
    r->result->n_shards = r->map->n_shards;
    return CLU_OK;
}

static int begin_folder(struct reshard *r)
{
    const uint64_t step = newest_link(r)->manifest.step;
    int status = clu_snapshot_folder(r->options->out, step, false, r->result->to);
    if (!status && clu_path_exists(r->result->to))
        return clu_fail(CLU_E_EXISTS, "%s is there already; choose another --out", r->result->to);
    if (!status)
        status = clu_snapshot_begin(r->options->out, step, r->part);
    return status ? status : clu_snapshot_lock(r->part, &r->lock);
}

/* Everything but rows and manifest, byte for byte. */
static int copy_others(const struct reshard *r)
{
    const struct clu_manifest *old = &newest_link(r)->manifest;
    int status = CLU_OK;
    for (int i = 0; i < old->n_files && !status; i++) {
        char from[CLU_PATH_BYTES], to[CLU_PATH_BYTES], *data = NULL;
        size_t size = 0;
        if (is_row_file(&old->files[i]))
            continue;
        status = clu_path_join(from, sizeof(from), newest_link(r)->folder, old->files[i].path);
        if (!status)
            status = clu_path_join(to, sizeof(to), r->part, old->files[i].path);
        if (!status)
            status = clu_file_read_all(from, old->files[i].size_bytes, &data, &size);
        if (!status)
            status = clu_file_write_atomic(to, data, size);
        free(data);
    }
    return status;
}

static int name_files(struct reshard *r)
{
    const size_t n = (size_t)r->map->n_shards;
    r->out_text = calloc(n, sizeof(*r->out_text));
    r->out = calloc(n, sizeof(*r->out));
    r->written = calloc(n, sizeof(*r->written));
    r->manifest.files = calloc(n, sizeof(*r->manifest.files));
    if (!r->out_text || !r->out || !r->written || !r->manifest.files)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for %zu files", n);
    int status = CLU_OK;
    for (size_t i = 0; i < n && !status; i++) {
        struct clu_manifest_file *file = &r->manifest.files[i];
        snprintf(file->path, sizeof(file->path), "rows/shard-%04zu.rows", i);
        status = clu_path_join(r->out_text[i], CLU_PATH_BYTES, r->part, file->path);
        r->out[i] = r->out_text[i];
    }
    return status ? status : clu_snapshot_row_files(&r->chain, &r->in, &r->n_in);
}

static int write_rows(struct reshard *r)
{
    struct emb_split_options split = {
        .in = r->in,
        .n_in = r->n_in,
        .out = r->out,
        .n_out = r->map->n_shards,
        .memory_bytes = r->options->memory_bytes,
        .progress = r->options->progress,
        .context = r->options->context,
    };
    memcpy(split.shard_of, r->map->shard_of, sizeof(split.shard_of));
    int status = emb_snapshot_split(&split, r->written);
    for (int i = 0; i < r->map->n_shards && !status; i++) {
        r->manifest.files[i].size_bytes = r->written[i].size_bytes;
        r->manifest.files[i].checksum = r->written[i].checksum;
        r->result->n_rows += r->written[i].n_rows;
        r->result->size_bytes += r->written[i].size_bytes;
    }
    return status;
}

static int commit(struct reshard *r)
{
    const struct clu_manifest *old = &newest_link(r)->manifest;
    r->manifest.job_id = old->job_id;
    r->manifest.generation = old->generation;
    r->manifest.step = old->step;
    r->manifest.n_servers = r->result->n_servers;
    r->manifest.n_shards = r->result->n_shards;
    r->manifest.n_workers = old->n_workers;
    r->manifest.n_files = r->map->n_shards;
    return clu_snapshot_commit(r->options->out, &r->manifest, 0);
}

static int write_snapshot(struct reshard *r)
{
    int status = choose_shape(r);
    if (!status)
        status = begin_folder(r);
    if (status)
        return status;
    status = copy_others(r);
    if (!status)
        status = name_files(r);
    if (!status)
        status = write_rows(r);
    if (!status)
        status = commit(r);
    if (status)
        clu_remove_tree(r->part);
    close(r->lock);
    return status;
}

int wrk_reshard(const struct wrk_reshard_options *options, struct wrk_reshard_result *result_p)
{
    struct wrk_reshard_result result = {0};
    struct reshard r = {.options = options, .result = &result};
    const double began = now_seconds();
    int status = wrk_export_find_snapshot(options->snapshot, result.from);
    if (!status)
        status = clu_snapshot_open(result.from, &r.chain);
    if (status)
        return status;
    result.n_links = r.chain.n_links;
    result.step = newest_link(&r)->manifest.step;
    status = write_snapshot(&r);
    clu_snapshot_fini(&r.chain);
    clu_manifest_fini(&r.manifest);
    free(r.map);
    free(r.in);
    free(r.out);
    free(r.out_text);
    free(r.written);
    result.seconds = now_seconds() - began;
    if (!status)
        *result_p = result;
    return status;
}
