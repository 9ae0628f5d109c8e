/* Snapshots and exports seen through one small set of questions.
 *
 * A snapshot has no index by key: looking a row up walks its files once (sequential, hundreds of
 * MB/s), which is what a person who asks can wait for; an export answers from LMDB at once.
 */
#include "worker/export_inspect.h"

#include "cluster/file.h"
#include "cluster/hash.h"
#include "cluster/job.h"
#include "cluster/log.h"
#include "cluster/snapshot.h"
#include "cluster/status.h"
#include "embeddings/snapshot.h"
#include "worker/export.h"
#include "worker/inspect_tables.h"
#include "worker/safetensors.h"
#include "worker/state.h"
#include "worker/state_rows.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { KIND_SNAPSHOT = 1, KIND_EXPORT = 2 };

struct digest {
    uint64_t kind, step, epoch, batch, samples_done, n_rows, row_sum, dense;
};

_Static_assert(sizeof(struct digest) == 64, "hashed as it lies in memory");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "hashed as little-endian");

/* ---- digest ---- */

/* chains every tensor of a file into *hash_p */
static int add_dense(const char *folder, const char *name, uint64_t *hash_p)
{
    char path[CLU_PATH_BYTES];
    struct wrk_safetensors *file = NULL;
    int status = clu_path_join(path, sizeof(path), folder, name);
    if (!status)
        status = wrk_safetensors_open(path, &file);
    if (status)
        return status;
    for (size_t i = 0; i < wrk_safetensors_count(file); i++) {
        const struct wrk_tensor *tensor = wrk_safetensors_at(file, i);
        size_t n = (tensor->rows ? tensor->rows : 1) * tensor->cols;
        uint64_t link[5] = {*hash_p, clu_hash_bytes(tensor->name, strlen(tensor->name)),
                            tensor->rows, tensor->cols,
                            clu_hash_bytes(tensor->data, n * sizeof(float))};
        *hash_p = clu_hash_bytes(link, sizeof(link));
    }
    wrk_safetensors_close(file);
    return CLU_OK;
}

static int digest_snapshot(const char *folder, struct digest *digest)
{
    struct wrk_state state;
    int status = wrk_state_position(folder, &state);
    if (status)
        return status;
    *digest = (struct digest){KIND_SNAPSHOT,      state.step, state.epoch, state.batch,
                              state.samples_done, 0,          0,           0};
    status = add_dense(folder, WRK_STATE_DENSE_FILE, &digest->dense);
    if (!status)
        status = add_dense(folder, WRK_STATE_RESUME_FILE, &digest->dense);
    struct wrk_state_rows *rows = NULL;
    if (!status)
        status = wrk_state_rows_open(folder, &rows);
    while (!status) {
        struct emb_row row;
        status = wrk_state_rows_next(rows, &row);
        if (status)
            break;
        digest->n_rows++;
        digest->row_sum += emb_row_digest(wrk_state_rows_table(rows, row.table)->name, &row);
    }
    wrk_state_rows_close(rows);
    return status == CLU_E_NOT_FOUND ? CLU_OK : status;
}

struct row_sum {
    struct digest *digest;
    uint64_t table_hash;
    int dim;
};

static int add_row(void *context, uint64_t key, const float *row)
{
    struct row_sum *sum = context;
    uint64_t link[3] = {sum->table_hash, key,
                        clu_hash_bytes(row, (size_t)sum->dim * sizeof(float))};
    sum->digest->n_rows++;
    sum->digest->row_sum += clu_hash_bytes(link, sizeof(link));
    return CLU_OK;
}

static int digest_export(const char *path, struct digest *digest)
{
    struct wrk_export *export = NULL;
    int status = wrk_export_open(path, true, &export);
    if (status)
        return status;
    const struct wrk_manifest *manifest = wrk_export_manifest(export);
    *digest = (struct digest){.kind = KIND_EXPORT, .step = manifest->step};
    status = add_dense(path, WRK_STATE_DENSE_FILE, &digest->dense);
    for (int t = 0; t < manifest->n_tables && !status; t++) {
        struct row_sum sum = {digest, clu_table_hash(manifest->table[t].name),
                              manifest->table[t].dim};
        status = wrk_export_each_row(export, t, add_row, &sum);
    }
    wrk_export_close(export);
    return status;
}

