/* Memory: a quarter may hold attributes, the spill has half of the rest while events are added and
 * a third of it while they are drained; what is left covers the sort, the frame in work and the
 * counting at the end. With counts of items events go through two spills, which share this.
 *
 * Counting needs an item's events of all users in order of time, timelines a user's of all items.
 * So events are brought together by item first, in a spill in which user and item have changed
 * places; drained, each event takes its item's counts along into the spill by user. The item values
 * of a pair are those of its first event: the counts of that moment. */
#include "worker/prepare.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/attributes.h"
#include "worker/counts.h"
#include "worker/event.h"
#include "worker/logfile.h"
#include "worker/spill.h"
#include "worker/timeline.h"
#include "worker/tolerance.h"
#include "worker/writer.h"

#include <string.h>
#include <time.h>

struct work {
    const struct wrk_prepare_options *options;
    const struct wrk_schema *schema;
    struct wrk_attributes *users, *items;
    struct wrk_spill *spill;   /* by user */
    struct wrk_spill *by_item; /* NULL: nothing is counted */
    int first_count;           /* place among the item values */
    struct wrk_writer *writer;
    struct wrk_timeline timeline;
    struct wrk_tolerance tolerance;
    struct wrk_prepare_report report;
};

/* user and item change places */
static void exchange(struct wrk_event *event)
{
    struct wrk_stored_id user = event->user;
    uint64_t value[WRK_MAX_COLUMNS];
    event->user = event->item;
    event->item = user;
    memcpy(value, event->user_value, sizeof(value));
    memcpy(event->user_value, event->item_value, sizeof(value));
    memcpy(event->item_value, value, sizeof(value));
}

static int take_row(struct work *work, const struct wrk_binding *binding, const struct wrk_row *row,
                    const char *path)
{
    struct wrk_event event;
    char text[512];
    switch (wrk_event_read(binding, row, &event, text, sizeof(text))) {
    case WRK_ROW_BAD:
        return wrk_tolerance_count(&work->tolerance, path, row->line, row->n_lines, text);
    case WRK_ROW_OUTSIDE:
        work->report.n_outside++;
        return CLU_OK;
    case WRK_ROW_OK:
        break;
    }
    bool joined = true;
    if (work->users)
        joined &= wrk_attributes_join(work->users, event.user.key, event.user_value);
    if (work->items)
        joined &= wrk_attributes_join(work->items, event.item.key, event.item_value);
    work->report.n_unjoined += !joined;
    if (!work->by_item)
        return wrk_spill_add(work->spill, &event);
    exchange(&event);
    return wrk_spill_add(work->by_item, &event);
}

/* the events of one item, oldest first, each with its places changed */
static int take_item(void *context, const struct wrk_record *const *records, size_t n)
{
    struct work *work = context;
    int n_user = work->schema->n_user_features, n_item = work->schema->n_item_features;
    struct wrk_counts counts;
    wrk_counts_begin(&counts, work->schema->n_actions);
    int status = CLU_OK;
    for (size_t i = 0; i < n && status == CLU_OK; i++) {
        struct wrk_event event = {.user = wrk_record_user(records[i], n_user + n_item),
                                  .item = wrk_record_item(records[i], n_user + n_item),
                                  .time_ms = records[i]->time_ms,
                                  .action = records[i]->action,
                                  .duration_s = records[i]->duration_s,
                                  .position_s = records[i]->position_s};
        memcpy(event.user_value, records[i]->value, (size_t)n_item * 8);
        memcpy(event.item_value, records[i]->value + n_item, (size_t)n_user * 8);
        exchange(&event);
        wrk_counts_next(&counts, event.time_ms, event.action, event.item_value + work->first_count);
        status = wrk_spill_add(work->spill, &event);
    }
    return status;
}

static int read_log(struct work *work, const char *path)
{
    struct wrk_logfile *file;
    int status = wrk_logfile_open(path, work->schema->delimiter, true, &file);
    if (status != CLU_OK)
        return status;
    struct wrk_binding binding;
    struct wrk_row row;
    bool more = true;
    if (work->schema->header) {
        status = wrk_logfile_next(file, &row, &more);
        if (status == CLU_OK && !more)
            clu_warn("%s: empty: not even a header line", path);
        if (status == CLU_OK && more && row.fault)
            status = clu_fail(CLU_E_DATA, "%s, line 1: expected a header: %s", path, row.fault);
    }
    if (status == CLU_OK && more)
        status = wrk_binding_init(&binding, work->schema, path, work->schema->header ? &row : NULL);
    while (status == CLU_OK && more) {
        status = wrk_logfile_next(file, &row, &more);
        if (status == CLU_OK && more)
            status = take_row(work, &binding, &row, path);
    }
    work->report.text_bytes += wrk_logfile_bytes(file);
    wrk_logfile_close(file);
    return status;
}

