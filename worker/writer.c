/* The split can be known only when every start time is, and the indexes count samples by split; but
 * frames do not depend on it. So frames go out at once, start times beside them, and when all are
 * there the start times are read again in the same order to count each frame's share.
 */
#include "worker/writer.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/dataset_manifest.h"
#include "worker/select.h"
#include "worker/shard.h"

#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FRAME_BYTES = 1 << 17, N_CUTS = WRK_MAX_VALID_PERCENT + 1 };

static const uint64_t shard_bytes = (uint64_t)256 << 20;

/* a frame of the whole set: its place, and how many start times are its own */
struct entry {
    struct wrk_frame frame;
    size_t shard;
    uint64_t n_pairs;
};

struct wrk_writer {
    char dir[PATH_MAX], part_dir[PATH_MAX];
    uint64_t memory_bytes;
    struct wrk_dataset_manifest manifest;
    struct wrk_shape shape;
    struct clu_packer packer; /* the frame under construction */
    uint32_t frame_users;
    uint64_t frame_pairs;
    struct entry *entries;
    size_t n_entries, entry_capacity;
    struct wrk_shard_writer **shards;
    size_t n_shards, shard_capacity;
    struct wrk_numbers starts, items;
};

static bool is_empty_dir(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir)
        return false;
    int n = 0;
    while (n < 3 && readdir(dir))
        n++;
    closedir(dir);
    return n == 2; /* . and .. */
}

static int check_place(const char *dir)
{
    if (!clu_path_exists(dir) || is_empty_dir(dir) || wrk_dataset_is_one(dir))
        return CLU_OK;
    return clu_fail(CLU_E_EXISTS,
                    "%s exists and is not a data set: it is left alone; give another folder", dir);
}

static void fill_info(struct wrk_dataset_manifest *manifest,
                      const struct wrk_writer_options *options)
{
    const struct wrk_schema *schema = options->schema;
    struct wrk_dataset_info *info = &manifest->info;
    strcpy(info->schema, schema->name);
    info->n_actions = schema->n_actions;
    memcpy(info->action, schema->action, sizeof(info->action));
    wrk_schema_columns(schema, info);
    info->split = options->split;
    info->label_window_ms = options->label_window_ms;
    info->time_unit_ms = schema->time_format == WRK_TIME_UNIX_MS ? 1 : 1000;
    info->has_truth = options->has_truth;
    info->first_time = INT64_MAX;
    info->last_time = INT64_MIN;
    manifest->transform = schema->transform;
}

int wrk_writer_open(const struct wrk_writer_options *options, struct wrk_writer **writer_p)
{
    size_t length = strlen(options->dir);
    while (length > 1 && options->dir[length - 1] == '/')
        length--;
    if (length == 0 || length + 8 > PATH_MAX)
        return clu_fail(CLU_E_CONFIG, "the data set's folder: expected a path");
    struct wrk_writer *writer = calloc(1, sizeof(*writer));
    if (!writer)
        return clu_fail(CLU_E_NO_MEMORY, "out of memory");
    memcpy(writer->dir, options->dir, length);
    memcpy(writer->part_dir, options->dir, length);
    strcpy(writer->part_dir + length, ".part");
    writer->memory_bytes = options->memory_bytes;
    fill_info(&writer->manifest, options);
    wrk_shape_init(&writer->shape, &writer->manifest.info, &writer->manifest.transform);
    clu_packer_init(&writer->packer);
    json_t *json = wrk_schema_json(options->schema);
    writer->manifest.schema_json = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    int status = check_place(writer->dir);
    if (status != CLU_OK) {
        free(writer->manifest.schema_json);
        free(writer);
        return status;
    }
    if (!writer->manifest.schema_json)
        status = clu_fail(CLU_E_NO_MEMORY, "out of memory");
    if (status == CLU_OK)
        status = clu_remove_tree(writer->part_dir);
    if (status == CLU_OK)
        status = clu_mkdirs(writer->part_dir);
    if (status == CLU_OK)
        status = wrk_numbers_init(&writer->starts, writer->part_dir);
    if (status == CLU_OK)
        status = wrk_numbers_init(&writer->items, writer->part_dir);
    if (status != CLU_OK) {
        wrk_writer_abandon(writer);
        return status;
    }
    *writer_p = writer;
    return CLU_OK;
}

const char *wrk_writer_part_dir(const struct wrk_writer *writer)
{
    return writer->part_dir;
}

static void free_writer(struct wrk_writer *writer)
{
    for (size_t i = 0; i < writer->n_shards; i++)
        wrk_shard_abandon(writer->shards[i]);
    wrk_numbers_fini(&writer->starts);
    wrk_numbers_fini(&writer->items);
    clu_packer_fini(&writer->packer);
    wrk_dataset_manifest_fini(&writer->manifest);
    free(writer->shards);
    free(writer->entries);
    free(writer);
}

void wrk_writer_abandon(struct wrk_writer *writer)
{
    if (!writer)
        return;
    char part_dir[PATH_MAX];
    strcpy(part_dir, writer->part_dir);
    free_writer(writer);
    clu_remove_tree(part_dir);
}

