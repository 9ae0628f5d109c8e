/* Memory: a quarter may hold attributes, the spill has half of the rest while events are added and
 * a third of it while they are drained; what is left covers the sort, the frame in work and the
 * counting at the end. */
#include "worker/prepare.h"

#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/attributes.h"
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
    struct wrk_spill *spill;
    struct wrk_writer *writer;
    struct wrk_timeline timeline;
    struct wrk_tolerance tolerance;
    struct wrk_prepare_report report;
};

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
    return wrk_spill_add(work->spill, &event);
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
        status = wrk_spill_create(
            wrk_writer_part_dir(work->writer), options->memory_bytes / 4 * (joins ? 2 : 3),
            work->schema->n_user_features, work->schema->n_item_features, &work->spill);
    for (int i = 0; i < options->n_logs && status == CLU_OK; i++)
        status = read_log(work, options->logs[i]);
    wrk_attributes_free(work->users);
    wrk_attributes_free(work->items);
    work->users = work->items = NULL;
    if (status == CLU_OK)
        status = wrk_spill_drain(work->spill, take_user, work);
    if (work->spill)
        work->report.spill_bytes = wrk_spill_file_bytes(work->spill);
    wrk_spill_free(work->spill);
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
