/* `sluice status`: what a running job is doing, for people (status_text.h) or, with --json, for
 * programs; of one that does not run any more, how it ended. --watch asks again until the job has
 * ended, says how, and ends with the job's own exit code; a scheduler that is being started again
 * is waited for, and so is a supervisor whose scheduler has ended already.
 */
#include "sched/ask.h"
#include "sched/folder.h"
#include "sched/status_text.h"
#include "sched/verb.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { SHORT_MS = 400 };

struct options {
    bool json, watch;
    int64_t every_ms;
};

static const struct clu_setting rows[] = {
    {"json", CLU_SETTING_BOOL, offsetof(struct options, json), sizeof(bool), "false", 0, 0, NULL,
     "print the answer as JSON"},
    {"watch", CLU_SETTING_BOOL, offsetof(struct options, watch), sizeof(bool), "false", 0, 0, NULL,
     "ask again until the job has ended; the last line says how"},
    {"every_ms", CLU_SETTING_INT, offsetof(struct options, every_ms), sizeof(int64_t), "1000", 100,
     3600000, NULL, "interval of --watch"},
};

static int print(const char *body, bool json, bool in_place)
{
    json_t *root = json_loads(body, 0, NULL);
    if (!root)
        return clu_fail(CLU_E_PROTOCOL, "the scheduler's answer is not JSON");
    if (in_place)
        fputs("\033[H\033[2J", stdout);
    if (json)
        printf("%s\n", body);
    else
        schd_status_print(root, stdout);
    fflush(stdout);
    json_decref(root);
    return CLU_OK;
}

/* Of a job that does not run. */
static void print_end(const struct schd_end *end, bool json)
{
    char text[2048];
    if (!json) {
        printf("the job %s\n", schd_end_describe(end, text, sizeof(text)));
        return;
    }
    json_t *root = json_pack("{s:s, s:I, s:I}", "phase", "gone", "step", (json_int_t)end->step,
                             "snapshot_step", (json_int_t)end->snapshot_step);
    if (end->told)
        json_object_set_new(root, "end",
                            json_pack("{s:s, s:i, s:s, s:I}", "status",
                                      clu_status_name(end->status), "exit_code",
                                      clu_status_exit_code(end->status), "text", end->text,
                                      "time_ms", (json_int_t)end->time_ms));
    json_dumpf(root, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(root);
}

/* Until the job has ended; its status. The first answer has been shown. A question that the
 * scheduler's end leaves unanswered is not waited for long; one of a busy machine is. */
static int watch(const char *out, const struct options *options)
{
    struct schd_end end;
    int status = CLU_OK, timeout_ms = SHORT_MS;
    while (!status || status == CLU_E_TIMEOUT) {
        char *body = NULL;
        struct timespec nap = {.tv_sec = options->every_ms / 1000,
                               .tv_nsec = options->every_ms % 1000 * 1000000};
        nanosleep(&nap, NULL);
        status = schd_ask_again(out, "status", timeout_ms, &body);
        timeout_ms = status && timeout_ms < SCHD_ANSWER_WITHIN_MS ? 2 * timeout_ms : SHORT_MS;
        if (!status)
            status = print(body, options->json, !options->json && isatty(STDOUT_FILENO));
        free(body);
    }
    if (status != CLU_E_UNAVAILABLE)
        return status;
    schd_folder_load_end(schd_ask_folder(out), &end);
    print_end(&end, options->json);
    return end.status;
}

static int run(const struct schd_call *call)
{
    const struct options *options = call->options;
    const char *out = call->n_positionals > 0 ? call->positionals[0] : NULL;
    char *body = NULL;
    int status = schd_ask(out, "status", &body);
    if (!status)
        status = print(body, options->json, false);
    free(body);
    if (status == CLU_E_UNAVAILABLE && options->json) {
        struct schd_end end;
        schd_folder_load_end(schd_ask_folder(out), &end);
        print_end(&end, true);
    }
    if (options->watch && (!status || status == CLU_E_TIMEOUT))
        return watch(out, options);
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
    .exits = SCHD_ASK_EXITS
    "\n"
    "--watch: the job's own: 0 done, 75 stopped, else why it failed; 69 also when nobody\n"
    "wrote down how it ended, as after a kill of its supervisor",
    .run = run,
};
