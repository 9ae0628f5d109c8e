/* Frames are compressed one by one, so that a reader decodes only what it needs, and checksummed in
 * their compressed form: a damaged one is refused before zstd or msgpack see a byte of it. The
 * index is written last and found from the end, so a shard is written in one pass; a shard without
 * a footer is a torn one.
 */
#include "worker/shard.h"

#include "cluster/file.h"
#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEAD_BYTES = 8, FOOTER_BYTES = 32, ZSTD_LEVEL = 3, N_CUTS = WRK_MAX_VALID_PERCENT + 1 };

static const char head_magic[] = "SLUDATA1", index_magic[] = "SLUINDX1";

/* no frame is ever this large; a corrupt index must not make us allocate */
static const uint64_t max_content_bytes = (uint64_t)1 << 31;

struct wrk_shard_writer {
    FILE *file;
    char *path;
    uint64_t at;
    char *buffer;
    size_t capacity;
};

struct wrk_shard {
    int fd;
    char *path;
    struct wrk_frame *frames;
    size_t n_frames;
    uint64_t file_bytes;
};

static int io_error(const char *path, const char *what)
{
    return clu_fail(clu_status_from_errno(errno), "%s: %s: %s", path, what, strerror(errno));
}

static int write_bytes(struct wrk_shard_writer *writer, const void *data, size_t size_bytes)
{
    if (fwrite(data, 1, size_bytes, writer->file) != size_bytes)
        return io_error(writer->path, "writing");
    writer->at += size_bytes;
    return CLU_OK;
}

int wrk_shard_create(const char *path, struct wrk_shard_writer **writer_p)
{
    struct wrk_shard_writer *writer = calloc(1, sizeof(*writer));
    if (!writer || !(writer->path = strdup(path))) {
        free(writer);
        return clu_fail(CLU_E_NO_MEMORY, "%s: out of memory", path);
    }
    int status = CLU_OK;
    writer->file = fopen(path, "wbe");
    if (!writer->file)
        status = io_error(path, "creating");
    else
        status = write_bytes(writer, head_magic, HEAD_BYTES);
    if (status != CLU_OK) {
        wrk_shard_abandon(writer);
        return status;
    }
    *writer_p = writer;
    return CLU_OK;
}

int wrk_shard_append(struct wrk_shard_writer *writer, const void *content, size_t size_bytes,
                     struct wrk_frame *frame_p)
{
    if (size_bytes > max_content_bytes)
        return clu_fail(CLU_E_DATA, "%s: a user's block of %zu bytes: at most 2 GiB fit a frame",
                        writer->path, size_bytes);
    size_t bound = clu_zstd_bound(size_bytes), size;
    if (bound > writer->capacity) {
        char *buffer = realloc(writer->buffer, bound);
        if (!buffer)
            return clu_fail(CLU_E_NO_MEMORY, "%s: out of memory", writer->path);
        writer->buffer = buffer;
        writer->capacity = bound;
    }
    int status =
        clu_zstd_compress(content, size_bytes, ZSTD_LEVEL, writer->buffer, writer->capacity, &size);
    if (status != CLU_OK)
        return status;
    memset(frame_p, 0, sizeof(*frame_p));
    frame_p->offset = writer->at;
    frame_p->size_bytes = (uint32_t)size;
    frame_p->content_bytes = (uint32_t)size_bytes;
    frame_p->checksum = clu_hash_bytes(writer->buffer, size);
    return write_bytes(writer, writer->buffer, size);
}

int wrk_shard_pause(struct wrk_shard_writer *writer)
{
    FILE *file = writer->file;
    writer->file = NULL;
    return file && fclose(file) != 0 ? io_error(writer->path, "writing") : CLU_OK;
}

uint64_t wrk_shard_size(const struct wrk_shard_writer *writer)
{
    return writer->at;
}

void wrk_shard_abandon(struct wrk_shard_writer *writer)
{
    if (!writer)
        return;
    if (writer->file)
        fclose(writer->file);
    free(writer->path);
    free(writer->buffer);
    free(writer);
}

static void put_u64(unsigned char *out, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        out[i] = (unsigned char)(value >> (8 * i));
}

static uint64_t get_u64(const unsigned char *in)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value |= (uint64_t)in[i] << (8 * i);
    return value;
}

static void pack_index(struct clu_packer *packer, const struct wrk_frame *frames, size_t n_frames)
{
    clu_pack_array(packer, n_frames);
    for (size_t i = 0; i < n_frames; i++) {
        const struct wrk_frame *frame = &frames[i];
        clu_pack_array(packer, 6 + N_CUTS);
        clu_pack_uint(packer, frame->offset);
        clu_pack_uint(packer, frame->size_bytes);
        clu_pack_uint(packer, frame->content_bytes);
        clu_pack_uint(packer, frame->checksum);
        clu_pack_uint(packer, frame->n_users);
        clu_pack_uint(packer, frame->n_test);
        for (int p = 0; p < N_CUTS; p++)
            clu_pack_uint(packer, frame->n_train[p]);
    }
}

