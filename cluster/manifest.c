/* The manifest of a snapshot: a JSON object whose first key is the checksum of the whole text,
 * taken while its 16 digits are zeros. So any changed byte is noticed, whether or not it means
 * something, and a delta can name its base's manifest by that number.
 */
#include "cluster/manifest.h"

#include "cluster/file.h"
#include "cluster/hash.h"
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

enum { MAX_MANIFEST_BYTES = 256 << 20, FORMAT = 2, SUM_DIGITS = 16 };

static const char sum_key[] = "\"checksum\": \"";
static const char no_sum[] = "0000000000000000";

void clu_manifest_fini(struct clu_manifest *manifest)
{
    free(manifest->files);
    *manifest = (struct clu_manifest){0};
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

int clu_manifest_list(const char *folder, const struct clu_manifest *reported,
                      struct clu_manifest *manifest_p)
{
    struct clu_manifest manifest = *reported;
    manifest.files = NULL;
    manifest.n_files = 0;
    int status = list_files(&manifest, folder, "", 0);
    if (!status && manifest.n_files == 0)
        status = clu_fail(CLU_E_CORRUPT, "%s: a snapshot without files", folder);
    if (!status) {
        qsort(manifest.files, (size_t)manifest.n_files, sizeof(manifest.files[0]), by_path);
        status = sum_files(folder, reported, &manifest);
    }
    if (status)
        clu_manifest_fini(&manifest);
    else
        *manifest_p = manifest;
    return status;
}

uint64_t clu_manifest_bytes(const struct clu_manifest *manifest, const char *prefix)
{
    uint64_t size = 0;
    for (int i = 0; i < manifest->n_files; i++)
        if (strncmp(manifest->files[i].path, prefix, strlen(prefix)) == 0)
            size += manifest->files[i].size_bytes;
    return size;
}

/* ---- manifest.json ---- */

static json_t *hex_json(uint64_t number)
{
    char text[SUM_DIGITS + 1];
    snprintf(text, sizeof(text), "%016" PRIx64, number);
    return json_string(text);
}

/* Where the checksum's digits stand in a text, or NULL. */
static char *find_sum(char *text)
{
    char *at = strstr(text, sum_key);
    return at && strlen(at) > sizeof(sum_key) + SUM_DIGITS ? at + sizeof(sum_key) - 1 : NULL;
}

static char *manifest_text(const struct clu_manifest *manifest)
{
    json_t *files = json_array(), *base = json_null();
    for (int i = 0; i < manifest->n_files; i++) {
        const struct clu_manifest_file *file = &manifest->files[i];
        json_array_append_new(files, json_pack("{s:s, s:I, s:o}", "path", file->path, "size_bytes",
                                               (json_int_t)file->size_bytes, "xxh3",
                                               hex_json(file->checksum)));
    }
    if (manifest->base_step)
        base = json_pack("{s:I, s:o}", "step", (json_int_t)manifest->base_step, "checksum",
                         hex_json(manifest->base_checksum));
    json_t *root = json_pack(
        "{s:s, s:i, s:s, s:o, s:I, s:I, s:o, s:I, s:i, s:i, s:i, s:o}", "checksum", no_sum,
        "format", FORMAT, "kind", "snapshot", "job", hex_json(manifest->job_id), "generation",
        (json_int_t)manifest->generation, "step", (json_int_t)manifest->step, "base", base,
        "time_ms", (json_int_t)manifest->time_ms, "servers", manifest->n_servers, "shards",
        manifest->n_shards, "workers", manifest->n_workers, "files", files);
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    char *sum = text ? find_sum(text) : NULL;
    json_decref(root);
    if (!sum) {
        free(text);
        return NULL;
    }
    char digits[SUM_DIGITS + 1];
    snprintf(digits, sizeof(digits), "%016" PRIx64, clu_hash_bytes(text, strlen(text)));
    memcpy(sum, digits, SUM_DIGITS);
    return text;
}

int clu_manifest_save(const char *folder, const struct clu_manifest *manifest)
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

static int take_hex(const char *text, uint64_t *number_p)
{
    char *end;
    *number_p = strtoull(text, &end, 16);
    return end == text || *end ? CLU_E_CORRUPT : CLU_OK;
}

static int take_file(struct clu_manifest *manifest, json_t *item)
{
    const char *path, *sum;
    json_int_t size;
    if (json_unpack(item, "{s:s, s:I, s:s}", "path", &path, "size_bytes", &size, "xxh3", &sum) ||
        size < 0 || path[0] == '/' || strstr(path, ".."))
        return CLU_E_CORRUPT;
    int status = add_file(manifest, path, (uint64_t)size);
    if (status)
        return status;
    return take_hex(sum, &manifest->files[manifest->n_files - 1].checksum);
}

static int take_base(json_t *base, struct clu_manifest *manifest)
{
    const char *sum;
    json_int_t step;
    if (json_is_null(base))
        return CLU_OK;
    if (json_unpack(base, "{s:I, s:s}", "step", &step, "checksum", &sum) || step < 1 ||
        (uint64_t)step >= manifest->step)
        return CLU_E_CORRUPT;
    manifest->base_step = (uint64_t)step;
    return take_hex(sum, &manifest->base_checksum);
}

static int take_manifest(json_t *root, struct clu_manifest *manifest)
{
    const char *kind, *id;
    int format;
    json_int_t generation, step, time_ms;
    json_t *files, *base;
    if (json_unpack(root, "{s:i, s:s, s:s, s:I, s:I, s:o, s:I, s:i, s:i, s:i, s:o}", "format",
                    &format, "kind", &kind, "job", &id, "generation", &generation, "step", &step,
                    "base", &base, "time_ms", &time_ms, "servers", &manifest->n_servers, "shards",
                    &manifest->n_shards, "workers", &manifest->n_workers, "files", &files) ||
        format != FORMAT || strcmp(kind, "snapshot") != 0 || step < 0 || generation < 0 ||
        manifest->n_servers < 0 || manifest->n_shards < 0 || manifest->n_workers < 0 ||
        !json_is_array(files))
        return CLU_E_CORRUPT;
    manifest->generation = (uint64_t)generation;
    manifest->step = (uint64_t)step;
    manifest->time_ms = time_ms;
    int status = take_hex(id, &manifest->job_id);
    if (!status)
        status = take_base(base, manifest);
    for (size_t i = 0; i < json_array_size(files) && !status; i++)
        status = take_file(manifest, json_array_get(files, i));
    if (manifest->n_files > 0)
        qsort(manifest->files, (size_t)manifest->n_files, sizeof(manifest->files[0]), by_path);
    return status;
}

/* The text is the one that was written: its checksum says so, digit by digit. */
static int check_text(const char *path, char *text, size_t size, uint64_t *checksum_p)
{
    char found[SUM_DIGITS + 1] = {0}, expected[SUM_DIGITS + 1] = {0};
    char *sum = strlen(text) == size ? find_sum(text) : NULL;
    if (sum) {
        memcpy(found, sum, SUM_DIGITS);
        memcpy(sum, no_sum, SUM_DIGITS);
        *checksum_p = clu_hash_bytes(text, size);
        snprintf(expected, sizeof(expected), "%016" PRIx64, *checksum_p);
    }
    if (!sum || memcmp(found, expected, SUM_DIGITS) != 0)
        return clu_fail(CLU_E_CORRUPT, "%s: its checksum does not agree with its text", path);
    return CLU_OK;
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
    json_t *root = NULL;
    status = check_text(path, text, size, &manifest.checksum);
    if (!status && !(root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error)))
        status = clu_fail(CLU_E_CORRUPT, "%s, line %d: %s", path, error.line, error.text);
    free(text);
    if (status)
        return status;
    status = take_manifest(root, &manifest);
    json_decref(root);
    if (status) {
        clu_manifest_fini(&manifest);
        return clu_fail(status, "%s: not a manifest of format %d", path, FORMAT);
    }
    *manifest_p = manifest;
    return CLU_OK;
}