int wrk_inspect_digest(const char *path, uint64_t *digest_p)
{
    struct digest digest;
    char folder[CLU_PATH_BYTES];
    int status;
    if (wrk_export_is_one(path)) {
        status = digest_export(path, &digest);
    } else {
        status = wrk_export_find_snapshot(path, folder);
        if (!status)
            status = digest_snapshot(folder, &digest);
    }
    if (!status)
        *digest_p = clu_hash_bytes(&digest, sizeof(digest));
    return status;
}

/* ---- what it is ---- */

static void print_manifest(const struct wrk_manifest *manifest, FILE *stream)
{
    const struct mdl_config *config = &manifest->config;
    fprintf(stream, "model      %s, width %d, %d heads, history %d, reading %s\n", manifest->model,
            config->width, config->heads, config->history, manifest->read);
    fprintf(stream, "actions   ");
    for (int a = 0; a < manifest->n_actions; a++)
        fprintf(stream, " %s", manifest->action[a]);
    fprintf(stream, "\nuser       %d columns, %d numbers\nitem       %d columns, %d numbers\n",
            manifest->n_user_columns, config->user_dim, manifest->n_item_columns, config->item_dim);
    if (manifest->n_counts)
        fprintf(stream, "history    its counts are the last %d numbers of the user\n",
                manifest->n_counts);
}

static int describe_export(const char *path, bool verify, bool json, FILE *stream)
{
    struct wrk_export *export = NULL;
    int status = wrk_export_open(path, verify, &export);
    if (status)
        return status;
    const struct wrk_manifest *manifest = wrk_export_manifest(export);
    if (json) {
        json_t *object = wrk_manifest_to_json(manifest);
        if (object)
            json_object_set_new(object, "kind", json_string("export"));
        if (!object || json_dumpf(object, stream, JSON_COMPACT) || fputc('\n', stream) == EOF)
            status = clu_fail(CLU_E_IO, "the description cannot be written");
        json_decref(object);
    } else {
        fprintf(stream, "export     %s, step %" PRIu64 "%s\n", path, manifest->step,
                verify ? ", checksums right" : "");
        print_manifest(manifest, stream);
        for (int t = 0; t < manifest->n_tables; t++)
            fprintf(stream, "table      %s: %" PRIu64 " rows of %d\n", manifest->table[t].name,
                    manifest->table[t].count, manifest->table[t].dim);
    }
    wrk_export_close(export);
    return status;
}

/* what one link of a chain adds: rows written, rows buried, bytes under rows/ */
struct link_figures {
    uint64_t n_rows, n_tombstones, row_bytes;
};

static int measure_link(const struct clu_snapshot_link *link, struct link_figures *figures)
{
    const struct clu_snapshot alone = {1, (struct clu_snapshot_link *)link};
    const char **paths;
    size_t n;
    int status = clu_snapshot_row_files(&alone, &paths, &n);
    if (status)
        return status;
    *figures = (struct link_figures){.row_bytes = clu_manifest_bytes(&link->manifest, "rows/")};
    for (size_t i = 0; i < n && !status; i++) {
        struct emb_snapshot_reader *reader = NULL;
        struct emb_snapshot_totals totals;
        status = emb_snapshot_reader_open(paths[i], &reader);
        if (!status)
            status = emb_snapshot_reader_totals(reader, &totals);
        if (!status) {
            figures->n_rows += totals.n_rows;
            figures->n_tombstones += totals.n_tombstones;
        }
        emb_snapshot_reader_close(reader);
    }
    free(paths);
    return status;
}

struct described {
    struct clu_snapshot chain;
    struct link_figures *links; /* [chain.n_links] */
    struct wrk_manifest model;
    struct wrk_table_figures *tables; /* [model.n_tables] */
    struct wrk_state state;
};

