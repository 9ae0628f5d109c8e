/* A shard's part of a job's snapshot: one file, begun between two steps (R5), written in slices
 * beside the steps that follow. The result is kept, for the one who asks again because the answer
 * was lost.
 */
#include "ps/shard_internal.h"

#include "cluster/file.h"
#include "cluster/pack.h"
#include "cluster/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void psv_shard_answer_snapshot(struct psv_shard *shard, const struct psv_request *request)
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
    psv_shard_reply_body(shard, request, &packer);
    clu_packer_fini(&packer);
}

/* A number on a line of its own; false when it is none. */
static bool take_number(const char **text, uint64_t most, uint64_t *number_p)
{
    char *end;
    if (**text != '\n' || (*text)[1] < '0' || (*text)[1] > '9')
        return false;
    *number_p = strtoull(*text + 1, &end, 10);
    *text = end;
    return *number_p <= most;
}

int psv_shard_snapshot_wish(const struct psv_shard *shard, const struct psv_request *request,
                            struct psv_wish *wish_p)
{
    const char *root = shard->options.snapshot_root, *text = request->text;
    const size_t size = strcspn(text, "\n");
    uint64_t base_step = 0, spread_ms = 0;
    text += size;
    if (size == 0 || size >= CLU_PATH_BYTES ||
        (*text && !take_number(&text, UINT64_MAX - 1, &base_step)) ||
        (*text && !take_number(&text, INT32_MAX, &spread_ms)) || *text)
        return CLU_E_DENIED;
    char *folder = wish_p->folder;
    memcpy(folder, request->text, size);
    folder[size] = '\0';
    wish_p->base_step = base_step;
    wish_p->spread_ms = (int64_t)spread_ms;
    if (strstr(folder, "/../") || (size >= 3 && !strcmp(folder + size - 3, "/..")) ||
        (root && (strncmp(folder, root, strlen(root)) != 0 || folder[strlen(root)] != '/')))
        return CLU_E_DENIED;
    return 0;
}

/* Whoever asks for a delta says that its base is committed: the word to this shard may be late. */
static int start_writing(struct psv_shard *shard, const struct psv_request *request)
{
    char rows[1100], path[1200], *name = shard->finished.path;
    struct psv_wish wish;
    int status = psv_shard_snapshot_wish(shard, request, &wish);
    if (status)
        return status;
    status = clu_path_join(rows, sizeof(rows), wish.folder, "rows");
    if (!status)
        status = clu_mkdirs(rows);
    snprintf(name, sizeof(shard->finished.path), "rows/shard-%04d.rows", shard->options.number);
    if (!status)
        status = clu_path_join(path, sizeof(path), wish.folder, name);
    if (!status)
        status = clu_remove_tree(path); /* left by a try that a crash ended */
    if (!status && wish.base_step)
        status = emb_shard_snapshot_confirm(shard->rows, wish.base_step);
    if (!status)
        status = emb_shard_snapshot_begin(shard->rows,
                                          wish.base_step ? EMB_SNAPSHOT_DELTA : EMB_SNAPSHOT_FULL,
                                          request->step, path);
    shard->finished.base_step = wish.base_step;
    shard->snapshot_spread_ms = wish.spread_ms;
    return status;
}

/* Starts the held snapshot whose step has just been applied. */
void psv_shard_begin_snapshot(struct psv_shard *shard)
{
    for (int i = 0; i < shard->n_held && !shard->snapshot; i++) {
        struct psv_request *request = shard->held[i];
        if (request->op != CLU_WIRE_SNAPSHOT ||
            (request->step != shard->applied && !psv_shard_is_async(shard)))
            continue;
        shard->held[i--] = shard->held[--shard->n_held];
        shard->held_bytes -= psv_request_bytes(request);
        shard->finished.done = false;
        int status = start_writing(shard, request);
        if (status) {
            psv_shard_reply(shard, request, status,
                            status == CLU_E_NOT_FOUND ? "the base of this delta is not held here"
                                                      : "the snapshot could not be begun");
            psv_request_free(request);
        } else {
            shard->snapshot = request;
            shard->snapshot_began_ms = shard->snapshot_next_ms = 0;
        }
    }
}

static int64_t patience_ms(const struct psv_shard *shard)
{
    return shard->snapshot->deadline_at_ms - shard->snapshot_began_ms;
}

static int64_t spread_us(const struct psv_shard *shard)
{
    const int64_t most_ms = patience_ms(shard) / SNAPSHOT_SPREAD_SHARE;
    return (shard->snapshot_spread_ms < most_ms ? shard->snapshot_spread_ms : most_ms) * 1000;
}

/* Nobody trains here just now, or the one who asked will not wait much longer. */
static bool may_hurry(const struct psv_shard *shard, int64_t now_ms)
{
    return now_ms - shard->served_at_ms > SNAPSHOT_IDLE_MS ||
           now_ms - shard->snapshot_began_ms > patience_ms(shard) / SNAPSHOT_LATE_SHARE;
}

int psv_shard_advance_snapshot(struct psv_shard *shard, int64_t now_ms)
{
    struct psv_finished *finished = &shard->finished;
    if (!shard->snapshot_began_ms)
        shard->snapshot_began_ms = now_ms;
    bool hurry = may_hurry(shard, now_ms);
    if (!hurry && now_ms < shard->snapshot_next_ms)
        return (int)(shard->snapshot_next_ms - now_ms);
    emb_shard_hurry(shard->rows,
                    hurry || now_ms - shard->snapshot_began_ms > SNAPSHOT_STAND_BACK_MS);
    emb_shard_spread(shard->rows, hurry ? 0 : spread_us(shard));
    int status = emb_shard_snapshot_advance(
        shard->rows, hurry ? SNAPSHOT_HURRY_US : SNAPSHOT_SLICE_US, &finished->result);
    shard->snapshot_next_ms = now_ms + SNAPSHOT_PAUSE_MS;
    if (status == CLU_E_AGAIN)
        return hurry ? 1 : SNAPSHOT_PAUSE_MS;
    emb_shard_hurry(shard->rows, false);
    finished->step = shard->snapshot->step;
    finished->done = !status;
    if (status)
        psv_shard_reply(shard, shard->snapshot, status, "the snapshot could not be written");
    else
        psv_shard_answer_snapshot(shard, shard->snapshot);
    psv_request_free(shard->snapshot);
    shard->snapshot = NULL;
    psv_shard_begin_snapshot(shard);
    return 0;
}