static int verify_file(const char *folder, const struct clu_manifest_file *file, bool sums)
{
    char path[CLU_PATH_BYTES];
    struct stat info;
    uint64_t sum;
    int status = clu_path_join(path, sizeof(path), folder, file->path);
    if (status)
        return status;
    if (stat(path, &info))
        return clu_fail(CLU_E_CORRUPT, "%s: %s, and the manifest names it", path, strerror(errno));
    if ((uint64_t)info.st_size != file->size_bytes)
        return clu_fail(CLU_E_CORRUPT, "%s: %lld bytes, the manifest says %" PRIu64, path,
                        (long long)info.st_size, file->size_bytes);
    if (!sums)
        return CLU_OK;
    status = clu_file_checksum(path, &sum, NULL);
    if (status)
        return status;
    if (sum != file->checksum)
        return clu_fail(CLU_E_CORRUPT,
                        "%s: its bytes have changed since it was written (XXH3 %016" PRIx64
                        ", the manifest says %016" PRIx64 ")",
                        path, sum, file->checksum);
    return CLU_OK;
}

int clu_manifest_verify(const char *folder, const struct clu_manifest *manifest, bool sums)
{
    int status = CLU_OK;
    for (int i = 0; i < manifest->n_files && !status; i++)
        status = verify_file(folder, &manifest->files[i], sums);
    return status;
}

int clu_manifest_verify_small(const char *folder, const struct clu_manifest *manifest)
{
    int status = CLU_OK;
    for (int i = 0; i < manifest->n_files && !status; i++)
        status = verify_file(folder, &manifest->files[i],
                             strncmp(manifest->files[i].path, "rows/", strlen("rows/")) != 0);
    return status;
}
