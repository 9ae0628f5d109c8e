/* What of LMDB's map is resident in this process, and how it is kept small.
 *
 * The map is the page cache seen through addresses; a page that is looked at becomes resident here,
 * and the kernel brings fifteen around it along, of which a lookup by key needs none. Where the
 * system lets us (userfaultfd, write-protect mode, which is registered and never used), it is told
 * to bring only what is asked for: lookups cost half the kernel's time, and the budget holds
 * sixteen times as many pages that are worth it. Elsewhere nothing but that is lost.
 *
 * Resident pages are counted as they may have been touched, not asked for: the count is an upper
 * bound but for what has been touched many times. Threads: one owner; emb_mapped_touch: any.
 */
#ifndef EMBEDDINGS_MAPPED_H
#define EMBEDDINGS_MAPPED_H

#include <lmdb.h>

#include <stddef.h>
#include <stdint.h>

struct emb_mapped {
    char *base; /* NULL: to be found */
    size_t size_bytes;
    int fd;               /* of the registration, -1: none */
    uint64_t touch_bytes; /* resident by the first touch of a page; atomic */
    uint64_t touched;     /* bytes since the last trim; atomic */
};

void emb_mapped_init(struct emb_mapped *mapped);
void emb_mapped_fini(struct emb_mapped *mapped);

/* The environment's map was made anew, and may lie elsewhere. */
void emb_mapped_moved(struct emb_mapped *mapped);

/* n pages, far from each other, have been looked at. */
static inline void emb_mapped_touch(struct emb_mapped *mapped, size_t n_pages)
{
    uint64_t bytes = __atomic_load_n(&mapped->touch_bytes, __ATOMIC_RELAXED);
    __atomic_fetch_add(&mapped->touched, n_pages * bytes, __ATOMIC_RELAXED);
}

/* A run of bytes has been read. */
static inline void emb_mapped_touch_run(struct emb_mapped *mapped, size_t n_bytes)
{
    __atomic_fetch_add(&mapped->touched, n_bytes, __ATOMIC_RELAXED);
}

static inline uint64_t emb_mapped_touched(const struct emb_mapped *mapped)
{
    return __atomic_load_n(&mapped->touched, __ATOMIC_RELAXED);
}

/* Gives the resident ones of the first used_bytes back to the page cache: they stay cached. */
void emb_mapped_trim(struct emb_mapped *mapped, MDB_env *env, size_t used_bytes);

#endif
