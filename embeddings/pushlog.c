/* The push log.
 *
 * Records collect in a buffer; commit writes them behind a header that carries their checksum, in
 * one write, and syncs. A write that fails is cut off again, so the file always ends with a whole
 * group or with the torn tail of a crash. Reading stops at the first group that is not whole. That
 * is a torn tail only if no whole group follows anywhere, because a group is written after the one
 * before it was synced; else it is damage.
 *
 * (G1) lsn goes up by one from group to group, over files too.
 * (G2) A file is synced, and its folder too, before the first commit into it returns.
 */
#include "embeddings/pushlog.h"

#include "cluster/file.h"
#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    GROUP_HEADER = 40,
    RECORD_HEADER = 24,
    MAX_TABLES = 64,
    DROP_WORDS = 64,           /* 4096 buckets */
    MAX_VALUE_BYTES = 1 << 20, /* of a row */
};
#define GROUP_MAGIC "GRUP"

struct log_file {
    uint64_t first_lsn, size_bytes;
};

struct emb_pushlog {
    char *dir;
    int fd;
    int dims[MAX_TABLES];
    int n_tables;
    struct log_file *files; /* [n_files], ascending; the last is open */
    size_t n_files;
    uint64_t last_lsn, written_bytes;
    char *group; /* header and pending records */
    size_t group_bytes, group_capacity, last_record_bytes;
    uint32_t n_records;
};

static int file_path(const char *dir, uint64_t first_lsn, char *path, size_t path_bytes)
{
    int n = snprintf(path, path_bytes, "%s/push-%016" PRIx64 ".log", dir, first_lsn);
    return n > 0 && (size_t)n < path_bytes
               ? CLU_OK
               : clu_fail(CLU_E_CONFIG, "%s: the path is too long", dir);
}

/* ---- files ---- */

static int by_lsn(const void *a, const void *b)
{
    uint64_t x = ((const struct log_file *)a)->first_lsn;
    uint64_t y = ((const struct log_file *)b)->first_lsn;
    return x < y ? -1 : x > y;
}

static int list_files(const char *dir, struct log_file **files_p, size_t *n_p)
{
    DIR *folder = opendir(dir);
    struct log_file *files = NULL;
    size_t n = 0;
    if (!folder)
        return clu_fail(clu_status_from_errno(errno), "%s: cannot open the folder", dir);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        uint64_t lsn;
        int end = 0;
        if (sscanf(entry->d_name, "push-%16" SCNx64 ".log%n", &lsn, &end) != 1 || end != 25 ||
            entry->d_name[end])
            continue;
        struct log_file *more = realloc(files, (n + 1) * sizeof(*files));
        if (!more) {
            free(files);
            closedir(folder);
            return clu_fail(CLU_E_NO_MEMORY, "no memory for a list of files");
        }
        files = more;
        files[n++] = (struct log_file){.first_lsn = lsn};
    }
    closedir(folder);
    if (n)
        qsort(files, n, sizeof(*files), by_lsn);
    *files_p = files;
    *n_p = n;
    return CLU_OK;
}

static int new_file(struct emb_pushlog *log)
{
    char path[4096];
    uint64_t first = log->last_lsn + 1;
    int status = file_path(log->dir, first, path, sizeof(path));
    if (status)
        return status;
    struct log_file *files = realloc(log->files, (log->n_files + 1) * sizeof(*files));
    if (!files)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a list of files");
    log->files = files;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return clu_fail(clu_status_from_errno(errno), "%s: cannot create: %s", path,
                        strerror(errno));
    status = clu_fsync_path(log->dir); /* (G2) */
    if (status) {
        close(fd);
        return status;
    }
    if (log->fd >= 0)
        close(log->fd);
    log->fd = fd;
    if (log->n_files == 0 || log->files[log->n_files - 1].first_lsn != first)
        log->n_files++;
    log->files[log->n_files - 1] = (struct log_file){.first_lsn = first};
    return CLU_OK;
}

/* ---- replay ---- */

static uint32_t get_u32(const char *at)
{
    uint32_t number;
    memcpy(&number, at, 4);
    return number;
}

static uint64_t get_u64(const char *at)
{
    uint64_t number;
    memcpy(&number, at, 8);
    return number;
}

typedef int apply_function(void *context, uint64_t lsn, const struct emb_pushlog_record *record);

/* Bytes of a record that belong to each key, beside the key. */
static size_t row_rest(const struct emb_pushlog *log, const struct emb_pushlog_record *record)
{
    switch (record->kind) {
    case EMB_LOG_PUSH:
        return 4 * (size_t)log->dims[record->table];
    case EMB_LOG_ROWS:
        return record->value_bytes;
    case EMB_LOG_WAITING:
        return 4;
    default:
        return 0;
    }
}

