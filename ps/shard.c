/* Requests against one shard's rows; the rules (R1) to (R7) are those of shard.h.
 *
 * Everything that waits is a struct psv_request, in one of two places: pushes in a gate, all else
 * in the held list. Both are looked at again whenever a step was applied. A retry finds its first
 * try there by
 * (rank, incarnation, seq) and only changes where the answer goes, so a client may ask as often as
 * it likes.
 *
 * Applying is resumable: `next_table` says which tables of the step in hand are done, so that
 * storage that failed in the middle is tried again from there and no row sees a gradient twice
 * (I1).
 */
#include "ps/shard.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/pack.h"
#include "cluster/status.h"
#include "embeddings/shard.h"
#include "ps/gate.h"
#include "ps/merge.h"
#include "ps/pool.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SPARE_WINDOW = 8,          /* positions a push may be early beyond what the bound needs */
    ASYNC_WINDOW = 64,         /* pushes of a rank that overtook an earlier one */
    MIN_LENT_BYTES = 32 << 10, /* smaller replies are copied: cheaper than lending */
    CHUNK_FLOATS = 16 << 10,   /* conversion to bf16 in pieces that stay in the cache */
    RETRY_STORAGE_MS = 200,
    SNAPSHOT_SLICE_US = 2000,
    SENTENCE_BYTES = 256,
};

struct finished {
    uint64_t step;
    char path[512]; /* as answered: relative to the snapshot's folder */
    struct emb_snapshot_result result;
    bool done;
};

struct psv_shard {
    struct psv_shard_options options;
    struct emb_table_spec *tables;
    struct emb_shard *rows;
    uint64_t applied;
    int status; /* (R6) latched */

    struct psv_gate *gate;       /* staleness bound: all ranks' */
    struct psv_gate **rank_gate; /* async: [n_ranks], made at a rank's first push */
    uint64_t *incarnation;       /* [n_ranks] the newest seen */
    int cursor;                  /* async: whose turn it is */

    int next_table; /* (I1) */
    int64_t stalled_since_ms, retry_at_ms;
    bool stalled;

    struct psv_request **held; /* [n_held] */
    int n_held;
    struct psv_request *snapshot; /* the one being written */
    struct finished finished;

    struct psv_merge *merge;
    struct psv_source *sources; /* [n_ranks] */
    struct psv_pool *pool;
    float *scratch; /* bf16 gradients as fp32, or a chunk of rows */
    size_t n_scratch;
    struct psv_shard_stats stats;
};

int psv_shard_create(const struct psv_shard_options *options, struct psv_shard **shard_p)
{
    size_t n_ranks = (size_t)options->terms.n_ranks;
    size_t n_tables = (size_t)options->terms.n_tables;
    struct psv_shard *shard = calloc(1, sizeof(*shard));
    if (!shard)
        return CLU_E_NO_MEMORY;
    shard->options = *options;
    shard->rows = options->rows;
    shard->applied = options->applied;
    struct psv_shard_options *own = &shard->options;
    own->max_buffered_bytes = own->max_buffered_bytes ? own->max_buffered_bytes : 1 << 30;
    own->max_reply_bytes = own->max_reply_bytes ? own->max_reply_bytes : 256 << 20;
    own->max_held = own->max_held ? own->max_held : 1024;
    int status = CLU_E_NO_MEMORY;
    shard->tables = calloc(n_tables ? n_tables : 1, sizeof(*shard->tables));
    shard->held = calloc((size_t)own->max_held, sizeof(struct psv_request *));
    shard->sources = calloc(n_ranks, sizeof(*shard->sources));
    shard->incarnation = calloc(n_ranks, sizeof(*shard->incarnation));
    shard->rank_gate = calloc(n_ranks, sizeof(struct psv_gate *));
    if (!shard->tables || !shard->held || !shard->sources || !shard->incarnation ||
        !shard->rank_gate || psv_merge_create(&shard->merge) ||
        psv_pool_create(256 << 20, &shard->pool))
        goto fail;
    if (n_tables)
        memcpy(shard->tables, options->terms.tables, n_tables * sizeof(*shard->tables));
    own->terms.tables = shard->tables;
    if (options->terms.staleness >= 0) {
        status = psv_gate_create(options->terms.n_ranks,
                                 (int)options->terms.staleness + 1 + SPARE_WINDOW,
                                 own->max_buffered_bytes, options->applied, &shard->gate);
        if (status)
            goto fail;
    }
    *shard_p = shard;
    return 0;

fail:
    psv_shard_free(shard);
    return clu_fail(status, "no memory for a shard of %d ranks", options->terms.n_ranks);
}

