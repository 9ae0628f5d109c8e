/* Buckets that move from shard to shard while the job trains: a shard's part.
 *
 *     rank 0               old owner                 new owner               every rank
 *     COLLECT   -->        lists the rows of buckets that will leave, beside the steps; what is
 *                          created meanwhile is added to the list
 *     (all ranks agree on a step T, between whose push and the next one the owners change)
 *     RELEASE T -->        T applied: their rows to a file
 *     (every rank: requests by the new map from here on)
 *     ADOPT T   -->                                  T applied: reads the file; the owners are new
 *     push T+1  -->
 *     FORGET    -->        drops the rows
 *
 * A file, because all hosts share the job's folder and the snapshot's format is there, with its
 * checksums and limits: it is read at once, and a crash before that rolls the job back.
 *
 * Why nothing is lost, doubled or too old, at a staleness s >= 0:
 * (V1) Pushes of a step are split alike by all ranks: those of T and before by the old owners,
 *      those after T by the new ones. So (R2) needs no change, and a retry finds its first try.
 * (V2) No shard applies T + 1 before rank 0 has pushed it, which it does after every shard has
 *      answered ADOPT: so RELEASE and ADOPT, which wait for T, find exactly T applied, and what is
 *      applied after T is applied by the new owner to rows that are there.
 * (V3) A rank asks for the rows of T + 1 + s at most before it has pushed T + 1 ((T1) of
 *      worker/train_step.c). So a pull by the old owners is for a step <= T + 1 + s, which by (R1)
 *      is to see the pushes of T and before and may miss those after: that is how the old owner's
 *      rows stand from T on. A pull by the new owners is for a step >= T + 2 + s, which waits for
 *      T + 1 to be applied, so for ADOPT; and whatever asks by owners that this shard has not heard
 *      of is held (an evaluation does).
 * (V4) FORGET comes when every rank has received its rows of T + 1 + s: no such pull is under way.
 *
 * async: all ranks wait at T until ADOPT is done, with every push answered; a shard that takes part
 * from then on learns from each rank's hello which pushes were for others (ps/client_move.c).
 *
 * RELEASE, ADOPT and FORGET may come twice: the version of the owners says what is done already. A
 * failure in the middle of ADOPT leaves rows that a second try writes over.
 */
#include "ps/shard_internal.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/map.h"
#include "cluster/pack.h"
#include "cluster/status.h"
#include "ps/restore.h"

#include <stdio.h>
#include <string.h>

enum { SLICE_US = 1000 };

struct move {
    uint16_t bucket, from, to;
};

static int n_moves(const struct psv_request *request)
{
    return (int)(request->n_text / CLU_WIRE_MOVE_SIZE);
}

static struct move move_at(const struct psv_request *request, int i)
{
    const unsigned char *at = (const unsigned char *)request->text + i * CLU_WIRE_MOVE_SIZE;
    return (struct move){(uint16_t)(at[0] | at[1] << 8), (uint16_t)(at[2] | at[3] << 8),
                         (uint16_t)(at[4] | at[5] << 8)};
}

const char *psv_shard_check_moves(const struct clu_wire_request *header)
{
    if (header->n_text % CLU_WIRE_MOVE_SIZE || !header->n_text ||
        header->n_text / CLU_WIRE_MOVE_SIZE > CLU_N_BUCKETS)
        return "moves";
    const unsigned char *text = (const unsigned char *)header->text;
    for (uint32_t at = 0; at < header->n_text; at += CLU_WIRE_MOVE_SIZE) {
        int number[3];
        for (int j = 0; j < 3; j++)
            number[j] = text[at + 2 * (uint32_t)j] | text[at + 2 * (uint32_t)j + 1] << 8;
        if (number[0] >= CLU_N_BUCKETS || number[1] >= CLU_MAX_SHARDS ||
            number[2] >= CLU_MAX_SHARDS || number[1] == number[2])
            return "moves";
    }
    return NULL;
}

bool psv_shard_is_newer(const struct psv_shard *shard, const struct psv_request *request)
{
    return shard->owners && (int32_t)(request->owners - shard->owners) > 0;
}

/* The buckets of a request that leave this shard. */
static int leaving(const struct psv_shard *shard, const struct psv_request *request,
                   uint16_t *buckets)
{
    int n = 0;
    for (int i = 0; i < n_moves(request); i++) {
        struct move move = move_at(request, i);
        if (move.from == shard->options.number)
            buckets[n++] = move.bucket;
    }
    return n;
}

