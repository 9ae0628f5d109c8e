/* Steps: the gradients of all ranks for one table, summed in rank order, one update a row; then
 * marks, clock and commit; then the ranks hear of it.
 *
 * Applying is resumable: `next_table` says which tables of the step in hand are done, so that
 * storage that failed in the middle is tried again from there and no row sees a gradient twice
 * (I1).
 */
#include "ps/shard_internal.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <stdlib.h>
#include <string.h>

/* where a push's frames are read next, table by table */
static size_t next_source(const struct psv_shard *shard, struct psv_request *push, int table,
                          int *at_part, size_t *at_key, size_t *at_float)
{
    if (*at_part == push->n_parts || push->part[*at_part].table != table)
        return 0;
    size_t n = push->part[*at_part].n;
    ++*at_part;
    *at_key += n;
    *at_float += n * (size_t)shard->tables[table].dim;
    return n;
}

/* The step's gradients of one table from all pushes, as fp32. at: three cursors a push. */
static int apply_table(struct psv_shard *shard, struct psv_request **push, int n, int table,
                       size_t (*at)[3], bool skip, uint64_t step)
{
    size_t n_converted = 0, dim = (size_t)shard->tables[table].dim;
    for (int i = 0; i < n; i++) {
        size_t key = at[i][1], number = at[i][2];
        int part = (int)at[i][0];
        size_t count = next_source(shard, push[i], table, &part, &at[i][1], &at[i][2]);
        at[i][0] = (size_t)part;
        shard->sources[i].n = count;
        if (!count)
            continue;
        shard->sources[i].keys = (const uint64_t *)clu_frame_data(&push[i]->keys) + key;
        if (push[i]->dtype == CLU_WIRE_FP32)
            shard->sources[i].grads = (const float *)clu_frame_data(&push[i]->rows) + number;
        else
            n_converted += count * dim;
    }
    if (skip)
        return 0;
    float *fp32 = n_converted ? psv_shard_scratch(shard, n_converted) : NULL;
    if (n_converted && !fp32)
        return CLU_E_NO_MEMORY;
    for (int i = 0; i < n; i++) {
        size_t n_floats = shard->sources[i].n * dim;
        if (!n_floats || push[i]->dtype == CLU_WIRE_FP32)
            continue;
        const uint16_t *from = (const uint16_t *)clu_frame_data(&push[i]->rows);
        clu_wire_from_bf16(from + at[i][2] - n_floats, n_floats, fp32);
        shard->sources[i].grads = fp32;
        fp32 += n_floats;
    }
    const uint64_t *keys;
    const float *grads;
    size_t n_keys;
    int status = psv_merge_sum(shard->merge, shard->sources, n, (int)dim, &keys, &grads, &n_keys);
    if (!status && n_keys)
        status = emb_shard_push(shard->rows, table, keys, n_keys, grads, step);
    if (!status)
        shard->stats.keys_summed += n_keys;
    return status;
}

/* Rows, marks, clock, commit: a step of n pushes in rank order. */
static int apply(struct psv_shard *shard, struct psv_request **push, int n, uint64_t step)
{
    int status = 0;
    size_t few[16][3];
    size_t(*at)[3] = few;
    if (n > 16) {
        at = malloc((size_t)n * sizeof(*at));
        if (!at)
            return CLU_E_NO_MEMORY;
    }
    memset(at, 0, (size_t)n * sizeof(*at));
    for (int t = 0; !status && t < shard->options.terms.n_tables; t++) {
        status = apply_table(shard, push, n, t, at, t < shard->next_table, step);
        if (!status && t >= shard->next_table)
            shard->next_table = t + 1; /* (I1) */
    }
    for (int i = 0; !status && i < n; i++)
        status = emb_shard_mark(shard->rows, push[i]->incarnation, push[i]->seq);
    if (!status)
        status = emb_shard_tick(shard->rows, step > shard->applied ? step : shard->applied);
    if (!status)
        status = emb_shard_commit(shard->rows);
    if (at != few)
        free(at);
    return status;
}

static bool is_passing(int status)
{
    return status == CLU_E_FULL || status == CLU_E_IO || status == CLU_E_NO_MEMORY ||
           status == CLU_E_AGAIN;
}