/* One record at *at_p; CORRUPT when it does not fit what is left or names a table that is not
 * there. */
static int parse_record(const struct emb_pushlog *log, const char **at_p, const char *end,
                        struct emb_pushlog_record *record)
{
    const char *at = *at_p;
    if (end - at < RECORD_HEADER)
        return CLU_E_CORRUPT;
    uint32_t kind = get_u32(at), table = get_u32(at + 4);
    *record = (struct emb_pushlog_record){.kind = kind, .table = (int)table};
    uint64_t first = get_u64(at + 8), second = get_u64(at + 16);
    at += RECORD_HEADER;
    if (kind == EMB_LOG_MARK) {
        record->incarnation = first;
        record->seq = second;
    } else if (kind == EMB_LOG_TICK) {
        record->step = first;
    } else {
        record->step = kind == EMB_LOG_PUSH ? first : 0;
        record->value_bytes = kind == EMB_LOG_ROWS ? first : 0;
        record->n = second;
        if (kind < EMB_LOG_PUSH || kind > EMB_LOG_DROP || table >= (uint32_t)log->n_tables ||
            record->value_bytes > MAX_VALUE_BYTES || (kind == EMB_LOG_DROP && second != DROP_WORDS))
            return CLU_E_CORRUPT;
        uint64_t row_bytes = 8 + row_rest(log, record);
        if (second > (uint64_t)(end - at) / row_bytes)
            return CLU_E_CORRUPT;
        record->keys = (const uint64_t *)(const void *)at;
        record->grads = (const float *)(const void *)(at + 8 * second);
        record->values = record->grads;
        at += second * row_bytes;
        at += -(intptr_t)(second * row_bytes) & 7; /* records start on multiples of 8 */
        if (at > end)
            return CLU_E_CORRUPT;
    }
    *at_p = at;
    return CLU_OK;
}

static int apply_group(const struct emb_pushlog *log, uint64_t lsn, uint32_t n_records,
                       const char *payload, size_t size, apply_function *apply, void *context)
{
    const char *at = payload, *end = payload + size;
    for (uint32_t i = 0; i < n_records; i++) {
        struct emb_pushlog_record record;
        int status = parse_record(log, &at, end, &record);
        if (status)
            return clu_fail(status, "%s: group %llu of the push log makes no sense", log->dir,
                            (unsigned long long)lsn);
        status = apply(context, lsn, &record);
        if (status)
            return status;
    }
    return at == end ? CLU_OK
                     : clu_fail(CLU_E_CORRUPT, "%s: group %llu of the push log has a wrong size",
                                log->dir, (unsigned long long)lsn);
}

/* Reads exactly size bytes; false at the end of the file or on an error. */
static bool read_exactly(int fd, void *data, size_t size)
{
    char *to = data;
    while (size > 0) {
        ssize_t done = read(fd, to, size);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        to += done;
        size -= (size_t)done;
    }
    return true;
}

/* True when a whole group header stands anywhere in the file from `from` on. */
static bool group_follows(int fd, uint64_t from, uint64_t file_bytes)
{
    enum { CHUNK = 1 << 16 };
    static const char magic[] = GROUP_MAGIC;
    char *chunk = malloc(CHUNK + GROUP_HEADER);
    bool found = !chunk; /* without memory to look: rather refuse than cut */
    for (uint64_t at = from; chunk && !found && at + GROUP_HEADER <= file_bytes; at += CHUNK) {
        ssize_t n = pread(fd, chunk, CHUNK + GROUP_HEADER, (off_t)at);
        for (ssize_t i = 0; i + GROUP_HEADER <= n && !found; i++)
            found = chunk[i] == magic[0] && memcmp(chunk + i, magic, 4) == 0 &&
                    get_u64(chunk + i + 32) == clu_hash_bytes(chunk + i, 32);
    }
    free(chunk);
    return found;
}

/* Replays one file; *whole_p: bytes up to the end of its last whole group. */
static int replay_file(struct emb_pushlog *log, int fd, uint64_t file_bytes, uint64_t after,
                       apply_function *apply, void *context, uint64_t *whole_p)
{
    char header[GROUP_HEADER], *payload = NULL;
    size_t capacity = 0;
    uint64_t at = 0;
    int status = CLU_OK;
    while (!status && read_exactly(fd, header, sizeof(header))) {
        uint64_t lsn = get_u64(header + 8), size = get_u64(header + 16);
        if (memcmp(header, GROUP_MAGIC, 4) != 0 ||
            get_u64(header + 32) != clu_hash_bytes(header, 32) || size == 0 ||
            size > file_bytes - at - GROUP_HEADER || lsn != log->last_lsn + 1) /* (G1) */
            break;
        if (size > capacity) {
            char *more = realloc(payload, size);
            if (!more) {
                status = clu_fail(CLU_E_NO_MEMORY, "no memory for a group of %llu bytes",
                                  (unsigned long long)size);
                break;
            }
            payload = more;
            capacity = size;
        }
        if (!read_exactly(fd, payload, size) ||
            get_u64(header + 24) != clu_hash_bytes(payload, size))
            break;
        if (lsn > after)
            status = apply_group(log, lsn, get_u32(header + 4), payload, size, apply, context);
        log->last_lsn = lsn;
        at += GROUP_HEADER + size;
    }
    free(payload);
    *whole_p = at;
    return status;
}