void psv_shard_free(struct psv_shard *shard)
{
    if (!shard)
        return;
    for (int i = 0; i < shard->n_held; i++)
        psv_request_free(shard->held[i]);
    psv_request_free(shard->snapshot);
    psv_gate_free(shard->gate);
    if (shard->rank_gate)
        for (int r = 0; r < shard->options.terms.n_ranks; r++)
            psv_gate_free(shard->rank_gate[r]);
    free(shard->rank_gate);
    free(shard->incarnation);
    free(shard->sources);
    free(shard->held);
    free(shard->tables);
    free(shard->scratch);
    psv_merge_free(shard->merge);
    psv_pool_release(shard->pool);
    free(shard);
}

uint64_t psv_shard_applied(const struct psv_shard *shard)
{
    return shard->applied;
}

int psv_shard_status(const struct psv_shard *shard)
{
    return shard->status;
}

static bool is_async(const struct psv_shard *shard)
{
    return shard->options.terms.staleness < 0;
}

static float *scratch(struct psv_shard *shard, size_t n_floats)
{
    if (n_floats > shard->n_scratch) {
        free(shard->scratch);
        shard->scratch = malloc(n_floats * sizeof(float));
        shard->n_scratch = shard->scratch ? n_floats : 0;
    }
    return shard->scratch;
}

/* ---- replies ---- */

static void send_reply(struct psv_shard *shard, struct clu_message *message)
{
    if (shard->options.send(shard->options.context, message))
        shard->stats.unsent++;
    clu_message_close(message);
}

/* A message with its header frame; the caller may add a body. */
static int begin_reply(struct psv_shard *shard, const struct psv_request *request, int status,
                       const char *sentence, struct clu_message *message_p)
{
    struct clu_wire_reply reply = {
        .op = request->op,
        .dtype = request->dtype,
        .status = status,
        .seq = request->seq,
        .step = shard->applied,
        .text = sentence,
        .n_text = sentence ? (uint32_t)strlen(sentence) : 0,
    };
    clu_message_init(message_p);
    memcpy(message_p->peer, request->peer, (size_t)request->peer_size);
    message_p->peer_size = request->peer_size;
    struct clu_frame *frame = clu_message_add(message_p);
    if (clu_frame_init_size(frame, clu_wire_reply_size(&reply)))
        return CLU_E_NO_MEMORY;
    clu_wire_encode_reply(&reply, clu_frame_data(frame));
    return 0;
}

static void reply_status(struct psv_shard *shard, const struct psv_request *request, int status,
                         const char *sentence)
{
    struct clu_message message;
    if (!begin_reply(shard, request, status, sentence, &message))
        send_reply(shard, &message);
    else
        clu_message_close(&message);
}

static void reply_body(struct psv_shard *shard, const struct psv_request *request,
                       struct clu_packer *body)
{
    struct clu_message message;
    int status = clu_packer_status(body);
    if (!status)
        status = begin_reply(shard, request, 0, NULL, &message);
    else
        clu_message_init(&message);
    if (!status)
        status = clu_frame_init_copy(clu_message_add(&message), body->data, body->size_bytes);
    if (!status)
        send_reply(shard, &message);
    clu_message_close(&message);
}

/* ---- pulls ---- */

static int gather_part(struct psv_shard *shard, const struct clu_wire_part *part,
                       const uint64_t *keys, int dtype, void *out)
{
    size_t dim = (size_t)shard->tables[part->table].dim;
    if (dtype == CLU_WIRE_FP32)
        return emb_shard_pull(shard->rows, part->table, keys, part->n, out);
    size_t chunk = CHUNK_FLOATS / dim ? CHUNK_FLOATS / dim : 1;
    float *rows = scratch(shard, chunk * dim);
    if (!rows)
        return CLU_E_NO_MEMORY;
    for (size_t i = 0; i < part->n; i += chunk) {
        size_t n = part->n - i < chunk ? part->n - i : chunk;
        int status = emb_shard_pull(shard->rows, part->table, keys + i, n, rows);
        if (status)
            return status;
        clu_wire_to_bf16(rows, n * dim, (uint16_t *)out + i * dim);
    }
    return 0;
}