static int file_path(const struct psv_shard *shard, uint32_t owners, int from, char *path,
                     size_t path_bytes)
{
    char name[64];
    if (!shard->options.move_root)
        return CLU_E_DENIED;
    snprintf(name, sizeof(name), "%u-%04d.rows", owners, from);
    return clu_path_join(path, path_bytes, shard->options.move_root, name);
}

/* ---- collect ---- */

static void answer_collected(struct psv_shard *shard, const struct psv_request *request)
{
    uint16_t buckets[CLU_N_BUCKETS];
    int n = leaving(shard, request, buckets);
    struct clu_packer packer;
    clu_packer_init(&packer);
    clu_pack_array(&packer, (size_t)n);
    for (int i = 0; i < n; i++) {
        uint64_t n_rows;
        bool listed = emb_shard_collected(shard->rows, buckets[i], &n_rows);
        clu_pack_uint(&packer, listed ? n_rows + 1 : 0);
    }
    psv_shard_reply_body(shard, request, &packer);
    clu_packer_fini(&packer);
}

static void handle_collect(struct psv_shard *shard, struct psv_request *request)
{
    uint16_t buckets[CLU_N_BUCKETS];
    if (shard->collecting && shard->collecting->seq == request->seq) {
        psv_request_readdress(shard->collecting, request);
        psv_request_free(request);
        return;
    }
    int n = leaving(shard, request, buckets);
    int status = n ? emb_shard_collect(shard->rows, buckets, n) : 0;
    psv_request_free(shard->collecting); /* whoever asked it asks something else now */
    shard->collecting = NULL;
    if (status || !n) {
        if (status)
            psv_shard_reply(shard, request, status, "the rows cannot be listed");
        else
            answer_collected(shard, request);
        psv_request_free(request);
        return;
    }
    shard->collecting = request;
}

/* ---- forget ---- */

static void handle_forget(struct psv_shard *shard, struct psv_request *request)
{
    if (shard->forgetting && shard->forgetting->owners == request->owners) {
        psv_request_readdress(shard->forgetting, request);
        shard->forgetting->seq = request->seq;
        psv_request_free(request);
        return;
    }
    if (shard->forgetting) {
        psv_shard_reply(shard, request, CLU_E_AGAIN, "other buckets are being forgotten");
        psv_request_free(request);
        return;
    }
    shard->forgetting = request;
}

static void end_forget(struct psv_shard *shard, int status)
{
    char path[1200];
    struct psv_request *request = shard->forgetting;
    shard->forgetting = NULL;
    if (!file_path(shard, request->owners, shard->options.number, path, sizeof(path)))
        clu_remove_tree(path);
    psv_shard_reply(shard, request, status, status ? "rows that left cannot be dropped" : NULL);
    psv_request_free(request);
}

bool psv_shard_advance_moves(struct psv_shard *shard)
{
    uint16_t buckets[CLU_N_BUCKETS];
    if (shard->collecting) {
        int status = emb_shard_collect_advance(shard->rows, SLICE_US);
        if (status == CLU_E_AGAIN)
            return true;
        struct psv_request *request = shard->collecting;
        shard->collecting = NULL;
        if (status)
            psv_shard_reply(shard, request, status, "the rows cannot be listed");
        else
            answer_collected(shard, request);
        psv_request_free(request);
    }
    if (shard->forgetting && !shard->stalled && !shard->next_table) {
        int n = leaving(shard, shard->forgetting, buckets);
        int status = emb_shard_forget(shard->rows, buckets, n, SLICE_US);
        if (status == CLU_E_AGAIN)
            return true;
        if (!status)
            status = emb_shard_commit(shard->rows);
        end_forget(shard, status);
    }
    return false;
}

/* ---- release and adopt ---- */

static int release(struct psv_shard *shard, const struct psv_request *request)
{
    uint16_t buckets[CLU_N_BUCKETS];
    char path[1200];
    uint64_t n_rows = 0;
    int n = leaving(shard, request, buckets);
    if (!n || shard->released == request->owners)
        return 0;
    int status = file_path(shard, request->owners, shard->options.number, path, sizeof(path));
    if (!status)
        status = clu_mkdirs(shard->options.move_root);
    if (!status)
        status = clu_remove_tree(path); /* of a life that ended */
    if (!status)
        status = emb_shard_export(shard->rows, buckets, n, path, &n_rows);
    if (!status) {
        shard->released = request->owners;
        shard->stats.rows_moved_out += n_rows;
    }
    return status;
}

