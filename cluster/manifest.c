/* Snapshots on disk. The order of the calls is the whole protocol:
 *
 *     1  files written and fsynced by their writers           crash before 4: a .part folder, swept
 * later 2  manifest.json written atomically, fsynced 3  rows/ and the .part folder fsynced 4 rename
 * step-N.part -> step-N, parent fsynced         crash before 5: whole, `latest` one behind 5
 * `latest` replaced atomically 6  the oldest beyond keep removed                       crash in 6:
 * a folder without its manifest
 *
 * (S1) A folder step-N with a manifest.json was whole when it got its name.
 * (S2) Removing starts with manifest.json, so that half a folder is never taken for a whole one.
 * (S3) `latest` is a convenience: readers that must be right list the folder (clu_snapshot_newest).
 */
#include "cluster/manifest.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_MANIFEST_BYTES = 256 << 20, FORMAT = 1 };

static const char *const step_prefix = "step-";
static const char *const part_suffix = ".part";
static const char *const aside_suffix = ".damaged";

void clu_manifest_fini(struct clu_manifest *manifest)
{
    free(manifest->files);
    *manifest = (struct clu_manifest){0};
}

int clu_snapshot_root(const char *out, char root_p[CLU_PATH_BYTES])
{
    return clu_path_join(root_p, CLU_PATH_BYTES, out, "run/snapshot");
}

int clu_snapshot_folder(const char *root, uint64_t step, bool part, char folder_p[CLU_PATH_BYTES])
{
    char name[64];
    snprintf(name, sizeof(name), "%s%012" PRIu64 "%s", step_prefix, step, part ? part_suffix : "");
    return clu_path_join(folder_p, CLU_PATH_BYTES, root, name);
}

int clu_snapshot_begin(const char *root, uint64_t step, char folder_p[CLU_PATH_BYTES])
{
    char folder[CLU_PATH_BYTES], rows[CLU_PATH_BYTES];
    int status = clu_snapshot_folder(root, step, true, folder);
    if (!status)
        status = clu_path_join(rows, sizeof(rows), folder, "rows");
    if (!status)
        status = clu_remove_tree(folder);
    if (!status)
        status = clu_mkdirs(rows);
    if (!status)
        memcpy(folder_p, folder, CLU_PATH_BYTES);
    return status;
}

/* ---- listing files ---- */

static int add_file(struct clu_manifest *manifest, const char *path, uint64_t size_bytes)
{
    if (strlen(path) >= CLU_FILE_NAME_BYTES)
        return clu_fail(CLU_E_CONFIG, "%s: a snapshot's file name is at most %d bytes long", path,
                        CLU_FILE_NAME_BYTES - 1);
    size_t n = (size_t)manifest->n_files;
    if ((n & (n - 1)) == 0) { /* full at every power of two */
        void *grown = realloc(manifest->files, (n ? 2 * n : 1) * sizeof(manifest->files[0]));
        if (!grown)
            return clu_fail(CLU_E_NO_MEMORY, "no memory for a manifest of %zu files", n + 1);
        manifest->files = grown;
    }
    struct clu_manifest_file *file = &manifest->files[manifest->n_files++];
    memset(file, 0, sizeof(*file));
    strcpy(file->path, path);
    file->size_bytes = size_bytes;
    return CLU_OK;
}

/* Adds every regular file under folder/prefix, at most three folders deep. */
static int list_files(struct clu_manifest *manifest, const char *folder, const char *prefix,
                      int depth)
{
    char path[CLU_PATH_BYTES];
    int status = clu_path_join(path, sizeof(path), folder, prefix);
    if (status)
        return status;
    DIR *dir = opendir(path);
    if (!dir)
        return clu_fail(clu_status_from_errno(errno), "%s: %s", path, strerror(errno));
    struct dirent *entry;
    while (!status && (entry = readdir(dir))) {
        char name[CLU_PATH_BYTES], full[CLU_PATH_BYTES];
        struct stat info;
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, "manifest.json") == 0)
            continue;
        int size =
            snprintf(name, sizeof(name), "%s%s%s", prefix, prefix[0] ? "/" : "", entry->d_name);
        if (size >= (int)sizeof(name))
            status = clu_fail(CLU_E_CONFIG, "%s: too deep for a snapshot", path);
        if (!status)
            status = clu_path_join(full, sizeof(full), folder, name);
        if (!status && lstat(full, &info))
            status = clu_fail(clu_status_from_errno(errno), "%s: %s", full, strerror(errno));
        if (!status && S_ISDIR(info.st_mode) && depth < 3)
            status = list_files(manifest, folder, name, depth + 1);
        else if (!status && S_ISREG(info.st_mode))
            status = add_file(manifest, name, (uint64_t)info.st_size);
    }
    closedir(dir);
    return status;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct clu_manifest_file *)a)->path,
                  ((const struct clu_manifest_file *)b)->path);
}

