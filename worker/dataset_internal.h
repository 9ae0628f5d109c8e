/* What the reader needs of an open data set beyond its contract: all frames of all shards in one
 * list, in the order in which they were written. Shared by dataset.c, dataset_print.c, reader*.c
 * and references.c only.
 */
#ifndef WORKER_DATASET_INTERNAL_H
#define WORKER_DATASET_INTERNAL_H

#include "worker/dataset.h"
#include "worker/dataset_manifest.h"
#include "worker/shard.h"

struct wrk_frame_ref {
    uint32_t shard, frame;
};

struct wrk_dataset {
    char *dir;
    struct wrk_dataset_manifest manifest;
    struct wrk_shape shape;
    struct wrk_shard **shard; /* [manifest.n_shards] */
    struct wrk_frame_ref *frame;
    size_t n_frames;
};

static inline const struct wrk_frame *wrk_dataset_frame(const struct wrk_dataset *dataset, size_t i)
{
    return wrk_shard_frame(dataset->shard[dataset->frame[i].shard], dataset->frame[i].frame);
}

/* Samples of a frame in a split. */
static inline uint32_t wrk_frame_n_samples(const struct wrk_frame *frame, enum wrk_split split,
                                           int valid_percent)
{
    if (split == WRK_SPLIT_TEST)
        return frame->n_test;
    if (split == WRK_SPLIT_TRAIN)
        return frame->n_train[valid_percent];
    return frame->n_train[0] - frame->n_train[valid_percent];
}

/* The start times [*from_p, *to_p) of a split. */
void wrk_dataset_range(const struct wrk_dataset *dataset, enum wrk_split split, int valid_percent,
                       int64_t *from_p, int64_t *to_p);

int wrk_dataset_read_frame(const struct wrk_dataset *dataset, size_t i, struct wrk_block *block);

#endif
