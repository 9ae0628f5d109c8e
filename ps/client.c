/* What a caller asks, as tickets: keys split by shard in one pass, blocks of keys and rows laid
 * out so that each shard's share is one slice, sent to all shards at once.
 *
 * With one shard and one table nothing needs sorting and the caller's own arrays are sent
 * (`direct`); that is why they must stay untouched until the ticket has been waited for, and why
 * psv_client_wait returns only when no frame lends them any more. Otherwise keys and rows are
 * gathered into blocks of the ticket, which are kept for the next ticket: in the steady state
 * nothing is allocated.
 *
 * Seq: pushes are numbered without a gap by themselves, for servers apply them in that order
 * (async) and know a retry by it; everything else draws from a second sequence.
 */
#include "ps/client.h"

#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/pack.h"
#include "cluster/status.h"
#include "ps/client_internal.h"
#include "ps/feedback.h"
#include "ps/hello.h"
#include "ps/partition.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
    TICK_MS = 20,
    GRACE_MS = 250, /* a server tells its own deadline first: its sentence says why */
    LENT_WAIT_MS = 5000,
    FEEDBACK_BYTES = 64 << 20, /* a table */
};

/* ---- tickets ---- */

static void free_ticket(struct psv_ticket *ticket)
{
    if (!ticket)
        return;
    free(ticket->calls);
    free(ticket->slices);
    free(ticket->order);
    free(ticket->offset);
    free(ticket->shard_of);
    free(ticket->places);
    free(ticket->own_keys);
    free(ticket->own_rows);
    free(ticket->own_text);
    free(ticket->files);
    free(ticket->collected);
    free(ticket);
}

/* Room for the shards that there are now. */
static int make_room(struct psv_ticket *ticket, int n_shards)
{
    if (n_shards > ticket->room_shards) {
        free(ticket->calls);
        free(ticket->slices);
        ticket->calls = calloc((size_t)n_shards * PSV_MAX_PIECES, sizeof(*ticket->calls));
        ticket->slices = calloc((size_t)n_shards, sizeof(*ticket->slices));
        ticket->room_shards = ticket->calls && ticket->slices ? n_shards : 0;
    }
    ticket->n_shards = n_shards;
    return ticket->room_shards ? 0 : CLU_E_NO_MEMORY;
}

/* An idle ticket whose memory nobody reads any more, or a new one. */
static struct psv_ticket *take_ticket(struct psv_client *client)
{
    struct psv_ticket **at = &client->idle;
    while (*at && atomic_load(&(*at)->lent)) /* (I3) of client_io.c */
        at = &(*at)->next;
    struct psv_ticket *ticket = *at;
    if (ticket) {
        *at = ticket->next;
    } else {
        ticket = calloc(1, sizeof(*ticket));
    }
    if (!ticket || make_room(ticket, client->n_shards)) {
        free_ticket(ticket);
        return NULL;
    }
    ticket->status = ticket->n_open = ticket->n_parts = ticket->n_damaged = 0;
    ticket->done = ticket->direct = ticket->ordered = ticket->detached = false;
    ticket->owners = (uint32_t)client->map->owners;
    ticket->keys = NULL;
    ticket->rows = NULL;
    ticket->text = NULL;
    ticket->n_text = 0;
    ticket->sentence[0] = 0;
    ticket->n_calls = 0;
    memset(ticket->slices, 0, (size_t)ticket->n_shards * sizeof(*ticket->slices));
    return ticket;
}

static int grow(void *block_p, size_t *capacity, size_t n, size_t size)
{
    void **block = block_p;
    if (n <= *capacity)
        return 0;
    free(*block);
    *block = malloc(n * size);
    *capacity = *block ? n : 0;
    return *block ? 0 : CLU_E_NO_MEMORY;
}

