/* Scoring a data set with nothing but an export: no server, no job file.
 *
 * Samples come user by user, which is what makes reading them cheap (a user's history is computed
 * once), but lines are wanted in time order. So lines go to a scratch file as they come, with their
 * key (time, user, item), place and length remembered, 40 bytes a sample; at the end the keys are
 * sorted and the lines copied out in that order into the final file, which appears whole.
 *
 * Numbers are written with 9 significant digits: enough to give back the same float.
 */
#include "worker/score.h"

#include "cluster/file.h"
#include "cluster/job.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "model/a2gen.h"
#include "model/read.h"
#include "model/workspace.h"
#include "worker/batch.h"
#include "worker/evaluate.h"
#include "worker/export.h"
#include "worker/export_features.h"
#include "worker/reader.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 256, STREAM_BYTES = 1 << 20 };

struct line {
    int64_t time;
    uint64_t user, item; /* keys */
    uint64_t offset;
    uint32_t size_bytes;
};

struct run {
    struct wrk_export *export;
    struct wrk_dataset *dataset;
    const struct wrk_dataset_info *info;
    struct wrk_features features;
    struct mdl_config config;
    enum mdl_read_mode mode;
    struct wrk_reader *reader;
    struct wrk_batch *batch;
    void *workspace;
    size_t workspace_bytes;
    /* a batch's predictions */
    size_t capacity;
    float *p, *time, *sequence_time;
    int *sequence_length;
    uint8_t *sequence_action;
    /* the lines so far */
    FILE *scratch;
    char scratch_path[CLU_PATH_BYTES];
    uint64_t offset;
    struct line *lines;
    size_t n_lines, lines_capacity;
    char *text; /* the line being written */
    size_t text_size, text_capacity;
};

/* ---- one line ---- */

/* room for n more bytes */
static char *room(struct run *run, size_t n)
{
    if (run->text_size + n > run->text_capacity) {
        size_t capacity = (run->text_size + n) * 2 + 4096;
        char *larger = realloc(run->text, capacity);
        if (!larger)
            return NULL;
        run->text = larger;
        run->text_capacity = capacity;
    }
    return run->text + run->text_size;
}

static int put(struct run *run, const char *text)
{
    size_t n = strlen(text);
    char *at = room(run, n + 1);
    if (!at)
        return -1;
    memcpy(at, text, n + 1);
    run->text_size += n;
    return 0;
}

static int put_number(struct run *run, float value)
{
    char text[32];
    snprintf(text, sizeof(text), "%.9g", isfinite(value) ? (double)value : 0.0);
    return put(run, text);
}

