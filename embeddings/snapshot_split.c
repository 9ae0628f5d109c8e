/* See the header. The files of a pass are those of consecutive shards, whose buckets the merge is
 * asked for; so with buckets dealt in runs, as a fresh map deals them, every byte of the old files
 * is read about once, however many passes there are.
 */
#include "embeddings/snapshot_split.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/row.h"
#include "embeddings/snapshot_file.h"
#include "embeddings/snapshot_merge.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TELL_ROWS = 1 << 16 };
static const uint64_t reader_bytes = (uint64_t)5 << 18, writer_bytes = (uint64_t)4 << 20;

struct split {
    const struct emb_split_options *options;
    struct emb_snapshot_merge *merge;
    struct emb_snapshot_writer **writers; /* [n_out]; of this pass, else NULL */
    int first, end;                       /* shards of this pass */
    int done_before;                      /* shards of earlier passes */
    uint64_t hash[EMB_MAX_TABLES];
    size_t value_bytes[EMB_MAX_TABLES];
    char *value; /* count, then the raw value */
    uint64_t n_rows;
};

static int open_pass(struct split *s)
{
    const struct emb_split_options *o = s->options;
    uint8_t buckets[EMB_BUCKET_BYTES] = {0};
    for (uint32_t b = 0; b < CLU_N_BUCKETS; b++)
        if (o->shard_of[b] >= s->first && o->shard_of[b] < s->end)
            emb_bucket_add(buckets, b);
    int status = emb_snapshot_merge_open(o->in, o->n_in, buckets, &s->merge);
    if (status)
        return status;
    const struct emb_snapshot_info *info = emb_snapshot_merge_info(s->merge);
    size_t largest = 0;
    for (int t = 0; t < info->n_tables; t++) {
        s->hash[t] = clu_table_hash(info->tables[t].name);
        s->value_bytes[t] = emb_value_bytes(&info->tables[t]);
        largest = s->value_bytes[t] > largest ? s->value_bytes[t] : largest;
    }
    free(s->value);
    s->value = malloc(largest + 1);
    if (!s->value)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a row");
    for (int i = s->first; i < s->end && !status; i++)
        status = emb_snapshot_writer_open(o->out[i], info, &s->writers[i]);
    return status;
}

static void tell(const struct split *s)
{
    uint64_t read, total;
    if (!s->options->progress)
        return;
    emb_snapshot_merge_progress(s->merge, &read, &total);
    double pass = total ? (double)read / (double)total : 1;
    s->options->progress(s->options->context,
                         (s->done_before + pass * (s->end - s->first)) / s->options->n_out,
                         s->n_rows);
}

static int write_entry(struct split *s, const struct emb_row *row, const void *value,
                       bool is_candidate)
{
    const int t = row->table;
    struct emb_snapshot_writer *writer =
        s->writers[s->options->shard_of[clu_bucket_of(s->hash[t], row->key)]];
    if (is_candidate)
        return emb_snapshot_writer_candidate(writer, t, row->key, row->count);
    emb_value_set_u32(s->value, EMB_VALUE_COUNT, row->count);
    memcpy(s->value + EMB_VALUE_STEP, value, s->value_bytes[t] - EMB_VALUE_STEP);
    if (++s->n_rows % TELL_ROWS == 0)
        tell(s);
    return emb_snapshot_writer_row(writer, t, row->key, s->value);
}

static int copy_rows(struct split *s)
{
    for (;;) {
        struct emb_row row;
        const void *value;
        bool is_candidate;
        int status = emb_snapshot_merge_entry(s->merge, &row, &value, &is_candidate);
        if (status == CLU_E_NOT_FOUND)
            return CLU_OK;
        if (!status)
            status = write_entry(s, &row, value, is_candidate);
        if (status)
            return status;
    }
}

static int finish_pass(struct split *s, struct emb_snapshot_result *results_p)
{
    const uint64_t step = emb_snapshot_merge_info(s->merge)->step;
    for (int i = s->first; i < s->end; i++) {
        struct emb_snapshot_result *r = &results_p[i];
        struct emb_snapshot_written written;
        int status = emb_snapshot_writer_finish(s->writers[i], &written);
        s->writers[i] = NULL; /* gone either way */
        if (status)
            return status;
        *r = (struct emb_snapshot_result){.step = step,
                                          .n_rows = written.n_rows,
                                          .n_tombstones = written.n_tombstones,
                                          .size_bytes = written.size_bytes,
                                          .checksum = written.checksum};
    }
    tell(s);
    return CLU_OK;
}

/* How many new files may be open at once. */
static int files_a_pass(const struct emb_split_options *o, int *n_p)
{
    const uint64_t reading = o->n_in * reader_bytes, least = reading + writer_bytes;
    if (o->memory_bytes < least)
        return clu_fail(CLU_E_CONFIG,
                        "%zu snapshot files are read at once: that takes %llu MiB of memory, %llu "
                        "are allowed",
                        o->n_in, (unsigned long long)(least >> 20) + 1,
                        (unsigned long long)(o->memory_bytes >> 20));
    uint64_t n = (o->memory_bytes - reading) / writer_bytes;
    *n_p = n < (uint64_t)o->n_out ? (int)n : o->n_out;
    return CLU_OK;
}

int emb_snapshot_split(const struct emb_split_options *options,
                       struct emb_snapshot_result *results_p)
{
    int n_pass = 0;
    int status = files_a_pass(options, &n_pass);
    if (status)
        return status;
    struct split s = {.options = options};
    s.writers = calloc((size_t)options->n_out, sizeof(struct emb_snapshot_writer *));
    if (!s.writers)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for %d files", options->n_out);
    while (s.end < options->n_out && !status) {
        s.first = s.done_before = s.end;
        s.end = options->n_out - s.first > n_pass ? s.first + n_pass : options->n_out;
        status = open_pass(&s);
        if (!status)
            status = copy_rows(&s);
        if (!status)
            status = finish_pass(&s, results_p);
        for (int i = s.first; i < s.end; i++)
            emb_snapshot_writer_abort(s.writers[i]);
        emb_snapshot_merge_close(s.merge);
        s.merge = NULL;
    }
    for (int i = 0; i < s.end && status; i++)
        (void)unlink(options->out[i]);
    free(s.value);
    free(s.writers);
    return status;
}
