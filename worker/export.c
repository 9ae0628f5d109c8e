/* Snapshot in, export out; and the reading side that score, eval and inspect stand on.
 *
 * Making one streams: rows come merged and sorted from the snapshot's files, so LMDB takes them in
 * key order (its fastest way in) and memory stays at one block a file. Everything is written into
 * OUT.part; manifest last; then one rename, or an exchange where an export stood already, so that a
 * reader of OUT finds the old one or the new one.
 *
 * (I1) A folder that is not an export is never replaced or removed.
 * (I2) A snapshot is verified by checksum before the first byte is taken from it. When it was named
 * by its root and its newest is damaged, the newest whole one is used, with a warning that names
 * the damage.
 */
#include "worker/export.h"

#include "cluster/file.h"
#include "cluster/hash.h"
#include "cluster/job.h"
#include "cluster/log.h"
#include "cluster/snapshot.h"
#include "cluster/status.h"
#include "embeddings/export.h"
#include "model/params.h"
#include "worker/json_file.h"
#include "worker/state.h"
#include "worker/state_rows.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MANIFEST_FILE "manifest.json"
#define ROWS_FOLDER   "rows"

enum { MAX_MANIFEST_BYTES = 64 << 20 };

static const char *const exported_files[] = {WRK_STATE_DENSE_FILE, ROWS_FOLDER "/data.mdb"};

/* ---- the snapshot ---- */

/* true when the path is the folder itself, but for slashes at its end */
static bool is_named(const char *path, const char *folder)
{
    size_t given = strlen(path), size = strlen(folder);
    while (given > 1 && path[given - 1] == '/')
        given--;
    return size == given && !memcmp(path, folder, size);
}

static int verify_snapshot(const char *folder)
{
    struct clu_snapshot snapshot;
    int status = clu_snapshot_open(folder, &snapshot);
    if (status)
        return status;
    status = clu_snapshot_verify(&snapshot, true);
    clu_snapshot_fini(&snapshot);
    return status;
}

/* A job that keeps its best epoch says in its newest snapshot which one that is; folder_p, found as
 * the newest under a root, becomes the best one's where that is whole. */
static void prefer_best(char folder_p[CLU_PATH_BYTES])
{
    struct wrk_state state;
    char root[CLU_PATH_BYTES], best[CLU_PATH_BYTES];
    memcpy(root, folder_p, strlen(folder_p) + 1);
    char *slash = strrchr(root, '/');
    if (!slash || wrk_state_position(folder_p, &state) || !state.stopping.best_step ||
        state.stopping.best_step == state.step)
        return;
    *slash = 0;
    if (clu_snapshot_folder(root, state.stopping.best_step, false, best) || verify_snapshot(best))
        clu_warn("the best epoch's snapshot, step %" PRIu64 ", is passed over; using %s",
                 state.stopping.best_step, folder_p);
    else
        memcpy(folder_p, best, CLU_PATH_BYTES);
}

int wrk_export_find_snapshot(const char *path, char folder_p[CLU_PATH_BYTES])
{
    int status = clu_snapshot_resolve(path, folder_p);
    if (status)
        return status;
    status = verify_snapshot(folder_p);
    if (is_named(path, folder_p))
        return status; /* this one was asked for, no other will do */
    if (status) {
        char root[CLU_PATH_BYTES];
        memcpy(root, folder_p, strlen(folder_p) + 1);
        char *slash = strrchr(root, '/');
        if (!slash)
            return status;
        *slash = 0;
        int second = clu_snapshot_newest(root, 0, folder_p, NULL);
        if (second)
            return clu_fail(status, "%s: no whole snapshot is left", root);
        clu_warn("using %s, the newest snapshot that is whole", folder_p);
    }
    prefer_best(folder_p);
    return CLU_OK;
}

/* ---- writing ---- */

static json_t *files_json(const char *dir)
{
    json_t *files = json_array();
    for (size_t i = 0; files && i < sizeof(exported_files) / sizeof(exported_files[0]); i++) {
        char path[CLU_PATH_BYTES], sum[32];
        uint64_t checksum, size;
        if (clu_path_join(path, sizeof(path), dir, exported_files[i]) ||
            clu_file_checksum(path, &checksum, &size)) {
            json_decref(files);
            return NULL;
        }
        snprintf(sum, sizeof(sum), "%016" PRIx64, checksum);
        json_array_append_new(files, json_pack("{s:s, s:I, s:s}", "path", exported_files[i], "size",
                                               (json_int_t)size, "xxh3", sum));
    }
    return files;
}

