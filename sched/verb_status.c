/* `sluice status`: what a running job is doing, for people (status_text.h) or, with --json, for
 * programs. --watch asks again until the job has ended, which is no failure of whoever watches; a
 * scheduler that is being started again is waited for.
 */
#include "sched/ask.h"
#include "sched/status_text.h"
#include "sched/verb.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct options {
    bool json, watch;
    int64_t every_ms;
};

static const struct clu_setting rows[] = {
    {"json", CLU_SETTING_BOOL, offsetof(struct options, json), sizeof(bool), "false", 0, 0, NULL,
     "print the answer as JSON"},
    {"watch", CLU_SETTING_BOOL, offsetof(struct options, watch), sizeof(bool), "false", 0, 0, NULL,
     "ask again until the job has ended"},
    {"every_ms", CLU_SETTING_INT, offsetof(struct options, every_ms), sizeof(int64_t), "1000", 100,
     3600000, NULL, "interval of --watch"},
};

/* again: in place of what was shown before. */
static int show(const char *out, const struct options *options, bool again)
{
    char *body = NULL;
    int status = schd_ask(out, "status", &body);
    if (status)
        return status;
    json_t *root = json_loads(body, 0, NULL);
    if (again && !options->json && isatty(STDOUT_FILENO))
        fputs("\033[H\033[2J", stdout); /* not before there is an answer */
    if (!root)
        status = clu_fail(CLU_E_PROTOCOL, "the scheduler's answer is not JSON");
    else if (options->json)
        printf("%s\n", body);
    else
        schd_status_print(root, stdout);
    fflush(stdout);
    json_decref(root);
    free(body);
    return status;
}

static int run(const struct schd_call *call)
{
    const struct options *options = call->options;
    const char *out = call->n_positionals > 0 ? call->positionals[0] : NULL;
    bool supervised = schd_is_supervised(out);
    int status = show(out, options, false);
    while (options->watch && (!status || (status == CLU_E_TIMEOUT && supervised))) {
        struct timespec nap = {.tv_sec = options->every_ms / 1000,
                               .tv_nsec = options->every_ms % 1000 * 1000000};
        nanosleep(&nap, NULL);
        if (supervised && !schd_is_supervised(out)) {
            clu_info("the job has ended");
            return CLU_OK;
        }
        status = show(out, options, true);
    }
    return status;
}

const struct schd_verb schd_verb_status = {
    .name = "status",
    .summary = "what a running job is doing",
    .usage = "[OUT] [--watch] [--json]",
    .example = "sluice status sluice-run --watch",
    .rows = rows,
    .n_rows = sizeof(rows) / sizeof(rows[0]),
    .object_bytes = sizeof(struct options),
    .min_positionals = 0,
    .max_positionals = 1,
    .run = run,
};
