/* Ranges. See range.h.
 *
 * (R1) The feeder works in steps of one huge page and looks between them whether it is to stop; so
 *      settling waits for one page at most.
 * (R2) A feeder that cannot be made, a full queue and a system that cannot populate cost speed
 *      only: pages come to be when they are touched.
 * (R3) A range is made usable whole when it is reserved, where the system grants that (it does not
 *      where memory is strictly accounted): each later call about its addresses would wait for the
 *      feeder, as long as a page takes to clear, at worst 16 ms beside other work.
 */
#include "embeddings/range.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum {
    SMALL_STEP = 64 << 10, /* ranges grow by this until BIG_STEP, then by BIG_STEP */
    BIG_STEP = 2 << 20,    /* one huge page */
    AHEAD_FROM = 4 << 20,
    AHEAD_MOST = 32 << 20,
    AHEAD_SHARE = 4,
    MAX_ASKED = 8,
};

static size_t round_up(size_t value, size_t unit)
{
    return (value + unit - 1) / unit * unit;
}

/* ---- the feeder ---- */

struct piece {
    char *from, *to;
};

struct emb_feeder {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct piece asked[MAX_ASKED]; /* n_asked, the first is next */
    int n_asked;
    bool busy, stop;
};

/* The next step of work, at most one huge page; waits for it. False: to stop. Sets busy. */
static bool next_step(struct emb_feeder *feeder, struct piece *step)
{
    pthread_mutex_lock(&feeder->mutex);
    feeder->busy = false;
    pthread_cond_broadcast(&feeder->changed);
    while (feeder->n_asked == 0 && !feeder->stop)
        pthread_cond_wait(&feeder->changed, &feeder->mutex);
    bool go_on = !feeder->stop;
    if (go_on) {
        struct piece *first = &feeder->asked[0];
        *step = *first;
        if (step->to - step->from > BIG_STEP)
            step->to = step->from + BIG_STEP;
        first->from = step->to;
        if (first->from == first->to) {
            feeder->n_asked--;
            for (int i = 0; i < feeder->n_asked; i++)
                feeder->asked[i] = feeder->asked[i + 1];
        }
        feeder->busy = true;
    }
    pthread_mutex_unlock(&feeder->mutex);
    return go_on;
}

static void *feed(void *arg)
{
    struct piece step;
    while (next_step(arg, &step)) /* (R1) */
        (void)madvise(step.from, (size_t)(step.to - step.from), MADV_POPULATE_WRITE);
    return NULL;
}

static struct emb_feeder *feeder_create(void)
{
    struct emb_feeder *feeder = calloc(1, sizeof(*feeder));
    if (!feeder)
        return NULL;
    pthread_mutex_init(&feeder->mutex, NULL);
    pthread_cond_init(&feeder->changed, NULL);
    if (pthread_create(&feeder->thread, NULL, feed, feeder) == 0)
        return feeder;
    pthread_cond_destroy(&feeder->changed);
    pthread_mutex_destroy(&feeder->mutex);
    free(feeder);
    return NULL;
}

static void feeder_ask(struct emb_feeder *feeder, char *from, char *to)
{
    pthread_mutex_lock(&feeder->mutex);
    if (feeder->n_asked < MAX_ASKED) /* (R2) */
        feeder->asked[feeder->n_asked++] = (struct piece){from, to};
    pthread_cond_broadcast(&feeder->changed);
    pthread_mutex_unlock(&feeder->mutex);
}

void emb_feeder_settle(struct emb_feeder *feeder)
{
    if (!feeder)
        return;
    pthread_mutex_lock(&feeder->mutex);
    feeder->n_asked = 0;
    while (feeder->busy)
        pthread_cond_wait(&feeder->changed, &feeder->mutex);
    pthread_mutex_unlock(&feeder->mutex);
}

void emb_feeder_free(struct emb_feeder *feeder)
{
    if (!feeder)
        return;
    pthread_mutex_lock(&feeder->mutex);
    feeder->stop = true;
    pthread_cond_broadcast(&feeder->changed);
    pthread_mutex_unlock(&feeder->mutex);
    pthread_join(feeder->thread, NULL);
    pthread_cond_destroy(&feeder->changed);
    pthread_mutex_destroy(&feeder->mutex);
    free(feeder);
}

/* ---- ranges ---- */

int emb_range_reserve(struct emb_range *range, size_t wish)
{
    wish = round_up(wish, BIG_STEP);
    if (wish < 4 * (size_t)BIG_STEP)
        wish = 4 * (size_t)BIG_STEP;
    for (; wish >= 4 * (size_t)BIG_STEP; wish = round_up(wish / 2, BIG_STEP)) {
        char *base = mmap(NULL, wish + BIG_STEP, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED)
            continue;
        char *aligned = (char *)round_up((size_t)base, BIG_STEP);
        if (aligned > base)
            munmap(base, (size_t)(aligned - base));
        size_t tail = BIG_STEP - (size_t)(aligned - base);
        if (tail)
            munmap(aligned + wish, tail);
        /* (R3) */
        bool open = mprotect(aligned, wish, PROT_READ | PROT_WRITE) == 0;
        *range = (struct emb_range){.base = aligned, .reserved = wish, .open = open};
        return CLU_OK;
    }
    return clu_fail(CLU_E_NO_MEMORY, "cannot reserve %zu bytes of address space for rows", wish);
}

size_t emb_range_growth(const struct emb_range *range, size_t needed)
{
    if (needed <= range->committed)
        return 0;
    return round_up(needed, needed > BIG_STEP ? BIG_STEP : SMALL_STEP) - range->committed;
}

int emb_range_commit(struct emb_range *range, size_t needed)
{
    size_t target = range->committed + emb_range_growth(range, needed);
    if (target == range->committed)
        return CLU_OK;
    if (target > range->reserved ||
        (!range->open && mprotect(range->base + range->committed, target - range->committed,
                                  PROT_READ | PROT_WRITE) != 0))
        return CLU_E_NO_MEMORY;
#ifdef MADV_HUGEPAGE
    if (target > BIG_STEP && !range->huge) { /* advice; refusal only costs speed */
        (void)madvise(range->base, range->reserved, MADV_HUGEPAGE);
        range->huge = true;
    }
#endif
    range->committed = target;
    return CLU_OK;
}

void emb_range_ahead(struct emb_range *range, size_t used, struct emb_feeder **feeder_p)
{
    size_t ahead = used / AHEAD_SHARE < AHEAD_MOST ? used / AHEAD_SHARE : AHEAD_MOST;
    if (used < AHEAD_FROM || range->committed >= used + ahead / 2)
        return;
    char *from = range->base + range->committed;
    if (emb_range_commit(range, used + ahead) != CLU_OK)
        return;
    if (!*feeder_p)
        *feeder_p = feeder_create();
    if (*feeder_p)
        feeder_ask(*feeder_p, from, range->base + range->committed);
}

void emb_range_trim(struct emb_range *range, size_t keep)
{
    keep = round_up(keep, keep > BIG_STEP ? BIG_STEP : SMALL_STEP);
    if (keep >= range->committed)
        return;
    madvise(range->base + keep, range->committed - keep, MADV_DONTNEED);
    if (!range->open)
        mprotect(range->base + keep, range->committed - keep, PROT_NONE);
    range->committed = keep;
}

void emb_range_release(struct emb_range *range)
{
    if (range->base)
        munmap(range->base, range->reserved);
    *range = (struct emb_range){0};
}
