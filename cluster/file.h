/* Files: whole reads, atomic writes, folders, and text streams that look through compression.
 *
 * "Atomic" means: written beside its place, fsynced, renamed over it, the folder fsynced; after a
 * crash a reader sees the old content or the new, never a mixture. Every failure is logged here
 * once, with the path, and returned as a status. Threads: any (a stream belongs to one).
 */
#ifndef CLUSTER_FILE_H
#define CLUSTER_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads a whole file into a heap buffer that the caller frees; one NUL stands behind the last byte.
 * Larger than max_bytes: DATA. */
int clu_file_read_all(const char *path, size_t max_bytes, char **data_p, size_t *size_p);

/* Replaces a file atomically (see above). */
int clu_file_write_atomic(const char *path, const void *data, size_t size_bytes);

/* XXH3 of a file's content, and its size; either out argument may be NULL. */
int clu_file_checksum(const char *path, uint64_t *checksum_p, uint64_t *size_p);

/* True when something stands at the path (of whatever kind). */
bool clu_path_exists(const char *path);

/* Joins into a fixed buffer, with one slash; CONFIG when it does not fit. */
int clu_path_join(char *out, size_t out_bytes, const char *folder, const char *name);

/* Creates a folder and those above it; one that is there already is fine. */
int clu_mkdirs(const char *path);

/* Removes a file, or a folder with everything in it; does not follow symbolic links; nothing there:
 * OK. */
int clu_remove_tree(const char *path);

/* fsync of a file or folder by path. */
int clu_fsync_path(const char *path);

/* fsync of the file and rename over the destination, then fsync of the destination's folder. Works
 * for folders too (whose files must be synced already). */
int clu_rename_durable(const char *from, const char *to);

/* Puts a finished folder, whose files are synced, at `to`; what stood there is removed. In one
 * step where the file system can exchange two names, so a reader finds the old or the new. */
int clu_install_folder(const char *from, const char *to);

/* A text file read line by line; gzip and zstd are recognised by content, whatever the name. */
struct clu_text_stream;

int clu_text_stream_open(const char *path, struct clu_text_stream **stream_p);

/* Reads up to capacity bytes of decompressed content; *size_p = 0 at the end. A truncated or
 * damaged compressed file: CORRUPT. */
int clu_text_stream_read(struct clu_text_stream *stream, void *buffer, size_t capacity,
                         size_t *size_p);

void clu_text_stream_close(struct clu_text_stream *stream);

/* zstd on whole buffers. clu_zstd_bound: the largest compressed size of size_bytes. Decompress
 * needs the exact content size (kept by the format around it) and checks it; CORRUPT when anything
 * is off. */
size_t clu_zstd_bound(size_t size_bytes);
int clu_zstd_compress(const void *data, size_t size_bytes, int level, void *out,
                      size_t out_capacity, size_t *out_size_p);
int clu_zstd_decompress(const void *data, size_t size_bytes, void *out, size_t content_bytes);

#endif
