/* Selection narrows an interval per rank by 16 bits a pass: a pass counts, for every rank whose
 * interval is not yet a single value, how many numbers fall into each of 65536 slices of it. All
 * ranks share the passes. Numbers are compared as u64 with the sign bit flipped, which orders them
 * as int64.
 */
#include "worker/select.h"

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

enum { BUFFER_NUMBERS = 1 << 15, SLICES = 1 << 16, MAX_RANKS = 32 };

static const uint64_t sign = (uint64_t)1 << 63;

int wrk_numbers_init(struct wrk_numbers *numbers, const char *dir)
{
    memset(numbers, 0, sizeof(*numbers));
    numbers->fd = -1;
    if (strlen(dir) >= sizeof(numbers->dir))
        return clu_fail(CLU_E_CONFIG, "%s: the path is too long", dir);
    strcpy(numbers->dir, dir);
    numbers->buffer = malloc(BUFFER_NUMBERS * sizeof(uint64_t));
    return numbers->buffer ? CLU_OK : clu_fail(CLU_E_NO_MEMORY, "out of memory");
}

void wrk_numbers_fini(struct wrk_numbers *numbers)
{
    if (numbers->buffer && numbers->fd >= 0)
        close(numbers->fd);
    free(numbers->buffer);
    memset(numbers, 0, sizeof(*numbers));
    numbers->fd = -1;
}

static int flush(struct wrk_numbers *numbers)
{
    if (numbers->fd < 0) {
        char path[PATH_MAX];
        int status = clu_path_join(path, sizeof(path), numbers->dir,
                                   "numbers-XX"
                                   "XX"
                                   "XX");
        if (status != CLU_OK)
            return status;
        numbers->fd = mkostemp(path, O_CLOEXEC);
        if (numbers->fd < 0)
            return clu_fail(clu_status_from_errno(errno), "%s: creating a temporary file: %s",
                            numbers->dir, strerror(errno));
        unlink(path);
    }
    const char *at = (const char *)numbers->buffer;
    size_t left = numbers->n_buffered * sizeof(uint64_t);
    while (left > 0) {
        ssize_t n = write(numbers->fd, at, left);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return clu_fail(clu_status_from_errno(errno), "%s: writing a temporary file: %s",
                            numbers->dir, strerror(errno));
        at += n;
        left -= (size_t)n;
    }
    numbers->n_buffered = 0;
    return CLU_OK;
}

int wrk_numbers_add(struct wrk_numbers *numbers, uint64_t value)
{
    if (numbers->n_buffered == BUFFER_NUMBERS) {
        int status = flush(numbers);
        if (status != CLU_OK)
            return status;
    }
    numbers->buffer[numbers->n_buffered++] = value;
    numbers->n++;
    return CLU_OK;
}

int wrk_numbers_scan(struct wrk_numbers *numbers, wrk_numbers_visit *visit, void *context)
{
    uint64_t in_file = numbers->n - numbers->n_buffered;
    uint64_t *chunk = malloc(BUFFER_NUMBERS * sizeof(uint64_t));
    if (!chunk)
        return clu_fail(CLU_E_NO_MEMORY, "out of memory");
    int status = CLU_OK;
    for (uint64_t at = 0; status == CLU_OK && at < in_file;) {
        size_t n = in_file - at < BUFFER_NUMBERS ? (size_t)(in_file - at) : BUFFER_NUMBERS;
        size_t got = 0, wanted = n * sizeof(uint64_t);
        while (status == CLU_OK && got < wanted) {
            ssize_t size = pread(numbers->fd, (char *)chunk + got, wanted - got,
                                 (off_t)(at * sizeof(uint64_t) + got));
            if (size < 0 && errno == EINTR)
                continue;
            if (size <= 0)
                status = clu_fail(CLU_E_IO, "%s: reading a temporary file: %s", numbers->dir,
                                  size ? strerror(errno) : "it is shorter than written");
            else
                got += (size_t)size;
        }
        if (status == CLU_OK)
            status = visit(context, chunk, n);
        at += n;
    }
    free(chunk);
    if (status == CLU_OK && numbers->n_buffered > 0)
        status = visit(context, numbers->buffer, numbers->n_buffered);
    return status;
}

/* one rank's interval [low, low + SLICES << shift); rank is within it */
struct target {
    uint64_t low, rank;
    int shift;
    uint64_t *counts; /* [SLICES] */
};