static int take_user(void *context, const struct wrk_record *const *records, size_t n)
{
    struct work *work = context;
    int status =
        wrk_timeline_build(&work->timeline, &work->schema->transform, work->schema->n_user_features,
                           work->schema->n_item_features, records, n);
    return status == CLU_OK ? wrk_writer_add(work->writer, &work->timeline) : status;
}

/* features without their file: unknown for everyone, which is rarely what is meant */
static int load_attributes(struct work *work, bool of_user)
{
    const char *path = of_user ? work->options->user_attributes : work->options->item_attributes;
    const char *whose = of_user ? "user" : "item";
    bool wanted = wrk_schema_wants_attributes(work->schema, of_user), given = path && path[0];
    if (given && !wanted)
        return clu_fail(CLU_E_USAGE, "--%s-attributes %s: schema %s reads no %s features from it",
                        whose, path, work->schema->name, whose);
    if (wanted && !given)
        clu_info("schema %s has %s features in an attribute file and none is given "
                 "(--%s-attributes FILE): they are unknown for every %s",
                 work->schema->name, whose, whose, whose);
    return given ? wrk_attributes_load(path, work->schema, of_user, work->options->memory_bytes / 4,
                                       &work->tolerance, of_user ? &work->users : &work->items)
                 : CLU_OK;
}

static int check(const struct wrk_prepare_options *options)
{
    if (!(options->split > 0 && options->split <= 1))
        return clu_fail(CLU_E_USAGE, "split: expected a number above 0 and at most 1");
    if (options->memory_bytes < WRK_MIN_MEMORY_BYTES)
        return clu_fail(CLU_E_USAGE, "memory: expected at least %llu MiB",
                        (unsigned long long)(WRK_MIN_MEMORY_BYTES >> 20));
    if (options->label_window_ms < 0)
        return clu_fail(CLU_E_USAGE, "label window: expected 0 or more seconds");
    return options->n_logs > 0 ? CLU_OK : clu_fail(CLU_E_USAGE, "no log given");
}

static int create_spills(struct work *work, uint64_t memory_bytes)
{
    const char *dir = wrk_writer_part_dir(work->writer);
    int n_user = work->schema->n_user_features, n_item = work->schema->n_item_features;
    work->first_count = wrk_counts_first(work->schema);
    if (work->first_count < 0)
        return wrk_spill_create(dir, memory_bytes, n_user, n_item, &work->spill);
    int status = wrk_spill_create(dir, memory_bytes / 2, n_user, n_item, &work->spill);
    return status ? status
                  : wrk_spill_create(dir, memory_bytes / 2, n_item, n_user, &work->by_item);
}

static void free_spill(struct work *work, struct wrk_spill **spill)
{
    if (*spill)
        work->report.spill_bytes += wrk_spill_file_bytes(*spill);
    wrk_spill_free(*spill);
    *spill = NULL;
}

static int run(struct work *work)
{
    const struct wrk_prepare_options *options = work->options;
    struct wrk_writer_options writer = {.dir = options->dir,
                                        .schema = options->schema,
                                        .split = options->split,
                                        .label_window_ms = options->label_window_ms,
                                        .memory_bytes = options->memory_bytes};
    int status = wrk_writer_open(&writer, &work->writer);
    if (status == CLU_OK)
        status = load_attributes(work, true);
    if (status == CLU_OK)
        status = load_attributes(work, false);
    bool joins = work->users || work->items;
    if (status == CLU_OK)
        status = create_spills(work, options->memory_bytes / 4 * (joins ? 2 : 3));
    for (int i = 0; i < options->n_logs && status == CLU_OK; i++)
        status = read_log(work, options->logs[i]);
    wrk_attributes_free(work->users);
    wrk_attributes_free(work->items);
    work->users = work->items = NULL;
    if (status == CLU_OK && work->by_item)
        status = wrk_spill_drain(work->by_item, take_item, work);
    free_spill(work, &work->by_item);
    if (status == CLU_OK)
        status = wrk_spill_drain(work->spill, take_user, work);
    free_spill(work, &work->spill);
    wrk_timeline_fini(&work->timeline);
    work->report.n_bad = work->tolerance.n_bad;
    if (status != CLU_OK) {
        wrk_writer_abandon(work->writer);
        return status;
    }
    return wrk_writer_commit(work->writer, work->report.n_bad + work->report.n_outside,
                             &work->report.info);
}

int wrk_prepare(const struct wrk_prepare_options *options, struct wrk_prepare_report *report_p)
{
    int status = check(options);
    if (status != CLU_OK)
        return status;
    struct work work = {.options = options, .schema = options->schema};
    work.tolerance.max_bad = options->max_bad;
    wrk_timeline_init(&work.timeline);
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    status = run(&work);
    clock_gettime(CLOCK_MONOTONIC, &to);
    if (status != CLU_OK)
        return status;
    work.report.seconds =
        (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) * 1e-9;
    if (report_p)
        *report_p = work.report;
    return CLU_OK;
}
