/* The figures of the scores are computed from the lines themselves, as an outsider would: P and T
 * against the label in the same line. They must equal the workers' evaluation to rounding, since
 * the exported model is the trained one; a difference would mean that export, rows or scoring
 * changed something, so both stand in the table side by side. */
#include "worker/report.h"

#include "cluster/file.h"
#include "cluster/hash.h"
#include "cluster/job.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "model/metrics.h"
#include "worker/dataset.h"
#include "worker/json_file.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct report {
    const struct wrk_report_options *options;
    json_t *evaluation;                             /* last line of eval.jsonl */
    json_t *document;                               /* what report.json will hold */
    char action[WRK_MAX_ACTIONS][WRK_ACTION_BYTES]; /* in the evaluation's order */
    int n_actions;
    struct mdl_metrics *metrics; /* of the scores, one slot an action */
    size_t n_scored;
};

/* ---- lines of JSON ---- */

/* Calls take on every line of OUT/name. */
static int each_line(struct report *report, const char *name,
                     int (*take)(struct report *report, json_t *line))
{
    char path[CLU_PATH_BYTES];
    int status = clu_path_join(path, sizeof(path), report->options->out, name);
    if (status != CLU_OK)
        return status;
    FILE *file = fopen(path, "r");
    if (!file)
        return clu_fail(clu_status_from_errno(errno), "cannot open %s: %s", path, strerror(errno));
    char *text = NULL;
    size_t capacity = 0;
    for (size_t number = 1; status == CLU_OK && getline(&text, &capacity, file) > 0; number++) {
        json_error_t error;
        json_t *line = json_loads(text, 0, &error);
        status = line ? take(report, line) : CLU_E_DATA;
        if (status == CLU_E_DATA)
            clu_error("%s, line %zu: not a line as expected: %.120s", path, number,
                      line ? text : error.text);
        json_decref(line);
    }
    if (status == CLU_OK && ferror(file))
        status = clu_fail(CLU_E_IO, "cannot read %s", path);
    free(text);
    fclose(file);
    return status;
}

static int take_evaluation(struct report *report, json_t *line)
{
    if (!json_is_object(json_object_get(line, "actions")))
        return CLU_E_DATA;
    json_decref(report->evaluation);
    report->evaluation = json_incref(line);
    return CLU_OK;
}