static void print_links(const struct described *d, FILE *stream)
{
    const size_t n = d->chain.n_links;
    uint64_t bytes = 0;
    if (n == 1)
        fprintf(stream, "kind       full\n");
    else
        fprintf(stream,
                "kind       delta upon step %" PRIu64 "; restored from %zu snapshots, the first "
                "full:\n",
                d->chain.links[n - 1].manifest.base_step, n);
    for (size_t i = 0; i < n; i++) {
        const struct clu_manifest *manifest = &d->chain.links[i].manifest;
        bytes += clu_manifest_bytes(manifest, "");
        if (n > 1)
            fprintf(stream,
                    "link       step %" PRIu64 ": %" PRIu64 " rows written, %" PRIu64
                    " gone, %" PRIu64 " bytes\n",
                    manifest->step, d->links[i].n_rows, d->links[i].n_tombstones,
                    d->links[i].row_bytes);
    }
    fprintf(stream, "files      %d, %" PRIu64 " bytes", d->chain.links[n - 1].manifest.n_files,
            clu_manifest_bytes(&d->chain.links[n - 1].manifest, ""));
    if (n > 1)
        fprintf(stream, "; with those below it %" PRIu64, bytes);
    fputc('\n', stream);
}

static void print_snapshot(const struct described *d, bool verify, FILE *stream)
{
    const struct clu_snapshot_link *top = &d->chain.links[d->chain.n_links - 1];
    fprintf(stream, "snapshot   %s%s\n", top->folder, verify ? ", checksums right" : "");
    fprintf(stream,
            "step       %" PRIu64 ", next batch %" PRIu64 " of epoch %" PRIu64 ", %" PRIu64
            " samples done\n",
            d->state.step, d->state.batch, d->state.epoch, d->state.samples_done);
    fprintf(stream, "written by %d servers, %d shards, %d workers; life %" PRIu64 " of the job\n",
            top->manifest.n_servers, top->manifest.n_shards, top->manifest.n_workers,
            top->manifest.generation);
    print_manifest(&d->model, stream);
    for (int t = 0; t < d->model.n_tables; t++)
        wrk_print_table_figures(&d->tables[t], d->model.table[t].name, d->model.table[t].dim,
                                stream);
    print_links(d, stream);
}

static json_t *links_json(const struct described *d)
{
    json_t *links = json_array();
    for (size_t i = 0; links && i < d->chain.n_links; i++) {
        const struct clu_manifest *manifest = &d->chain.links[i].manifest;
        json_array_append_new(links, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "folder",
                                               d->chain.links[i].folder, "step",
                                               (json_int_t)manifest->step, "base_step",
                                               (json_int_t)manifest->base_step, "rows",
                                               (json_int_t)d->links[i].n_rows, "tombstones",
                                               (json_int_t)d->links[i].n_tombstones, "row_bytes",
                                               (json_int_t)d->links[i].row_bytes));
    }
    return links;
}

static int print_snapshot_json(const struct described *d, FILE *stream)
{
    const struct clu_snapshot_link *top = &d->chain.links[d->chain.n_links - 1];
    const struct clu_manifest *files = &top->manifest;
    json_t *list = json_array(), *rows = json_object(), *tables = json_object();
    for (int i = 0; list && i < files->n_files; i++)
        json_array_append_new(list, json_pack("{s:s, s:I}", "path", files->files[i].path, "size",
                                              (json_int_t)files->files[i].size_bytes));
    for (int t = 0; rows && tables && t < d->model.n_tables; t++) {
        const char *name = d->model.table[t].name;
        json_object_set_new(rows, name, json_integer((json_int_t)d->tables[t].n_rows));
        json_object_set_new(tables, name, wrk_table_figures_json(&d->tables[t]));
    }
    json_t *object = json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:i, s:I, s:o, s:o, s:o, s:o, s:o}", "kind",
        "snapshot", "folder", top->folder, "step", (json_int_t)d->state.step, "base_step",
        (json_int_t)files->base_step, "epoch", (json_int_t)d->state.epoch, "batch",
        (json_int_t)d->state.batch, "samples_done", (json_int_t)d->state.samples_done, "servers",
        files->n_servers, "shards", files->n_shards, "workers", files->n_workers, "generation",
        (json_int_t)files->generation, "model", wrk_manifest_to_json(&d->model), "rows", rows,
        "tables", tables, "links", links_json(d), "files", list);
    int failed = !object || json_dumpf(object, stream, JSON_COMPACT) || fputc('\n', stream) == EOF;
    json_decref(object);
    return failed ? clu_fail(CLU_E_IO, "the description cannot be written") : CLU_OK;
}

