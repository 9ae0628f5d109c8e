/* The safetensors file format: the dense weights as anybody's tools can read them.
 *
 *     offset  what
 *     0       u64, little-endian: the length n of the header, which is padded with spaces so that
 *             the data start on a multiple of 8
 *     8       n bytes of JSON: {"__metadata__": {"key": "text"},
 *             "name": {"dtype": "F32", "shape": [rows, cols], "data_offsets": [begin, end]}, ...}
 *     8 + n   the tensors' bytes, little-endian fp32, row-major, in the order given, without gaps
 *
 * Files are written whole and atomically, and read through a read-only mapping: an opened file's
 * tensors are views that live until it is closed. Everything a file says is checked against its
 * size before it is believed. Threads: any, one at a time per handle for open and close; find is
 * read-only.
 */
#ifndef WORKER_SAFETENSORS_H
#define WORKER_SAFETENSORS_H

#include <stddef.h>

struct wrk_tensor {
    char name[64];
    size_t rows; /* 0: a vector of cols numbers (shape [cols]) */
    size_t cols;
    const float *data; /* [rows, cols] row-major, or [cols] */
};

struct wrk_safetensors;

/* Writes tensors [n_tensors] to path: a temporary file beside it, fsync, rename. metadata: pairs of
 * key and value texts, NULL-terminated, or NULL. Errors: CLU_E_IO, CLU_E_FULL, CLU_E_NO_MEMORY. */
int wrk_safetensors_save(const char *path, const struct wrk_tensor *tensors, size_t n_tensors,
                         const char *const *metadata);

/* Opens a file and checks its header: fp32 tensors of one or two dimensions inside the file, no
 * overlap of header and data. Errors: CLU_E_CORRUPT with what is wrong, CLU_E_NOT_FOUND, CLU_E_IO.
 */
int wrk_safetensors_open(const char *path, struct wrk_safetensors **file_p);

/* The number of tensors, and tensor i in the order of the file (view, lives until close). */
size_t wrk_safetensors_count(const struct wrk_safetensors *file);
const struct wrk_tensor *wrk_safetensors_at(const struct wrk_safetensors *file, size_t i);

/* The tensor of a name, or NULL. View. */
const struct wrk_tensor *wrk_safetensors_find(const struct wrk_safetensors *file, const char *name);

/* A text of the metadata, or NULL. View. */
const char *wrk_safetensors_metadata(const struct wrk_safetensors *file, const char *key);

/* Unmaps. NULL is fine. */
void wrk_safetensors_close(struct wrk_safetensors *file);

#endif