static int replay_all(struct emb_pushlog *log, uint64_t after, apply_function *apply, void *context)
{
    for (size_t i = 0; i < log->n_files; i++) {
        char path[4096];
        struct stat st;
        uint64_t whole = 0;
        int status = file_path(log->dir, log->files[i].first_lsn, path, sizeof(path));
        if (status)
            return status;
        /* files before the first one needed may be gone; a gap after it may not (G1) */
        if (i == 0 && log->files[0].first_lsn <= after + 1)
            log->last_lsn = log->files[0].first_lsn - 1;
        int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) != 0)
            status = clu_fail(clu_status_from_errno(errno), "%s: cannot open: %s", path,
                              strerror(errno));
        if (!status)
            status = replay_file(log, fd, (uint64_t)st.st_size, after, apply, context, &whole);
        bool torn = !status && whole < (uint64_t)st.st_size;
        if (torn && (i + 1 < log->n_files || group_follows(fd, whole + 1, (uint64_t)st.st_size)))
            status = clu_fail(CLU_E_CORRUPT, "%s: damaged at byte %llu", path,
                              (unsigned long long)whole);
        else if (torn && ftruncate(fd, (off_t)whole) != 0)
            status =
                clu_fail(clu_status_from_errno(errno), "%s: cannot cut: %s", path, strerror(errno));
        else if (torn)
            clu_warn("%s: cut %llu bytes of an unfinished group", path,
                     (unsigned long long)((uint64_t)st.st_size - whole));
        if (fd >= 0)
            close(fd);
        if (status)
            return status;
        log->files[i].size_bytes = whole;
    }
    return CLU_OK;
}

static int remove_files(const char *dir)
{
    struct log_file *files;
    size_t n;
    int status = list_files(dir, &files, &n);
    if (status)
        return status;
    for (size_t i = 0; i < n && !status; i++) {
        char path[4096];
        status = file_path(dir, files[i].first_lsn, path, sizeof(path));
        if (!status)
            status = clu_remove_tree(path);
    }
    free(files);
    return status;
}

int emb_pushlog_open(const char *dir, const int *dims, int n_tables, uint64_t after,
                     int (*apply)(void *context, uint64_t lsn,
                                  const struct emb_pushlog_record *record),
                     void *context, struct emb_pushlog **log_p)
{
    if (!apply)
        return remove_files(dir);
    struct emb_pushlog *log = calloc(1, sizeof(*log));
    if (!log || !(log->dir = strdup(dir))) {
        free(log);
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a log");
    }
    log->fd = -1;
    log->n_tables = n_tables;
    memcpy(log->dims, dims, (size_t)n_tables * sizeof(*dims));
    log->last_lsn = after;
    log->group_bytes = GROUP_HEADER;
    int status = list_files(dir, &log->files, &log->n_files);
    if (!status)
        status = replay_all(log, after, apply, context);
    if (!status && log->last_lsn < after)
        log->last_lsn = after;
    if (!status)
        status = new_file(log);
    if (status) {
        emb_pushlog_close(log);
        return status;
    }
    *log_p = log;
    return CLU_OK;
}

void emb_pushlog_close(struct emb_pushlog *log)
{
    if (!log)
        return;
    if (log->fd >= 0)
        close(log->fd);
    free(log->files);
    free(log->group);
    free(log->dir);
    free(log);
}

/* ---- writing ---- */