struct arriving {
    const struct psv_shard *shard;
    uint16_t from[CLU_N_BUCKETS]; /* the old owner of what arrives and 1; else 0 */
    int source;
};

static bool is_arriving(uint32_t bucket, void *arg)
{
    const struct arriving *a = arg;
    return a->from[bucket] == a->source + 1;
}

static int take_in(struct psv_shard *shard, struct arriving *arriving, uint32_t owners)
{
    char path[1200];
    bool is_source[CLU_MAX_SHARDS] = {false};
    int status = 0;
    for (int b = 0; b < CLU_N_BUCKETS; b++)
        if (arriving->from[b])
            is_source[arriving->from[b] - 1] = true;
    for (int s = 0; s < CLU_MAX_SHARDS && !status; s++) {
        uint64_t n_rows = 0;
        if (!is_source[s])
            continue;
        arriving->source = s;
        status = file_path(shard, owners, s, path, sizeof(path));
        if (!status)
            status = emb_shard_adopt(shard->rows, path, is_arriving, arriving, &n_rows);
        shard->stats.rows_moved_in += n_rows;
    }
    return status;
}

/* A shard that owned nothing so far takes part from the step after `step` on. */
static void begin_to_take_part(struct psv_shard *shard, uint64_t step)
{
    shard->waits = false;
    if (step > shard->applied)
        shard->applied = step;
    if (shard->gate)
        psv_gate_skip(shard->gate, step);
    clu_info("shard %d takes part from step %llu on", shard->options.number,
             (unsigned long long)step + 1);
}

static int adopt(struct psv_shard *shard, const struct psv_request *request)
{
    struct arriving arriving = {.shard = shard};
    unsigned char owned[CLU_N_BUCKETS / 8];
    bool changed = false, arrives = false;
    if (shard->owners && !psv_shard_is_newer(shard, request))
        return 0;
    memcpy(owned, shard->owned, sizeof(owned));
    for (int i = 0; i < n_moves(request); i++) {
        struct move move = move_at(request, i);
        unsigned char bit = (unsigned char)(1u << move.bucket % 8);
        if (move.to == shard->options.number) {
            arriving.from[move.bucket] = (uint16_t)(move.from + 1);
            owned[move.bucket / 8] |= bit;
            changed = arrives = true;
        } else if (move.from == shard->options.number) {
            owned[move.bucket / 8] &= (unsigned char)~bit;
            changed = true;
        }
    }
    int status = arrives ? take_in(shard, &arriving, request->owners) : 0;
    if (!status && changed)
        status = psv_restore_note_owned(shard->rows, owned);
    if (!status)
        status = emb_shard_tick(shard->rows, request->step);
    if (!status)
        status = emb_shard_commit(shard->rows);
    if (status)
        return status;
    memcpy(shard->owned, owned, sizeof(owned));
    shard->owners = request->owners;
    if (shard->waits && arrives)
        begin_to_take_part(shard, request->step);
    return 0;
}

bool psv_shard_may_move(const struct psv_shard *shard, const struct psv_request *request)
{
    if (shard->stalled)
        return false;
    return psv_shard_is_async(shard) || shard->waits || shard->applied >= request->step;
}

void psv_shard_answer_move(struct psv_shard *shard, struct psv_request *request)
{
    bool late = !psv_shard_is_async(shard) && shard->applied > request->step;
    bool done = shard->released == request->owners ||
                (request->op == CLU_WIRE_ADOPT && shard->owners == request->owners);
    if (late && !done) { /* (V2) */
        psv_shard_reply(shard, request, CLU_E_USAGE, "that step has passed");
        return;
    }
    int status = request->op == CLU_WIRE_RELEASE ? release(shard, request) : adopt(shard, request);
    if (status == CLU_E_FULL || status == CLU_E_IO || status == CLU_E_NO_MEMORY) {
        clu_warn("shard %d: buckets cannot move: %s; it is tried again", shard->options.number,
                 clu_status_text(status));
        status = CLU_E_AGAIN;
    }
    psv_shard_reply(shard, request, status, status ? "the buckets cannot move" : NULL);
}

void psv_shard_handle_move(struct psv_shard *shard, struct psv_request *request)
{
    if (request->op == CLU_WIRE_COLLECT)
        handle_collect(shard, request);
    else
        handle_forget(shard, request);
}