static int describe_snapshot(const char *path, bool verify, bool json, FILE *stream)
{
    char folder[CLU_PATH_BYTES];
    struct described d = {0};
    int status = clu_snapshot_resolve(path, folder);
    if (!status)
        status = clu_snapshot_open(folder, &d.chain);
    if (status)
        return status;
    d.links = calloc(d.chain.n_links, sizeof(*d.links));
    if (!d.links)
        status = clu_fail(CLU_E_NO_MEMORY, "no memory to describe %s", folder);
    if (!status)
        status = clu_snapshot_verify(&d.chain, verify);
    for (size_t i = 0; i < d.chain.n_links && !status; i++)
        status = measure_link(&d.chain.links[i], &d.links[i]);
    if (!status)
        status = wrk_state_position(folder, &d.state);
    if (!status)
        status = wrk_state_manifest(folder, &d.model);
    if (!status && !(d.tables = calloc((size_t)d.model.n_tables + 1, sizeof(*d.tables))))
        status = clu_fail(CLU_E_NO_MEMORY, "no memory to describe %s", folder);
    if (!status)
        status = wrk_inspect_tables(folder, &d.model, d.state.step, d.tables);
    if (!status && json)
        status = print_snapshot_json(&d, stream);
    else if (!status)
        print_snapshot(&d, verify, stream);
    wrk_manifest_fini(&d.model);
    clu_snapshot_fini(&d.chain);
    free(d.links);
    free(d.tables);
    return status;
}

int wrk_inspect_print(const char *path, bool verify, bool json, FILE *stream)
{
    return wrk_export_is_one(path) ? describe_export(path, verify, json, stream)
                                   : describe_snapshot(path, verify, json, stream);
}

/* ---- one row ---- */

struct found_row {
    const char *table, *id;
    uint64_t key;
    bool stored, has_state;
    int dim, n_state;
    const float *embedding, *state;
    uint32_t count, last_step;
};

static json_t *numbers_json(const float *values, int n)
{
    json_t *list = json_array();
    for (int i = 0; list && i < n; i++)
        json_array_append_new(list, json_real((double)values[i]));
    return list;
}

static void print_numbers(const char *name, const float *values, int n, FILE *stream)
{
    fprintf(stream, "%-10s", name);
    for (int i = 0; i < n; i++)
        fprintf(stream, "%s%.9g", i && i % 8 == 0 ? "\n           " : " ", (double)values[i]);
    fputc('\n', stream);
}

static int print_row(const struct found_row *row, bool json, FILE *stream)
{
    if (json) {
        json_t *object =
            json_pack("{s:s, s:s, s:s, s:b, s:o}", "table", row->table, "id", row->id, "key", "",
                      "stored", row->stored, "embedding", numbers_json(row->embedding, row->dim));
        char key[32];
        snprintf(key, sizeof(key), "%" PRIu64, row->key); /* beyond a JSON number's 53 bits */
        if (object)
            json_object_set_new(object, "key", json_string(key));
        if (object && row->has_state) {
            json_object_set_new(object, "state", numbers_json(row->state, row->n_state));
            json_object_set_new(object, "count", json_integer(row->count));
            json_object_set_new(object, "last_step", json_integer(row->last_step));
        }
        int failed = !object || json_dumpf(object, stream, JSON_COMPACT | JSON_REAL_PRECISION(9)) ||
                     fputc('\n', stream) == EOF;
        json_decref(object);
        return failed ? clu_fail(CLU_E_IO, "the row cannot be written") : CLU_OK;
    }
    fprintf(stream, "table      %s\nid         %s\nkey        %" PRIu64 ", bucket %" PRIu32 "\n",
            row->table, row->id, row->key, clu_bucket_of(clu_table_hash(row->table), row->key));
    if (!row->stored)
        fprintf(stream, "row        never written: its initial value\n");
    else if (row->has_state)
        fprintf(stream, "row        %" PRIu32 " updates, the last in step %" PRIu32 "\n",
                row->count, row->last_step);
    print_numbers("embedding", row->embedding, row->dim, stream);
    if (row->has_state)
        print_numbers("state", row->state, row->n_state, stream);
    return CLU_OK;
}