static struct clu_manifest_file *find_file(const struct clu_manifest *manifest, const char *path)
{
    struct clu_manifest_file key;
    if (manifest->n_files == 0 || strlen(path) >= sizeof(key.path))
        return NULL;
    strcpy(key.path, path);
    return bsearch(&key, manifest->files, (size_t)manifest->n_files, sizeof(key), by_path);
}

/* Fills in the sums: reported ones where there are any, else by reading the file. */
static int sum_files(const char *folder, const struct clu_manifest *reported,
                     struct clu_manifest *manifest)
{
    for (int i = 0; i < reported->n_files; i++) {
        const struct clu_manifest_file *told = &reported->files[i];
        struct clu_manifest_file *file = find_file(manifest, told->path);
        if (!file)
            return clu_fail(CLU_E_CORRUPT, "%s/%s: reported as written, and not there", folder,
                            told->path);
        if (file->size_bytes != told->size_bytes)
            return clu_fail(CLU_E_CORRUPT,
                            "%s/%s: %" PRIu64 " bytes on disk, %" PRIu64 " were written", folder,
                            told->path, file->size_bytes, told->size_bytes);
        file->checksum = told->checksum;
    }
    for (int i = 0; i < manifest->n_files; i++) {
        struct clu_manifest_file *file = &manifest->files[i];
        char path[CLU_PATH_BYTES];
        bool told = false;
        for (int j = 0; j < reported->n_files && !told; j++)
            told = strcmp(reported->files[j].path, file->path) == 0;
        if (told)
            continue;
        int status = clu_path_join(path, sizeof(path), folder, file->path);
        if (!status)
            status = clu_file_checksum(path, &file->checksum, &file->size_bytes);
        if (status)
            return status;
    }
    return CLU_OK;
}

/* ---- manifest.json ---- */

static char *manifest_text(const struct clu_manifest *manifest)
{
    char id[24];
    json_t *files = json_array();
    for (int i = 0; i < manifest->n_files; i++) {
        const struct clu_manifest_file *file = &manifest->files[i];
        snprintf(id, sizeof(id), "%016" PRIx64, file->checksum);
        json_array_append_new(files, json_pack("{s:s, s:I, s:s}", "path", file->path, "size_bytes",
                                               (json_int_t)file->size_bytes, "xxh3", id));
    }
    snprintf(id, sizeof(id), "%016" PRIx64, manifest->job_id);
    json_t *root =
        json_pack("{s:i, s:s, s:s, s:I, s:I, s:I, s:i, s:i, s:i, s:o}", "format", FORMAT, "kind",
                  "snapshot", "job", id, "generation", (json_int_t)manifest->generation, "step",
                  (json_int_t)manifest->step, "time_ms", (json_int_t)manifest->time_ms, "servers",
                  manifest->n_servers, "shards", manifest->n_shards, "workers", manifest->n_workers,
                  "files", files);
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    json_decref(root);
    return text;
}

static int take_file(struct clu_manifest *manifest, json_t *item)
{
    const char *path, *sum;
    json_int_t size;
    char *end;
    if (json_unpack(item, "{s:s, s:I, s:s}", "path", &path, "size_bytes", &size, "xxh3", &sum) ||
        size < 0 || path[0] == '/' || strstr(path, ".."))
        return CLU_E_CORRUPT;
    int status = add_file(manifest, path, (uint64_t)size);
    if (status)
        return status;
    manifest->files[manifest->n_files - 1].checksum = strtoull(sum, &end, 16);
    return end == sum || *end ? CLU_E_CORRUPT : CLU_OK;
}