static int write_manifest(const char *dir, const struct wrk_manifest *manifest)
{
    char path[CLU_PATH_BYTES];
    int status = clu_path_join(path, sizeof(path), dir, MANIFEST_FILE);
    if (status)
        return status;
    json_t *json = wrk_manifest_to_json(manifest);
    json_t *files = files_json(dir);
    if (!json || !files || json_object_set_new(json, "files", files)) {
        json_decref(json);
        return clu_fail(CLU_E_IO, "%s: cannot be made", path);
    }
    return wrk_json_save(path, json, 17);
}

/* the tables' numbers come from the files that hold the rows, checked against the model's
 * description */
static int match_tables(const char *folder, const struct wrk_state_rows *rows,
                        const struct wrk_manifest *manifest, int *table_of)
{
    for (int i = 0; i < wrk_state_rows_n_tables(rows); i++) {
        const struct emb_table_spec *spec = wrk_state_rows_table(rows, i);
        table_of[i] = -1;
        for (int t = 0; t < manifest->n_tables; t++)
            if (!strcmp(spec->name, manifest->table[t].name))
                table_of[i] = t;
        if (table_of[i] < 0)
            return clu_fail(CLU_E_CORRUPT, "%s: table '%s' has rows, but the model does not use it",
                            folder, spec->name);
        const struct wrk_manifest_table *table = &manifest->table[table_of[i]];
        if (table->dim != spec->dim || table->seed != spec->seed)
            return clu_fail(CLU_E_CORRUPT,
                            "%s: table '%s' has rows of %d numbers and seed %" PRIu64
                            ", the model %d and %" PRIu64,
                            folder, spec->name, spec->dim, spec->seed, table->dim, table->seed);
    }
    return CLU_OK;
}

static int copy_rows(struct wrk_state_rows *rows, const int *table_of,
                     struct emb_export_writer *writer)
{
    for (;;) {
        struct emb_row row;
        int status = wrk_state_rows_next(rows, &row);
        if (status == CLU_E_NOT_FOUND)
            return CLU_OK;
        if (!status)
            status = emb_export_put(writer, table_of[row.table], row.key, row.embedding);
        if (status)
            return status;
    }
}

static int write_rows(const char *folder, const char *dir, struct wrk_manifest *manifest)
{
    char path[CLU_PATH_BYTES];
    int status = clu_path_join(path, sizeof(path), dir, ROWS_FOLDER);
    struct wrk_state_rows *rows = NULL;
    if (!status)
        status = wrk_state_rows_open(folder, &rows);
    if (status)
        return status;
    struct emb_export_writer *writer = NULL;
    int table_of[EMB_MAX_TABLES];
    status = match_tables(folder, rows, manifest, table_of);
    if (!status)
        status = emb_export_create(path, &writer);
    for (int t = 0; t < manifest->n_tables && !status; t++) {
        int number;
        status = emb_export_table(writer, manifest->table[t].name, manifest->table[t].dim, &number);
    }
    if (!status)
        status = copy_rows(rows, table_of, writer);
    wrk_state_rows_close(rows);
    if (status) {
        emb_export_abort(writer);
        return status;
    }
    uint64_t counts[EMB_MAX_TABLES] = {0};
    status = emb_export_commit(writer, counts);
    for (int t = 0; t < manifest->n_tables; t++)
        manifest->table[t].count = counts[t];
    return status;
}

static int copy_dense(const char *folder, const char *dir, const struct mdl_config *config)
{
    char from[CLU_PATH_BYTES], to[CLU_PATH_BYTES];
    int status = clu_path_join(from, sizeof(from), folder, WRK_STATE_DENSE_FILE);
    if (!status)
        status = clu_path_join(to, sizeof(to), dir, WRK_STATE_DENSE_FILE);
    if (status)
        return status;
    float *weights = malloc(mdl_n_params(config) * sizeof(float));
    if (!weights)
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory to read it", from);
    struct wrk_vector vector = {"", weights};
    status = wrk_state_load_vectors(from, config, 1, &vector);
    if (!status)
        status = wrk_state_save_vectors(to, config, 1, &vector);
    free(weights);
    return status;
}