int wrk_shard_finish(struct wrk_shard_writer *writer, const struct wrk_frame *frames,
                     size_t n_frames)
{
    struct clu_packer packer;
    clu_packer_init(&packer);
    pack_index(&packer, frames, n_frames);
    int status = clu_packer_status(&packer);
    if (status == CLU_OK && !writer->file && !(writer->file = fopen(writer->path, "abe")))
        status = io_error(writer->path, "opening");
    unsigned char footer[FOOTER_BYTES];
    put_u64(footer, writer->at);
    put_u64(footer + 8, packer.size_bytes);
    put_u64(footer + 16, status == CLU_OK ? clu_hash_bytes(packer.data, packer.size_bytes) : 0);
    memcpy(footer + 24, index_magic, 8);
    if (status == CLU_OK)
        status = write_bytes(writer, packer.data, packer.size_bytes);
    if (status == CLU_OK)
        status = write_bytes(writer, footer, sizeof(footer));
    clu_packer_fini(&packer);
    if (status == CLU_OK && (fflush(writer->file) != 0 || fsync(fileno(writer->file)) != 0))
        status = io_error(writer->path, "syncing");
    int closed = wrk_shard_pause(writer);
    status = status == CLU_OK ? closed : status;
    wrk_shard_abandon(writer);
    return status;
}

static int parse_frame(struct clu_unpacker *unpacker, uint64_t limit, struct wrk_frame *frame)
{
    size_t n;
    uint64_t v[6 + N_CUTS];
    int status = clu_unpack_array(unpacker, &n);
    if (status != CLU_OK || n != 6 + N_CUTS)
        return CLU_E_CORRUPT;
    for (size_t i = 0; i < n; i++)
        if (clu_unpack_uint(unpacker, &v[i]) != CLU_OK || (i != 0 && i != 3 && v[i] > UINT32_MAX))
            return CLU_E_CORRUPT;
    if (v[0] < HEAD_BYTES || v[0] > limit || v[1] > limit - v[0] || v[2] > max_content_bytes)
        return CLU_E_CORRUPT;
    *frame = (struct wrk_frame){.offset = v[0],
                                .size_bytes = (uint32_t)v[1],
                                .content_bytes = (uint32_t)v[2],
                                .checksum = v[3],
                                .n_users = (uint32_t)v[4],
                                .n_test = (uint32_t)v[5]};
    for (int p = 0; p < N_CUTS; p++) {
        frame->n_train[p] = (uint32_t)v[6 + p];
        if (p > 0 && frame->n_train[p] > frame->n_train[p - 1])
            return CLU_E_CORRUPT;
    }
    return CLU_OK;
}

int wrk_index_parse(const void *data, size_t size_bytes, uint64_t limit,
                    struct wrk_frame **frames_p, size_t *n_p)
{
    struct clu_unpacker unpacker;
    size_t n;
    clu_unpacker_init(&unpacker, data, size_bytes);
    if (clu_unpack_array(&unpacker, &n) != CLU_OK)
        return CLU_E_CORRUPT;
    struct wrk_frame *frames = calloc(n + 1, sizeof(*frames));
    if (!frames)
        return CLU_E_NO_MEMORY;
    for (size_t i = 0; i < n; i++)
        if (parse_frame(&unpacker, limit, &frames[i]) != CLU_OK) {
            free(frames);
            return CLU_E_CORRUPT;
        }
    if (!clu_unpack_at_end(&unpacker)) {
        free(frames);
        return CLU_E_CORRUPT;
    }
    *frames_p = frames;
    *n_p = n;
    return CLU_OK;
}

