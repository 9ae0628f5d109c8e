/* A ring of `window` slots, slot = position mod window; only positions in (done, done + window] are
 * in it (I1), so a slot never means two positions. Bytes are counted when a push comes in and goes
 * out (I2).
 */
#include "ps/gate.h"

#include "cluster/status.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct slot {
    int n_present;
    struct psv_request **push; /* [n_ranks] */
};

struct psv_gate {
    int n_ranks, window;
    uint64_t max_bytes, bytes, done;
    struct slot *slots;          /* [window] */
    struct psv_request **pushes; /* [window, n_ranks] */
};

/* What libzmq received may start anywhere; numbers are read in place only where they may be. */
static int take_aligned(struct clu_frame *to, struct clu_frame *from)
{
    clu_frame_init(to);
    if ((uintptr_t)clu_frame_data(from) % 8)
        return clu_frame_init_copy(to, clu_frame_data(from), clu_frame_size(from));
    clu_frame_move(to, from);
    return 0;
}

int psv_request_create(const struct clu_wire_request *header, struct clu_message *message,
                       struct psv_request **request_p)
{
    int status = 0;
    size_t part_bytes = (size_t)header->n_parts * sizeof(struct clu_wire_part);
    struct psv_request *request = malloc(sizeof(*request) + part_bytes + header->n_text + 1);
    if (!request)
        return CLU_E_NO_MEMORY;
    memset(request, 0, sizeof(*request));
    request->part = (struct clu_wire_part *)(request + 1);
    memcpy(request->part, header->part, part_bytes);
    char *text = (char *)request->part + part_bytes;
    if (header->n_text)
        memcpy(text, header->text, header->n_text);
    text[header->n_text] = 0;
    request->text = text;
    request->n_text = header->n_text;
    request->op = header->op;
    request->dtype = header->dtype;
    request->n_parts = header->n_parts;
    request->rank = header->rank;
    request->owners = header->owners;
    request->incarnation = header->incarnation;
    request->seq = header->seq;
    request->step = header->step;
    request->n_keys = header->n_keys;
    request->peer_size = message->peer_size;
    memcpy(request->peer, message->peer, (size_t)message->peer_size);
    clu_frame_init(&request->keys);
    clu_frame_init(&request->rows);
    if (message->n_frames > 1)
        status = take_aligned(&request->keys, &message->frame[1]);
    if (!status && message->n_frames > 2)
        status = take_aligned(&request->rows, &message->frame[2]);
    clu_message_close(message);
    if (status) {
        psv_request_free(request);
        return status;
    }
    *request_p = request;
    return 0;
}

void psv_request_free(struct psv_request *request)
{
    if (!request)
        return;
    clu_frame_close(&request->keys);
    clu_frame_close(&request->rows);
    free(request);
}

uint64_t psv_request_bytes(const struct psv_request *request)
{
    return clu_frame_size(&request->keys) + clu_frame_size(&request->rows) + sizeof(*request);
}

void psv_request_readdress(struct psv_request *request, const struct psv_request *newer)
{
    memcpy(request->peer, newer->peer, sizeof(request->peer));
    request->peer_size = newer->peer_size;
    request->deadline_at_ms = newer->deadline_at_ms;
}

int psv_gate_create(int n_ranks, int window, uint64_t max_bytes, uint64_t done,
                    struct psv_gate **gate_p)
{
    struct psv_gate *gate = calloc(1, sizeof(*gate));
    if (!gate)
        return CLU_E_NO_MEMORY;
    gate->n_ranks = n_ranks;
    gate->window = window;
    gate->max_bytes = max_bytes;
    gate->done = done;
    gate->slots = calloc((size_t)window, sizeof(*gate->slots));
    gate->pushes = calloc((size_t)window * (size_t)n_ranks, sizeof(struct psv_request *));
    if (!gate->slots || !gate->pushes) {
        psv_gate_free(gate);
        return CLU_E_NO_MEMORY;
    }
    for (int i = 0; i < window; i++)
        gate->slots[i].push = gate->pushes + (size_t)i * (size_t)n_ranks;
    *gate_p = gate;
    return 0;
}

