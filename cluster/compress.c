/* The parts of file.h that look through compression. The kind is decided by the first bytes, never
 * by the name: logs arrive under any. gzip streams may be several members in a row, zstd several
 * frames; both are read to the end of the file, and an end inside one of them is CORRUPT, not the
 * end of the text. */
#include "cluster/file.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

enum { INPUT_BYTES = 1 << 17, MAGIC_BYTES = 4 };

enum stream_kind { PLAIN, GZIP, ZSTD };

struct clu_text_stream {
    int fd;
    enum stream_kind kind;
    char *path;
    unsigned char *input; /* [INPUT_BYTES] */
    size_t input_bytes, input_at;
    bool file_ended; /* read(2) returned 0 */
    bool inside;     /* between the start and the end of a member or frame */
    z_stream gzip;
    ZSTD_DStream *zstd;
};

static int fill(struct clu_text_stream *stream)
{
    while (stream->input_at == stream->input_bytes && !stream->file_ended) {
        ssize_t n = read(stream->fd, stream->input, INPUT_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return clu_fail(clu_status_from_errno(errno), "cannot read %s: %s", stream->path,
                            strerror(errno));
        stream->input_at = 0;
        stream->input_bytes = (size_t)n;
        stream->file_ended = n == 0;
    }
    return CLU_OK;
}

static int start_kind(struct clu_text_stream *stream)
{
    static const unsigned char gzip_magic[] = {0x1f, 0x8b}, zstd_magic[] = {0x28, 0xb5, 0x2f, 0xfd};
    int status = fill(stream);
    if (status != CLU_OK)
        return status;
    if (stream->input_bytes >= 2 && memcmp(stream->input, gzip_magic, 2) == 0) {
        stream->kind = GZIP;
        if (inflateInit2(&stream->gzip, 15 + 16) != Z_OK)
            return clu_fail(CLU_E_NO_MEMORY, "no memory to read %s", stream->path);
    } else if (stream->input_bytes >= MAGIC_BYTES && memcmp(stream->input, zstd_magic, 4) == 0) {
        stream->kind = ZSTD;
        stream->zstd = ZSTD_createDStream();
        if (!stream->zstd)
            return clu_fail(CLU_E_NO_MEMORY, "no memory to read %s", stream->path);
    }
    return CLU_OK;
}

int clu_text_stream_open(const char *path, struct clu_text_stream **stream_p)
{
    struct clu_text_stream *stream = calloc(1, sizeof(*stream));
    if (!stream)
        return clu_fail(CLU_E_NO_MEMORY, "no memory to read %s", path);
    stream->fd = open(path, O_RDONLY | O_CLOEXEC);
    int status = CLU_OK;
    if (stream->fd < 0)
        status =
            clu_fail(clu_status_from_errno(errno), "cannot open %s: %s", path, strerror(errno));
    stream->path = strdup(path);
    stream->input = malloc(INPUT_BYTES);
    if (status == CLU_OK && (!stream->path || !stream->input))
        status = clu_fail(CLU_E_NO_MEMORY, "no memory to read %s", path);
    if (status == CLU_OK)
        status = start_kind(stream);
    if (status != CLU_OK) {
        clu_text_stream_close(stream);
        return status;
    }
    *stream_p = stream;
    return CLU_OK;
}

static int damaged(const struct clu_text_stream *stream, const char *how)
{
    return clu_fail(CLU_E_CORRUPT, "%s: the compressed file is %s", stream->path, how);
}

static int read_gzip(struct clu_text_stream *stream, void *buffer, size_t capacity, size_t *size_p)
{
    z_stream *gzip = &stream->gzip;
    gzip->next_out = buffer;
    gzip->avail_out = capacity > INT32_MAX ? INT32_MAX : (uInt)capacity;
    uInt offered = gzip->avail_out;
    while (gzip->avail_out == offered) {
        int status = fill(stream);
        if (status != CLU_OK)
            return status;
        if (stream->file_ended)
            break;
        gzip->next_in = stream->input + stream->input_at;
        gzip->avail_in = (uInt)(stream->input_bytes - stream->input_at);
        stream->inside = true;
        int result = inflate(gzip, Z_NO_FLUSH);
        stream->input_at = stream->input_bytes - gzip->avail_in;
        if (result == Z_STREAM_END) {
            stream->inside = false;
            inflateReset(gzip);
        } else if (result != Z_OK) {
            return damaged(stream, "damaged");
        }
    }
    *size_p = offered - gzip->avail_out;
    return *size_p == 0 && stream->inside ? damaged(stream, "cut short") : CLU_OK;
}

static int read_zstd(struct clu_text_stream *stream, void *buffer, size_t capacity, size_t *size_p)
{
    ZSTD_outBuffer out = {buffer, capacity, 0};
    while (out.pos == 0) {
        int status = fill(stream);
        if (status != CLU_OK)
            return status;
        ZSTD_inBuffer in = {stream->input, stream->input_bytes, stream->input_at};
        size_t result = ZSTD_decompressStream(stream->zstd, &out, &in);
        stream->input_at = in.pos;
        if (ZSTD_isError(result))
            return damaged(stream, "damaged");
        if (out.pos > 0 || !stream->file_ended)
            stream->inside = result != 0;
        else
            break;
    }
    *size_p = out.pos;
    return out.pos == 0 && stream->inside ? damaged(stream, "cut short") : CLU_OK;
}

int clu_text_stream_read(struct clu_text_stream *stream, void *buffer, size_t capacity,
                         size_t *size_p)
{
    if (stream->kind == GZIP)
        return read_gzip(stream, buffer, capacity, size_p);
    if (stream->kind == ZSTD)
        return read_zstd(stream, buffer, capacity, size_p);
    int status = fill(stream);
    if (status != CLU_OK)
        return status;
    size_t n = stream->input_bytes - stream->input_at;
    if (n > capacity)
        n = capacity;
    if (n > 0)
        memcpy(buffer, stream->input + stream->input_at, n);
    stream->input_at += n;
    *size_p = n;
    return CLU_OK;
}

void clu_text_stream_close(struct clu_text_stream *stream)
{
    if (!stream)
        return;
    if (stream->kind == GZIP)
        inflateEnd(&stream->gzip);
    ZSTD_freeDStream(stream->zstd);
    if (stream->fd >= 0)
        close(stream->fd);
    free(stream->input);
    free(stream->path);
    free(stream);
}

size_t clu_zstd_bound(size_t size_bytes)
{
    return ZSTD_compressBound(size_bytes);
}

int clu_zstd_compress(const void *data, size_t size_bytes, int level, void *out,
                      size_t out_capacity, size_t *out_size_p)
{
    size_t n = ZSTD_compress(out, out_capacity, data, size_bytes, level);
    if (ZSTD_isError(n))
        return clu_fail(CLU_E_NO_MEMORY, "cannot compress %zu bytes: %s", size_bytes,
                        ZSTD_getErrorName(n));
    *out_size_p = n;
    return CLU_OK;
}

int clu_zstd_decompress(const void *data, size_t size_bytes, void *out, size_t content_bytes)
{
    size_t n = ZSTD_decompress(out, content_bytes, data, size_bytes);
    return ZSTD_isError(n) || n != content_bytes ? CLU_E_CORRUPT : CLU_OK;
}
