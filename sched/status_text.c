/* Every line is one function that takes the whole answer, and prints nothing where there is nothing
 * to say: a job that has not begun has no loss.
 */
#include "sched/status_text.h"

#include <stdbool.h>
#include <string.h>
#include <time.h>

static const char *text_of(json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static long long int_of(json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

static double figure(json_t *object, const char *name)
{
    return json_number_value(json_object_get(object, name));
}

static bool is_true(json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

static void print_bytes(double bytes, FILE *out)
{
    if (bytes < 1024.0 * 1024 * 1024)
        fprintf(out, "%.1f MiB", bytes / (1024 * 1024));
    else
        fprintf(out, "%.1f GiB", bytes / (1024.0 * 1024 * 1024));
}

static void print_span(double seconds, FILE *out)
{
    if (seconds < 100)
        fprintf(out, "%.0f s", seconds);
    else if (seconds < 6000)
        fprintf(out, "%.0f min", seconds / 60);
    else
        fprintf(out, "%.1f h", seconds / 3600);
}

static void print_head(json_t *root, FILE *out)
{
    long long step = int_of(root, "step"), n_steps = int_of(root, "n_steps");
    double step_seconds = figure(json_object_get(root, "progress"), "step_seconds");
    fprintf(out, "%s, step %lld", text_of(root, "phase"), step);
    if (n_steps > 0)
        fprintf(out, " of %lld (%.0f %%)", n_steps, 100.0 * (double)step / (double)n_steps);
    if (n_steps > step && step_seconds > 0) {
        fputs(", about ", out);
        print_span((double)(n_steps - step) * step_seconds, out);
        fputs(" to go", out);
    }
    fprintf(out, ", life %lld%s\n", int_of(root, "generation"),
            is_true(root, "stopping") ? ", stopping" : "");
    if (text_of(root, "text")[0])
        fprintf(out, "because  %s\n", text_of(root, "text"));
}

static void print_progress(json_t *root, FILE *out)
{
    json_t *p = json_object_get(root, "progress");
    if (json_object_size(p) == 0)
        return;
    fprintf(out, "loss     %.4g (classes %.4g, times %.4g, order %.2g), epoch %.0f\n",
            figure(p, "loss"), figure(p, "loss_cls"), figure(p, "loss_reg"),
            figure(p, "loss_order"), figure(p, "epoch"));
    fprintf(out, "rate     %.0f samples/s, %.3g s a step, the longest %.3g s\n",
            figure(p, "samples_per_second"), figure(p, "step_seconds"),
            figure(p, "longest_step_seconds"));
    fprintf(out, "waits    %.1f %% for rows, %.1f %% for data; staleness %.2g\n",
            100 * figure(p, "pull_wait_share"), 100 * figure(p, "data_wait_share"),
            figure(p, "staleness"));
}

/* The area under the curve of each action, as the figures are called <action>_auc. */
static void print_evaluation(json_t *root, FILE *out)
{
    const char *name;
    json_t *value;
    bool any = false;
    json_object_foreach(json_object_get(root, "evaluation"), name, value)
    {
        size_t size = strlen(name);
        if (size < 5 || strcmp(name + size - 4, "_auc") != 0 ||
            (size > 9 && strncmp(name + size - 9, "_best", 5) == 0))
            continue;
        fprintf(out, "%s %.*s %.4f", any ? "," : "AUC     ", (int)(size - 4), name,
                json_number_value(value));
        any = true;
    }
    if (any)
        fputc('\n', out);
}

static void print_snapshot(json_t *root, FILE *out)
{
    json_t *s = json_object_get(root, "snapshot"), *p = json_object_get(root, "progress");
    if (int_of(root, "snapshot_step") > 0)
        fprintf(out, "snapshot step %lld is whole", int_of(root, "snapshot_step"));
    else
        fputs("snapshot none is whole yet", out);
    if (json_object_size(s) > 0) {
        fprintf(out, "; the last: %.0f rows, ", figure(s, "snapshot_rows"));
        print_bytes(figure(s, "snapshot_bytes"), out);
        fprintf(out, ", %.1f s", figure(s, "snapshot_seconds"));
    }
    if (figure(p, "snapshot_longest_step_seconds") > 0)
        fprintf(out, "; the longest step beside one %.3g s",
                figure(p, "snapshot_longest_step_seconds"));
    fprintf(out, "%s\n", is_true(root, "snapshot_under_way") ? "; one is under way" : "");
}

/* Only of a job that changes its shape, or has. */
static void print_change(json_t *root, FILE *out)
{
    json_t *change = json_object_get(root, "change");
    if (!text_of(change, "text")[0])
        return;
    fprintf(out, "servers  %s", text_of(change, "text"));
    if (int_of(change, "to_move") > 0 && strcmp(text_of(change, "state"), "none") != 0)
        fprintf(out, " (%lld of %lld buckets moved, %.1f s)", int_of(change, "moved"),
                int_of(change, "to_move"), figure(change, "seconds"));
    fputc('\n', out);
}

static void print_losses(json_t *root, FILE *out)
{
    if (int_of(root, "gone_on") > 0)
        fprintf(out,
                "lost     %lld steps, %lld samples for dense weights: new workers went on %lld "
                "time%s\n",
                int_of(root, "lost_steps"), int_of(root, "lost_samples"), int_of(root, "gone_on"),
                int_of(root, "gone_on") == 1 ? "" : "s");
    if (int_of(root, "malformed_messages") + int_of(root, "denied_connections") > 0)
        fprintf(out, "refused  %lld malformed messages, %lld connections\n",
                int_of(root, "malformed_messages"), int_of(root, "denied_connections"));
}

/* Counts that are 0 in a calm job. */
static void print_troubles(json_t *figures, FILE *out)
{
    static const char *const troubles[][2] = {
        {"refused_total", "refused"},       {"malformed_total", "malformed"},
        {"denied_total", "denied"},         {"unsent_total", "unsent"},
        {"duplicates_total", "sent twice"},
    };
    for (size_t i = 0; i < sizeof(troubles) / sizeof(troubles[0]); i++)
        if (figure(figures, troubles[i][0]) > 0)
            fprintf(out, ", %s %.0f", troubles[i][1], figure(figures, troubles[i][0]));
    if (figure(figures, "stalled_seconds") > 0)
        fprintf(out, ", STALLED for %.1f s: it cannot store its rows",
                figure(figures, "stalled_seconds"));
}

static void print_server(json_t *figures, FILE *out)
{
    fprintf(out, "  rows %.0f", figure(figures, "rows"));
    if (figure(figures, "resident_rows") < figure(figures, "rows"))
        fprintf(out, " (%.0f in memory)", figure(figures, "resident_rows"));
    fputs(", memory ", out);
    print_bytes(figure(figures, "memory_bytes"), out);
    fputs(", disk ", out);
    print_bytes(figure(figures, "file_bytes"), out);
    fprintf(out, ", pulled %.0f, pushed %.0f", figure(figures, "rows_pulled_total"),
            figure(figures, "rows_pushed_total"));
    print_troubles(figures, out);
}

static void print_worker(json_t *root, long long rank, FILE *out)
{
    json_t *p = json_object_get(root, "progress");
    char name[64];
    snprintf(name, sizeof(name), "rank_%lld_samples_total", rank);
    if (json_object_get(p, name))
        fprintf(out, "  samples %.0f", figure(p, name));
}

/* What a state means for this role. */
static const char *state_of(json_t *member)
{
    static const char *const words[][3] = {
        {"ps", "in", "restores"},        {"ps", "ready", "serves"},  {"ps", "joined", "waits"},
        {"ps", "absent", "awaited"},     {"worker", "in", "trains"}, {"worker", "joined", "waits"},
        {"worker", "absent", "awaited"},
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(text_of(member, "role"), words[i][0]) == 0 &&
            strcmp(text_of(member, "state"), words[i][1]) == 0)
            return words[i][2];
    return text_of(member, "state");
}

static void print_member(json_t *root, json_t *member, FILE *out)
{
    json_t *end = json_object_get(member, "end"), *last = json_object_get(member, "last_end"),
           *figures = json_object_get(member, "figures");
    bool here =
        int_of(member, "pid") > 0 && !end && strcmp(text_of(member, "state"), "drained") != 0;
    fprintf(out, "%-7s %5lld  %-8s", text_of(member, "role"), int_of(member, "rank"),
            state_of(member));
    if (here)
        fprintf(out, " %6lld ms %8lld  %s", int_of(member, "silent_ms"), int_of(member, "pid"),
                text_of(member, "host"));
    if (is_true(member, "slow"))
        fputs("  SLOW", out);
    if (here && strcmp(text_of(member, "role"), "worker") == 0)
        print_worker(root, int_of(member, "rank"), out);
    else if (here && figures)
        print_server(figures, out);
    if (end)
        fprintf(out, "  %s %s", text_of(end, "status"), text_of(end, "text"));
    if (last)
        fprintf(out, "  (the one before: %s)", text_of(last, "text"));
    fputc('\n', out);
}

static void print_events(json_t *root, FILE *out)
{
    size_t i;
    json_t *event;
    json_array_foreach(json_object_get(root, "events"), i, event)
    {
        time_t seconds = (time_t)(int_of(event, "time_ms") / 1000);
        struct tm when;
        char text[32];
        strftime(text, sizeof(text), "%H:%M:%S", localtime_r(&seconds, &when));
        fprintf(out, "%s %s: %s\n", text, text_of(event, "level"), text_of(event, "text"));
    }
}

void schd_status_print(json_t *root, FILE *out)
{
    size_t i;
    json_t *member;
    print_head(root, out);
    print_progress(root, out);
    print_evaluation(root, out);
    print_snapshot(root, out);
    print_change(root, out);
    print_losses(root, out);
    fputs("role     rank  state    heard ago      pid  host\n", out);
    json_array_foreach(json_object_get(root, "members"), i, member) print_member(root, member, out);
    print_events(root, out);
}