static size_t rows_bytes(const struct psv_shard *shard, const struct clu_wire_part *part,
                         int n_parts, int dtype)
{
    size_t n_floats = 0;
    for (int i = 0; i < n_parts; i++)
        n_floats += (size_t)part[i].n * (size_t)shard->tables[part[i].table].dim;
    return n_floats * clu_wire_dtype_size(dtype);
}

static int reply_frame(struct psv_shard *shard, struct clu_frame *frame, size_t bytes)
{
    if (bytes < MIN_LENT_BYTES)
        return clu_frame_init_size(frame, bytes);
    void *buffer = psv_pool_take(shard->pool, bytes);
    if (!buffer)
        return CLU_E_NO_MEMORY;
    int status = clu_frame_init_lend(frame, buffer, bytes, psv_pool_give, NULL);
    if (status)
        psv_pool_give(buffer, NULL);
    return status;
}

static void answer_pull(struct psv_shard *shard, struct psv_request *request)
{
    struct clu_message message;
    size_t bytes = rows_bytes(shard, request->part, request->n_parts, request->dtype);
    int status = begin_reply(shard, request, 0, NULL, &message);
    struct clu_frame *frame = status ? NULL : clu_message_add(&message);
    if (!status)
        status = reply_frame(shard, frame, bytes);
    const uint64_t *keys = clu_frame_data(&request->keys);
    unsigned char *out = status ? NULL : clu_frame_data(frame);
    for (int i = 0; !status && i < request->n_parts; i++) {
        const struct clu_wire_part *part = &request->part[i];
        status = gather_part(shard, part, keys, request->dtype, out);
        keys += part->n;
        out += (size_t)part->n * (size_t)shard->tables[part->table].dim *
               clu_wire_dtype_size(request->dtype);
    }
    if (!status) {
        shard->stats.rows_pulled += request->n_keys;
        send_reply(shard, &message);
    }
    clu_message_close(&message);
    if (status)
        reply_status(shard, request, status, "the rows could not be read");
}

/* ---- applying ---- */

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
    float *fp32 = n_converted ? scratch(shard, n_converted) : NULL;
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
        shard->retry_at_ms = now_ms + RETRY_STORAGE_MS;
        shard->stats.stalled_ms = (uint64_t)(now_ms - shard->stalled_since_ms);
        return;
    }
    shard->status = status;
    clu_error("shard %d: step %llu cannot be applied: %s", shard->options.number,
              (unsigned long long)push[0]->step, clu_status_text(status));
    for (int i = 0; i < n; i++)
        reply_status(shard, push[i], status, "this step cannot be applied");
}

static void acknowledge(struct psv_shard *shard, struct psv_request **push, int n)
{
    shard->next_table = 0;
    shard->stalled = false;
    shard->stats.stalled_ms = 0;
    for (int i = 0; i < n; i++) {
        shard->stats.rows_pushed += push[i]->n_keys;
        reply_status(shard, push[i], 0, NULL);
    }
}

static void begin_snapshot(struct psv_shard *shard);
static void release_held(struct psv_shard *shard);

static void apply_steps(struct psv_shard *shard, int64_t now_ms)
{
    struct psv_request **push;
    int n = shard->options.terms.n_ranks;
    while (!shard->status && (push = psv_gate_ready(shard->gate))) {
        int status = apply(shard, push, n, shard->applied + 1);
        if (status) {
            note_failure(shard, push, n, status, now_ms);
            return;
        }
        shard->applied++;
        acknowledge(shard, push, n);
        psv_gate_pop(shard->gate);
        begin_snapshot(shard); /* (R5) */
        release_held(shard);
    }
}

