/* How work beside training is spread over time, so that in no second it takes much of a core: as
 * much of it is done as of the time has passed. Costs a comparison; the owner sets it, any
 * thread may ask.
 */
#ifndef EMBEDDINGS_PACE_H
#define EMBEDDINGS_PACE_H

#include <stdint.h>

struct emb_pace {
    int64_t began_us, spread_us; /* spread_us: atomic; 0: as fast as it can be, -1: and for good */
};

/* Microseconds, of the clock that now_us is of, to wait until work goes on: `done` of it is done
 * and `left` is left, both in any one unit. 0: it is late or as it should be, or has no pace. */
static inline int64_t emb_pace_wait_us(const struct emb_pace *pace, int64_t now_us, double done,
                                       double left)
{
    const int64_t spread_us = __atomic_load_n(&pace->spread_us, __ATOMIC_RELAXED);
    if (spread_us <= 0 || done <= 0)
        return 0;
    const double due = (double)spread_us * done / (done + (left > 0 ? left : 0));
    const int64_t wait = pace->began_us + (int64_t)due - now_us;
    return wait > 0 ? wait : 0;
}

/* Changes it, unless it is hurried for good. */
static inline void emb_pace_set(struct emb_pace *pace, int64_t spread_us)
{
    if (__atomic_load_n(&pace->spread_us, __ATOMIC_RELAXED) >= 0)
        __atomic_store_n(&pace->spread_us, spread_us, __ATOMIC_RELAXED);
}

/* From now on as fast as it can be. */
static inline void emb_pace_hurry(struct emb_pace *pace)
{
    __atomic_store_n(&pace->spread_us, -1, __ATOMIC_RELAXED);
}

#endif
