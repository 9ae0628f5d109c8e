/* Writing a data set: timelines in, a folder out.
 *
 *     open -> DIR.part/     add, add, ...: frames into shards; every start time into a temporary
 *     file commit                the split from the start times, the indexes, the manifest, rename
 *     to DIR
 *
 * The folder appears whole or not at all; a data set that stood at DIR is replaced in the same
 * moment, anything else there is refused. The same timelines in the same order give the same bytes.
 * Threads: one owner.
 */
#ifndef WORKER_WRITER_H
#define WORKER_WRITER_H

#include "worker/schema.h"
#include "worker/timeline.h"

#include <stdbool.h>
#include <stdint.h>

struct wrk_writer_options {
    const char *dir;
    const struct wrk_schema *schema; /* copied */
    double split;                    /* (0, 1] */
    int64_t label_window_ms;         /* 0: no bound */
    uint64_t memory_bytes;           /* for what the writer keeps beside its blocks */
    bool has_truth;
};

struct wrk_writer;

/* Checks the place and makes DIR.part (removing one left by a killed run). Errors: EXISTS when DIR
 * is there and is neither empty nor a data set. */
int wrk_writer_open(const struct wrk_writer_options *options, struct wrk_writer **writer_p);

/* The folder that is being written: a place for temporary files. */
const char *wrk_writer_part_dir(const struct wrk_writer *writer);

/* Appends a user. Users must come in order of mix(key). */
int wrk_writer_add(struct wrk_writer *writer, const struct wrk_timeline *timeline);

/* Finishes; frees the writer in any case (and removes DIR.part when it fails). info_p may be NULL.
 * Errors: DATA when no pair was added. */
int wrk_writer_commit(struct wrk_writer *writer, uint64_t n_skipped,
                      struct wrk_dataset_info *info_p);

/* Removes DIR.part; NULL is fine. */
void wrk_writer_abandon(struct wrk_writer *writer);

#endif
