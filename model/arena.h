/* Carving one workspace into arrays: the same planning code runs twice, once on an arena without
 * memory to learn the size, once on the caller's buffer to get the pointers. Every array starts at
 * 64 bytes, the width of a cache line and of the widest vector. Threads: owner. Cost: an addition
 * an array.
 */
#ifndef MODEL_ARENA_H
#define MODEL_ARENA_H

#include <stddef.h>
#include <stdint.h>

struct mdl_arena {
    char *base; /* NULL: only measure */
    size_t used;
};

/* The next count * size bytes; NULL while measuring. */
static inline void *mdl_arena_take(struct mdl_arena *arena, size_t count, size_t size)
{
    size_t at = arena->used;
    arena->used = (at + count * size + 63) & ~(size_t)63;
    return arena->base ? arena->base + at : NULL;
}

#define MDL_TAKE(arena, count, type)                                                               \
    ((type *)mdl_arena_take((arena), (size_t)(count), sizeof(type)))

#endif