static int set_text(struct psv_ticket *ticket, const char *text, size_t size)
{
    free(ticket->own_text);
    ticket->own_text = malloc(size + 1);
    if (!ticket->own_text)
        return CLU_E_NO_MEMORY;
    memcpy(ticket->own_text, text, size);
    ticket->own_text[size] = 0;
    ticket->text = ticket->own_text;
    ticket->n_text = (uint32_t)size;
    return 0;
}

/* ---- splitting ---- */

/* The caller's parts that are not empty, by table. */
static int set_parts(const struct psv_client *client, struct psv_ticket *ticket,
                     const struct psv_part *parts, int n_parts)
{
    for (int i = 0; i < n_parts; i++) {
        int at = ticket->n_parts;
        if (parts[i].table < 0 || parts[i].table >= client->options.n_tables)
            return clu_fail(CLU_E_BUG, "table %d of %d", parts[i].table, client->options.n_tables);
        if (!parts[i].n)
            continue;
        if (at == EMB_MAX_TABLES || at == CLU_WIRE_MAX_PARTS)
            return clu_fail(CLU_E_BUG, "more than %d tables in a request", EMB_MAX_TABLES);
        for (; at > 0 && ticket->part[at - 1].table >= parts[i].table; at--) {
            if (ticket->part[at - 1].table == parts[i].table)
                return clu_fail(CLU_E_BUG, "table %d twice in a request", parts[i].table);
            ticket->part[at] = ticket->part[at - 1];
        }
        ticket->part[at] = parts[i];
        ticket->n_parts++;
    }
    return 0;
}

static int reserve(const struct psv_client *client, struct psv_ticket *ticket, size_t n_keys,
                   size_t n_row_bytes)
{
    size_t n_offsets = (size_t)ticket->n_parts * (size_t)(ticket->n_shards + 1);
    int status = grow(&ticket->offset, &ticket->offset_capacity, n_offsets, sizeof(uint32_t));
    if (!status && ticket->ordered && n_keys > ticket->order_capacity) {
        free(ticket->shard_of);
        ticket->shard_of = malloc(n_keys * sizeof(uint16_t));
        status = ticket->shard_of ? 0 : CLU_E_NO_MEMORY;
        if (!status)
            status = grow(&ticket->order, &ticket->order_capacity, n_keys, sizeof(uint32_t));
    }
    if (!status && client->codes_keys)
        status =
            grow(&ticket->places, &ticket->places_capacity, 2 * n_keys, sizeof(*ticket->places));
    if (!status && !ticket->direct)
        status = grow(&ticket->own_keys, &ticket->keys_capacity, n_keys, sizeof(uint64_t));
    if (!status && n_row_bytes && !(ticket->direct && ticket->dtype == CLU_WIRE_FP32))
        status = grow(&ticket->own_rows, &ticket->rows_capacity, n_row_bytes, 1);
    return status;
}

/* Fills order and offset, and each slice's n_keys and row_bytes. */
static void split(const struct psv_client *client, struct psv_ticket *ticket)
{
    int n_shards = ticket->n_shards;
    uint32_t *order = ticket->order;
    for (int p = 0; p < ticket->n_parts; p++) {
        const struct psv_part *part = &ticket->part[p];
        uint32_t *offset = ticket->offset + (size_t)p * (size_t)(n_shards + 1);
        if (ticket->ordered) {
            psv_partition(client->map, client->table_hash[part->table], part->keys, part->n,
                          ticket->shard_of, order, offset);
            for (int s = 0; client->codes_keys && s < n_shards; s++)
                psv_sort_by_key(part->keys, order + offset[s], offset[s + 1] - offset[s],
                                ticket->places);
            order += part->n;
        } else {
            offset[0] = 0;
            offset[1] = (uint32_t)part->n;
        }
        size_t row_bytes =
            (size_t)client->tables[part->table].dim * clu_wire_dtype_size(ticket->dtype);
        for (int s = 0; s < n_shards; s++) {
            size_t n = offset[s + 1] - offset[s];
            ticket->slices[s].n_keys += n;
            ticket->slices[s].row_bytes += n * row_bytes;
        }
    }
}

