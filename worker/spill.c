/* The classic external partition. Sorting runs and merging them was rejected: a merge needs all
 * runs open and a heap step per event, while hashing touches an event once on its way out and once
 * on its way in, and needs no order between users beyond that of the hash itself.
 *
 * Memory: half of the budget holds added events (in blocks, so nothing is moved as they grow); a
 * part is loaded when its records fill at most a third of the budget, which leaves room for the
 * sort index (24 bytes beside records of 60 and more).
 */
#include "worker/spill.h"

#include "cluster/file.h"
#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FAN_BITS = 6, FAN = 1 << FAN_BITS, MAX_DEPTH = 8, BLOCK_BYTES = 1 << 16 };

/* a part may be loaded that takes a third of the budget, and a budget is a quarter of prepare's
 * memory at least (attributes joined, items counted): what to ask for, in sizes of the part */
enum { SHARE = 12 };

struct block {
    struct block *next;
    size_t size_bytes;
    _Alignas(8) char data[];
};

struct part {
    struct block *first, *last; /* in memory, after what is in the file */
    int fd;                     /* -1: no file */
    uint64_t file_bytes, memory_bytes;
    uint64_t first_user;
    bool has_user, has_many_users;
};

struct wrk_spill {
    char *dir;
    uint64_t budget_bytes, used_bytes; /* of blocks */
    uint64_t file_bytes;               /* ever written, children included */
    int n_user_values, n_item_values, depth;
    struct wrk_record *scratch;
    size_t scratch_bytes;
    struct part part[FAN];
};

int wrk_spill_create(const char *dir, uint64_t memory_bytes, int n_user_values, int n_item_values,
                     struct wrk_spill **spill_p)
{
    struct wrk_spill *spill = calloc(1, sizeof(*spill));
    if (!spill || !(spill->dir = strdup(dir))) {
        free(spill);
        return clu_fail(CLU_E_NO_MEMORY, "out of memory");
    }
    spill->budget_bytes = memory_bytes;
    spill->n_user_values = n_user_values;
    spill->n_item_values = n_item_values;
    for (int i = 0; i < FAN; i++)
        spill->part[i].fd = -1;
    *spill_p = spill;
    return CLU_OK;
}