int emb_pushlog_add(struct emb_pushlog *log, const struct emb_pushlog_record *record)
{
    const size_t rest = row_rest(log, record), rows = record->n * (8 + rest), padding = -rows & 7;
    const size_t size = RECORD_HEADER + rows + padding;
    if (log->group_bytes + size > log->group_capacity) {
        size_t capacity = 2 * (log->group_bytes + size);
        char *group = realloc(log->group, capacity);
        if (!group)
            return clu_fail(CLU_E_NO_MEMORY, "no memory for a push of %zu rows", record->n);
        log->group = group;
        log->group_capacity = capacity;
    }
    char *at = log->group + log->group_bytes;
    uint32_t kind = record->kind, table = (uint32_t)record->table;
    uint64_t first = record->step, second = record->n;
    if (record->kind == EMB_LOG_MARK) {
        first = record->incarnation;
        second = record->seq;
    } else if (record->kind == EMB_LOG_ROWS) {
        first = record->value_bytes;
    }
    memcpy(at, &kind, 4);
    memcpy(at + 4, &table, 4);
    memcpy(at + 8, &first, 8);
    memcpy(at + 16, &second, 8);
    if (record->n) {
        const void *values = record->kind == EMB_LOG_PUSH ? record->grads : record->values;
        memcpy(at + RECORD_HEADER, record->keys, 8 * record->n);
        if (rest)
            memcpy(at + RECORD_HEADER + 8 * record->n, values, rest * record->n);
        memset(at + RECORD_HEADER + rows, 0, padding);
    }
    log->group_bytes += size;
    log->last_record_bytes = size;
    log->n_records++;
    return CLU_OK;
}

void emb_pushlog_retract(struct emb_pushlog *log)
{
    log->group_bytes -= log->last_record_bytes;
    log->last_record_bytes = 0;
    log->n_records--;
}

bool emb_pushlog_pending(const struct emb_pushlog *log)
{
    return log->n_records > 0;
}

void emb_pushlog_drop(struct emb_pushlog *log)
{
    log->group_bytes = GROUP_HEADER;
    log->n_records = 0;
}

static int write_group(const struct emb_pushlog *log)
{
    const char *at = log->group;
    size_t size = log->group_bytes;
    while (size > 0) {
        ssize_t done = write(log->fd, at, size);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return errno;
        at += done;
        size -= (size_t)done;
    }
    return fdatasync(log->fd) == 0 ? 0 : errno;
}

int emb_pushlog_commit(struct emb_pushlog *log, uint64_t *lsn_p)
{
    if (log->n_records == 0) {
        *lsn_p = log->last_lsn;
        return CLU_OK;
    }
    struct log_file *file = &log->files[log->n_files - 1];
    uint64_t lsn = log->last_lsn + 1, payload_bytes = log->group_bytes - GROUP_HEADER;
    memcpy(log->group, GROUP_MAGIC, 4);
    memcpy(log->group + 4, &log->n_records, 4);
    memcpy(log->group + 8, &lsn, 8);
    memcpy(log->group + 16, &payload_bytes, 8);
    uint64_t check = clu_hash_bytes(log->group + GROUP_HEADER, payload_bytes);
    memcpy(log->group + 24, &check, 8);
    check = clu_hash_bytes(log->group, 32);
    memcpy(log->group + 32, &check, 8);
    int error = write_group(log);
    if (error) {
        int status = clu_fail(clu_status_from_errno(error), "%s: cannot write the push log: %s",
                              log->dir, strerror(error));
        if (ftruncate(log->fd, (off_t)file->size_bytes) != 0 ||
            lseek(log->fd, (off_t)file->size_bytes, SEEK_SET) < 0)
            return clu_fail(CLU_E_IO, "%s: and cannot cut it back: %s", log->dir, strerror(errno));
        return status;
    }
    file->size_bytes += log->group_bytes;
    log->written_bytes += log->group_bytes;
    log->last_lsn = lsn;
    emb_pushlog_drop(log);
    *lsn_p = lsn;
    return CLU_OK;
}

uint64_t emb_pushlog_lsn(const struct emb_pushlog *log)
{
    return log->last_lsn;
}

int emb_pushlog_rotate(struct emb_pushlog *log)
{
    if (log->files[log->n_files - 1].first_lsn == log->last_lsn + 1)
        return CLU_OK; /* nothing in the open one yet */
    return new_file(log);
}

int emb_pushlog_cut(struct emb_pushlog *log, uint64_t up_to)
{
    size_t n_gone = 0;
    while (n_gone + 1 < log->n_files && log->files[n_gone + 1].first_lsn <= up_to + 1) {
        char path[4096];
        int status = file_path(log->dir, log->files[n_gone].first_lsn, path, sizeof(path));
        if (!status)
            status = clu_remove_tree(path);
        if (status)
            return status;
        n_gone++;
    }
    log->n_files -= n_gone;
    memmove(log->files, log->files + n_gone, log->n_files * sizeof(*log->files));
    return CLU_OK;
}

uint64_t emb_pushlog_bytes(const struct emb_pushlog *log)
{
    uint64_t bytes = log->group_bytes;
    for (size_t i = 0; i < log->n_files; i++)
        bytes += log->files[i].size_bytes;
    return bytes;
}

uint64_t emb_pushlog_written(const struct emb_pushlog *log)
{
    return log->written_bytes;
}