static void gather_row(const struct psv_client *client, int table, uint64_t key, const float *from,
                       unsigned char *to)
{
    size_t dim = (size_t)client->tables[table].dim;
    if (client->dtype == CLU_WIRE_FP32)
        memcpy(to, from, dim * sizeof(float));
    else if (client->feedback)
        psv_feedback_round(client->feedback[table], key, from, to);
    else
        clu_wire_to_bf16(from, dim, (uint16_t *)(void *)to);
}

/* Copies keys, and a push's rows, into the ticket's blocks: shard by shard, part by part. */
static void lay_out(const struct psv_client *client, struct psv_ticket *ticket)
{
    size_t at_key = 0, at_row = 0;
    bool has_rows = ticket->op == CLU_WIRE_PUSH;
    for (int s = 0; s < ticket->n_shards; s++) {
        ticket->slices[s].key_offset = at_key;
        ticket->slices[s].row_offset = at_row;
        const uint32_t *order = ticket->order;
        for (int p = 0; p < ticket->n_parts; p++) {
            const struct psv_part *part = &ticket->part[p];
            const uint32_t *offset = ticket->offset + (size_t)p * (size_t)(ticket->n_shards + 1);
            size_t dim = (size_t)client->tables[part->table].dim;
            size_t row_bytes = dim * clu_wire_dtype_size(ticket->dtype);
            for (uint32_t i = offset[s]; i < offset[s + 1]; i++) {
                size_t from = ticket->ordered ? order[i] : i;
                if (!ticket->direct)
                    ticket->own_keys[at_key] = part->keys[from];
                at_key++;
                if (has_rows)
                    gather_row(client, part->table, part->keys[from], part->rows + from * dim,
                               ticket->own_rows + at_row);
                at_row += row_bytes;
            }
            order += part->n;
        }
    }
}

/* ---- asking ---- */

/* Adds the calls of one shard's slice and lists them at its link. */
static void add_calls(struct psv_client *client, struct psv_ticket *ticket, int shard)
{
    const struct psv_slice *slice = &ticket->slices[shard];
    size_t n_pieces = 1;
    if (ticket->op == CLU_WIRE_PULL && slice->row_bytes > PSV_PULL_PIECE_BYTES)
        n_pieces = (slice->row_bytes + PSV_PULL_PIECE_BYTES - 1) / PSV_PULL_PIECE_BYTES;
    if (n_pieces > PSV_MAX_PIECES)
        n_pieces = PSV_MAX_PIECES;
    if (n_pieces > slice->n_keys)
        n_pieces = slice->n_keys ? slice->n_keys : 1;
    struct psv_call **at = &client->links[shard].first;
    while (*at) /* in the order of asking */
        at = &(*at)->next;
    for (size_t i = 0; i < n_pieces; i++) {
        struct psv_call *call = &ticket->calls[ticket->n_calls++];
        size_t first = slice->n_keys * i / n_pieces;
        *call = (struct psv_call){
            .ticket = ticket,
            .shard = shard,
            .open = true,
            .seq = ticket->op == CLU_WIRE_PUSH ? client->last_push_seq : ++client->last_seq,
            .first = first,
            .n_keys = slice->n_keys * (i + 1) / n_pieces - first,
        };
        call->row_bytes = psv_call_row_bytes(client, call);
        *at = call;
        at = &call->next;
    }
}

void psv_ticket_start_clock(struct psv_ticket *ticket, int64_t now_ms)
{
    ticket->server_deadline_at_ms = now_ms + ticket->timeout_ms;
    ticket->deadline_at_ms = ticket->server_deadline_at_ms + GRACE_MS;
}

/* Takes a filled ticket: calls to each shard with keys of it, and to those that `to` [n_shards]
 * names (NULL: none). Lock held. */
