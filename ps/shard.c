/* Requests against one shard's rows: what is checked, what is held, who is told what.
 *
 * Everything that waits is a struct psv_request, in one of two places: pushes in a gate, all else
 * in the held list. Both are looked at again whenever a step was applied. A retry finds its first
 * try there by (rank, incarnation, seq) and only changes where the answer goes, so a client may
 * ask as often as it likes.
 */
#include "ps/shard.h"

#include "cluster/log.h"
#include "cluster/pack.h"
#include "cluster/status.h"
#include "ps/shard_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    own->max_held = own->max_held ? own->max_held : 1024 + 32 * options->terms.n_ranks;
    int status = CLU_E_NO_MEMORY;
    shard->tables = calloc(n_tables ? n_tables : 1, sizeof(*shard->tables));
    shard->held = calloc((size_t)own->max_held, sizeof(struct psv_request *));
    shard->sources = calloc(n_ranks, sizeof(*shard->sources));
    shard->incarnation = calloc(n_ranks, sizeof(*shard->incarnation));
    shard->rank_gate = calloc(n_ranks, sizeof(struct psv_gate *));
    for (size_t r = 0; shard->incarnation && r < n_ranks; r++)
        shard->incarnation[r] = options->least_incarnation;
    if (!shard->tables || !shard->held || !shard->sources || !shard->incarnation ||
        !shard->rank_gate || psv_merge_create(&shard->merge) ||
        psv_pool_create(64 << 20, &shard->pool))
        goto fail;
    if (n_tables)
        memcpy(shard->tables, options->terms.tables, n_tables * sizeof(*shard->tables));
    own->terms.tables = shard->tables;
    shard->owners = (uint32_t)options->owners;
    if (options->owned) {
        static const unsigned char nothing[CLU_N_BUCKETS / 8];
        memcpy(shard->owned, options->owned, sizeof(shard->owned));
        shard->waits = !memcmp(shard->owned, nothing, sizeof(nothing));
        own->owned = NULL;
    }
    if (options->terms.staleness >= 0) {
        status = psv_shard_create_gate(shard, options->applied, &shard->gate);
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
    psv_request_free(shard->collecting);
    psv_request_free(shard->forgetting);
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

bool psv_shard_is_async(const struct psv_shard *shard)
{
    return shard->options.terms.staleness < 0;
}

/* ---- what is held ---- */

static bool is_ready(const struct psv_shard *shard, const struct psv_request *request)
{
    int64_t staleness = shard->options.terms.staleness;
    switch (request->op) {
    case CLU_WIRE_PULL:
        if (psv_shard_is_newer(shard, request) || shard->waits) /* (R9) */
            return false;
        return psv_shard_is_async(shard) || request->step <= 1 + (uint64_t)staleness ||
               shard->applied >= request->step - 1 - (uint64_t)staleness; /* (R1) */
    case CLU_WIRE_RELEASE:
    case CLU_WIRE_ADOPT:
        return psv_shard_may_move(shard, request);
    case CLU_WIRE_STEP:
        return psv_shard_is_async(shard) || shard->applied >= request->step;
    case CLU_WIRE_DRAIN:
        return !shard->stalled && (psv_shard_is_async(shard) || !psv_gate_ready(shard->gate));
    default:
        return false;
    }
}

static void answer(struct psv_shard *shard, struct psv_request *request)
{
    if (request->op == CLU_WIRE_PULL)
        psv_shard_answer_pull(shard, request);
    else if (request->op == CLU_WIRE_RELEASE || request->op == CLU_WIRE_ADOPT)
        psv_shard_answer_move(shard, request);
    else
        psv_shard_reply(shard, request, 0, NULL);
}

/* Frees a held request, which the caller takes out of the list. */
static void let_go(struct psv_shard *shard, struct psv_request *request)
{
    shard->held_bytes -= psv_request_bytes(request);
    psv_request_free(request);
}

void psv_shard_release_held(struct psv_shard *shard)
{
    int kept = 0;
    for (int i = 0; i < shard->n_held; i++) {
        struct psv_request *request = shard->held[i];
        if (is_ready(shard, request)) {
            answer(shard, request);
            let_go(shard, request);
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
        snprintf(sentence, SENTENCE_BYTES, "shard %d cannot store step %llu for %llu ms now: %s",
                 shard->options.number, (unsigned long long)shard->applied + 1,
                 (unsigned long long)shard->stats.stalled_ms, clu_status_text(shard->stall_status));
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
        psv_shard_reply(shard, request, shard->stalled ? shard->stall_status : CLU_E_TIMEOUT,
                        sentence);
        let_go(shard, request);
        shard->stats.expired++;
    }
    shard->n_held = kept;
}

/* Tells the senders of pushes why there is no acknowledgement yet; the pushes stay. */
static void expire_pushes(struct psv_shard *shard, struct psv_gate *gate, int64_t now_ms)
{
    char sentence[SENTENCE_BYTES];
    struct psv_request *push;
    while (gate && (push = psv_gate_overdue(gate, now_ms))) {
        say_what_waits(shard, sentence);
        psv_shard_reply(shard, push, shard->stalled ? shard->stall_status : CLU_E_TIMEOUT,
                        sentence);
        shard->stats.expired++;
    }
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
            psv_shard_reply(shard, request, CLU_E_EXISTS, NULL);
            psv_request_free(request);
            return;
        }
    uint64_t bytes = psv_request_bytes(request);
    if (shard->n_held == shard->options.max_held ||
        (shard->n_held &&
         shard->held_bytes + bytes > shard->options.max_buffered_bytes)) { /* (R7) */
        shard->stats.refused++;
        psv_shard_reply(shard, request, CLU_E_AGAIN, "too many requests wait here");
        psv_request_free(request);
        return;
    }
    shard->held[shard->n_held++] = request;
    shard->held_bytes += bytes;
}

/* ---- requests ---- */

/* async, and this shard takes part from now on: the rank's pushes up to step were for others, and
 * are not waited for. */
static int note_earlier_pushes(struct psv_shard *shard, const struct psv_request *hello)
{
    if (!hello->step || !psv_shard_is_async(shard) ||
        hello->rank >= (uint32_t)shard->options.terms.n_ranks || shard->rank_gate[hello->rank])
        return 0;
    int status = emb_shard_mark(shard->rows, hello->incarnation, hello->step);
    return status ? status : emb_shard_commit(shard->rows);
}

static void handle_hello(struct psv_shard *shard, struct psv_request *request)
{
    char sentence[SENTENCE_BYTES] = "the hello is malformed";
    int status = psv_hello_check(&shard->options.terms, request->text, request->n_text, sentence,
                                 sizeof(sentence));
    if (!status) {
        status = psv_shard_meet(shard, request->rank, request->incarnation);
        snprintf(sentence, sizeof(sentence), "%s",
                 status == CLU_E_LOST ? "this rank was started again since"
                                      : "an earlier step is not stored yet");
    }
    if (!status)
        status = note_earlier_pushes(shard, request);
    psv_shard_reply(shard, request, status, status ? sentence : NULL);
    psv_request_free(request);
}

static void handle_begin(struct psv_shard *shard, struct psv_request *request)
{
    int status = request->incarnation < shard->incarnation[request->rank]
                     ? CLU_E_LOST
                     : psv_shard_go_on(shard, request->step);
    psv_shard_reply(shard, request, status, NULL);
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
        {"rows_moved_in", now.rows_moved_in},
        {"rows_moved_out", now.rows_moved_out},
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
    psv_shard_reply_body(shard, request, &packer);
    clu_packer_fini(&packer);
    psv_request_free(request);
}

static struct psv_gate *gate_of(struct psv_shard *shard, const struct psv_request *push)
{
    uint32_t rank = push->rank;
    if (!psv_shard_is_async(shard))
        return shard->gate;
    if (shard->rank_gate[rank])
        return shard->rank_gate[rank];
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
    struct psv_gate *gate = NULL;
    if (!status) {
        status = psv_shard_meet(shard, push->rank, push->incarnation);
        sentence =
            status == CLU_E_LOST ? "this rank was started again since" : "no room for this push";
    }
    if (!status) {
        gate = gate_of(shard, push);
        status = gate ? 0 : CLU_E_NO_MEMORY;
    }
    if (!status) {
        status = psv_gate_offer(gate, psv_shard_is_async(shard) ? push->seq : push->step,
                                psv_shard_is_async(shard) ? 0 : (int)push->rank, push);
    }
    if (!status)
        return;
    if (status == CLU_E_EXISTS) { /* (R4) */
        uint64_t position = psv_shard_is_async(shard) ? push->seq : push->step;
        shard->stats.duplicates++;
        /* applied: acknowledged again; waiting here: no need to send it every second */
        psv_shard_reply(shard, push, position <= psv_gate_done(gate) ? 0 : CLU_E_EXISTS, NULL);
    } else {
        shard->stats.refused += status == CLU_E_AGAIN;
        psv_shard_reply(shard, push, status, sentence);
    }
    psv_request_free(push);
}

static void handle_snapshot(struct psv_shard *shard, struct psv_request *request)
{
    const struct psv_finished *finished = &shard->finished;
    struct psv_wish wish;
    if (psv_shard_snapshot_wish(shard, request, &wish)) {
        psv_shard_reply(shard, request, CLU_E_DENIED, "not a folder for this job's snapshots");
    } else if (shard->snapshot && shard->snapshot->step == request->step &&
               finished->base_step == wish.base_step) {
        psv_request_readdress(shard->snapshot, request);
        shard->snapshot->seq = request->seq;
    } else if (finished->done && finished->step == request->step &&
               finished->base_step == wish.base_step) {
        psv_shard_answer_snapshot(shard, request);
    } else if (!psv_shard_is_async(shard) && request->step < shard->applied) {
        psv_shard_reply(shard, request, CLU_E_USAGE, "that step has passed");
    } else {
        hold(shard, request);
        psv_shard_begin_snapshot(shard);
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
    case CLU_WIRE_COLLECT:
    case CLU_WIRE_FORGET:
        psv_shard_handle_move(shard, request);
        break;
    case CLU_WIRE_BEGIN:
        handle_begin(shard, request);
        break;
    case CLU_WIRE_CONFIRM:
        psv_shard_reply(shard, request, emb_shard_snapshot_confirm(shard->rows, request->step),
                        NULL);
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
    bool moves = header->op >= CLU_WIRE_COLLECT && header->op <= CLU_WIRE_FORGET;
    if (moves && psv_shard_check_moves(header))
        return psv_shard_check_moves(header);
    if (header->op == CLU_WIRE_BEGIN && header->step > UINT32_MAX)
        return "numbers";
    if (header->op == CLU_WIRE_BEGIN && header->rank >= (uint32_t)shard->options.terms.n_ranks)
        return "rank";
    if (!has_keys)
        return message->n_frames > 1 || header->n_parts || header->coded ? "frames" : NULL;
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
    size_t bytes = psv_shard_rows_bytes(shard, header->part, header->n_parts, header->dtype);
    size_t keys = message->n_frames > 1 ? clu_frame_size(&message->frame[1]) : 0;
    size_t rows = message->n_frames > 2 ? clu_frame_size(&message->frame[2]) : 0;
    if (header->coded ? !clu_wire_are_coded_keys(keys, header->n_keys)
                      : keys != header->n_keys * sizeof(uint64_t))
        return "keys";
    if (message->n_frames > 3 || rows != (has_rows ? bytes : 0))
        return "rows";
    return bytes > shard->options.max_reply_bytes ? "size" : NULL;
}

/* Puts the keys of a checked message in the place of coded ones. NULL, or what is wrong. */
static const char *expand_keys(const struct clu_wire_request *header, struct clu_message *message)
{
    struct clu_frame plain, *frame = &message->frame[1];
    if (!header->coded)
        return NULL;
    if (clu_frame_init_size(&plain, header->n_keys * sizeof(uint64_t)))
        return "memory";
    int status = clu_wire_decode_keys(clu_frame_data(frame), clu_frame_size(frame), header->part,
                                      header->n_parts, clu_frame_data(&plain));
    clu_frame_move(frame, &plain);
    clu_frame_close(&plain);
    return status ? "coded keys" : NULL;
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
    psv_shard_reply(shard, &nobody, CLU_E_PROTOCOL, sentence);
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
    if (!reason)
        reason = expand_keys(&header, message);
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
    if (header.op == CLU_WIRE_PULL || header.op == CLU_WIRE_PUSH)
        shard->served_at_ms = now_ms;
    dispatch(shard, request);
    psv_shard_apply_ready(shard, now_ms);
    if (header.op == CLU_WIRE_ADOPT) /* what came before it, by the new owners */
        psv_shard_release_held(shard);
}

void psv_shard_count_malformed(struct psv_shard *shard)
{
    shard->stats.malformed++;
}

int psv_shard_tick(struct psv_shard *shard, int64_t now_ms)
{
    psv_shard_apply_ready(shard, now_ms);
    psv_shard_release_held(shard);
    expire_held(shard, now_ms);
    if (now_ms >= shard->expire_at_ms) {
        shard->expire_at_ms = now_ms + EXPIRE_EVERY_MS;
        expire_pushes(shard, shard->gate, now_ms);
        for (int r = 0; r < shard->options.terms.n_ranks; r++)
            expire_pushes(shard, shard->rank_gate[r], now_ms);
    }
    bool moving = psv_shard_advance_moves(shard);
    int64_t wait_ms = moving ? 0 : EXPIRE_EVERY_MS;
    if (shard->snapshot) {
        int slice_ms = psv_shard_advance_snapshot(shard, now_ms);
        wait_ms = slice_ms < wait_ms ? slice_ms : wait_ms;
    }
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