static int table_index(const struct wrk_manifest *manifest, const char *path, const char *table)
{
    for (int t = 0; t < manifest->n_tables; t++)
        if (!strcmp(manifest->table[t].name, table))
            return t;
    return clu_fail(CLU_E_NOT_FOUND, "%s has no table '%s'; its first is '%s'", path, table,
                    manifest->n_tables ? manifest->table[0].name : "");
}

static int export_row(const char *path, struct found_row *row, bool json, FILE *stream)
{
    struct wrk_export *export = NULL;
    int status = wrk_export_open(path, false, &export);
    if (status)
        return status;
    int table = table_index(wrk_export_manifest(export), path, row->table);
    if (table >= 0) {
        row->dim = wrk_export_manifest(export)->table[table].dim;
        float *values = malloc((size_t)row->dim * sizeof(float));
        row->embedding = values;
        status = values ? wrk_export_row_is_stored(export, table, row->key, values, &row->stored)
                        : clu_fail(CLU_E_NO_MEMORY, "no memory for a row");
        if (!status)
            status = print_row(row, json, stream);
        free(values);
    }
    wrk_export_close(export);
    return table < 0 ? table : status;
}

/* walks the snapshot's rows to the key; prints it where found, else its initial value */
static int find_row(struct wrk_state_rows *rows, const struct wrk_manifest_table *table,
                    struct found_row *row, bool json, FILE *stream)
{
    struct emb_row found;
    int status;
    do {
        status = wrk_state_rows_next(rows, &found);
    } while (!status && (found.key != row->key ||
                         strcmp(wrk_state_rows_table(rows, found.table)->name, row->table) != 0));
    row->dim = table->dim;
    if (!status) {
        row->stored = row->has_state = true;
        row->embedding = found.embedding;
        row->state = found.state;
        row->n_state = found.n_state;
        row->count = found.count;
        row->last_step = found.last_step;
        return print_row(row, json, stream);
    }
    if (status != CLU_E_NOT_FOUND)
        return status;
    float *values = malloc((size_t)table->dim * sizeof(float));
    if (!values)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a row");
    clu_row_init(table->seed, clu_table_hash(table->name), row->key, (float)table->init_range,
                 table->dim, values);
    row->embedding = values;
    status = print_row(row, json, stream);
    free(values);
    return status;
}

static int snapshot_row(const char *path, struct found_row *row, bool json, FILE *stream)
{
    char folder[CLU_PATH_BYTES];
    struct wrk_manifest manifest = {0};
    struct wrk_state_rows *rows = NULL;
    int status = clu_snapshot_resolve(path, folder);
    if (!status)
        status = wrk_state_manifest(folder, &manifest);
    if (status)
        return status;
    int table = table_index(&manifest, folder, row->table);
    status = table < 0 ? table : wrk_state_rows_open(folder, &rows);
    if (!status)
        status = find_row(rows, &manifest.table[table], row, json, stream);
    wrk_state_rows_close(rows);
    wrk_manifest_fini(&manifest);
    return status;
}

int wrk_inspect_row(const char *path, const char *table, const char *id, bool json, FILE *stream)
{
    struct found_row row = {.table = table, .id = id, .key = clu_key_of_text(id, strlen(id))};
    return wrk_export_is_one(path) ? export_row(path, &row, json, stream)
                                   : snapshot_row(path, &row, json, stream);
}