static int take_manifest(json_t *root, struct clu_manifest *manifest)
{
    const char *kind, *id;
    int format;
    json_int_t generation, step, time_ms;
    json_t *files;
    if (json_unpack(root, "{s:i, s:s, s:s, s:I, s:I, s:I, s:i, s:i, s:i, s:o}", "format", &format,
                    "kind", &kind, "job", &id, "generation", &generation, "step", &step, "time_ms",
                    &time_ms, "servers", &manifest->n_servers, "shards", &manifest->n_shards,
                    "workers", &manifest->n_workers, "files", &files) ||
        format != FORMAT || strcmp(kind, "snapshot") != 0 || step < 0 || generation < 0 ||
        !json_is_array(files))
        return CLU_E_CORRUPT;
    manifest->job_id = strtoull(id, NULL, 16);
    manifest->generation = (uint64_t)generation;
    manifest->step = (uint64_t)step;
    manifest->time_ms = time_ms;
    int status = CLU_OK;
    for (size_t i = 0; i < json_array_size(files) && !status; i++)
        status = take_file(manifest, json_array_get(files, i));
    if (manifest->n_files > 0)
        qsort(manifest->files, (size_t)manifest->n_files, sizeof(manifest->files[0]), by_path);
    return status;
}

int clu_manifest_load(const char *folder, struct clu_manifest *manifest_p)
{
    char path[CLU_PATH_BYTES], *text;
    size_t size;
    int status = clu_path_join(path, sizeof(path), folder, "manifest.json");
    if (status)
        return status;
    if (!clu_path_exists(path))
        return clu_fail(CLU_E_NOT_FOUND, "%s is not there: not a whole snapshot", path);
    status = clu_file_read_all(path, MAX_MANIFEST_BYTES, &text, &size);
    if (status)
        return status;
    json_error_t error;
    struct clu_manifest manifest = {0};
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    free(text);
    if (!root)
        return clu_fail(CLU_E_CORRUPT, "%s, line %d: %s", path, error.line, error.text);
    status = take_manifest(root, &manifest);
    json_decref(root);
    if (status) {
        clu_manifest_fini(&manifest);
        return clu_fail(status, "%s: not a manifest of format %d", path, FORMAT);
    }
    *manifest_p = manifest;
    return CLU_OK;
}

int clu_manifest_verify(const char *folder, const struct clu_manifest *manifest, bool sums)
{
    for (int i = 0; i < manifest->n_files; i++) {
        const struct clu_manifest_file *file = &manifest->files[i];
        char path[CLU_PATH_BYTES];
        struct stat info;
        uint64_t sum;
        int status = clu_path_join(path, sizeof(path), folder, file->path);
        if (status)
            return status;
        if (stat(path, &info))
            return clu_fail(CLU_E_CORRUPT, "%s: %s, and the manifest names it", path,
                            strerror(errno));
        if ((uint64_t)info.st_size != file->size_bytes)
            return clu_fail(CLU_E_CORRUPT, "%s: %lld bytes, the manifest says %" PRIu64, path,
                            (long long)info.st_size, file->size_bytes);
        if (!sums)
            continue;
        status = clu_file_checksum(path, &sum, NULL);
        if (status)
            return status;
        if (sum != file->checksum)
            return clu_fail(CLU_E_CORRUPT,
                            "%s: its bytes have changed since it was written (XXH3 %016" PRIx64
                            ", the manifest says %016" PRIx64 ")",
                            path, sum, file->checksum);
    }
    return CLU_OK;
}

/* ---- the root ---- */

/* The step of a folder's name, or -1. */
static int64_t step_of(const char *name, bool *part_p)
{
    size_t prefix = strlen(step_prefix);
    char *end;
    if (strncmp(name, step_prefix, prefix) != 0 || name[prefix] < '0' || name[prefix] > '9')
        return -1;
    int64_t step = strtoll(name + prefix, &end, 10);
    *part_p = strcmp(end, part_suffix) == 0;
    return *end && !*part_p ? -1 : step;
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The steps of the folders under root that look whole, ascending; *steps_p is the caller's. */
static int list_steps(const char *root, int64_t **steps_p, size_t *n_p)
{
    int64_t *steps = NULL;
    size_t n = 0;
    DIR *dir = opendir(root);
    *steps_p = NULL;
    *n_p = 0;
    if (!dir)
        return errno == ENOENT
                   ? CLU_OK
                   : clu_fail(clu_status_from_errno(errno), "%s: %s", root, strerror(errno));
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        char path[CLU_PATH_BYTES];
        bool part;
        int64_t step = step_of(entry->d_name, &part);
        if (step < 0 || part ||
            snprintf(path, sizeof(path), "%s/%s/manifest.json", root, entry->d_name) >=
                (int)sizeof(path) ||
            !clu_path_exists(path))
            continue;
        int64_t *grown = realloc(steps, (n + 1) * sizeof(*steps));
        if (!grown) {
            closedir(dir);
            free(steps);
            return clu_fail(CLU_E_NO_MEMORY, "no memory for the list of snapshots");
        }
        steps = grown;
        steps[n++] = step;
    }
    closedir(dir);
    if (n > 0)
        qsort(steps, n, sizeof(*steps), ascending);
    *steps_p = steps;
    *n_p = n;
    return CLU_OK;
}

