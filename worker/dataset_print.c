/* The data set part of `inspect`: one list of figures, written as lines or as JSON. */
#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/dataset.h"
#include "worker/dataset_internal.h"
#include "worker/json_file.h"

#include <inttypes.h>
#include <jansson.h>
#include <time.h>

static void time_text(int64_t time_ms, char out[32])
{
    time_t seconds = (time_t)wrk_second_of(time_ms);
    struct tm tm;
    if (!gmtime_r(&seconds, &tm) || strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        snprintf(out, 32, "?");
}

static uint64_t stored_bytes(const struct wrk_dataset *dataset)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < dataset->manifest.n_shards; i++)
        bytes += dataset->manifest.shard[i].size_bytes;
    return bytes;
}

static int print_json(const struct wrk_dataset *dataset, FILE *stream)
{
    const struct wrk_dataset_info *info = &dataset->manifest.info;
    char first[32], last[32], split[32];
    time_text(info->first_time, first);
    time_text(info->last_time, last);
    time_text(info->split_time, split);
    json_t *with = json_object();
    for (int a = 1; a <= info->n_actions; a++)
        json_object_set_new(with, info->action[a],
                            json_integer((json_int_t)info->n_with_action[a]));
    json_t *json = json_pack(
        "{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:s,s:s,s:f,s:I,s:b,s:o,s:o,s:o,s:I}",
        "kind", "data set", "dir", dataset->dir, "schema", info->schema, "events",
        (json_int_t)info->n_events, "skipped", (json_int_t)info->n_skipped, "users",
        (json_int_t)info->n_users, "items", (json_int_t)info->n_items, "pairs",
        (json_int_t)info->n_pairs, "samples", (json_int_t)info->n_pairs, "train",
        (json_int_t)info->n_train, "test", (json_int_t)info->n_test, "first_time", first,
        "last_time", last, "split_time", split, "split", info->split, "label_window_ms",
        (json_int_t)info->label_window_ms, "has_truth", info->has_truth, "pairs_with_action", with,
        "user_columns", wrk_columns_json(info->user_column, info->n_user_columns), "item_columns",
        wrk_columns_json(info->item_column, info->n_item_columns), "bytes",
        (json_int_t)stored_bytes(dataset));
    return wrk_json_print(json, stream);
}

static void print_columns(const char *whose, const struct wrk_column *columns, int n, FILE *stream)
{
    fprintf(stream, "%s columns ", whose);
    for (int i = 0; i < n; i++)
        fprintf(stream, "%s%s%s", i ? ", " : "", columns[i].name,
                columns[i].kind == WRK_COLUMN_NUMERIC ? " (numeric)" : "");
    fprintf(stream, "\n");
}

int wrk_dataset_print(const struct wrk_dataset *dataset, bool json, FILE *stream)
{
    if (json)
        return print_json(dataset, stream);
    const struct wrk_dataset_info *info = &dataset->manifest.info;
    char first[32], last[32], split[32];
    time_text(info->first_time, first);
    time_text(info->last_time, last);
    time_text(info->split_time, split);
    fprintf(stream, "data set     %s (schema %s)\n", dataset->dir, info->schema);
    fprintf(stream, "events       %" PRIu64 ", %" PRIu64 " lines skipped\n", info->n_events,
            info->n_skipped);
    fprintf(stream, "users        %" PRIu64 "\nitems        %" PRIu64 "\n", info->n_users,
            info->n_items);
    fprintf(stream, "samples      %" PRIu64 " (pairs): %" PRIu64 " train, %" PRIu64 " test\n",
            info->n_pairs, info->n_train, info->n_test);
    fprintf(stream, "time         %s to %s, split at %s (%g)\n", first, last, split, info->split);
    for (int a = 1; a <= info->n_actions; a++)
        fprintf(stream, "%s%-12s %12" PRIu64 " pairs, %6.2f %%\n",
                a == 1 ? "actions      " : "             ", info->action[a], info->n_with_action[a],
                100.0 * (double)info->n_with_action[a] / (double)info->n_pairs);
    print_columns("user", info->user_column, info->n_user_columns, stream);
    print_columns("item", info->item_column, info->n_item_columns, stream);
    if (info->label_window_ms)
        fprintf(stream, "label window %g s\n", (double)info->label_window_ms / 1000);
    fprintf(stream,
            "stored       %" PRIu64 " bytes in %zu shards, %zu frames, %.1f bytes an event\n",
            stored_bytes(dataset), dataset->manifest.n_shards, dataset->n_frames,
            (double)stored_bytes(dataset) / (double)info->n_events);
    if (info->has_truth)
        fprintf(stream, "truth        test samples carry their true probabilities\n");
    return CLU_OK;
}
