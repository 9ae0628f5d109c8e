/* Dense weights on disk, in the format that everybody's tools read.
 *
 * A header of JSON and then raw numbers: the reader maps the file and hands out views, so opening
 * costs the header alone. What the header says comes from outside, so every number is checked
 * before it becomes an offset: begin <= end <= size, end - begin = 4 * elements, elements without
 * overflow. Only fp32 is read, because only fp32 is written here; another dtype is refused by name
 * rather than converted silently.
 */
#include "worker/safetensors.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <jansson.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "tensors are mapped as they lie in the file");

enum { MAX_HEADER_BYTES = 64 << 20 };

struct wrk_safetensors {
    char *map;
    size_t size_bytes;
    struct wrk_tensor *tensors;
    size_t n_tensors;
    json_t *header;
};

/* ---- writing ---- */

static json_t *tensor_json(const struct wrk_tensor *tensor, size_t begin, size_t end)
{
    json_t *shape = tensor->rows
                        ? json_pack("[I, I]", (json_int_t)tensor->rows, (json_int_t)tensor->cols)
                        : json_pack("[I]", (json_int_t)tensor->cols);
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", "F32", "shape", shape, "data_offsets",
                     (json_int_t)begin, (json_int_t)end);
}

static size_t tensor_bytes(const struct wrk_tensor *tensor)
{
    return (tensor->rows ? tensor->rows : 1) * tensor->cols * sizeof(float);
}

/* the header's text, padded; NULL when out of memory */
static char *header_text(const struct wrk_tensor *tensors, size_t n_tensors,
                         const char *const *metadata, size_t *size_p)
{
    json_t *root = json_object();
    int bad = !root;
    if (root && metadata && metadata[0]) {
        json_t *texts = json_object();
        for (size_t i = 0; metadata[i]; i += 2)
            bad |= json_object_set_new(texts, metadata[i], json_string(metadata[i + 1]));
        bad |= json_object_set_new(root, "__metadata__", texts);
    }
    size_t at = 0;
    for (size_t i = 0; !bad && i < n_tensors; i++) {
        size_t end = at + tensor_bytes(&tensors[i]);
        bad |= json_object_set_new(root, tensors[i].name, tensor_json(&tensors[i], at, end));
        at = end;
    }
    char *text = bad ? NULL : json_dumps(root, JSON_COMPACT | JSON_PRESERVE_ORDER);
    json_decref(root);
    if (!text)
        return NULL;
    size_t size = strlen(text), padded = (size + 7) / 8 * 8;
    char *out = realloc(text, padded + 1);
    if (!out) {
        free(text);
        return NULL;
    }
    memset(out + size, ' ', padded - size);
    out[padded] = 0;
    *size_p = padded;
    return out;
}

static int write_file(FILE *stream, const char *header, size_t header_size,
                      const struct wrk_tensor *tensors, size_t n_tensors)
{
    uint64_t length = header_size;
    if (fwrite(&length, sizeof(length), 1, stream) != 1 ||
        fwrite(header, 1, header_size, stream) != header_size)
        return -1;
    for (size_t i = 0; i < n_tensors; i++) {
        size_t size = tensor_bytes(&tensors[i]);
        if (size && fwrite(tensors[i].data, 1, size, stream) != size)
            return -1;
    }
    return fflush(stream);
}

int wrk_safetensors_save(const char *path, const struct wrk_tensor *tensors, size_t n_tensors,
                         const char *const *metadata)
{
    size_t header_size = 0;
    char *header = header_text(tensors, n_tensors, metadata, &header_size);
    if (!header)
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory for the header", path);
    char part[PATH_MAX];
    int status = CLU_OK;
    if (snprintf(part, sizeof(part), "%s.part", path) >= (int)sizeof(part)) {
        status = clu_fail(CLU_E_CONFIG, "%s: the path is too long", path);
        goto free_header;
    }
    FILE *stream = fopen(part, "wb");
    if (!stream) {
        status = clu_fail(clu_status_from_errno(errno), "%s: cannot be created: %s", part,
                          strerror(errno));
        goto free_header;
    }
    errno = 0;
    int failed = write_file(stream, header, header_size, tensors, n_tensors);
    int error = errno;
    if (fclose(stream) && !failed) {
        failed = 1;
        error = errno;
    }
    if (failed)
        status = clu_fail(clu_status_from_errno(error), "%s: cannot be written: %s", part,
                          strerror(error));
    else
        status = clu_rename_durable(part, path);
    if (status)
        unlink(part);
free_header:
    free(header);
    return status;
}

/* ---- reading ---- */

