/* Pool: large buffers lent to the transport and used again.
 *
 * glibc gives a freed megabyte back to the kernel at once, and the next reply faults its pages in
 * again; the pool keeps them. One thread takes; any thread gives back (the transport's, when the
 * bytes are sent), without a lock: given buffers wait in a list that the taker empties as a whole.
 */
#ifndef PS_POOL_H
#define PS_POOL_H

#include <stddef.h>
#include <stdint.h>

struct psv_pool;

/* keep_bytes: idle buffers kept at most; more are freed. */
int psv_pool_create(uint64_t keep_bytes, struct psv_pool **pool_p);

/* Frees idle buffers now and the pool itself when the last lent buffer comes back. NULL is fine. */
void psv_pool_release(struct psv_pool *pool);

/* At least size_bytes, aligned to 64; NULL without memory. Thread: owner. */
void *psv_pool_take(struct psv_pool *pool, size_t size_bytes);

/* Gives a buffer back; the signature is what the transport calls (hint is not used). Thread: any.
 */
void psv_pool_give(void *buffer, void *hint);

/* Bytes of buffers lent at this moment. Thread: any. */
uint64_t psv_pool_lent(const struct psv_pool *pool);

#endif
