/* `sluice status`: what a running job is doing, for people or (--json) for programs.
 *
 *     running, step 480 of 800 (60 %), generation 1, newest snapshot: step 400
 *     loss 1.3072  samples_per_second 5321  ...
 *     ROLE      RANK  STATE  HEARD      PID  HOST
 *     ps           0  ready  120 ms   12345  node-1     rows 120331  ...
 */
#include "sched/ask.h"
#include "sched/verb.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
     "ask again until the job ends"},
    {"every_ms", CLU_SETTING_INT, offsetof(struct options, every_ms), sizeof(int64_t), "1000", 100,
     3600000, NULL, "interval of --watch"},
};

static const char *text_of(json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static long long int_of(json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

static void print_figures(json_t *figures)
{
    const char *name;
    json_t *value;
    json_object_foreach(figures, name, value)
    {
        double number = json_number_value(value);
        printf(number == (double)(long long)number ? "  %s %.0f" : "  %s %.4g", name, number);
    }
}

static void print_member(json_t *member)
{
    json_t *end = json_object_get(member, "end"), *last = json_object_get(member, "last_end");
    printf("%-7s %5lld  %-7s %6lld ms %8lld  %-12s", text_of(member, "role"),
           int_of(member, "rank"), text_of(member, "state"), int_of(member, "silent_ms"),
           int_of(member, "pid"), text_of(member, "host"));
    if (json_is_true(json_object_get(member, "slow")))
        printf("  SLOW");
    if (end)
        printf("  %s %s", text_of(end, "status"), text_of(end, "text"));
    if (last)
        printf("  (the one before: %s)", text_of(last, "text"));
    print_figures(json_object_get(member, "figures"));
    putchar('\n');
}

static void print_events(json_t *events)
{
    size_t i;
    json_t *event;
    json_array_foreach(events, i, event)
    {
        time_t seconds = (time_t)(int_of(event, "time_ms") / 1000);
        struct tm when;
        char text[32];
        strftime(text, sizeof(text), "%H:%M:%S", localtime_r(&seconds, &when));
        printf("%s %s: %s\n", text, text_of(event, "level"), text_of(event, "text"));
    }
}

/* Only of a job that changes its shape, or has. */
static void print_change(json_t *change)
{
    if (!text_of(change, "text")[0])
        return;
    printf("servers: %s", text_of(change, "text"));
    if (int_of(change, "to_move") > 0 && strcmp(text_of(change, "state"), "none") != 0)
        printf(" (%lld of %lld buckets moved, %.1f s)", int_of(change, "moved"),
               int_of(change, "to_move"), json_number_value(json_object_get(change, "seconds")));
    putchar('\n');
}

static void print_status(json_t *root)
{
    long long step = int_of(root, "step"), n_steps = int_of(root, "n_steps");
    size_t i;
    json_t *member;
    printf("%s, step %lld", text_of(root, "phase"), step);
    if (n_steps > 0)
        printf(" of %lld (%.0f %%)", n_steps, 100.0 * (double)step / (double)n_steps);
    printf(", generation %lld, newest snapshot: ", int_of(root, "generation"));
    if (int_of(root, "snapshot_step") > 0)
        printf("step %lld", int_of(root, "snapshot_step"));
    else
        printf("none");
    printf("%s%s\n",
           json_is_true(json_object_get(root, "snapshot_under_way")) ? ", one under way" : "",
           json_is_true(json_object_get(root, "stopping")) ? ", stopping" : "");
    if (int_of(root, "gone_on") > 0)
        printf("new workers went on %lld time%s: %lld steps, %lld samples lost for dense weights\n",
               int_of(root, "gone_on"), int_of(root, "gone_on") == 1 ? "" : "s",
               int_of(root, "lost_steps"), int_of(root, "lost_samples"));
    print_change(json_object_get(root, "change"));
    print_figures(json_object_get(root, "progress"));
    printf("\nrole     rank  state    heard ago      pid  host\n");
    json_array_foreach(json_object_get(root, "members"), i, member) print_member(member);
    print_events(json_object_get(root, "events"));
}

static int show(const char *out, const struct options *options)
{
    char *body = NULL;
    int status = schd_ask(out, "status", &body);
    if (status)
        return status;
    json_t *root = json_loads(body, 0, NULL);
    if (!root)
        status = clu_fail(CLU_E_PROTOCOL, "the scheduler's answer is not JSON");
    else if (options->json)
        printf("%s\n", body);
    else
        print_status(root);
    fflush(stdout);
    json_decref(root);
    free(body);
    return status;
}

static int run(const struct schd_call *call)
{
    const struct options *options = call->options;
    const char *out = call->n_positionals > 0 ? call->positionals[0] : NULL;
    int status = show(out, options);
    while (!status && options->watch) {
        struct timespec nap = {.tv_sec = options->every_ms / 1000,
                               .tv_nsec = options->every_ms % 1000 * 1000000};
        nanosleep(&nap, NULL);
        if (isatty(STDOUT_FILENO) && !options->json)
            printf("\033[H\033[2J");
        status = show(out, options);
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