bool wrk_export_is_one(const char *dir)
{
    char path[CLU_PATH_BYTES];
    if (snprintf(path, sizeof(path), "%s/%s", dir, MANIFEST_FILE) >= (int)sizeof(path))
        return false;
    json_t *json = json_load_file(path, 0, NULL);
    const char *format = json_string_value(json_object_get(json, "format"));
    bool is_one = format && !strcmp(format, "sluice-export");
    json_decref(json);
    return is_one;
}

int wrk_export_create(const char *snapshot, const char *out)
{
    char folder[CLU_PATH_BYTES], part[CLU_PATH_BYTES], clean[CLU_PATH_BYTES];
    size_t size = strlen(out);
    while (size > 1 && out[size - 1] == '/')
        size--;
    if (snprintf(clean, sizeof(clean), "%.*s", (int)size, out) >= (int)sizeof(clean) ||
        snprintf(part, sizeof(part), "%s.part", clean) >= (int)sizeof(part))
        return clu_fail(CLU_E_CONFIG, "%s: the path is too long", out);
    if (clu_path_exists(clean) && !wrk_export_is_one(clean) && rmdir(clean) < 0) /* (I1) */
        return clu_fail(CLU_E_EXISTS,
                        "%s: something stands there that is not an export; choose "
                        "another --out",
                        clean);
    int status = wrk_export_find_snapshot(snapshot, folder); /* (I2) */
    struct wrk_manifest manifest;
    if (!status)
        status = wrk_state_manifest(folder, &manifest);
    if (status)
        return status;
    status = clu_remove_tree(part);
    if (!status)
        status = clu_mkdirs(part);
    if (!status)
        status = copy_dense(folder, part, &manifest.config);
    if (!status)
        status = write_rows(folder, part, &manifest);
    if (!status)
        status = write_manifest(part, &manifest);
    if (!status)
        status = clu_install_folder(part, clean);
    if (status)
        clu_remove_tree(part);
    else
        clu_info("export of step %" PRIu64 " written to %s", manifest.step, clean);
    wrk_manifest_fini(&manifest);
    return status;
}

/* ---- reading ---- */

struct wrk_export {
    struct wrk_manifest manifest;
    float *params;
    struct emb_export_reader *rows;
    int table[WRK_MANIFEST_MAX_TABLES]; /* the reader's number of each table */
    uint64_t table_hash[WRK_MANIFEST_MAX_TABLES];
    uint8_t *found; /* scratch [found_capacity] */
    size_t found_capacity;
};

/* sizes always, checksums when asked */
static int check_files(const char *dir, const json_t *json, bool verify)
{
    const json_t *files = json_object_get(json, "files");
    for (size_t i = 0; i < sizeof(exported_files) / sizeof(exported_files[0]); i++) {
        const json_t *entry = NULL;
        for (size_t j = 0; j < json_array_size(files); j++) {
            const json_t *file = json_array_get(files, j);
            const char *path = json_string_value(json_object_get(file, "path"));
            if (path && !strcmp(path, exported_files[i]))
                entry = file;
        }
        const char *sum = json_string_value(json_object_get(entry, "xxh3"));
        if (!sum)
            return clu_fail(CLU_E_CORRUPT, "%s/%s: \"files\" does not list %s", dir, MANIFEST_FILE,
                            exported_files[i]);
        char path[CLU_PATH_BYTES];
        int status = clu_path_join(path, sizeof(path), dir, exported_files[i]);
        if (status)
            return status;
        json_int_t size = json_integer_value(json_object_get(entry, "size"));
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        off_t found = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
        if (fd >= 0)
            close(fd);
        if (found != (off_t)size)
            return clu_fail(CLU_E_CORRUPT, "%s: %lld bytes, its manifest says %lld", path,
                            (long long)found, (long long)size);
        uint64_t checksum = 0;
        if (verify) {
            status = clu_file_checksum(path, &checksum, NULL);
            if (status)
                return status;
            if (checksum != strtoull(sum, NULL, 16))
                return clu_fail(CLU_E_CORRUPT,
                                "%s: its checksum is %016" PRIx64 ", its manifest says %s", path,
                                checksum, sum);
        }
    }
    return CLU_OK;
}