struct selection {
    struct target target[MAX_RANKS];
    int n;
};

static int count_slices(void *context, const uint64_t *values, size_t n)
{
    struct selection *selection = context;
    for (int t = 0; t < selection->n; t++) {
        struct target *target = &selection->target[t];
        for (size_t i = 0; i < n; i++) {
            uint64_t slice = ((values[i] ^ sign) - target->low) >> target->shift;
            if ((values[i] ^ sign) >= target->low && slice < SLICES)
                target->counts[slice]++;
        }
    }
    return CLU_OK;
}

int wrk_numbers_select(struct wrk_numbers *numbers, const uint64_t *ranks, int n_ranks,
                       int64_t *values_p)
{
    struct selection selection = {.n = n_ranks};
    uint64_t *counts = malloc((size_t)n_ranks * SLICES * sizeof(*counts));
    if (!counts)
        return clu_fail(CLU_E_NO_MEMORY, "out of memory for the split");
    int status = CLU_OK;
    for (int t = 0; t < n_ranks; t++)
        selection.target[t] = (struct target){0, ranks[t], 48, counts + (size_t)t * SLICES};
    for (int shift = 48; status == CLU_OK && shift >= 0; shift -= 16) {
        memset(counts, 0, (size_t)n_ranks * SLICES * sizeof(*counts));
        status = wrk_numbers_scan(numbers, count_slices, &selection);
        for (int t = 0; status == CLU_OK && t < n_ranks; t++) {
            struct target *target = &selection.target[t];
            uint64_t slice = 0;
            while (target->rank >= target->counts[slice])
                target->rank -= target->counts[slice++];
            target->low += slice << shift;
            target->shift = shift - 16;
        }
    }
    for (int t = 0; status == CLU_OK && t < n_ranks; t++)
        values_p[t] = (int64_t)(selection.target[t].low ^ sign);
    free(counts);
    return status;
}

struct distinct {
    uint64_t *slots; /* 0: empty; the value 0 is counted apart */
    uint64_t mask, n, part, n_parts;
    bool zero, full;
};

static int count_distinct(void *context, const uint64_t *values, size_t n)
{
    struct distinct *distinct = context;
    for (size_t i = 0; i < n; i++) {
        uint64_t hash = clu_mix(values[i] + 0x9e3779b97f4a7c15u);
        if ((hash >> 32) % distinct->n_parts != distinct->part)
            continue;
        if (values[i] == 0) {
            distinct->zero = true;
            continue;
        }
        uint64_t slot = hash & distinct->mask;
        while (distinct->slots[slot] != 0 && distinct->slots[slot] != values[i])
            slot = (slot + 1) & distinct->mask;
        if (distinct->slots[slot] == values[i])
            continue;
        if (distinct->n > distinct->mask - distinct->mask / 4) {
            distinct->full = true;
            return CLU_OK;
        }
        distinct->slots[slot] = values[i];
        distinct->n++;
    }
    return CLU_OK;
}

int wrk_numbers_count_distinct(struct wrk_numbers *numbers, uint64_t memory_bytes,
                               uint64_t *n_distinct_p)
{
    uint64_t n_slots = 1024;
    while (n_slots < 2 * numbers->n && 2 * n_slots * sizeof(uint64_t) <= memory_bytes)
        n_slots *= 2;
    uint64_t *slots = malloc(n_slots * sizeof(*slots));
    if (!slots)
        return clu_fail(CLU_E_NO_MEMORY, "out of memory for counting items");
    /* few values may repeat often: one part is tried first, and twice as many when it overflows */
    int status = CLU_OK;
    for (uint64_t n_parts = 1; status == CLU_OK; n_parts *= 2) {
        uint64_t total = 0;
        bool full = false;
        for (uint64_t part = 0; status == CLU_OK && part < n_parts && !full; part++) {
            struct distinct distinct = {slots, n_slots - 1, 0, part, n_parts, false, false};
            memset(slots, 0, n_slots * sizeof(*slots));
            status = wrk_numbers_scan(numbers, count_distinct, &distinct);
            total += distinct.n + distinct.zero;
            full = distinct.full;
        }
        if (status == CLU_OK && !full) {
            *n_distinct_p = total;
            break;
        }
    }
    free(slots);
    return status;
}