static void free_blocks(struct wrk_spill *spill, struct part *part)
{
    for (struct block *block = part->first, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    spill->used_bytes -= part->memory_bytes;
    part->first = part->last = NULL;
    part->memory_bytes = 0;
}

static void close_part(struct wrk_spill *spill, struct part *part)
{
    free_blocks(spill, part);
    if (part->fd >= 0)
        close(part->fd);
    part->fd = -1;
    part->file_bytes = 0;
}

void wrk_spill_free(struct wrk_spill *spill)
{
    if (!spill)
        return;
    for (int i = 0; i < FAN; i++)
        close_part(spill, &spill->part[i]);
    free(spill->scratch);
    free(spill->dir);
    free(spill);
}

static int write_whole(int fd, const char *data, size_t size_bytes, const char *dir)
{
    while (size_bytes > 0) {
        ssize_t n = write(fd, data, size_bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return clu_fail(clu_status_from_errno(errno), "%s: writing a temporary file: %s", dir,
                            strerror(errno));
        data += n;
        size_bytes -= (size_t)n;
    }
    return CLU_OK;
}

static int open_file(const char *dir, int *fd_p)
{
    char path[PATH_MAX];
    int status = clu_path_join(path, sizeof(path), dir,
                               "spill-XX"
                               "XX"
                               "XX");
    if (status != CLU_OK)
        return status;
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return clu_fail(clu_status_from_errno(errno), "%s: creating a temporary file: %s", dir,
                        strerror(errno));
    unlink(path);
    *fd_p = fd;
    return CLU_OK;
}

static int flush_part(struct wrk_spill *spill, struct part *part)
{
    int status = CLU_OK;
    if (part->fd < 0 && part->first)
        status = open_file(spill->dir, &part->fd);
    for (struct block *block = part->first; status == CLU_OK && block; block = block->next) {
        status = write_whole(part->fd, block->data, block->size_bytes, spill->dir);
        part->file_bytes += block->size_bytes;
        spill->file_bytes += block->size_bytes;
    }
    free_blocks(spill, part);
    return status;
}

static int add_record(struct wrk_spill *spill, const struct wrk_record *record)
{
    uint64_t hash = clu_mix(record->user_key);
    struct part *part = &spill->part[(hash << (FAN_BITS * spill->depth)) >> (64 - FAN_BITS)];
    if (!part->has_user)
        part->first_user = record->user_key;
    part->has_many_users |= part->has_user && part->first_user != record->user_key;
    part->has_user = true;
    if (!part->last || part->last->size_bytes + record->size_bytes > BLOCK_BYTES) {
        for (int i = 0; i < FAN && spill->used_bytes + BLOCK_BYTES > spill->budget_bytes / 2; i++) {
            int status = flush_part(spill, &spill->part[i]);
            if (status != CLU_OK)
                return status;
        }
        struct block *block = malloc(sizeof(*block) + BLOCK_BYTES);
        if (!block)
            return clu_fail(CLU_E_NO_MEMORY, "out of memory for %d more bytes of events",
                            BLOCK_BYTES);
        block->next = NULL;
        block->size_bytes = 0;
        if (part->last)
            part->last->next = block;
        else
            part->first = block;
        part->last = block;
        part->memory_bytes += BLOCK_BYTES;
        spill->used_bytes += BLOCK_BYTES;
    }
    memcpy(part->last->data + part->last->size_bytes, record, record->size_bytes);
    part->last->size_bytes += record->size_bytes;
    return CLU_OK;
}

int wrk_spill_add(struct wrk_spill *spill, const struct wrk_event *event)
{
    int n_values = spill->n_user_values + spill->n_item_values;
    size_t size = sizeof(struct wrk_record) + (size_t)n_values * 8 + event->user.size_bytes +
                  event->item.size_bytes;
    size = (size + 7) & ~(size_t)7;
    if (size > spill->scratch_bytes) {
        struct wrk_record *scratch = realloc(spill->scratch, size);
        if (!scratch)
            return clu_fail(CLU_E_NO_MEMORY, "out of memory");
        spill->scratch = scratch;
        spill->scratch_bytes = size;
    }
    struct wrk_record *record = spill->scratch;
    memset(record, 0, size);
    record->size_bytes = (uint32_t)size;
    record->action = (uint8_t)event->action;
    record->flags = (uint8_t)((event->user.text ? WRK_RECORD_USER_TEXT : 0) |
                              (event->item.text ? WRK_RECORD_ITEM_TEXT : 0) |
                              (event->user.is_unsigned ? WRK_RECORD_USER_UNSIGNED : 0) |
                              (event->item.is_unsigned ? WRK_RECORD_ITEM_UNSIGNED : 0));
    record->user_text_bytes = (uint16_t)event->user.size_bytes;
    record->item_text_bytes = (uint16_t)event->item.size_bytes;
    record->duration_s = (float)event->duration_s;
    record->position_s = (float)event->position_s;
    record->user_key = event->user.key;
    record->item_key = event->item.key;
    record->time_ms = event->time_ms;
    memcpy(record->value, event->user_value, (size_t)spill->n_user_values * 8);
    memcpy(record->value + spill->n_user_values, event->item_value,
           (size_t)spill->n_item_values * 8);
    char *text = (char *)(record->value + n_values);
    if (event->user.text)
        memcpy(text, event->user.text, event->user.size_bytes);
    if (event->item.text)
        memcpy(text + event->user.size_bytes, event->item.text, event->item.size_bytes);
    return add_record(spill, record);
}

struct wrk_stored_id wrk_record_user(const struct wrk_record *record, int n_values)
{
    bool text = record->flags & WRK_RECORD_USER_TEXT;
    return (struct wrk_stored_id){
        record->user_key, text ? (const char *)(record->value + n_values) : NULL,
        record->user_text_bytes, record->flags & WRK_RECORD_USER_UNSIGNED};
}

struct wrk_stored_id wrk_record_item(const struct wrk_record *record, int n_values)
{
    bool text = record->flags & WRK_RECORD_ITEM_TEXT;
    const char *texts = (const char *)(record->value + n_values);
    return (struct wrk_stored_id){record->item_key, text ? texts + record->user_text_bytes : NULL,
                                  record->item_text_bytes,
                                  record->flags & WRK_RECORD_ITEM_UNSIGNED};
}

/* one entry of the sort: mix(user), time, and the place in the buffer, which is the order of
 * arrival */
struct entry {
    uint64_t hash;
    int64_t time_ms;
    const struct wrk_record *record;
};

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    if (x->time_ms != y->time_ms)
        return x->time_ms < y->time_ms ? -1 : 1;
    return x->record < y->record ? -1 : x->record > y->record;
}

static int read_whole(int fd, char *data, uint64_t size_bytes, uint64_t offset, const char *dir)
{
    while (size_bytes > 0) {
        ssize_t n = pread(fd, data, size_bytes, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return clu_fail(n ? clu_status_from_errno(errno) : CLU_E_IO,
                            "%s: reading a temporary file: %s", dir,
                            n ? strerror(errno) : "it is shorter than written");
        data += n;
        offset += (uint64_t)n;
        size_bytes -= (uint64_t)n;
    }
    return CLU_OK;
}

/* visits the users of a sorted run of entries; pointers is scratch of the same length */
static int visit_users(const struct entry *entries, size_t n, const struct wrk_record **pointers,
                       wrk_spill_visit *visit, void *context)
{
    for (size_t from = 0, to; from < n; from = to) {
        for (to = from; to < n && entries[to].hash == entries[from].hash; to++)
            pointers[to - from] = entries[to].record;
        int status = visit(context, pointers, to - from);
        if (status != CLU_OK)
            return status;
    }
    return CLU_OK;
}

static uint64_t part_bytes(const struct part *part)
{
    uint64_t bytes = part->file_bytes;
    for (const struct block *block = part->first; block; block = block->next)
        bytes += block->size_bytes;
    return bytes;
}

static int drain_in_memory(struct wrk_spill *spill, struct part *part, wrk_spill_visit *visit,
                           void *context)
{
    uint64_t size = part_bytes(part);
    char *data = malloc(size ? size : 1);
    struct entry *entries = NULL;
    const struct wrk_record **pointers = NULL;
    int status = CLU_OK;
    if (!data)
        status = clu_fail(CLU_E_NO_MEMORY, "out of memory for %llu bytes of events",
                          (unsigned long long)size);
    if (status == CLU_OK && part->file_bytes)
        status = read_whole(part->fd, data, part->file_bytes, 0, spill->dir);
    if (status != CLU_OK)
        goto done;
    char *end = data + part->file_bytes;
    for (const struct block *block = part->first; block; block = block->next) {
        memcpy(end, block->data, block->size_bytes);
        end += block->size_bytes;
    }
    close_part(spill, part);
    size_t n = 0;
    for (char *at = data; at < end; at += ((struct wrk_record *)at)->size_bytes)
        n++;
    entries = malloc((n + 1) * sizeof(*entries));
    pointers = malloc((n + 1) * sizeof(*pointers));
    if (!entries || !pointers) {
        status = clu_fail(CLU_E_NO_MEMORY, "out of memory for sorting %zu events", n);
        goto done;
    }
    n = 0;
    for (char *at = data; at < end; at += ((struct wrk_record *)at)->size_bytes) {
        const struct wrk_record *record = (struct wrk_record *)at;
        entries[n++] = (struct entry){clu_mix(record->user_key), record->time_ms, record};
    }
    qsort(entries, n, sizeof(*entries), compare_entries);
    status = visit_users(entries, n, pointers, visit, context);
done:
    free(pointers);
    free(entries);
    free(data);
    return status;
}

/* moves a part's records into a spill one level deeper */
static int split_part(struct wrk_spill *spill, struct part *part, struct wrk_spill *child)
{
    enum { WINDOW = 1 << 20 };
    char *window = malloc(WINDOW);
    if (!window)
        return clu_fail(CLU_E_NO_MEMORY, "out of memory");
    int status = CLU_OK;
    for (uint64_t at = 0; status == CLU_OK && at < part->file_bytes;) {
        size_t size = part->file_bytes - at < WINDOW ? (size_t)(part->file_bytes - at) : WINDOW;
        status = read_whole(part->fd, window, size, at, spill->dir);
        size_t used = 0;
        while (status == CLU_OK && used + sizeof(struct wrk_record) <= size) {
            const struct wrk_record *record = (const struct wrk_record *)(window + used);
            if (used + record->size_bytes > size)
                break;
            status = add_record(child, record);
            used += record->size_bytes;
        }
        at += used;
    }
    for (struct block *block = part->first; status == CLU_OK && block; block = block->next)
        for (size_t at = 0; status == CLU_OK && at < block->size_bytes;) {
            const struct wrk_record *record = (const struct wrk_record *)(block->data + at);
            status = add_record(child, record);
            at += record->size_bytes;
        }
    free(window);
    close_part(spill, part);
    return status;
}

static int drain_part(struct wrk_spill *spill, struct part *part, wrk_spill_visit *visit,
                      void *context)
{
    uint64_t size = part_bytes(part);
    if (size == 0)
        return CLU_OK;
    if (size <= spill->budget_bytes / 3)
        return drain_in_memory(spill, part, visit, context);
    if (!part->has_many_users || spill->depth == MAX_DEPTH)
        return clu_fail(
            CLU_E_DATA,
            "the events of one user (or, for --item-counts, of one item) take %llu MiB, "
            "more than can be sorted: give --memory %lluMiB, or --item-counts false",
            (unsigned long long)(size >> 20), (unsigned long long)(SHARE * size >> 20) + 1);
    struct wrk_spill *child;
    int status = wrk_spill_create(spill->dir, spill->budget_bytes, spill->n_user_values,
                                  spill->n_item_values, &child);
    if (status != CLU_OK)
        return status;
    child->depth = spill->depth + 1;
    status = split_part(spill, part, child);
    if (status == CLU_OK)
        status = wrk_spill_drain(child, visit, context);
    spill->file_bytes += child->file_bytes;
    wrk_spill_free(child);
    return status;
}

int wrk_spill_drain(struct wrk_spill *spill, wrk_spill_visit *visit, void *context)
{
    /* once files were needed, the blocks still held go there too: a part's turn needs the memory */
    bool spilled = spill->file_bytes > 0;
    int status = CLU_OK;
    for (int i = 0; i < FAN && status == CLU_OK && spilled; i++)
        status = flush_part(spill, &spill->part[i]);
    for (int i = 0; i < FAN && status == CLU_OK; i++)
        status = drain_part(spill, &spill->part[i], visit, context);
    return status;
}

uint64_t wrk_spill_file_bytes(const struct wrk_spill *spill)
{
    return spill->file_bytes;
}