static int load_manifest(const char *dir, bool verify, struct wrk_export *export)
{
    char path[CLU_PATH_BYTES];
    int status = clu_path_join(path, sizeof(path), dir, MANIFEST_FILE);
    if (status)
        return status;
    if (!clu_path_exists(path))
        return clu_fail(CLU_E_NOT_FOUND,
                        "%s is not an export: it has no %s (sluice export makes one)", dir,
                        MANIFEST_FILE);
    json_t *json = NULL;
    status = wrk_json_load(path, MAX_MANIFEST_BYTES, &json);
    if (status)
        return status;
    status = wrk_manifest_from_json(json, path, &export->manifest);
    if (!status)
        status = mdl_config_check(&export->manifest.config);
    if (!status)
        status = check_files(dir, json, verify);
    json_decref(json);
    return status;
}

static int load_content(const char *dir, struct wrk_export *export)
{
    const struct wrk_manifest *manifest = &export->manifest;
    char path[CLU_PATH_BYTES];
    int status = clu_path_join(path, sizeof(path), dir, WRK_STATE_DENSE_FILE);
    if (status)
        return status;
    export->params = malloc(mdl_n_params(&manifest->config) * sizeof(float));
    if (!export->params)
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory to read it", path);
    struct wrk_vector vector = {"", export->params};
    status = wrk_state_load_vectors(path, &manifest->config, 1, &vector);
    if (!status)
        status = clu_path_join(path, sizeof(path), dir, ROWS_FOLDER);
    if (!status)
        status = emb_export_open(path, &export->rows);
    for (int t = 0; t < manifest->n_tables && !status; t++) {
        export->table_hash[t] = clu_table_hash(manifest->table[t].name);
        status = emb_export_find(export->rows, manifest->table[t].name, manifest->table[t].dim,
                                 &export->table[t]);
    }
    return status;
}

int wrk_export_open(const char *dir, bool verify, struct wrk_export **export_p)
{
    struct wrk_export *export = calloc(1, sizeof(*export));
    if (!export)
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory to open it", dir);
    int status = load_manifest(dir, verify, export);
    if (!status)
        status = load_content(dir, export);
    if (status) {
        wrk_export_close(export);
        return status;
    }
    *export_p = export;
    return CLU_OK;
}

const struct wrk_manifest *wrk_export_manifest(const struct wrk_export *export)
{
    return &export->manifest;
}

const float *wrk_export_params(const struct wrk_export *export)
{
    return export->params;
}

int wrk_export_rows(struct wrk_export *export, int table, const uint64_t *keys, size_t n,
                    float *rows_p)
{
    if (n > export->found_capacity) {
        uint8_t *found = realloc(export->found, n);
        if (!found)
            return clu_fail(CLU_E_NO_MEMORY, "no memory to look up %zu rows", n);
        export->found = found;
        export->found_capacity = n;
    }
    const struct wrk_manifest_table *info = &export->manifest.table[table];
    int status = emb_export_get(export->rows, export->table[table], keys, n, rows_p, export->found);
    for (size_t i = 0; i < n && !status; i++)
        if (!export->found[i])
            clu_row_init(info->seed, export->table_hash[table], keys[i], (float)info->init_range,
                         info->dim, rows_p + i * (size_t)info->dim);
    return status;
}

int wrk_export_row_is_stored(struct wrk_export *export, int table, uint64_t key, float *row_p,
                             bool *stored_p)
{
    int status = wrk_export_rows(export, table, &key, 1, row_p);
    if (!status)
        *stored_p = export->found[0];
    return status;
}

struct visit {
    int (*visit)(void *context, uint64_t key, const float *row);
    void *context;
};

static int visit_row(uint64_t key, const float *row, void *arg)
{
    const struct visit *visit = arg;
    return visit->visit(visit->context, key, row);
}

int wrk_export_each_row(struct wrk_export *export, int table,
                        int (*visit)(void *context, uint64_t key, const float *row), void *context)
{
    struct visit arg = {visit, context};
    return emb_export_each(export->rows, export->table[table], visit_row, &arg);
}

void wrk_export_close(struct wrk_export *export)
{
    if (!export)
        return;
    emb_export_close(export->rows);
    wrk_manifest_fini(&export->manifest);
    free(export->params);
    free(export->found);
    free(export);
}