static uint64_t submit(struct psv_client *client, struct psv_ticket *ticket, const bool *to,
                       int64_t timeout_ms)
{
    int64_t now_ms = psv_client_now_ms();
    ticket->id = ++client->last_ticket;
    client->last_push_seq += ticket->op == CLU_WIRE_PUSH;
    ticket->timeout_ms = timeout_ms;
    psv_ticket_start_clock(ticket, now_ms);
    struct psv_ticket **end = &client->open; /* oldest first: retries go in the order of asking */
    while (*end)
        end = &(*end)->next;
    ticket->next = NULL;
    *end = ticket;
    for (int s = 0; s < ticket->n_shards; s++)
        if ((to && to[s]) || ticket->slices[s].n_keys)
            add_calls(client, ticket, s);
    ticket->n_open = ticket->n_calls;
    client->n_open_calls += ticket->n_calls;
    uint64_t id = ticket->id;
    if (!ticket->n_open)
        psv_ticket_end(client, ticket, 0);
    for (int c = 0; c < ticket->n_calls; c++)
        if (ticket->calls[c].open)
            psv_call_send(client, &ticket->calls[c], now_ms);
    /* sending consumes the edges of the sockets: take what has arrived */
    int n = 0;
    for (int s = 0; s < client->n_shards; s++)
        n += psv_link_receive(client, s);
    uint64_t one = 1;
    if (n && client->driving && write(client->wake, &one, sizeof(one)) < 0 && errno != EAGAIN)
        clu_warn("waking: %s", strerror(errno));
    if (client->resting) /* else it looks by itself; waking it costs more than a small request */
        pthread_cond_signal(&client->work);
    return id;
}

static int ask_rows(struct psv_client *client, int op, const struct psv_part *parts, int n_parts,
                    uint64_t step, uint64_t *ticket_p)
{
    pthread_mutex_lock(&client->lock);
    struct psv_ticket *ticket = take_ticket(client);
    pthread_mutex_unlock(&client->lock);
    if (!ticket)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a request");
    ticket->op = op;
    ticket->step = step;
    ticket->dtype = client->dtype;
    int status = set_parts(client, ticket, parts, n_parts);
    size_t n_keys = 0, n_bytes = 0;
    for (int p = 0; p < ticket->n_parts; p++) {
        const struct psv_part *part = &ticket->part[p];
        n_keys += part->n;
        n_bytes +=
            part->n * (size_t)client->tables[part->table].dim * clu_wire_dtype_size(ticket->dtype);
    }
    if (!status && n_keys > CLU_WIRE_MAX_KEYS)
        status = clu_fail(CLU_E_CONFIG, "%zu keys in one request, at most %d: a smaller batch",
                          n_keys, CLU_WIRE_MAX_KEYS);
    ticket->ordered = ticket->n_shards > 1 || client->codes_keys;
    ticket->direct = !ticket->ordered && ticket->n_parts == 1;
    if (!status)
        status = reserve(client, ticket, n_keys, op == CLU_WIRE_PUSH ? n_bytes : 0);
    if (!status) {
        split(client, ticket);
        bool lent_rows = ticket->direct && client->dtype == CLU_WIRE_FP32;
        if (!ticket->direct || (op == CLU_WIRE_PUSH && !lent_rows))
            lay_out(client, ticket);
        ticket->keys = ticket->direct ? ticket->part[0].keys : ticket->own_keys;
        ticket->rows = lent_rows ? (const void *)ticket->part[0].rows : ticket->own_rows;
    }
    pthread_mutex_lock(&client->lock);
    if (status) {
        ticket->next = client->idle;
        client->idle = ticket;
    } else {
        *ticket_p = submit(client, ticket, op == CLU_WIRE_PUSH ? client->takes_part : NULL,
                           client->options.request_timeout_ms);
        uint64_t *n_asked = op == CLU_WIRE_PUSH ? &client->stats.pushes : &client->stats.pulls;
        uint64_t *n_rows =
            op == CLU_WIRE_PUSH ? &client->stats.rows_pushed : &client->stats.rows_pulled;
        ++*n_asked;
        *n_rows += n_keys;
    }
    pthread_mutex_unlock(&client->lock);
    return status;
}