static int new_shard(struct wrk_writer *writer)
{
    if (writer->n_shards > 0) {
        int status = wrk_shard_pause(writer->shards[writer->n_shards - 1]);
        if (status != CLU_OK)
            return status;
    }
    if (writer->n_shards == writer->shard_capacity) {
        size_t capacity = 2 * writer->shard_capacity + 8;
        void *shards = realloc(writer->shards, capacity * sizeof(*writer->shards));
        if (!shards)
            return clu_fail(CLU_E_NO_MEMORY, "out of memory");
        writer->shards = shards;
        writer->shard_capacity = capacity;
    }
    char path[PATH_MAX], name[WRK_NAME_BYTES];
    snprintf(name, sizeof(name), "shard-%05zu.slu", writer->n_shards);
    int status = clu_path_join(path, sizeof(path), writer->part_dir, name);
    if (status == CLU_OK)
        status = wrk_shard_create(path, &writer->shards[writer->n_shards]);
    if (status == CLU_OK)
        writer->n_shards++;
    return status;
}

static int flush_frame(struct wrk_writer *writer)
{
    if (writer->frame_users == 0)
        return CLU_OK;
    int status = clu_packer_status(&writer->packer);
    if (status == CLU_OK && (writer->n_shards == 0 ||
                             wrk_shard_size(writer->shards[writer->n_shards - 1]) >= shard_bytes))
        status = new_shard(writer);
    if (status == CLU_OK && writer->n_entries == writer->entry_capacity) {
        size_t capacity = 2 * writer->entry_capacity + 64;
        void *entries = realloc(writer->entries, capacity * sizeof(*writer->entries));
        if (!entries)
            return clu_fail(CLU_E_NO_MEMORY, "out of memory");
        writer->entries = entries;
        writer->entry_capacity = capacity;
    }
    if (status != CLU_OK)
        return status;
    struct entry *entry = &writer->entries[writer->n_entries];
    status = wrk_shard_append(writer->shards[writer->n_shards - 1], writer->packer.data,
                              writer->packer.size_bytes, &entry->frame);
    if (status != CLU_OK)
        return status;
    entry->frame.n_users = writer->frame_users;
    entry->n_pairs = writer->frame_pairs;
    entry->shard = writer->n_shards - 1;
    writer->n_entries++;
    writer->frame_users = 0;
    writer->frame_pairs = 0;
    clu_packer_clear(&writer->packer);
    return CLU_OK;
}

int wrk_writer_add(struct wrk_writer *writer, const struct wrk_timeline *timeline)
{
    struct wrk_dataset_info *info = &writer->manifest.info;
    wrk_block_pack(&writer->packer, &writer->shape, timeline);
    int status = clu_packer_status(&writer->packer);
    for (size_t i = 0; i < timeline->n_pairs && status == CLU_OK; i++) {
        const struct wrk_pair *pair = &timeline->pair[i];
        for (uint32_t k = 0; k < pair->n_tokens; k++) {
            const struct wrk_token *token = &timeline->token[pair->first_token + k];
            info->n_with_action[token->action]++;
            info->last_time = token->time_ms > info->last_time ? token->time_ms : info->last_time;
        }
        info->first_time = pair->start_ms < info->first_time ? pair->start_ms : info->first_time;
        status = wrk_numbers_add(&writer->starts, (uint64_t)pair->start_ms);
        if (status == CLU_OK)
            status = wrk_numbers_add(&writer->items, pair->item.key);
    }
    if (status != CLU_OK)
        return status;
    info->n_users++;
    info->n_events += timeline->n_events;
    info->n_pairs += timeline->n_pairs;
    writer->frame_users++;
    writer->frame_pairs += timeline->n_pairs;
    return writer->packer.size_bytes >= FRAME_BYTES ? flush_frame(writer) : CLU_OK;
}

/* walks the start times in the order of the frames */
struct counting {
    struct wrk_writer *writer;
    size_t entry;
    uint64_t in_entry;
    bool per_frame; /* else only how many lie before the split */
};

static int count_starts(void *context, const uint64_t *values, size_t n)
{
    struct counting *counting = context;
    struct wrk_dataset_manifest *manifest = &counting->writer->manifest;
    for (size_t i = 0; i < n; i++) {
        int64_t start = (int64_t)values[i];
        if (!counting->per_frame) {
            manifest->info.n_train += start < manifest->info.split_time;
            continue;
        }
        struct entry *entry = &counting->writer->entries[counting->entry];
        if (start >= manifest->info.split_time)
            entry->frame.n_test++;
        for (int p = 0; p < N_CUTS && start < manifest->valid_cut_ms[p]; p++) {
            entry->frame.n_train[p]++; /* cuts fall as p grows */
            manifest->n_train_before[p]++;
        }
        if (++counting->in_entry == entry->n_pairs) {
            counting->entry++;
            counting->in_entry = 0;
        }
    }
    return CLU_OK;
}