/* text as a JSON string: quotes, control bytes and what is not UTF-8 escaped */
static int put_string(struct run *run, const char *text, size_t n)
{
    json_t *string = json_stringn(text, n);
    if (!string) { /* not UTF-8: bytes above 127 as the code point of the same number (Latin-1) */
        string = json_string("");
        char *utf8 = malloc(n * 2 + 1);
        size_t size = 0;
        for (size_t i = 0; utf8 && i < n; i++) {
            unsigned char byte = (unsigned char)text[i];
            if (byte >= 0x80)
                utf8[size++] = (char)(0xc0 | byte >> 6);
            utf8[size++] = (char)(byte >= 0x80 ? 0x80 | (byte & 0x3f) : byte);
        }
        if (string && utf8)
            json_string_setn(string, utf8, size);
        free(utf8);
    }
    char *dump = string ? json_dumps(string, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    json_decref(string);
    int failed = !dump || put(run, dump);
    free(dump);
    return failed;
}

static int put_sequence(struct run *run, const char *name, const uint8_t *actions,
                        const float *times, int n)
{
    int failed = put(run, name);
    for (int i = 0; i < n; i++) {
        const char *action = run->info->action[actions[i]];
        failed |= put(run, i ? ", [" : "[");
        failed |= put_string(run, action, strlen(action));
        failed |= put(run, ", ");
        failed |= put_number(run, times[i]);
        failed |= put(run, "]");
    }
    return failed | put(run, "]");
}

static int put_actions(struct run *run, const char *name, const float *values)
{
    int failed = put(run, name);
    for (int a = 2; a <= run->info->n_actions; a++) {
        const char *action = run->info->action[a];
        failed |= put(run, a > 2 ? ", " : "");
        failed |= put_string(run, action, strlen(action));
        failed |= put(run, ": ");
        failed |= put_number(run, values[a]);
    }
    return failed | put(run, "}");
}

static int put_sample(struct run *run, const struct wrk_samples *samples, int b)
{
    const struct wrk_id *user = &samples->user_id[samples->sample_user[b]];
    const struct wrk_id *item = &samples->item_id[samples->sample_item[b]];
    size_t n_classes = (size_t)run->info->n_actions + 1, m = (size_t)run->info->n_actions;
    char time[48];
    run->text_size = 0;
    int failed = put(run, "{\"user\": ");
    failed |= put_string(run, user->text, (size_t)user->size_bytes);
    failed |= put(run, ", \"item\": ");
    failed |= put_string(run, item->text, (size_t)item->size_bytes);
    snprintf(time, sizeof(time), ", \"time\": %" PRId64, samples->sample_time[b]);
    failed |= put(run, time);
    failed |= put_actions(run, ", \"p\": {", run->p + (size_t)b * n_classes);
    failed |= put_actions(run, ", \"t\": {", run->time + (size_t)b * n_classes);
    failed |= put_sequence(run, ", \"sequence\": [", run->sequence_action + (size_t)b * m,
                           run->sequence_time + (size_t)b * m, run->sequence_length[b]);
    int first = samples->target_offset[b];
    failed |= put_sequence(run, ", \"label\": [", samples->target_action + first,
                           samples->target_time + first, samples->target_offset[b + 1] - first);
    failed |= put(run, "}\n");
    return failed ? clu_fail(CLU_E_NO_MEMORY, "no memory for a line") : CLU_OK;
}

static int keep_line(struct run *run, const struct wrk_samples *samples, int b)
{
    if (run->n_lines == run->lines_capacity) {
        size_t capacity = run->lines_capacity * 2 + 1024;
        struct line *larger = realloc(run->lines, capacity * sizeof(*larger));
        if (!larger)
            return clu_fail(CLU_E_NO_MEMORY, "no memory for %zu lines", capacity);
        run->lines = larger;
        run->lines_capacity = capacity;
    }
    size_t user = (size_t)samples->sample_user[b], item = (size_t)samples->sample_item[b];
    run->lines[run->n_lines++] = (struct line){
        .time = samples->sample_time[b],
        .user = samples->user_value[user * (size_t)run->info->n_user_columns],
        .item = samples->item_value[item * (size_t)run->info->n_item_columns],
        .offset = run->offset,
        .size_bytes = (uint32_t)run->text_size,
    };
    run->offset += run->text_size;
    if (fwrite(run->text, 1, run->text_size, run->scratch) != run->text_size)
        return clu_fail(clu_status_from_errno(errno), "%s: cannot be written: %s",
                        run->scratch_path, strerror(errno));
    return CLU_OK;
}

/* ---- all samples ---- */

static int grow_outputs(struct run *run, size_t n)
{
    if (n <= run->capacity)
        return CLU_OK;
    size_t n_classes = (size_t)run->info->n_actions + 1;
    free(run->p);
    free(run->time);
    free(run->sequence_time);
    free(run->sequence_length);
    free(run->sequence_action);
    run->capacity = 0;
    run->p = malloc(n * n_classes * sizeof(float));
    run->time = malloc(n * n_classes * sizeof(float));
    run->sequence_time = malloc(n * n_classes * sizeof(float));
    run->sequence_length = malloc(n * sizeof(int));
    run->sequence_action = malloc(n * n_classes);
    if (!run->p || !run->time || !run->sequence_time || !run->sequence_length ||
        !run->sequence_action)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for %zu predictions", n);
    run->capacity = n;
    return CLU_OK;
}

static int score_samples(struct run *run, const struct wrk_samples *samples)
{
    struct wrk_row_source source = {wrk_export_fetch, run->export};
    int status = wrk_batch_fill(run->batch, samples, NULL);
    if (!status)
        status = wrk_fetch_batch(&source, run->batch);
    if (status)
        return status;
    const struct mdl_batch *view = wrk_batch_gather(run->batch);
    status = grow_outputs(run, (size_t)samples->n_samples);
    if (!status)
        status = mdl_workspace_grow(&run->workspace, &run->workspace_bytes,
                                    mdl_read_workspace_bytes(&run->config, view, run->mode));
    struct mdl_reading reading = {
        .p = run->p,
        .time = run->time,
        .sequence_length = run->sequence_length,
        .sequence_action = run->sequence_action,
        .sequence_time = run->sequence_time,
    };
    if (!status)
        status = mdl_a2gen_read(&run->config, wrk_export_params(run->export), view, run->mode,
                                run->workspace, &reading);
    for (int b = 0; b < samples->n_samples && !status; b++) {
        status = put_sample(run, samples, b);
        if (!status)
            status = keep_line(run, samples, b);
    }
    return status;
}

static int score_split(struct run *run)
{
    for (;;) {
        struct wrk_samples *samples = NULL;
        int status = wrk_reader_next(run->reader, &samples);
        if (status || !samples)
            return status;
        status = score_samples(run, samples);
        wrk_samples_free(samples);
        if (status)
            return status;
    }
}

/* ---- order ---- */

static int compare_lines(const void *a, const void *b)
{
    const struct line *x = a, *y = b;
    if (x->time != y->time)
        return x->time < y->time ? -1 : 1;
    if (x->user != y->user)
        return x->user < y->user ? -1 : 1;
    return (x->item > y->item) - (x->item < y->item);
}

static int write_sorted(struct run *run, const char *out_path)
{
    char part[CLU_PATH_BYTES];
    if (snprintf(part, sizeof(part), "%s.part", out_path) >= (int)sizeof(part))
        return clu_fail(CLU_E_CONFIG, "%s: the path is too long", out_path);
    if (run->n_lines)
        qsort(run->lines, run->n_lines, sizeof(*run->lines), compare_lines);
    char *map = NULL;
    if (run->offset) {
        map = mmap(NULL, (size_t)run->offset, PROT_READ, MAP_PRIVATE, fileno(run->scratch), 0);
        if (map == MAP_FAILED)
            return clu_fail(clu_status_from_errno(errno), "%s: cannot be mapped: %s",
                            run->scratch_path, strerror(errno));
    }
    FILE *out = fopen(part, "wb");
    int failed = !out;
    if (out)
        setvbuf(out, NULL, _IOFBF, STREAM_BYTES);
    for (size_t i = 0; i < run->n_lines && !failed; i++)
        failed = fwrite(map + run->lines[i].offset, 1, run->lines[i].size_bytes, out) !=
                 run->lines[i].size_bytes;
    if (out && fflush(out))
        failed = 1;
    int error = errno;
    if (out && fclose(out) && !failed) {
        failed = 1;
        error = errno;
    }
    if (map)
        munmap(map, (size_t)run->offset);
    if (failed) {
        unlink(part);
        return clu_fail(clu_status_from_errno(error), "%s: cannot be written: %s", part,
                        strerror(error));
    }
    return clu_rename_durable(part, out_path);
}

/* ---- the run ---- */

static int open_run(struct run *run, const struct wrk_score_options *options)
{
    int status = wrk_export_open(options->export_dir, true, &run->export);
    if (!status)
        status = wrk_dataset_open(options->data_dir, &run->dataset);
    if (status)
        return status;
    const struct wrk_manifest *manifest = wrk_export_manifest(run->export);
    run->info = wrk_dataset_info(run->dataset);
    run->config = manifest->config;
    status = mdl_read_mode_of(options->read ? options->read : manifest->read, &run->mode);
    if (!status)
        status = wrk_manifest_features(manifest, run->dataset, &run->features);
    struct wrk_reader_options reader = {
        .split = WRK_SPLIT_TEST,
        .batch = BATCH,
        .samples_per_user = BATCH,
        .history = run->config.history,
        .n_ranks = 1,
        .shuffle = false,
        .with_ids = true,
    };
    if (!status)
        status = wrk_reader_open(run->dataset, &reader, (struct wrk_position){0, 0}, &run->reader);
    if (!status)
        status = wrk_batch_create(&run->features, &run->batch);
    if (!status && snprintf(run->scratch_path, sizeof(run->scratch_path), "%s.scratch",
                            options->out_path) >= (int)sizeof(run->scratch_path))
        status = clu_fail(CLU_E_CONFIG, "%s: the path is too long", options->out_path);
    if (status)
        return status;
    run->scratch = fopen(run->scratch_path, "w+b");
    if (!run->scratch)
        return clu_fail(clu_status_from_errno(errno), "%s: cannot be created: %s",
                        run->scratch_path, strerror(errno));
    setvbuf(run->scratch, NULL, _IOFBF, STREAM_BYTES);
    return CLU_OK;
}

static void close_run(struct run *run)
{
    if (run->scratch) {
        fclose(run->scratch);
        unlink(run->scratch_path);
    }
    wrk_batch_free(run->batch);
    wrk_reader_close(run->reader);
    wrk_dataset_close(run->dataset);
    wrk_export_close(run->export);
    free(run->workspace);
    free(run->p);
    free(run->time);
    free(run->sequence_time);
    free(run->sequence_length);
    free(run->sequence_action);
    free(run->lines);
    free(run->text);
}

int wrk_score(const struct wrk_score_options *options, struct wrk_score_result *result_p)
{
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    mdl_blas_single_thread();
    struct run *run = calloc(1, sizeof(*run));
    if (!run)
        return clu_fail(CLU_E_NO_MEMORY, "no memory to score");
    int status = open_run(run, options);
    if (!status)
        status = score_split(run);
    if (!status && fflush(run->scratch))
        status = clu_fail(clu_status_from_errno(errno), "%s: cannot be written: %s",
                          run->scratch_path, strerror(errno));
    if (!status)
        status = write_sorted(run, options->out_path);
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (!status)
        *result_p = (struct wrk_score_result){
            .n_samples = run->n_lines,
            .seconds =
                (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) * 1e-9,
        };
    close_run(run);
    free(run);
    return status;
}