static void apply_async(struct psv_shard *shard, int64_t now_ms)
{
    int n_ranks = shard->options.terms.n_ranks;
    for (int idle = 0; !shard->status && idle < n_ranks;) {
        struct psv_gate *gate = shard->rank_gate[shard->cursor];
        struct psv_request **push = gate ? psv_gate_ready(gate) : NULL;
        if (!push) {
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
        begin_snapshot(shard);
        release_held(shard);
    }
}

static void apply_ready(struct psv_shard *shard, int64_t now_ms)
{
    if (shard->stalled && now_ms < shard->retry_at_ms)
        return;
    if (is_async(shard))
        apply_async(shard, now_ms);
    else
        apply_steps(shard, now_ms);
}

/* ---- snapshots ---- */

static void answer_snapshot(struct psv_shard *shard, const struct psv_request *request)
{
    const struct emb_snapshot_result *result = &shard->finished.result;
    struct clu_packer packer;
    clu_packer_init(&packer);
    clu_pack_array(&packer, 1);
    clu_pack_array(&packer, 4);
    clu_pack_text(&packer, shard->finished.path);
    clu_pack_uint(&packer, result->size_bytes);
    clu_pack_uint(&packer, result->checksum);
    clu_pack_uint(&packer, result->n_rows);
    reply_body(shard, request, &packer);
    clu_packer_fini(&packer);
}

/* A folder below the root, without a way out of it. */
static bool may_write(const struct psv_shard *shard, const char *dir)
{
    const char *root = shard->options.snapshot_root;
    if (strstr(dir, "/../") || !dir[0])
        return false;
    return !root || (!strncmp(dir, root, strlen(root)) && dir[strlen(root)] == '/');
}

static int start_writing(struct psv_shard *shard, const struct psv_request *request)
{
    char rows[1100], path[1200], *name = shard->finished.path;
    int status = clu_path_join(rows, sizeof(rows), request->text, "rows");
    if (!status)
        status = clu_mkdirs(rows);
    snprintf(name, sizeof(shard->finished.path), "rows/shard-%04d.rows", shard->options.number);
    if (!status)
        status = clu_path_join(path, sizeof(path), request->text, name);
    if (!status)
        status = clu_remove_tree(path); /* left by a try that a crash ended */
    if (!status)
        status = emb_shard_snapshot_begin(shard->rows, EMB_SNAPSHOT_FULL, request->step, path);
    return status;
}

/* Starts the held snapshot whose step has just been applied. */
static void begin_snapshot(struct psv_shard *shard)
{
    for (int i = 0; i < shard->n_held && !shard->snapshot; i++) {
        struct psv_request *request = shard->held[i];
        if (request->op != CLU_WIRE_SNAPSHOT ||
            (request->step != shard->applied && !is_async(shard)))
            continue;
        shard->held[i--] = shard->held[--shard->n_held];
        shard->finished.done = false;
        int status = start_writing(shard, request);
        if (status) {
            reply_status(shard, request, status, "the snapshot could not be begun");
            psv_request_free(request);
        } else {
            shard->snapshot = request;
        }
    }
}

static void advance_snapshot(struct psv_shard *shard)
{
    struct finished *finished = &shard->finished;
    int status = emb_shard_snapshot_advance(shard->rows, SNAPSHOT_SLICE_US, &finished->result);
    if (status == CLU_E_AGAIN)
        return;
    finished->step = shard->snapshot->step;
    finished->done = !status;
    if (status)
        reply_status(shard, shard->snapshot, status, "the snapshot could not be written");
    else
        answer_snapshot(shard, shard->snapshot);
    psv_request_free(shard->snapshot);
    shard->snapshot = NULL;
    begin_snapshot(shard);
}

/* ---- what is held ---- */

static bool is_ready(const struct psv_shard *shard, const struct psv_request *request)
{
    int64_t staleness = shard->options.terms.staleness;
    switch (request->op) {
    case CLU_WIRE_PULL: /* (R1) */
        return is_async(shard) || request->step <= 1 + (uint64_t)staleness ||
               shard->applied >= request->step - 1 - (uint64_t)staleness;
    case CLU_WIRE_STEP:
        return is_async(shard) || shard->applied >= request->step;
    case CLU_WIRE_DRAIN:
        return !shard->stalled && (is_async(shard) || !psv_gate_ready(shard->gate));
    default:
        return false;
    }
}

static void answer(struct psv_shard *shard, struct psv_request *request)
{
    if (request->op == CLU_WIRE_PULL)
        answer_pull(shard, request);
    else
        reply_status(shard, request, 0, NULL);
}

static void release_held(struct psv_shard *shard)
{
    int kept = 0;
    for (int i = 0; i < shard->n_held; i++) {
        struct psv_request *request = shard->held[i];
        if (is_ready(shard, request)) {
            answer(shard, request);
            psv_request_free(request);
        } else {
            shard->held[kept++] = request;
        }
    }
    shard->n_held = kept;
}

/* What the shard waits for, for the one whose deadline passed. */
static void say_what_waits(const struct psv_shard *shard, char *sentence)
{
    int n_missing = 0;
    int rank = shard->gate ? psv_gate_missing(shard->gate, &n_missing) : -1;
    if (shard->stalled)
        snprintf(sentence, SENTENCE_BYTES, "shard %d cannot store step %llu (disk or memory full?)",
                 shard->options.number, (unsigned long long)shard->applied + 1);
    else if (rank >= 0)
        snprintf(sentence, SENTENCE_BYTES, "shard %d waits for the push of step %llu of rank %d%s",
                 shard->options.number, (unsigned long long)shard->applied + 1, rank,
                 n_missing > 1 ? " and others" : "");
    else
        snprintf(sentence, SENTENCE_BYTES, "shard %d is busy", shard->options.number);
}

static void expire_held(struct psv_shard *shard, int64_t now_ms)
{
    char sentence[SENTENCE_BYTES];
    int kept = 0;
    for (int i = 0; i < shard->n_held; i++) {
        struct psv_request *request = shard->held[i];
        if (now_ms < request->deadline_at_ms) {
            shard->held[kept++] = request;
            continue;
        }
        say_what_waits(shard, sentence);
        reply_status(shard, request, CLU_E_TIMEOUT, sentence);
        psv_request_free(request);
        shard->stats.expired++;
    }
    shard->n_held = kept;
}

static bool is_same(const struct psv_request *a, const struct psv_request *b)
{
    return a->op == b->op && a->rank == b->rank && a->incarnation == b->incarnation &&
           a->seq == b->seq;
}

/* Takes the request. */
static void hold(struct psv_shard *shard, struct psv_request *request)
{
    for (int i = 0; i < shard->n_held; i++)
        if (is_same(shard->held[i], request)) {
            psv_request_readdress(shard->held[i], request);
            psv_request_free(request);
            return;
        }
    if (shard->n_held == shard->options.max_held) { /* (R7) */
        shard->stats.refused++;
        reply_status(shard, request, CLU_E_AGAIN, "too many requests wait here");
        psv_request_free(request);
        return;
    }
    shard->held[shard->n_held++] = request;
}

/* ---- requests ---- */

static void handle_hello(struct psv_shard *shard, struct psv_request *request)
{
    char sentence[SENTENCE_BYTES] = "the hello is malformed";
    int status = psv_hello_check(&shard->options.terms, request->text, request->n_text, sentence,
                                 sizeof(sentence));
    reply_status(shard, request, status, status ? sentence : NULL);
    psv_request_free(request);
}

static void handle_stats(struct psv_shard *shard, struct psv_request *request)
{
    struct clu_packer packer;
    struct psv_shard_stats now;
    struct emb_shard_stats rows;
    psv_shard_stats(shard, &now);
    emb_shard_stats(shard->rows, &rows);
    const struct {
        const char *name;
        uint64_t value;
    } figures[] = {
        {"applied_step", now.applied},
        {"pulls", now.requests[CLU_WIRE_PULL]},
        {"pushes", now.requests[CLU_WIRE_PUSH]},
        {"rows_pulled", now.rows_pulled},
        {"rows_pushed", now.rows_pushed},
        {"keys_summed", now.keys_summed},
        {"malformed", now.malformed},
        {"refused", now.refused},
        {"duplicates", now.duplicates},
        {"expired", now.expired},
        {"unsent", now.unsent},
        {"held", now.held},
        {"buffered_bytes", now.buffered_bytes},
        {"stalled_ms", now.stalled_ms},
        {"rows", rows.n_rows},
        {"resident_rows", rows.n_resident},
        {"memory_bytes", rows.memory_bytes},
        {"file_bytes", rows.file_bytes},
    };
    size_t n = sizeof(figures) / sizeof(figures[0]);
    clu_packer_init(&packer);
    clu_pack_map(&packer, n);
    for (size_t i = 0; i < n; i++) {
        clu_pack_text(&packer, figures[i].name);
        clu_pack_uint(&packer, figures[i].value);
    }
    reply_body(shard, request, &packer);
    clu_packer_fini(&packer);
    psv_request_free(request);
}

static struct psv_gate *gate_of(struct psv_shard *shard, const struct psv_request *push)
{
    uint32_t rank = push->rank;
    if (!is_async(shard))
        return shard->gate;
    if (shard->rank_gate[rank] && shard->incarnation[rank] == push->incarnation)
        return shard->rank_gate[rank];
    psv_gate_free(shard->rank_gate[rank]);
    shard->rank_gate[rank] = NULL;
    uint64_t max_bytes = shard->options.max_buffered_bytes / (uint64_t)shard->options.terms.n_ranks;
    if (psv_gate_create(1, ASYNC_WINDOW, max_bytes,
                        emb_shard_last_seq(shard->rows, push->incarnation),
                        &shard->rank_gate[rank]))
        return NULL;
    return shard->rank_gate[rank];
}

static void handle_push(struct psv_shard *shard, struct psv_request *push)
{
    int status = shard->status;
    const char *sentence = "this shard cannot apply any more steps";
    uint64_t *incarnation = &shard->incarnation[push->rank];
    if (!status && push->incarnation < *incarnation) {
        status = CLU_E_LOST;
        sentence = "this rank was started again since";
    }
    struct psv_gate *gate = NULL;
    if (!status) {
        bool stuck = is_async(shard) && shard->stalled && push->incarnation > *incarnation;
        gate = stuck ? NULL : gate_of(shard, push);
        status = gate ? 0 : stuck ? CLU_E_AGAIN : CLU_E_NO_MEMORY;
        sentence = "no room for this push";
    }
    if (!status) {
        *incarnation = push->incarnation;
        status = psv_gate_offer(gate, is_async(shard) ? push->seq : push->step,
                                is_async(shard) ? 0 : (int)push->rank, push);
    }
    if (!status)
        return;
    if (status == CLU_E_EXISTS) { /* (R4) */
        uint64_t position = is_async(shard) ? push->seq : push->step;
        shard->stats.duplicates++;
        if (position <= psv_gate_done(gate))
            reply_status(shard, push, 0, NULL);
    } else {
        shard->stats.refused += status == CLU_E_AGAIN;
        reply_status(shard, push, status, sentence);
    }
    psv_request_free(push);
}

static void handle_snapshot(struct psv_shard *shard, struct psv_request *request)
{
    const struct finished *finished = &shard->finished;
    if (!may_write(shard, request->text)) {
        reply_status(shard, request, CLU_E_DENIED, "not a folder for this job's snapshots");
    } else if (shard->snapshot && shard->snapshot->step == request->step) {
        psv_request_readdress(shard->snapshot, request);
        shard->snapshot->seq = request->seq;
    } else if (finished->done && finished->step == request->step) {
        answer_snapshot(shard, request);
    } else if (!is_async(shard) && request->step < shard->applied) {
        reply_status(shard, request, CLU_E_USAGE, "that step has passed");
    } else {
        hold(shard, request);
        begin_snapshot(shard);
        return;
    }
    psv_request_free(request);
}

static void dispatch(struct psv_shard *shard, struct psv_request *request)
{
    switch (request->op) {
    case CLU_WIRE_HELLO:
        handle_hello(shard, request);
        break;
    case CLU_WIRE_STATS:
        handle_stats(shard, request);
        break;
    case CLU_WIRE_PUSH:
        handle_push(shard, request);
        break;
    case CLU_WIRE_SNAPSHOT:
        handle_snapshot(shard, request);
        break;
    case CLU_WIRE_CONFIRM:
        reply_status(shard, request, emb_shard_snapshot_confirm(shard->rows, request->step), NULL);
        psv_request_free(request);
        break;
    default:
        if (is_ready(shard, request)) {
            answer(shard, request);
            psv_request_free(request);
        } else {
            hold(shard, request);
        }
    }
}

/* NULL when a request's frames are what its header says, or what is wrong. (R7) */
static const char *check(const struct psv_shard *shard, const struct clu_wire_request *header,
                         struct clu_message *message)
{
    bool has_rows = header->op == CLU_WIRE_PUSH;
    bool has_keys = has_rows || header->op == CLU_WIRE_PULL;
    if (!has_keys)
        return message->n_frames > 1 || header->n_parts ? "frames" : NULL;
    if (!header->incarnation || !header->seq || !header->step || header->step > UINT32_MAX)
        return "numbers";
    if (has_rows && header->rank >= (uint32_t)shard->options.terms.n_ranks)
        return "rank";
    if (header->n_parts && !header->dtype)
        return "dtype";
    for (int i = 0; i < header->n_parts; i++)
        if (header->part[i].table >= shard->options.terms.n_tables ||
            (i && header->part[i].table <= header->part[i - 1].table))
            return "table";
    size_t bytes = rows_bytes(shard, header->part, header->n_parts, header->dtype);
    size_t keys = message->n_frames > 1 ? clu_frame_size(&message->frame[1]) : 0;
    size_t rows = message->n_frames > 2 ? clu_frame_size(&message->frame[2]) : 0;
    if (keys != header->n_keys * sizeof(uint64_t))
        return "keys";
    if (message->n_frames > 3 || rows != (has_rows ? bytes : 0))
        return "rows";
    return bytes > shard->options.max_reply_bytes ? "size" : NULL;
}

static void refuse(struct psv_shard *shard, const struct clu_message *message,
                   const struct clu_wire_request *header, const char *reason)
{
    char sentence[SENTENCE_BYTES];
    struct psv_request nobody = {.op = header ? header->op : CLU_WIRE_STATS,
                                 .seq = header ? header->seq : 0,
                                 .peer_size = message->peer_size};
    memcpy(nobody.peer, message->peer, (size_t)message->peer_size);
    shard->stats.malformed++;
    clu_debug("shard %d: malformed message (%s)", shard->options.number, reason);
    if (!strcmp(reason, "version"))
        snprintf(sentence, sizeof(sentence), "the server speaks version %d of the protocol",
                 CLU_WIRE_VERSION);
    else
        snprintf(sentence, sizeof(sentence), "malformed message: %s", reason);
    reply_status(shard, &nobody, CLU_E_PROTOCOL, sentence);
}

void psv_shard_handle(struct psv_shard *shard, struct clu_message *message, int64_t now_ms)
{
    struct clu_wire_request header;
    struct psv_request *request;
    const char *reason = "no frame";
    int status = CLU_E_PROTOCOL;
    if (message->n_frames)
        status = clu_wire_decode_request(clu_frame_data(&message->frame[0]),
                                         clu_frame_size(&message->frame[0]), &header, &reason);
    if (status) {
        refuse(shard, message, NULL, reason);
        clu_message_close(message);
        return;
    }
    reason = check(shard, &header, message);
    if (reason) {
        refuse(shard, message, &header, reason);
        clu_message_close(message);
        return;
    }
    shard->stats.requests[header.op]++;
    if (psv_request_create(&header, message, &request)) {
        shard->stats.refused++;
        clu_message_close(message);
        return;
    }
    request->deadline_at_ms = now_ms + header.deadline_ms;
    dispatch(shard, request);
    apply_ready(shard, now_ms);
}

void psv_shard_count_malformed(struct psv_shard *shard)
{
    shard->stats.malformed++;
}

int psv_shard_tick(struct psv_shard *shard, int64_t now_ms)
{
    apply_ready(shard, now_ms);
    release_held(shard);
    expire_held(shard, now_ms);
    if (shard->snapshot) {
        advance_snapshot(shard);
        return shard->snapshot ? 1 : 0;
    }
    int64_t wait_ms = shard->stalled ? RETRY_STORAGE_MS : 1000;
    for (int i = 0; i < shard->n_held; i++) {
        int64_t left = shard->held[i]->deadline_at_ms - now_ms;
        if (left < wait_ms)
            wait_ms = left > 0 ? left : 0;
    }
    return (int)wait_ms;
}

void psv_shard_stats(const struct psv_shard *shard, struct psv_shard_stats *stats_p)
{
    *stats_p = shard->stats;
    stats_p->held = (uint64_t)shard->n_held;
    stats_p->applied = shard->applied;
    if (shard->gate)
        stats_p->buffered_bytes = psv_gate_bytes(shard->gate);
    for (int r = 0; r < shard->options.terms.n_ranks; r++)
        if (shard->rank_gate[r])
            stats_p->buffered_bytes += psv_gate_bytes(shard->rank_gate[r]);
}