/* (S2) */
static int remove_snapshot(const char *folder)
{
    char path[CLU_PATH_BYTES];
    int status = clu_path_join(path, sizeof(path), folder, "manifest.json");
    if (!status)
        status = clu_remove_tree(path);
    return status ? status : clu_remove_tree(folder);
}

static int prune(const char *root, int64_t keep)
{
    int64_t *steps;
    size_t n;
    int status = list_steps(root, &steps, &n);
    for (size_t i = 0; keep >= 1 && i + (size_t)keep < n && !status; i++) {
        char folder[CLU_PATH_BYTES];
        status = clu_snapshot_folder(root, (uint64_t)steps[i], false, folder);
        if (!status)
            status = remove_snapshot(folder);
    }
    free(steps);
    return status;
}

static int write_manifest(const char *folder, const struct clu_manifest *manifest)
{
    char path[CLU_PATH_BYTES], rows[CLU_PATH_BYTES];
    char *text = manifest_text(manifest);
    if (!text)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for the manifest of %s", folder);
    int status = clu_path_join(path, sizeof(path), folder, "manifest.json");
    if (!status)
        status = clu_file_write_atomic(path, text, strlen(text));
    free(text);
    if (!status)
        status = clu_path_join(rows, sizeof(rows), folder, "rows");
    if (!status && clu_path_exists(rows))
        status = clu_fsync_path(rows);
    return status ? status : clu_fsync_path(folder);
}

static int write_latest(const char *root, uint64_t step)
{
    char path[CLU_PATH_BYTES], line[64];
    int size = snprintf(line, sizeof(line), "%s%012" PRIu64 "\n", step_prefix, step);
    int status = clu_path_join(path, sizeof(path), root, "latest");
    return status ? status : clu_file_write_atomic(path, line, (size_t)size);
}

/* True when the folder holds this very snapshot, whole: its commit is being repeated. */
static bool is_same(const char *folder, const struct clu_manifest *manifest)
{
    struct clu_manifest there;
    if (clu_manifest_load(folder, &there))
        return false;
    bool same = there.job_id == manifest->job_id && there.generation == manifest->generation &&
                !clu_manifest_verify(folder, &there, true);
    clu_manifest_fini(&there);
    return same;
}

int clu_snapshot_commit(const char *root, const struct clu_manifest *manifest, int64_t keep)
{
    char part[CLU_PATH_BYTES], whole[CLU_PATH_BYTES], path[CLU_PATH_BYTES];
    struct clu_manifest full = *manifest;
    full.files = NULL;
    full.n_files = 0;
    int status = clu_snapshot_folder(root, manifest->step, true, part);
    if (!status)
        status = clu_snapshot_folder(root, manifest->step, false, whole);
    if (!status)
        status = clu_path_join(path, sizeof(path), whole, "manifest.json");
    if (status)
        return status;
    if (clu_path_exists(path) && is_same(whole, manifest)) {
        status = clu_remove_tree(part);
        return status ? status : write_latest(root, manifest->step);
    }
    status = list_files(&full, part, "", 0);
    if (!status && full.n_files == 0)
        status = clu_fail(CLU_E_CORRUPT, "%s: a snapshot without files", part);
    if (!status) {
        qsort(full.files, (size_t)full.n_files, sizeof(full.files[0]), by_path);
        status = sum_files(part, manifest, &full);
    }
    if (!status && full.time_ms == 0)
        full.time_ms = (int64_t)time(NULL) * 1000;
    if (!status)
        status = write_manifest(part, &full);
    if (!status)
        status = remove_snapshot(whole); /* of an earlier life, or damaged, or half removed */
    if (!status)
        status = clu_rename_durable(part, whole);
    if (!status)
        status = write_latest(root, manifest->step);
    clu_manifest_fini(&full);
    return status ? status : prune(root, keep);
}

