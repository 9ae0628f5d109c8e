/* Another map: servers that listen elsewhere, and buckets that move from shard to shard while the
 * job trains (the whole of that: ps/shard_move.c).
 *
 * Four questions that rank 0 asks, and the change of owners that every rank makes at the same step.
 * A ticket keeps what it needs of the map it was asked by (its slices, its number of shards), so
 * that the map may change while tickets are open: they are answered by the old owners.
 */
#include "ps/client.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "ps/client_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int ask_about_moves(struct psv_client *client, int op, const struct psv_move *moves, int n,
                           uint64_t step, uint64_t owners, uint64_t *ticket_p)
{
    unsigned char *text = malloc((size_t)n * CLU_WIRE_MOVE_SIZE + 1);
    if (n < 1 || n > PSV_MAX_MOVES || !text) {
        free(text);
        return clu_fail(text ? CLU_E_BUG : CLU_E_NO_MEMORY, "%d moves in a request", n);
    }
    for (int i = 0; i < n; i++) {
        const uint16_t number[3] = {moves[i].bucket, moves[i].from, moves[i].to};
        for (int j = 0; j < 3; j++) {
            text[i * CLU_WIRE_MOVE_SIZE + 2 * j] = (unsigned char)number[j];
            text[i * CLU_WIRE_MOVE_SIZE + 2 * j + 1] = (unsigned char)(number[j] >> 8);
        }
    }
    struct psv_question question = {.op = op,
                                    .step = step,
                                    .owners = (uint32_t)owners,
                                    .text = (const char *)text,
                                    .n_text = (size_t)n * CLU_WIRE_MOVE_SIZE,
                                    .timeout_ms = (int64_t)client->options.request_timeout_ms *
                                                  PSV_LONG_SHARE};
    int status = psv_client_ask(client, &question, ticket_p);
    free(text);
    return status;
}

int psv_client_collect(struct psv_client *client, const struct psv_move *moves, int n,
                       uint64_t *ticket_p)
{
    return ask_about_moves(client, CLU_WIRE_COLLECT, moves, n, 0, 0, ticket_p);
}

int psv_client_release(struct psv_client *client, const struct psv_move *moves, int n,
                       uint64_t step, uint64_t owners, uint64_t *ticket_p)
{
    return ask_about_moves(client, CLU_WIRE_RELEASE, moves, n, step, owners, ticket_p);
}

int psv_client_adopt(struct psv_client *client, const struct psv_move *moves, int n, uint64_t step,
                     uint64_t owners, uint64_t *ticket_p)
{
    return ask_about_moves(client, CLU_WIRE_ADOPT, moves, n, step, owners, ticket_p);
}

int psv_client_forget(struct psv_client *client, const struct psv_move *moves, int n,
                      uint64_t owners, uint64_t *ticket_p)
{
    return ask_about_moves(client, CLU_WIRE_FORGET, moves, n, 0, owners, ticket_p);
}

int psv_client_wait_collect(struct psv_client *client, uint64_t ticket, int timeout_ms,
                            uint64_t **collected_p)
{
    const struct psv_wanted wanted = {.collected_p = collected_p};
    return psv_client_wait_for(client, ticket, timeout_ms, &wanted);
}

void psv_client_map(struct psv_client *client, struct clu_bucket_map *map_p)
{
    pthread_mutex_lock(&client->lock);
    *map_p = *client->map;
    pthread_mutex_unlock(&client->lock);
}

int psv_client_switch(struct psv_client *client, const struct clu_bucket_map *map)
{
    int status = 0;
    bool added[CLU_MAX_SHARDS] = {false}, any = false;
    pthread_mutex_lock(&client->lock);
    if (map->owners <= client->map->owners || map->n_shards < client->n_shards)
        status = clu_fail(CLU_E_BUG, "owners %llu of %d shards after owners %llu of %d",
                          (unsigned long long)map->owners, map->n_shards,
                          (unsigned long long)client->map->owners, client->n_shards);
    if (!status) {
        memcpy(added, client->takes_part, sizeof(added));
        *client->map = *map;
        client->n_shards = map->n_shards;
        clu_map_members(map, client->takes_part);
    }
    for (int s = 0; !status && s < client->n_shards; s++) {
        struct psv_link *link = &client->links[s];
        added[s] = client->takes_part[s] && !added[s];
        any |= added[s];
        bool moved = strcmp(link->endpoint, map->endpoint[s]) != 0;
        snprintf(link->endpoint, sizeof(link->endpoint), "%s", map->endpoint[s]);
        if ((added[s] && !link->socket) || (moved && link->socket))
            status = psv_link_open(client, s);
    }
    pthread_mutex_unlock(&client->lock);
    return status || !any ? status : psv_client_greet(client, added);
}

int psv_client_begin(struct psv_client *client, uint64_t step, uint64_t *ticket_p)
{
    struct psv_question question = {
        .op = CLU_WIRE_BEGIN, .step = step, .timeout_ms = client->options.request_timeout_ms};
    return psv_client_ask(client, &question, ticket_p);
}

void psv_client_applied(struct psv_client *client, uint64_t *least_p, uint64_t *most_p)
{
    pthread_mutex_lock(&client->lock);
    *least_p = client->least_applied;
    *most_p = client->most_applied;
    pthread_mutex_unlock(&client->lock);
}

int psv_client_remap(struct psv_client *client, const struct clu_bucket_map *map)
{
    int status = 0;
    pthread_mutex_lock(&client->lock);
    int n_shards = map->n_shards < client->n_shards ? map->n_shards : client->n_shards;
    for (int s = 0; !status && s < n_shards; s++) {
        struct psv_link *link = &client->links[s];
        if (!strcmp(link->endpoint, map->endpoint[s]))
            continue;
        snprintf(link->endpoint, sizeof(link->endpoint), "%s", map->endpoint[s]);
        snprintf(client->map->endpoint[s], sizeof(client->map->endpoint[s]), "%s",
                 map->endpoint[s]);
        if (!link->socket && !client->takes_part[s])
            continue; /* takes no part */
        status = psv_link_open(client, s);
        for (struct psv_call *call = link->first; call; call = call->next) {
            call->retry_at_ms = 0;
            psv_ticket_start_clock(call->ticket, psv_client_now_ms());
        }
    }
    uint64_t one = 1;
    if (client->driving && write(client->wake, &one, sizeof(one)) < 0 && errno != EAGAIN)
        clu_warn("waking: %s", strerror(errno));
    pthread_cond_signal(&client->work);
    pthread_mutex_unlock(&client->lock);
    return status;
}
