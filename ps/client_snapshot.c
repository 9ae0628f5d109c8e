/* What rank 0 asks every shard about snapshots. That a snapshot is committed is told twice: by
 * confirm, whose answer nobody waits for, and by naming it as the base of the next one.
 */
#include "ps/client.h"

#include "cluster/job.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "ps/client_internal.h"

#include <inttypes.h>
#include <stdio.h>

int psv_client_snapshot(struct psv_client *client, uint64_t step, uint64_t base_step,
                        int64_t spread_ms, const char *dir, uint64_t *ticket_p)
{
    char text[CLU_PATH_BYTES + 48];
    int size = snprintf(text, sizeof(text), "%s\n%" PRIu64 "\n%" PRId64, dir, base_step,
                        spread_ms < 0           ? 0
                        : spread_ms < INT32_MAX ? spread_ms
                                                : INT32_MAX);
    if (size >= (int)sizeof(text))
        return clu_fail(CLU_E_CONFIG, "%s: the path is too long", dir);
    struct psv_question question = {.op = CLU_WIRE_SNAPSHOT,
                                    .step = step,
                                    .text = text,
                                    .n_text = (size_t)size,
                                    .timeout_ms = (int64_t)client->options.request_timeout_ms *
                                                  PSV_LONG_SHARE};
    return psv_client_ask(client, &question, ticket_p);
}

int psv_client_confirm(struct psv_client *client, uint64_t step)
{
    uint64_t ticket;
    struct psv_question question = {
        .op = CLU_WIRE_CONFIRM, .step = step, .timeout_ms = client->options.request_timeout_ms};
    return psv_client_ask(client, &question, &ticket);
}