static void note_failure(struct psv_shard *shard, struct psv_request **push, int n, int status,
                         int64_t now_ms)
{
    if (is_passing(status)) {
        if (!shard->stalled) {
            shard->stalled_since_ms = now_ms;
            clu_error("shard %d: step %llu is not stored: %s; trying again", shard->options.number,
                      (unsigned long long)push[0]->step, clu_status_text(status));
        }
        shard->stalled = true;
        shard->stall_status = status;
        shard->retry_at_ms = now_ms + RETRY_STORAGE_MS;
        shard->stats.stalled_ms = (uint64_t)(now_ms - shard->stalled_since_ms);
        return;
    }
    shard->status = status;
    clu_error("shard %d: step %llu cannot be applied: %s", shard->options.number,
              (unsigned long long)push[0]->step, clu_status_text(status));
    for (int i = 0; i < n; i++)
        psv_shard_reply(shard, push[i], status, "this step cannot be applied");
}

static void acknowledge(struct psv_shard *shard, struct psv_request **push, int n)
{
    shard->next_table = 0;
    shard->stalled = false;
    shard->stats.stalled_ms = 0;
    for (int i = 0; i < n; i++) {
        shard->stats.rows_pushed += push[i]->n_keys;
        psv_shard_reply(shard, push[i], 0, NULL);
    }
}

/* (R9): the first push of n that was split for others than the owners that are known here. */
static const struct psv_request *of_other_owners(const struct psv_shard *shard,
                                                 struct psv_request **push, int n)
{
    for (int i = 0; shard->owners && i < n; i++)
        if (push[i]->owners != shard->owners)
            return push[i];
    return NULL;
}

/* Never so by (V1) and (V2) of shard_move.c: a push of a step in which this shard has no part, or
 * none yet, would be applied to rows that are elsewhere. */
static int refuse_other_owners(struct psv_shard *shard, const struct psv_request *other)
{
    return clu_fail(CLU_E_BUG, "shard %d: rank %u pushed step %llu by owners %u, known here are %u",
                    shard->options.number, other->rank, (unsigned long long)other->step,
                    other->owners, shard->owners);
}

static void apply_steps(struct psv_shard *shard, int64_t now_ms)
{
    struct psv_request **push;
    int n = shard->options.terms.n_ranks;
    while (!shard->status && (push = psv_gate_ready(shard->gate))) {
        const struct psv_request *other = of_other_owners(shard, push, n);
        int status =
            other ? refuse_other_owners(shard, other) : apply(shard, push, n, shard->applied + 1);
        if (status) {
            note_failure(shard, push, n, status, now_ms);
            return;
        }
        shard->applied++;
        acknowledge(shard, push, n);
        psv_gate_pop(shard->gate);
        psv_shard_begin_snapshot(shard); /* (R5) */
        psv_shard_release_held(shard);
    }
}

static void apply_async(struct psv_shard *shard, int64_t now_ms)
{
    int n_ranks = shard->options.terms.n_ranks;
    for (int idle = 0; !shard->status && idle < n_ranks;) {
        struct psv_gate *gate = shard->rank_gate[shard->cursor];
        struct psv_request **push = gate ? psv_gate_ready(gate) : NULL;
        if (!push || psv_shard_is_newer(shard, push[0])) {
            shard->cursor = (shard->cursor + 1) % n_ranks;
            idle++;
            continue;
        }
        idle = 0;
        uint64_t step = push[0]->step;
        int status = apply(shard, push, 1, step);
        if (status) {
            note_failure(shard, push, 1, status, now_ms); /* cursor stays: (I1) */
            return;
        }
        if (step > shard->applied)
            shard->applied = step;
        acknowledge(shard, push, 1);
        psv_gate_pop(gate);
        shard->cursor = (shard->cursor + 1) % n_ranks;
        psv_shard_begin_snapshot(shard);
        psv_shard_release_held(shard);
    }
}

void psv_shard_apply_ready(struct psv_shard *shard, int64_t now_ms)
{
    if (shard->stalled && now_ms < shard->retry_at_ms)
        return;
    if (psv_shard_is_async(shard))
        apply_async(shard, now_ms);
    else
        apply_steps(shard, now_ms);
}