static int parse_tensor(const char *path, const char *name, json_t *entry, const char *data,
                        size_t data_bytes, struct wrk_tensor *tensor_p)
{
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    json_t *shape = json_object_get(entry, "shape");
    json_t *offsets = json_object_get(entry, "data_offsets");
    if (!dtype || strcmp(dtype, "F32") != 0)
        return clu_fail(CLU_E_CORRUPT, "%s, tensor '%.60s': dtype %.20s, expected F32", path, name,
                        dtype ? dtype : "is missing");
    size_t n_dims = json_array_size(shape);
    if (n_dims < 1 || n_dims > 2 || json_array_size(offsets) != 2 ||
        strlen(name) >= sizeof(tensor_p->name))
        return clu_fail(CLU_E_CORRUPT,
                        "%s, tensor '%.60s': expected a shape of 1 or 2 numbers, two "
                        "data_offsets and a name below %zu bytes",
                        path, name, sizeof(tensor_p->name));
    uint64_t number[4]; /* rows, cols, begin, end */
    for (int i = 0; i < 4; i++) {
        json_t *item = i < 2 ? (n_dims == 2 ? json_array_get(shape, (size_t)i)
                                            : (i == 1 ? json_array_get(shape, 0) : NULL))
                             : json_array_get(offsets, (size_t)i - 2);
        json_int_t value = item ? json_integer_value(item) : 0;
        if ((item && !json_is_integer(item)) || value < 0)
            return clu_fail(CLU_E_CORRUPT,
                            "%s, tensor '%.60s': shape or data_offsets hold something "
                            "that is no count",
                            path, name);
        number[i] = (uint64_t)value;
    }
    uint64_t n = number[1];
    if (n_dims == 2 && __builtin_mul_overflow(number[0], number[1], &n))
        n = UINT64_MAX;
    if (number[2] > number[3] || number[3] > data_bytes || n > data_bytes ||
        (number[3] - number[2]) != n * sizeof(float) || number[2] % sizeof(float))
        return clu_fail(CLU_E_CORRUPT,
                        "%s, tensor '%.60s': bytes %llu..%llu do not hold its shape or "
                        "lie outside the file",
                        path, name, (unsigned long long)number[2], (unsigned long long)number[3]);
    memset(tensor_p, 0, sizeof(*tensor_p));
    memcpy(tensor_p->name, name, strlen(name));
    tensor_p->rows = n_dims == 2 ? (size_t)number[0] : 0;
    tensor_p->cols = (size_t)number[1];
    tensor_p->data = (const float *)(const void *)(data + number[2]);
    return CLU_OK;
}

static int map_file(const char *path, struct wrk_safetensors *file)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return clu_fail(clu_status_from_errno(errno), "%s: cannot be opened: %s", path,
                        strerror(errno));
    struct stat info;
    int status = CLU_OK;
    if (fstat(fd, &info) < 0)
        status = clu_fail(clu_status_from_errno(errno), "%s: %s", path, strerror(errno));
    else if (info.st_size < 8)
        status = clu_fail(CLU_E_CORRUPT, "%s: %lld bytes are too few for a safetensors file", path,
                          (long long)info.st_size);
    if (!status) {
        file->size_bytes = (size_t)info.st_size;
        void *map = mmap(NULL, file->size_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED)
            status = clu_fail(clu_status_from_errno(errno), "%s: cannot be mapped: %s", path,
                              strerror(errno));
        else
            file->map = map;
    }
    close(fd);
    return status;
}

static int parse_header(const char *path, struct wrk_safetensors *file)
{
    uint64_t header_size;
    memcpy(&header_size, file->map, sizeof(header_size));
    if (header_size > MAX_HEADER_BYTES || header_size > file->size_bytes - 8)
        return clu_fail(CLU_E_CORRUPT, "%s: the header claims %llu bytes of %zu", path,
                        (unsigned long long)header_size, file->size_bytes);
    if (header_size % sizeof(float))
        return clu_fail(CLU_E_CORRUPT, "%s: a header of %llu bytes leaves the data unaligned", path,
                        (unsigned long long)header_size);
    json_error_t error;
    file->header = json_loadb(file->map + 8, (size_t)header_size, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(file->header))
        return clu_fail(CLU_E_CORRUPT, "%s: the header is not a JSON object: %s", path, error.text);
    file->tensors = calloc(json_object_size(file->header) + 1, sizeof(*file->tensors));
    if (!file->tensors)
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory for its tensors", path);
    const char *data = file->map + 8 + header_size;
    size_t data_bytes = file->size_bytes - 8 - (size_t)header_size;
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry)
    {
        if (!strcmp(name, "__metadata__"))
            continue;
        int status =
            parse_tensor(path, name, entry, data, data_bytes, &file->tensors[file->n_tensors]);
        if (status)
            return status;
        file->n_tensors++;
    }
    return CLU_OK;
}

int wrk_safetensors_open(const char *path, struct wrk_safetensors **file_p)
{
    struct wrk_safetensors *file = calloc(1, sizeof(*file));
    if (!file)
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory to open it", path);
    int status = map_file(path, file);
    if (!status)
        status = parse_header(path, file);
    if (status) {
        wrk_safetensors_close(file);
        return status;
    }
    *file_p = file;
    return CLU_OK;
}

size_t wrk_safetensors_count(const struct wrk_safetensors *file)
{
    return file->n_tensors;
}

const struct wrk_tensor *wrk_safetensors_at(const struct wrk_safetensors *file, size_t i)
{
    return &file->tensors[i];
}

const struct wrk_tensor *wrk_safetensors_find(const struct wrk_safetensors *file, const char *name)
{
    for (size_t i = 0; i < file->n_tensors; i++)
        if (!strcmp(file->tensors[i].name, name))
            return &file->tensors[i];
    return NULL;
}

const char *wrk_safetensors_metadata(const struct wrk_safetensors *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), key));
}

void wrk_safetensors_close(struct wrk_safetensors *file)
{
    if (!file)
        return;
    if (file->map)
        munmap(file->map, file->size_bytes);
    json_decref(file->header);
    free(file->tensors);
    free(file);
}