int psv_client_pull(struct psv_client *client, const struct psv_part *parts, int n_parts,
                    uint64_t step, uint64_t *ticket_p)
{
    return ask_rows(client, CLU_WIRE_PULL, parts, n_parts, step, ticket_p);
}

int psv_client_push(struct psv_client *client, const struct psv_part *parts, int n_parts,
                    uint64_t step, uint64_t *ticket_p)
{
    return ask_rows(client, CLU_WIRE_PUSH, parts, n_parts, step, ticket_p);
}

/* Where the answers to a question go. */
static int make_answers(struct psv_ticket *ticket)
{
    free(ticket->files);
    free(ticket->collected);
    ticket->files = NULL;
    ticket->collected = NULL;
    if (ticket->op == CLU_WIRE_SNAPSHOT)
        ticket->files = calloc((size_t)ticket->n_shards, sizeof(*ticket->files));
    if (ticket->op == CLU_WIRE_COLLECT)
        ticket->collected =
            calloc(ticket->n_text / CLU_WIRE_MOVE_SIZE + 1, sizeof(*ticket->collected));
    bool made = (ticket->op != CLU_WIRE_SNAPSHOT || ticket->files) &&
                (ticket->op != CLU_WIRE_COLLECT || ticket->collected);
    return made ? 0 : CLU_E_NO_MEMORY;
}

int psv_client_ask(struct psv_client *client, const struct psv_question *question,
                   uint64_t *ticket_p)
{
    int status = 0;
    pthread_mutex_lock(&client->lock);
    struct psv_ticket *ticket = take_ticket(client);
    if (ticket) {
        ticket->op = question->op;
        ticket->step = question->step;
        ticket->dtype = CLU_WIRE_NONE;
        ticket->owners = question->owners ? question->owners : ticket->owners;
        ticket->counter = question->counter;
        ticket->counter_sum = 0;
        ticket->detached = question->op == CLU_WIRE_CONFIRM;
        status = question->text ? set_text(ticket, question->text, question->n_text) : 0;
        if (!status)
            status = make_answers(ticket);
    }
    if (!ticket || status)
        status = clu_fail(CLU_E_NO_MEMORY, "no memory for a request");
    else
        *ticket_p = submit(client, ticket, question->to ? question->to : client->takes_part,
                           question->timeout_ms);
    if (status && ticket) {
        ticket->next = client->idle;
        client->idle = ticket;
    }
    pthread_mutex_unlock(&client->lock);
    return status;
}

int psv_client_barrier(struct psv_client *client, uint64_t step, uint64_t *ticket_p)
{
    struct psv_question question = {
        .op = CLU_WIRE_STEP, .step = step, .timeout_ms = client->options.request_timeout_ms};
    return psv_client_ask(client, &question, ticket_p);
}

/* ---- waiting ---- */

static struct psv_ticket *find_ticket(struct psv_client *client, uint64_t id)
{
    struct psv_ticket *ticket = client->open;
    while (ticket && ticket->id != id)
        ticket = ticket->next;
    return ticket;
}

static void wait_changed(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t wait_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += wait_ms / 1000;
    until.tv_nsec += wait_ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(condition, lock, &until);
}

/* The caller's arrays are the caller's again: no frame may lend them. Bounded, for a frame is
 * released once its bytes are sent or its connection is gone. */
static void wait_unlent(struct psv_client *client, struct psv_ticket *ticket)
{
    for (int i = 0; atomic_load(&ticket->lent) && i < 64; i++)
        sched_yield();
    const struct timespec pause = {.tv_nsec = 100000};
    for (int i = 0; atomic_load(&ticket->lent); i++) {
        if (i ==
            50) /* an answered copy went another way: end the connection that still holds one */
            for (int s = 0; s < client->n_shards; s++)
                psv_link_open(client, s);
        if (i == LENT_WAIT_MS * 10)
            break;
        nanosleep(&pause, NULL);
    }
}

static int64_t elapsed_ns(const struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)(now.tv_sec - start->tv_sec) * 1000000000 + now.tv_nsec - start->tv_nsec;
}