static int find_split(struct wrk_writer *writer)
{
    struct wrk_dataset_manifest *manifest = &writer->manifest;
    struct wrk_dataset_info *info = &manifest->info;
    uint64_t rank = (uint64_t)floor(info->split * (double)info->n_pairs);
    int status = CLU_OK;
    if (rank >= info->n_pairs)
        info->split_time = info->last_time + 1; /* everything is training */
    else
        status = wrk_numbers_select(&writer->starts, &rank, 1, &info->split_time);
    struct counting counting = {writer, 0, 0, false};
    if (status == CLU_OK)
        status = wrk_numbers_scan(&writer->starts, count_starts, &counting);
    if (status != CLU_OK)
        return status;
    info->n_test = info->n_pairs - info->n_train;
    uint64_t ranks[WRK_MAX_VALID_PERCENT];
    manifest->valid_cut_ms[0] = info->split_time;
    for (int p = 1; p < N_CUTS; p++) {
        ranks[p - 1] = info->n_train / 100 * (uint64_t)(100 - p) +
                       info->n_train % 100 * (uint64_t)(100 - p) / 100;
        manifest->valid_cut_ms[p] = info->split_time;
    }
    if (info->n_train > 0)
        status = wrk_numbers_select(&writer->starts, ranks, WRK_MAX_VALID_PERCENT,
                                    manifest->valid_cut_ms + 1);
    counting.per_frame = true;
    if (status == CLU_OK)
        status = wrk_numbers_scan(&writer->starts, count_starts, &counting);
    return status;
}

static int finish_shards(struct wrk_writer *writer)
{
    struct wrk_dataset_manifest *manifest = &writer->manifest;
    manifest->shard = calloc(writer->n_shards, sizeof(*manifest->shard));
    struct wrk_frame *frames = malloc((writer->n_entries + 1) * sizeof(*frames));
    int status = CLU_OK;
    if (!manifest->shard || !frames)
        status = clu_fail(CLU_E_NO_MEMORY, "out of memory");
    size_t entry = 0;
    for (size_t i = 0; i < writer->n_shards && status == CLU_OK; i++) {
        size_t n = 0;
        for (; entry < writer->n_entries && writer->entries[entry].shard == i; entry++)
            frames[n++] = writer->entries[entry].frame;
        status = wrk_shard_finish(writer->shards[i], frames, n);
        writer->shards[i] = NULL;
        char path[PATH_MAX];
        struct wrk_shard_entry *shard = &manifest->shard[manifest->n_shards++];
        snprintf(shard->file, sizeof(shard->file), "shard-%05zu.slu", i);
        if (status == CLU_OK)
            status = clu_path_join(path, sizeof(path), writer->part_dir, shard->file);
        if (status == CLU_OK)
            status = clu_file_checksum(path, &shard->checksum, &shard->size_bytes);
    }
    free(frames);
    return status;
}

/* a data set that stands at the place makes room only when the new one is complete */
static int publish(const struct wrk_writer *writer)
{
    char old[PATH_MAX];
    if (!clu_path_exists(writer->dir))
        return clu_rename_durable(writer->part_dir, writer->dir);
    if (is_empty_dir(writer->dir)) /* rename replaces it */
        return clu_rename_durable(writer->part_dir, writer->dir);
    if ((size_t)snprintf(old, sizeof(old), "%s.old", writer->dir) >= sizeof(old))
        return clu_fail(CLU_E_CONFIG, "%s: the path is too long", writer->dir);
    int status = check_place(writer->dir);
    if (status == CLU_OK && clu_path_exists(old) && !wrk_dataset_is_one(old))
        status = clu_fail(CLU_E_EXISTS, "%s is in the way and is not a data set", old);
    if (status == CLU_OK)
        status = clu_remove_tree(old);
    if (status == CLU_OK)
        status = clu_rename_durable(writer->dir, old);
    if (status == CLU_OK)
        status = clu_rename_durable(writer->part_dir, writer->dir);
    if (status == CLU_OK)
        status = clu_remove_tree(old);
    return status;
}

int wrk_writer_commit(struct wrk_writer *writer, uint64_t n_skipped,
                      struct wrk_dataset_info *info_p)
{
    struct wrk_dataset_info *info = &writer->manifest.info;
    info->n_skipped = n_skipped;
    int status = flush_frame(writer);
    if (status == CLU_OK && info->n_pairs == 0)
        status = clu_fail(CLU_E_DATA, "no events: there is nothing to make a data set of");
    if (status == CLU_OK)
        status = find_split(writer);
    if (status == CLU_OK)
        status =
            wrk_numbers_count_distinct(&writer->items, writer->memory_bytes / 4, &info->n_items);
    if (status == CLU_OK)
        status = finish_shards(writer);
    if (status == CLU_OK)
        status = wrk_dataset_manifest_save(&writer->manifest, writer->part_dir);
    if (status == CLU_OK)
        status = publish(writer);
    if (status != CLU_OK) {
        wrk_writer_abandon(writer);
        return status;
    }
    if (info_p)
        *info_p = *info;
    free_writer(writer);
    return CLU_OK;
}
