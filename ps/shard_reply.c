/* What a shard answers: statuses, bodies, and the rows of a pull. Large answers are gathered
 * straight into a pooled buffer that is lent to the transport: rows are copied once, from the
 * store to the frame.
 */
#include "ps/shard_internal.h"

#include "cluster/pack.h"
#include "cluster/status.h"

#include <stdlib.h>
#include <string.h>

float *psv_shard_scratch(struct psv_shard *shard, size_t n_floats)
{
    if (n_floats > shard->n_scratch) {
        free(shard->scratch);
        shard->scratch = malloc(n_floats * sizeof(float));
        shard->n_scratch = shard->scratch ? n_floats : 0;
    }
    return shard->scratch;
}

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

void psv_shard_reply(struct psv_shard *shard, const struct psv_request *request, int status,
                     const char *sentence)
{
    struct clu_message message;
    if (!begin_reply(shard, request, status, sentence, &message))
        send_reply(shard, &message);
    else
        clu_message_close(&message);
}

void psv_shard_reply_body(struct psv_shard *shard, const struct psv_request *request,
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

static int gather_part(struct psv_shard *shard, const struct clu_wire_part *part,
                       const uint64_t *keys, int dtype, void *out)
{
    size_t dim = (size_t)shard->tables[part->table].dim;
    if (dtype == CLU_WIRE_FP32)
        return emb_shard_pull(shard->rows, part->table, keys, part->n, out);
    size_t chunk = CHUNK_FLOATS / dim ? CHUNK_FLOATS / dim : 1;
    float *rows = psv_shard_scratch(shard, chunk * dim);
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

size_t psv_shard_rows_bytes(const struct psv_shard *shard, const struct clu_wire_part *part,
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

void psv_shard_answer_pull(struct psv_shard *shard, struct psv_request *request)
{
    struct clu_message message;
    size_t bytes = psv_shard_rows_bytes(shard, request->part, request->n_parts, request->dtype);
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
        psv_shard_reply(shard, request, status, "the rows could not be read");
}
