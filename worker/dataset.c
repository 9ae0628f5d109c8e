/* An open data set is a manifest and the indexes of its shards. The manifest vouches for each
 * shard's size and checksum; opening checks the sizes (and each index its own checksum), verify
 * reads everything.
 */
#include "worker/dataset.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/dataset_internal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static int shard_path(const struct wrk_dataset *dataset, size_t i, char path[PATH_MAX])
{
    return clu_path_join(path, PATH_MAX, dataset->dir, dataset->manifest.shard[i].file);
}

static int open_shards(struct wrk_dataset *dataset)
{
    size_t n = dataset->manifest.n_shards, n_frames = 0;
    dataset->shard = calloc(n, sizeof(*dataset->shard));
    if (!dataset->shard)
        return clu_fail(CLU_E_NO_MEMORY, "%s: out of memory", dataset->dir);
    for (size_t i = 0; i < n; i++) {
        char path[PATH_MAX];
        int status = shard_path(dataset, i, path);
        if (status == CLU_OK && !clu_path_exists(path))
            status = clu_fail(CLU_E_CORRUPT, "%s is missing, the manifest names it", path);
        if (status == CLU_OK)
            status = wrk_shard_open(path, &dataset->shard[i]);
        if (status == CLU_OK &&
            wrk_shard_file_bytes(dataset->shard[i]) != dataset->manifest.shard[i].size_bytes)
            status = clu_fail(CLU_E_CORRUPT, "%s: it has %llu bytes, the manifest says %llu", path,
                              (unsigned long long)wrk_shard_file_bytes(dataset->shard[i]),
                              (unsigned long long)dataset->manifest.shard[i].size_bytes);
        if (status != CLU_OK)
            return status;
        n_frames += wrk_shard_n_frames(dataset->shard[i]);
    }
    dataset->frame = malloc((n_frames + 1) * sizeof(*dataset->frame));
    if (!dataset->frame)
        return clu_fail(CLU_E_NO_MEMORY, "%s: out of memory", dataset->dir);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < wrk_shard_n_frames(dataset->shard[i]); k++)
            dataset->frame[dataset->n_frames++] = (struct wrk_frame_ref){(uint32_t)i, (uint32_t)k};
    return CLU_OK;
}

/* the indexes and the manifest must tell the same story */
static int check_counts(const struct wrk_dataset *dataset)
{
    uint64_t n_test = 0, n_train = 0, n_users = 0;
    for (size_t i = 0; i < dataset->n_frames; i++) {
        const struct wrk_frame *frame = wrk_dataset_frame(dataset, i);
        n_test += frame->n_test;
        n_train += frame->n_train[0];
        n_users += frame->n_users;
    }
    const struct wrk_dataset_info *info = &dataset->manifest.info;
    if (n_test == info->n_test && n_train == info->n_train && n_users == info->n_users)
        return CLU_OK;
    return clu_fail(CLU_E_CORRUPT, "%s: the shards' indexes do not add up to the manifest's counts",
                    dataset->dir);
}

int wrk_dataset_open(const char *dir, struct wrk_dataset **dataset_p)
{
    struct wrk_dataset *dataset = calloc(1, sizeof(*dataset));
    if (!dataset || !(dataset->dir = strdup(dir))) {
        free(dataset);
        return clu_fail(CLU_E_NO_MEMORY, "%s: out of memory", dir);
    }
    int status = wrk_dataset_manifest_load(dir, &dataset->manifest);
    if (status == CLU_OK) {
        wrk_shape_init(&dataset->shape, &dataset->manifest.info, &dataset->manifest.transform);
        status = open_shards(dataset);
    }
    if (status == CLU_OK)
        status = check_counts(dataset);
    if (status != CLU_OK) {
        wrk_dataset_close(dataset);
        return status;
    }
    *dataset_p = dataset;
    return CLU_OK;
}

const struct wrk_dataset_info *wrk_dataset_info(const struct wrk_dataset *dataset)
{
    return &dataset->manifest.info;
}

const char *wrk_dataset_dir(const struct wrk_dataset *dataset)
{
    return dataset->dir;
}

const char *wrk_dataset_schema_json(const struct wrk_dataset *dataset)
{
    return dataset->manifest.schema_json;
}

uint64_t wrk_dataset_checksum(const struct wrk_dataset *dataset)
{
    return dataset->manifest.checksum;
}

uint64_t wrk_dataset_n_samples(const struct wrk_dataset *dataset, enum wrk_split split,
                               int valid_percent)
{
    const struct wrk_dataset_manifest *manifest = &dataset->manifest;
    if (split == WRK_SPLIT_TEST)
        return manifest->info.n_test;
    uint64_t before = manifest->n_train_before[valid_percent];
    return split == WRK_SPLIT_TRAIN ? before : manifest->info.n_train - before;
}

void wrk_dataset_range(const struct wrk_dataset *dataset, enum wrk_split split, int valid_percent,
                       int64_t *from_p, int64_t *to_p)
{
    int64_t split_time = dataset->manifest.info.split_time;
    int64_t cut = valid_percent ? dataset->manifest.valid_cut_ms[valid_percent] : split_time;
    *from_p = split == WRK_SPLIT_TRAIN ? INT64_MIN : split == WRK_SPLIT_VALID ? cut : split_time;
    *to_p = split == WRK_SPLIT_TRAIN ? cut : split == WRK_SPLIT_VALID ? split_time : INT64_MAX;
}

int wrk_dataset_read_frame(const struct wrk_dataset *dataset, size_t i, struct wrk_block *block)
{
    return wrk_shard_read(dataset->shard[dataset->frame[i].shard], &dataset->shape,
                          dataset->frame[i].frame, block);
}

int wrk_dataset_verify(const struct wrk_dataset *dataset)
{
    for (size_t i = 0; i < dataset->manifest.n_shards; i++) {
        char path[PATH_MAX];
        uint64_t checksum = 0, size = 0;
        int status = shard_path(dataset, i, path);
        if (status == CLU_OK)
            status = clu_file_checksum(path, &checksum, &size);
        if (status == CLU_OK && (checksum != dataset->manifest.shard[i].checksum ||
                                 size != dataset->manifest.shard[i].size_bytes))
            status = clu_fail(CLU_E_CORRUPT, "%s: it does not match the manifest's checksum", path);
        if (status != CLU_OK)
            return status;
    }
    return CLU_OK;
}

bool wrk_dataset_is_one(const char *dir)
{
    char path[PATH_MAX], head[256];
    if (strlen(dir) + sizeof("/manifest.json") > sizeof(path))
        return false;
    strcat(strcpy(path, dir), "/manifest.json");
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    size_t n = fread(head, 1, sizeof(head) - 1, file);
    head[n] = 0;
    fclose(file);
    return strstr(head, "\"sluice data set\"") != NULL;
}

void wrk_dataset_close(struct wrk_dataset *dataset)
{
    if (!dataset)
        return;
    for (size_t i = 0; dataset->shard && i < dataset->manifest.n_shards; i++)
        wrk_shard_close(dataset->shard[i]);
    free(dataset->shard);
    free(dataset->frame);
    wrk_dataset_manifest_fini(&dataset->manifest);
    free(dataset->dir);
    free(dataset);
}