void psv_gate_free(struct psv_gate *gate)
{
    if (!gate)
        return;
    if (gate->pushes)
        for (size_t i = 0; i < (size_t)gate->window * (size_t)gate->n_ranks; i++)
            psv_request_free(gate->pushes[i]);
    free(gate->pushes);
    free(gate->slots);
    free(gate);
}

static struct slot *slot_of(const struct psv_gate *gate, uint64_t position)
{
    return &gate->slots[position % (uint64_t)gate->window];
}

int psv_gate_offer(struct psv_gate *gate, uint64_t position, int rank_index,
                   struct psv_request *push)
{
    assert(rank_index >= 0 && rank_index < gate->n_ranks);
    if (position <= gate->done)
        return CLU_E_EXISTS;
    if (position - gate->done > (uint64_t)gate->window) /* (I1) */
        return CLU_E_AGAIN;
    struct slot *slot = slot_of(gate, position);
    struct psv_request *old = slot->push[rank_index];
    if (old && old->incarnation >= push->incarnation) {
        psv_request_readdress(old, push);
        return CLU_E_EXISTS;
    }
    uint64_t bytes = psv_request_bytes(push);
    if (position != gate->done + 1 && gate->bytes + bytes > gate->max_bytes)
        return CLU_E_AGAIN;
    if (old) {
        gate->bytes -= psv_request_bytes(old);
        psv_request_free(old);
    } else {
        slot->n_present++;
    }
    slot->push[rank_index] = push;
    gate->bytes += bytes; /* (I2) */
    return 0;
}

struct psv_request **psv_gate_ready(struct psv_gate *gate)
{
    struct slot *slot = slot_of(gate, gate->done + 1);
    return slot->n_present == gate->n_ranks ? slot->push : NULL;
}

void psv_gate_drop(struct psv_gate *gate, int rank_index, uint64_t incarnation)
{
    for (int i = 0; i < gate->window; i++) {
        struct psv_request **push = &gate->slots[i].push[rank_index];
        if (!*push || (*push)->incarnation >= incarnation)
            continue;
        gate->bytes -= psv_request_bytes(*push); /* (I2) */
        psv_request_free(*push);
        *push = NULL;
        gate->slots[i].n_present--;
    }
}

static void empty_slot(struct psv_gate *gate, struct slot *slot)
{
    for (int r = 0; r < gate->n_ranks; r++) {
        if (slot->push[r])
            gate->bytes -= psv_request_bytes(slot->push[r]);
        psv_request_free(slot->push[r]);
        slot->push[r] = NULL;
    }
    slot->n_present = 0;
}

void psv_gate_pop(struct psv_gate *gate)
{
    struct slot *slot = slot_of(gate, gate->done + 1);
    assert(slot->n_present == gate->n_ranks);
    empty_slot(gate, slot);
    gate->done++;
}

void psv_gate_skip(struct psv_gate *gate, uint64_t to)
{
    for (int i = 0; i < gate->window && gate->done < to; i++) {
        empty_slot(gate, slot_of(gate, gate->done + 1));
        gate->done++;
    }
    if (gate->done < to) /* every slot is empty now */
        gate->done = to;
}

uint64_t psv_gate_done(const struct psv_gate *gate)
{
    return gate->done;
}

uint64_t psv_gate_bytes(const struct psv_gate *gate)
{
    return gate->bytes;
}

struct psv_request *psv_gate_overdue(struct psv_gate *gate, int64_t now_ms)
{
    size_t n = (size_t)gate->window * (size_t)gate->n_ranks;
    for (size_t i = 0; i < n; i++) {
        struct psv_request *push = gate->pushes[i];
        if (push && now_ms >= push->deadline_at_ms) {
            push->deadline_at_ms = INT64_MAX; /* until it is asked again */
            return push;
        }
    }
    return NULL;
}

int psv_gate_missing(const struct psv_gate *gate, int *n_missing_p)
{
    const struct slot *slot = slot_of(gate, gate->done + 1);
    *n_missing_p = gate->n_ranks - slot->n_present;
    for (int r = 0; r < gate->n_ranks; r++)
        if (!slot->push[r])
            return r;
    return -1;
}