static const char *op_name(int op)
{
    switch (op) {
    case CLU_WIRE_HELLO:
        return "greeting the shards";
    case CLU_WIRE_PULL:
        return "pull";
    case CLU_WIRE_PUSH:
        return "push";
    case CLU_WIRE_STEP:
        return "waiting for the end";
    case CLU_WIRE_SNAPSHOT:
        return "snapshot";
    case CLU_WIRE_COLLECT:
    case CLU_WIRE_RELEASE:
    case CLU_WIRE_ADOPT:
    case CLU_WIRE_FORGET:
        return "moving buckets";
    case CLU_WIRE_BEGIN:
        return "going on";
    default:
        return "question";
    }
}

/* Lock held. On return the ticket, if it is done, is still in client->open. */
static int wait_done(struct psv_client *client, struct psv_ticket *ticket, int timeout_ms)
{
    int64_t until = timeout_ms < 0 ? INT64_MAX : psv_client_now_ms() + timeout_ms;
    while (!ticket->done) {
        int64_t left = until == INT64_MAX ? 1000 : until - psv_client_now_ms();
        if (left <= 0 && timeout_ms != 0)
            return CLU_E_AGAIN;
        if (client->driving)
            wait_changed(&client->changed, &client->lock, left < 1000 ? left : 1000);
        else
            psv_client_drive(client, left < 1000 ? (int)left : 1000);
        if (timeout_ms == 0 && !ticket->done)
            return CLU_E_AGAIN;
    }
    if (ticket->direct)
        wait_unlent(client, ticket);
    char at_step[32] = "";
    if (ticket->step)
        snprintf(at_step, sizeof(at_step), " of step %llu", (unsigned long long)ticket->step);
    if (ticket->status)
        clu_error("%s%s: %s: %s", op_name(ticket->op), at_step, clu_status_text(ticket->status),
                  ticket->sentence);
    return ticket->status;
}

static void hand_over(struct psv_ticket *ticket, const struct psv_wanted *wanted)
{
    if (wanted->files_p) { /* of the shards that took part */
        int n = 0;
        for (int s = 0; s < ticket->n_shards; s++)
            if (ticket->files[s].name[0])
                ticket->files[n++] = ticket->files[s];
        *wanted->files_p = ticket->files;
        *wanted->n_files_p = n;
        ticket->files = NULL;
    }
    if (wanted->sum_p)
        *wanted->sum_p = ticket->counter_sum;
    if (wanted->collected_p) {
        *wanted->collected_p = ticket->collected;
        ticket->collected = NULL;
    }
}

int psv_client_wait_for(struct psv_client *client, uint64_t id, int timeout_ms,
                        const struct psv_wanted *wanted)
{
    struct timespec start;
    clock_gettime(CLOCK_MONOTONIC, &start);
    pthread_mutex_lock(&client->lock);
    struct psv_ticket *ticket = find_ticket(client, id);
    if (!ticket) {
        pthread_mutex_unlock(&client->lock);
        return clu_fail(CLU_E_BUG, "no request has ticket %llu", (unsigned long long)id);
    }
    int status = wait_done(client, ticket, timeout_ms);
    if (ticket->done) {
        if (!status)
            hand_over(ticket, wanted);
        psv_ticket_retire(client, ticket);
    }
    client->stats.wait_ns += (uint64_t)elapsed_ns(&start);
    if (client->open) /* another thread may be waiting for someone to drive */
        pthread_cond_broadcast(&client->changed);
    pthread_mutex_unlock(&client->lock);
    return status;
}

int psv_client_wait(struct psv_client *client, uint64_t ticket, int timeout_ms)
{
    const struct psv_wanted nothing = {0};
    return psv_client_wait_for(client, ticket, timeout_ms, &nothing);
}

int psv_client_wait_snapshot(struct psv_client *client, uint64_t ticket, int timeout_ms,
                             struct psv_file **files_p, int *n_files_p)
{
    const struct psv_wanted wanted = {.files_p = files_p, .n_files_p = n_files_p};
    return psv_client_wait_for(client, ticket, timeout_ms, &wanted);
}