int clu_snapshot_newest(const char *root, char folder_p[CLU_PATH_BYTES],
                        struct clu_manifest *manifest_p)
{
    int64_t *steps;
    size_t n;
    int status = list_steps(root, &steps, &n);
    if (status)
        return status;
    status = CLU_E_NOT_FOUND;
    while (n > 0 && status) {
        char folder[CLU_PATH_BYTES];
        struct clu_manifest manifest = {0};
        status = clu_snapshot_folder(root, (uint64_t)steps[--n], false, folder);
        if (!status)
            status = clu_manifest_load(folder, &manifest);
        if (!status && manifest.step != (uint64_t)steps[n])
            status = clu_fail(CLU_E_CORRUPT, "%s: its manifest says step %" PRIu64, folder,
                              manifest.step);
        if (!status)
            status = clu_manifest_verify(folder, &manifest, true);
        if (!status) {
            memcpy(folder_p, folder, CLU_PATH_BYTES);
            if (manifest_p)
                *manifest_p = manifest;
            else
                clu_manifest_fini(&manifest);
            break;
        }
        clu_manifest_fini(&manifest);
        clu_warn("%s is damaged and passed over", folder);
        status = CLU_E_NOT_FOUND;
    }
    free(steps);
    return status;
}

int clu_snapshot_set_aside(const char *root, uint64_t step)
{
    int64_t *steps;
    size_t n;
    int status = list_steps(root, &steps, &n);
    for (size_t i = 0; i < n && !status; i++) {
        char folder[CLU_PATH_BYTES], aside[CLU_PATH_BYTES + 16];
        if ((uint64_t)steps[i] <= step)
            continue;
        status = clu_snapshot_folder(root, (uint64_t)steps[i], false, folder);
        snprintf(aside, sizeof(aside), "%s%s", folder, aside_suffix);
        if (!status)
            status = clu_remove_tree(aside);
        if (!status && rename(folder, aside))
            status = clu_fail(clu_status_from_errno(errno), "%s: %s", folder, strerror(errno));
    }
    free(steps);
    return status;
}

int clu_snapshot_resolve(const char *path, char folder_p[CLU_PATH_BYTES])
{
    static const char *const below[] = {"", "run/snapshot", "snapshot"};
    char name[CLU_PATH_BYTES];
    int status = clu_path_join(name, sizeof(name), path, "manifest.json");
    if (!status && clu_path_exists(name)) {
        snprintf(folder_p, CLU_PATH_BYTES, "%s", path);
        return CLU_OK;
    }
    for (size_t i = 0; i < sizeof(below) / sizeof(below[0]) && !status; i++) {
        int64_t *steps;
        size_t n;
        char root[CLU_PATH_BYTES];
        if (below[i][0])
            status = clu_path_join(root, sizeof(root), path, below[i]);
        else
            snprintf(root, sizeof(root), "%s", path);
        if (!status)
            status = list_steps(root, &steps, &n);
        if (status)
            break;
        int64_t newest = n > 0 ? steps[n - 1] : -1;
        free(steps);
        if (newest >= 0)
            return clu_snapshot_folder(root, (uint64_t)newest, false, folder_p);
    }
    if (status)
        return status;
    return clu_fail(CLU_E_NOT_FOUND,
                    "%s: no snapshot there (neither manifest.json nor a folder step-... with one)",
                    path);
}

int clu_snapshot_sweep(const char *root)
{
    DIR *dir = opendir(root);
    if (!dir)
        return errno == ENOENT
                   ? CLU_OK
                   : clu_fail(clu_status_from_errno(errno), "%s: %s", root, strerror(errno));
    struct dirent *entry;
    int status = CLU_OK;
    while (!status && (entry = readdir(dir))) {
        char path[CLU_PATH_BYTES], manifest[CLU_PATH_BYTES];
        bool part;
        if (step_of(entry->d_name, &part) < 0)
            continue;
        status = clu_path_join(path, sizeof(path), root, entry->d_name);
        if (!status)
            status = clu_path_join(manifest, sizeof(manifest), path, "manifest.json");
        if (!status && (part || !clu_path_exists(manifest)))
            status = clu_remove_tree(path);
    }
    closedir(dir);
    return status;
}