static int read_at(const struct wrk_shard *shard, void *out, size_t size_bytes, uint64_t offset)
{
    char *at = out;
    while (size_bytes > 0) {
        ssize_t n = pread(shard->fd, at, size_bytes, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return io_error(shard->path, "reading");
        if (n == 0)
            return clu_fail(CLU_E_CORRUPT, "%s: the file ends at byte %llu, more was expected",
                            shard->path, (unsigned long long)offset);
        at += n;
        offset += (uint64_t)n;
        size_bytes -= (size_t)n;
    }
    return CLU_OK;
}

static int read_index(struct wrk_shard *shard)
{
    struct stat stat;
    if (fstat(shard->fd, &stat) != 0)
        return io_error(shard->path, "reading");
    uint64_t size = shard->file_bytes = (uint64_t)stat.st_size;
    unsigned char head[HEAD_BYTES], footer[FOOTER_BYTES];
    if (size < HEAD_BYTES + FOOTER_BYTES)
        return clu_fail(CLU_E_CORRUPT, "%s: %llu bytes are too few for a data shard", shard->path,
                        (unsigned long long)size);
    int status = read_at(shard, head, sizeof(head), 0);
    if (status == CLU_OK)
        status = read_at(shard, footer, sizeof(footer), size - FOOTER_BYTES);
    if (status != CLU_OK)
        return status;
    if (memcmp(head, head_magic, 8) != 0 || memcmp(footer + 24, index_magic, 8) != 0)
        return clu_fail(
            CLU_E_CORRUPT, "%s: not a whole data shard: its %s is not there", shard->path,
            memcmp(head, head_magic, 8) ? "first mark (SLUDATA1)" : "end mark (SLUINDX1)");
    uint64_t offset = get_u64(footer), index_size = get_u64(footer + 8);
    uint64_t limit = size - FOOTER_BYTES;
    if (offset < HEAD_BYTES || offset > limit || index_size != limit - offset)
        return clu_fail(CLU_E_CORRUPT, "%s: the footer points outside the file", shard->path);
    char *index = malloc(index_size + 1);
    if (!index)
        return clu_fail(CLU_E_NO_MEMORY, "%s: out of memory for its index", shard->path);
    status = read_at(shard, index, index_size, offset);
    if (status == CLU_OK && clu_hash_bytes(index, index_size) != get_u64(footer + 16))
        status = clu_fail(CLU_E_CORRUPT, "%s: the index does not match its checksum", shard->path);
    if (status == CLU_OK) {
        status = wrk_index_parse(index, index_size, offset, &shard->frames, &shard->n_frames);
        if (status != CLU_OK)
            clu_error("%s: the index cannot be read", shard->path);
    }
    free(index);
    return status;
}

int wrk_shard_open(const char *path, struct wrk_shard **shard_p)
{
    struct wrk_shard *shard = calloc(1, sizeof(*shard));
    if (!shard)
        return clu_fail(CLU_E_NO_MEMORY, "%s: out of memory", path);
    shard->fd = -1;
    int status = CLU_OK;
    shard->path = strdup(path);
    if (!shard->path)
        status = clu_fail(CLU_E_NO_MEMORY, "%s: out of memory", path);
    if (status == CLU_OK && (shard->fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        status = io_error(path, "opening");
    if (status == CLU_OK)
        status = read_index(shard);
    if (status != CLU_OK) {
        wrk_shard_close(shard);
        return status;
    }
    *shard_p = shard;
    return CLU_OK;
}

uint64_t wrk_shard_file_bytes(const struct wrk_shard *shard)
{
    return shard->file_bytes;
}

size_t wrk_shard_n_frames(const struct wrk_shard *shard)
{
    return shard->n_frames;
}

const struct wrk_frame *wrk_shard_frame(const struct wrk_shard *shard, size_t i)
{
    return &shard->frames[i];
}

int wrk_shard_read(const struct wrk_shard *shard, const struct wrk_shape *shape, size_t i,
                   struct wrk_block *block)
{
    const struct wrk_frame *frame = &shard->frames[i];
    char *packed = malloc((size_t)frame->size_bytes + 1);
    char *content = malloc((size_t)frame->content_bytes + 1);
    int status = CLU_OK;
    if (!packed || !content)
        status = clu_fail(CLU_E_NO_MEMORY, "%s: out of memory for a frame", shard->path);
    if (status == CLU_OK)
        status = read_at(shard, packed, frame->size_bytes, frame->offset);
    if (status == CLU_OK && clu_hash_bytes(packed, frame->size_bytes) != frame->checksum)
        status = clu_fail(CLU_E_CORRUPT, "%s: frame %zu at byte %llu does not match its checksum",
                          shard->path, i, (unsigned long long)frame->offset);
    if (status == CLU_OK)
        status = clu_zstd_decompress(packed, frame->size_bytes, content, frame->content_bytes);
    if (status == CLU_OK)
        status = wrk_block_unpack(block, shape, content, frame->content_bytes);
    if (status == CLU_E_CORRUPT)
        clu_error("%s: frame %zu at byte %llu is damaged", shard->path, i,
                  (unsigned long long)frame->offset);
    free(packed);
    free(content);
    return status;
}

void wrk_shard_close(struct wrk_shard *shard)
{
    if (!shard)
        return;
    if (shard->fd >= 0)
        close(shard->fd);
    free(shard->path);
    free(shard->frames);
    free(shard);
}