int psv_client_counter(struct psv_client *client, const char *name, uint64_t *value_p)
{
    uint64_t ticket = 0;
    struct psv_question question = {
        .op = CLU_WIRE_STATS, .counter = name, .timeout_ms = client->options.request_timeout_ms};
    const struct psv_wanted wanted = {.sum_p = value_p};
    int status = psv_client_ask(client, &question, &ticket);
    return status ? status : psv_client_wait_for(client, ticket, -1, &wanted);
}

void psv_client_stats(struct psv_client *client, struct psv_client_stats *stats_p)
{
    pthread_mutex_lock(&client->lock);
    *stats_p = client->stats;
    pthread_mutex_unlock(&client->lock);
}

/* ---- life ---- */

/* Looks after open calls while nobody waits. */
static void *look_after(void *argument)
{
    struct psv_client *client = argument;
    pthread_mutex_lock(&client->lock);
    while (!client->stop) {
        if (!client->n_open_calls) {
            client->resting = true;
            pthread_cond_wait(&client->work, &client->lock);
            client->resting = false;
            continue;
        }
        wait_changed(&client->work, &client->lock, TICK_MS);
        if (!client->stop && !client->driving && client->n_open_calls) {
            for (int s = 0; s < client->n_shards; s++)
                psv_link_receive(client, s);
            psv_client_timers(client, psv_client_now_ms());
        }
    }
    pthread_mutex_unlock(&client->lock);
    return NULL;
}

int psv_client_greet(struct psv_client *client, const bool *to)
{
    uint64_t ticket = 0;
    struct clu_packer packer;
    struct psv_terms terms = {
        .n_ranks = client->options.n_ranks,
        .staleness = client->options.staleness,
        .tables = client->tables,
        .n_tables = client->options.n_tables,
    };
    clu_packer_init(&packer);
    int status = psv_hello_pack(&terms, &packer);
    if (!status && packer.size_bytes > CLU_WIRE_MAX_TEXT)
        status = clu_fail(CLU_E_CONFIG, "too many tables for a hello");
    if (!status)
        status =
            psv_client_ask(client,
                           &(struct psv_question){
                               .op = CLU_WIRE_HELLO,
                               .step = client->options.staleness < 0 ? client->last_push_seq : 0,
                               .text = packer.data,
                               .n_text = packer.size_bytes,
                               .to = to,
                               .timeout_ms = client->options.request_timeout_ms},
                           &ticket);
    clu_packer_fini(&packer);
    return status ? status : psv_client_wait(client, ticket, -1);
}

static int allocate(struct psv_client *client, const struct psv_client_options *options)
{
    size_t n_tables = (size_t)options->n_tables, n_shards = (size_t)options->map->n_shards;
    client->tables = calloc(n_tables + 1, sizeof(*client->tables));
    client->table_hash = calloc(n_tables + 1, sizeof(*client->table_hash));
    client->map = malloc(sizeof(*client->map));
    client->links = calloc(CLU_MAX_SHARDS, sizeof(*client->links));
    client->polls = calloc(CLU_MAX_SHARDS + 1, sizeof(*client->polls));
    client->driven = calloc(CLU_MAX_SHARDS + 1, sizeof(*client->driven));
    if (!client->tables || !client->table_hash || !client->map || !client->links ||
        !client->polls || !client->driven)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a client of %zu shards", n_shards);
    for (size_t t = 0; t < n_tables; t++) {
        client->tables[t] = options->tables[t];
        client->table_hash[t] = clu_table_hash(options->tables[t].name);
    }
    *client->map = *options->map;
    client->n_shards = (int)n_shards;
    clu_map_members(client->map, client->takes_part);
    client->least_applied = UINT64_MAX;
    if (!strcmp(options->wire_dtype, "bf16_feedback")) {
        client->feedback = calloc(n_tables + 1, sizeof(struct psv_feedback *));
        int status = client->feedback ? 0 : CLU_E_NO_MEMORY;
        for (size_t t = 0; !status && t < n_tables; t++)
            status =
                psv_feedback_create(client->tables[t].dim, FEEDBACK_BYTES, &client->feedback[t]);
        if (status)
            return clu_fail(status, "no memory for error feedback");
    }
    client->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (client->wake < 0)
        return clu_fail(clu_status_from_errno(errno), "eventfd: %s", strerror(errno));
    for (int s = 0; s < CLU_MAX_SHARDS; s++)
        client->polls[1 + s].fd = -1;
    client->polls[0] = (struct pollfd){.fd = client->wake, .events = POLLIN};
    return 0;
}