/* The value of "name" in an object of numbers; NaN where it is null or not there. */
static double number_of(const json_t *object, const char *name)
{
    json_t *value = json_object_get(object, name);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static json_t *json_of(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* ---- scores ---- */

static int name_actions(struct report *report)
{
    const char *name;
    json_t *figures;
    json_object_foreach(json_object_get(report->evaluation, "actions"), name, figures)
    {
        if (report->n_actions == WRK_MAX_ACTIONS || strlen(name) >= WRK_ACTION_BYTES)
            return clu_fail(CLU_E_DATA, "eval.jsonl names more actions than a data set can have");
        strcpy(report->action[report->n_actions++], name);
    }
    return mdl_metrics_create(report->n_actions, 0, &report->metrics);
}

/* The time of an action in a list of [action, T]; NaN when it is not in it. */
static double label_time(const json_t *label, const char *action)
{
    size_t i;
    json_t *token;
    json_array_foreach(label, i, token)
    {
        const char *name = json_string_value(json_array_get(token, 0));
        if (name && strcmp(name, action) == 0)
            return json_number_value(json_array_get(token, 1));
    }
    return NAN;
}

static int take_score(struct report *report, json_t *line)
{
    json_t *p = json_object_get(line, "p"), *t = json_object_get(line, "t");
    json_t *label = json_object_get(line, "label"), *user = json_object_get(line, "user");
    if (!json_is_object(p) || !json_is_object(t) || !json_is_array(label) || !user)
        return CLU_E_DATA;
    char *user_text = json_dumps(user, JSON_ENCODE_ANY);
    if (!user_text)
        return clu_fail(CLU_E_NO_MEMORY, "no memory to read the scores");
    uint64_t user_key = clu_hash_bytes(user_text, strlen(user_text));
    free(user_text);
    for (int a = 0; a < report->n_actions; a++) {
        double probability = number_of(p, report->action[a]);
        double truth = label_time(label, report->action[a]);
        if (!isfinite(probability))
            return CLU_E_DATA;
        int status =
            mdl_metrics_add(report->metrics, a, user_key, (float)probability, isfinite(truth));
        if (status != CLU_OK)
            return status;
        if (isfinite(truth))
            mdl_metrics_add_time(report->metrics, a, (float)number_of(t, report->action[a]),
                                 (float)truth);
    }
    report->n_scored++;
    return CLU_OK;
}

static int add_actions(struct report *report, FILE *stream)
{
    json_t *actions = json_object();
    json_object_set_new(report->document, "actions", actions);
    fprintf(stream, "%-12s %9s  %8s %8s %8s  %8s %8s %8s\n", "", "", "AUC", "AUC", "AUC", "MAE",
            "MAE", "MAE");
    fprintf(stream, "%-12s %9s  %8s %8s %8s  %8s %8s %8s\n", "action", "positives", "trained",
            "scored", "best", "trained", "scored", "best");
    for (int a = 0; a < report->n_actions; a++) {
        const char *name = report->action[a];
        json_t *trained = json_object_get(json_object_get(report->evaluation, "actions"), name);
        struct mdl_figures scored;
        int status = mdl_metrics_figures(report->metrics, a, &scored);
        if (status != CLU_OK)
            return status;
        if (!isfinite(number_of(trained, "auc")))
            scored.auc = NAN; /* what the evaluation does not rank is not ranked here */
        const double cells[] = {
            number_of(trained, "auc"),      scored.auc, number_of(trained, "best_auc"),
            number_of(trained, "time_mae"), scored.mae, number_of(trained, "best_time_mae")};
        static const char *const names[] = {"auc",      "scored_auc", "best_auc",
                                            "time_mae", "scored_mae", "best_time_mae"};
        json_t *entry = json_pack("{s:I}", "positives", (json_int_t)scored.n_positive);
        json_object_set_new(actions, name, entry);
        fprintf(stream, "%-12s %9llu ", name, (unsigned long long)scored.n_positive);
        for (int i = 0; i < 6; i++) {
            char cell[32] = "-";
            if (isfinite(cells[i]))
                snprintf(cell, sizeof(cell), "%.4f", cells[i]);
            fprintf(stream, "%s%8s", i == 3 ? "  " : " ", cell);
            json_object_set_new(entry, names[i], json_of(cells[i]));
        }
        fputc('\n', stream);
    }
    return CLU_OK;
}

/* ---- training ---- */

static int take_metrics(struct report *report, json_t *line)
{
    const char *kind = json_string_value(json_object_get(line, "kind"));
    if (!kind)
        return CLU_E_DATA;
    json_t *intervals = json_object_get(report->document, "intervals");
    return strcmp(kind, "progress") == 0 && json_array_append(intervals, line) != 0
               ? CLU_E_NO_MEMORY
               : CLU_OK;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median over the intervals of a figure; NaN without any. */
static double median_of(const json_t *intervals, const char *name)
{
    size_t n = json_array_size(intervals), m = 0;
    double *values = malloc((n + 1) * sizeof(*values));
    for (size_t i = 0; values && i < n; i++) {
        double value = number_of(json_array_get(intervals, i), name);
        if (isfinite(value))
            values[m++] = value;
    }
    if (m > 0)
        qsort(values, m, sizeof(*values), by_value);
    double median = m > 0 ? values[m / 2] : NAN;
    free(values);
    return median;
}

static void add_training(struct report *report, FILE *stream)
{
    json_t *intervals = json_object_get(report->document, "intervals");
    size_t n = json_array_size(intervals);
    const json_t *first = json_array_get(intervals, 0), *last = json_array_get(intervals, n - 1);
    double rate = median_of(intervals, "samples_per_second");
    double wait = median_of(intervals, "pull_wait_share");
    json_object_set_new(report->document, "training",
                        json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "steps",
                                  json_of(number_of(last, "step")), "samples",
                                  json_of(number_of(last, "samples")), "samples_per_second",
                                  json_of(rate), "pull_wait_share", json_of(wait), "first_loss",
                                  json_of(number_of(first, "loss")), "last_loss",
                                  json_of(number_of(last, "loss"))));
    fprintf(stream,
            "\ntraining: %.0f steps, %.0f samples, %.0f samples/s (median of %zu intervals), loss "
            "%.4f to %.4f, "
            "%.1f%% of the time waiting for rows\n",
            number_of(last, "step"), number_of(last, "samples"), rate, n, number_of(first, "loss"),
            number_of(last, "loss"), 100 * wait);
    fprintf(stream,
            "evaluation: %.0f test samples read %s by the workers, %zu scored from the export in a "
            "fresh process\n",
            number_of(report->evaluation, "samples"),
            json_string_value(json_object_get(report->evaluation, "read")), report->n_scored);
}

static void add_places(struct report *report, FILE *stream)
{
    const struct wrk_report_options *options = report->options;
    static const char *const places[][2] = {
        {"job", "job.yaml"},          {"run", "run"},
        {"snapshot", "run/snapshot"}, {"export", "export"},
        {"scores", "scores.jsonl"},   {"report", "report.json"},
    };
    json_t *object = json_pack("{s:s}", "data", options->data);
    fprintf(stream, "\n%-9s %s\n", "data", options->data);
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        char path[CLU_PATH_BYTES];
        if (clu_path_join(path, sizeof(path), options->out, places[i][1]) == CLU_OK) {
            json_object_set_new(object, places[i][0], json_string(path));
            fprintf(stream, "%-9s %s\n", places[i][0], path);
        }
    }
    json_object_set_new(report->document, "places", object);
    if (options->total_seconds >= 0) {
        json_object_set_new(report->document, "build_seconds", json_real(options->build_seconds));
        json_object_set_new(report->document, "total_seconds", json_real(options->total_seconds));
        fprintf(stream, "\n%.0f s in all, %.0f s of them for packages and build\n",
                options->total_seconds, options->build_seconds);
    }
}

static int save(struct report *report)
{
    char path[CLU_PATH_BYTES];
    int status = clu_path_join(path, sizeof(path), report->options->out, "report.json");
    if (status != CLU_OK)
        return status;
    json_object_set(report->document, "evaluation", report->evaluation);
    json_object_set_new(report->document, "scored_samples",
                        json_integer((json_int_t)report->n_scored));
    return wrk_json_save(path, json_incref(report->document), 9);
}

int wrk_report(const struct wrk_report_options *options, FILE *stream)
{
    struct report report = {.options = options};
    report.document = json_pack("{s:[]}", "intervals");
    int status = report.document ? CLU_OK : clu_fail(CLU_E_NO_MEMORY, "no memory for a report");
    if (status == CLU_OK)
        status = each_line(&report, "run/eval.jsonl", take_evaluation);
    if (status == CLU_OK && !report.evaluation)
        status = clu_fail(CLU_E_DATA, "%s/run/eval.jsonl is empty", options->out);
    if (status == CLU_OK)
        status = name_actions(&report);
    if (status == CLU_OK)
        status = each_line(&report, "run/metrics.jsonl", take_metrics);
    if (status == CLU_OK)
        status = each_line(&report, "scores.jsonl", take_score);
    if (status == CLU_OK)
        status = add_actions(&report, stream);
    if (status == CLU_OK) {
        add_training(&report, stream);
        add_places(&report, stream);
        status = save(&report);
    }
    mdl_metrics_free(report.metrics);
    json_decref(report.evaluation);
    json_decref(report.document);
    return status;
}
