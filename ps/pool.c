/* Size classes are powers of two; a buffer's head, 64 bytes before what the caller sees, knows its
 * class and its pool. The pool lives until its owner has released it and every buffer is back: each
 * of them holds a reference.
 */
#include "ps/pool.h"

#include "cluster/status.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { MIN_CLASS = 12, N_CLASSES = 48, HEAD_BYTES = 64 };

struct head {
    struct psv_pool *pool;
    struct head *next;
    int class;
};

_Static_assert(sizeof(struct head) <= HEAD_BYTES, "a head fits before its buffer");

struct psv_pool {
    _Atomic(struct head *) given;
    _Atomic uint64_t lent_bytes;
    _Atomic uint64_t n_references;
    uint64_t keep_bytes, idle_bytes;
    struct head *idle[N_CLASSES];
};

static uint64_t class_bytes(int class)
{
    return (uint64_t)1 << class;
}

int psv_pool_create(uint64_t keep_bytes, struct psv_pool **pool_p)
{
    struct psv_pool *pool = calloc(1, sizeof(*pool));
    if (!pool)
        return CLU_E_NO_MEMORY;
    pool->keep_bytes = keep_bytes;
    atomic_store(&pool->n_references, 1);
    *pool_p = pool;
    return 0;
}

static void free_list(struct head *head)
{
    while (head) {
        struct head *next = head->next;
        free(head);
        head = next;
    }
}

static void drop_reference(struct psv_pool *pool)
{
    if (atomic_fetch_sub(&pool->n_references, 1) == 1) {
        free_list(atomic_exchange(&pool->given, NULL));
        free(pool);
    }
}

void psv_pool_release(struct psv_pool *pool)
{
    if (!pool)
        return;
    for (int c = 0; c < N_CLASSES; c++)
        free_list(pool->idle[c]);
    drop_reference(pool);
}

static void sort_given(struct psv_pool *pool)
{
    struct head *head = atomic_exchange(&pool->given, NULL);
    while (head) {
        struct head *next = head->next;
        uint64_t bytes = class_bytes(head->class);
        if (pool->idle_bytes + bytes > pool->keep_bytes) {
            free(head);
        } else {
            head->next = pool->idle[head->class];
            pool->idle[head->class] = head;
            pool->idle_bytes += bytes;
        }
        head = next;
    }
}

void *psv_pool_take(struct psv_pool *pool, size_t size_bytes)
{
    int class = MIN_CLASS;
    while (class < N_CLASSES && class_bytes(class) < size_bytes)
        class ++;
    if (class == N_CLASSES)
        return NULL;
    if (!pool->idle[class])
        sort_given(pool);
    struct head *head = pool->idle[class];
    if (head) {
        pool->idle[class] = head->next;
        pool->idle_bytes -= class_bytes(class);
    } else {
        head = aligned_alloc(64, HEAD_BYTES + class_bytes(class));
        if (!head)
            return NULL;
        head->pool = pool;
        head->class = class;
    }
    atomic_fetch_add(&pool->lent_bytes, class_bytes(class));
    atomic_fetch_add(&pool->n_references, 1);
    return (char *)head + HEAD_BYTES;
}

void psv_pool_give(void *buffer, void *hint)
{
    (void)hint;
    struct head *head = (struct head *)(void *)((char *)buffer - HEAD_BYTES);
    struct psv_pool *pool = head->pool;
    atomic_fetch_sub(&pool->lent_bytes, class_bytes(head->class));
    head->next = atomic_load(&pool->given);
    while (!atomic_compare_exchange_weak(&pool->given, &head->next, head))
        ;
    drop_reference(pool);
}

uint64_t psv_pool_lent(const struct psv_pool *pool)
{
    return atomic_load(&((struct psv_pool *)pool)->lent_bytes);
}