static void release_client(struct psv_client *client)
{
    for (int s = 0; s < client->n_shards; s++)
        clu_socket_close(client->links[s].socket);
    struct psv_ticket *lists[2] = {client->open, client->idle};
    for (int l = 0; l < 2; l++)
        for (struct psv_ticket *ticket = lists[l], *next; ticket; ticket = next) {
            next = ticket->next;
            for (int i = 0; atomic_load(&ticket->lent) && i < LENT_WAIT_MS; i++)
                usleep(1000);
            if (!atomic_load(&ticket->lent)) /* else leaked rather than read after free */
                free_ticket(ticket);
        }
    for (int t = 0; client->feedback && t < client->options.n_tables; t++)
        psv_feedback_free(client->feedback[t]);
    free(client->feedback);
    if (client->wake >= 0)
        close(client->wake);
    pthread_cond_destroy(&client->work);
    pthread_cond_destroy(&client->changed);
    pthread_mutex_destroy(&client->lock);
    free(client->driven);
    free(client->polls);
    free(client->links);
    free(client->map);
    free(client->table_hash);
    free(client->tables);
    free(client);
}

int psv_client_open(const struct psv_client_options *options, struct psv_client **client_p)
{
    struct psv_client *client = calloc(1, sizeof(*client));
    if (!client)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a client");
    client->options = *options;
    client->wake = -1;
    clu_message_init(&client->message);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&client->lock, NULL);
    pthread_cond_init(&client->changed, &monotonic);
    pthread_cond_init(&client->work, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int64_t retry_ms = options->request_timeout_ms / 20;
    retry_ms = retry_ms < 50 ? 50 : retry_ms > 1000 ? 1000 : retry_ms;
    client->retry_ms = options->retry_ms > 0 ? options->retry_ms : retry_ms;
    client->dtype = clu_wire_dtype_of(options->wire_dtype);
    client->codes_keys = options->wire_keys && !strcmp(options->wire_keys, "delta");
    int status = client->dtype ? allocate(client, options)
                               : clu_fail(CLU_E_CONFIG,
                                          "wire_dtype \"%s\": expected fp32, bf16 or "
                                          "bf16_feedback",
                                          options->wire_dtype);
    for (int s = 0; !status && s < client->n_shards; s++) {
        snprintf(client->links[s].endpoint, sizeof(client->links[s].endpoint), "%s",
                 client->map->endpoint[s]);
        status = client->takes_part[s] ? psv_link_open(client, s) : 0;
    }
    int error_number = status ? 0 : pthread_create(&client->thread, NULL, look_after, client);
    if (error_number)
        status = clu_fail(clu_status_from_errno(error_number), "a thread of the client: %s",
                          strerror(error_number));
    if (status) {
        release_client(client);
        return status;
    }
    status = psv_client_greet(client, NULL);
    if (status) {
        psv_client_close(client);
        return status;
    }
    *client_p = client;
    return 0;
}

void psv_client_close(struct psv_client *client)
{
    if (!client)
        return;
    pthread_mutex_lock(&client->lock);
    client->stop = true;
    pthread_cond_broadcast(&client->work);
    pthread_mutex_unlock(&client->lock);
    pthread_join(client->thread, NULL);
    release_client(client);
}
