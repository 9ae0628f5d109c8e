/* The index promised a number of samples for the split; a frame that holds another number would
 * shift every later batch, so it is refused as damaged. */
#include "worker/reader_frame.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/reader_order.h"

#include <stdlib.h>
#include <string.h>

struct run {
    uint32_t first, n; /* into the stored order of the split's samples */
};

static bool in_range(const struct wrk_pair *pair, int64_t from, int64_t to)
{
    return pair->start_ms >= from && pair->start_ms < to;
}

/* the split's samples in stored order, and the runs they fall into */
static void list_runs(const struct wrk_reader_frame *frame, int64_t from, int64_t to, uint32_t most,
                      uint32_t *samples, uint32_t *n_samples_p, struct run *runs, size_t *n_runs_p)
{
    uint32_t n = 0;
    size_t n_runs = 0;
    for (size_t u = 0; u < frame->block.n_users; u++) {
        const struct wrk_block_user *user = &frame->block.user[u];
        uint32_t in_run = most;
        for (uint32_t p = user->first_pair; p < user->first_pair + user->n_pairs; p++) {
            if (!in_range(&frame->block.pair[p], from, to))
                continue;
            if (in_run == most) {
                runs[n_runs++] = (struct run){n, 0};
                in_run = 0;
            }
            samples[n++] = p;
            runs[n_runs - 1].n++;
            in_run++;
        }
    }
    *n_samples_p = n;
    *n_runs_p = n_runs;
}

/* full runs to the front, in their order */
static size_t partition_runs(struct run *runs, size_t n_runs, uint32_t most, struct run *scratch)
{
    size_t n_full = 0, n_short = 0;
    for (size_t i = 0; i < n_runs; i++) {
        if (runs[i].n == most)
            runs[n_full++] = runs[i];
        else
            scratch[n_short++] = runs[i];
    }
    memcpy(runs + n_full, scratch, n_short * sizeof(*runs));
    return n_full;
}

static int make_sequence(struct wrk_reader_frame *frame, const struct wrk_dataset *dataset,
                         const struct wrk_reader_options *options, uint64_t epoch)
{
    size_t n_pairs = frame->block.n_pairs, n_runs;
    uint32_t most = (uint32_t)options->samples_per_user;
    uint32_t *samples = malloc((n_pairs + 1) * sizeof(*samples));
    struct run *runs = malloc(2 * (n_pairs + 1) * sizeof(*runs));
    if (!samples || !runs) {
        free(samples);
        free(runs);
        return clu_fail(CLU_E_NO_MEMORY, "out of memory for the reader");
    }
    int64_t from, to;
    wrk_dataset_range(dataset, options->split, options->valid_percent, &from, &to);
    list_runs(frame, from, to, most, samples, &frame->n_samples, runs, &n_runs);
    if (options->shuffle) {
        size_t n_full = partition_runs(runs, n_runs, most, runs + n_pairs + 1);
        uint64_t state = wrk_shuffle_state(options->seed, epoch, 3 + 2 * (uint64_t)frame->frame);
        wrk_shuffle(runs, n_full, sizeof(*runs), state);
        wrk_shuffle(runs + n_full, n_runs - n_full, sizeof(*runs), state ^ 1);
    }
    uint32_t at = 0;
    for (size_t i = 0; i < n_runs; i++) {
        memcpy(frame->sequence + at, samples + runs[i].first, runs[i].n * sizeof(*samples));
        at += runs[i].n;
    }
    free(samples);
    free(runs);
    return CLU_OK;
}

int wrk_reader_frame_load(const struct wrk_dataset *dataset,
                          const struct wrk_reader_options *options, uint64_t epoch, size_t window,
                          size_t frame_index, struct wrk_reader_frame **frame_p)
{
    struct wrk_reader_frame *frame = calloc(1, sizeof(*frame));
    if (!frame)
        return clu_fail(CLU_E_NO_MEMORY, "out of memory for the reader");
    wrk_block_init(&frame->block);
    frame->window = window;
    frame->frame = frame_index;
    int status = wrk_dataset_read_frame(dataset, frame_index, &frame->block);
    size_t n_pairs = frame->block.n_pairs + 1, n_users = frame->block.n_users + 1;
    if (status == CLU_OK) {
        frame->sequence = malloc(n_pairs * sizeof(*frame->sequence));
        frame->user_of = malloc(n_pairs * sizeof(*frame->user_of));
        frame->memo = calloc(n_pairs, sizeof(*frame->memo));
        frame->user_stamp = calloc(n_users, sizeof(*frame->user_stamp));
        frame->user_row = malloc(n_users * sizeof(*frame->user_row));
        if (!frame->sequence || !frame->user_of || !frame->memo || !frame->user_stamp ||
            !frame->user_row)
            status = clu_fail(CLU_E_NO_MEMORY, "out of memory for the reader");
    }
    if (status == CLU_OK)
        status = make_sequence(frame, dataset, options, epoch);
    if (status == CLU_OK &&
        frame->n_samples != wrk_frame_n_samples(wrk_dataset_frame(dataset, frame_index),
                                                options->split, options->valid_percent))
        status =
            clu_fail(CLU_E_CORRUPT,
                     "%s/%s: frame %u holds %u samples of the split, its index says otherwise",
                     dataset->dir, dataset->manifest.shard[dataset->frame[frame_index].shard].file,
                     dataset->frame[frame_index].frame, frame->n_samples);
    if (status != CLU_OK) {
        wrk_reader_frame_free(frame);
        return status;
    }
    for (uint32_t u = 0; u < frame->block.n_users; u++)
        for (uint32_t p = 0; p < frame->block.user[u].n_pairs; p++)
            frame->user_of[frame->block.user[u].first_pair + p] = u;
    *frame_p = frame;
    return CLU_OK;
}

void wrk_reader_frame_free(struct wrk_reader_frame *frame)
{
    if (!frame)
        return;
    wrk_block_fini(&frame->block);
    free(frame->sequence);
    free(frame->user_of);
    free(frame->user_stamp);
    free(frame->user_row);
    free(frame->memo);
    free(frame);
}
