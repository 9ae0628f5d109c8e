/* Makes every N-th allocation fail, to prove that running out of memory is an error and nothing
 * worse.
 *
 *     for (long n = 0, hit = 1; hit; n++) {
 *         oom_arm(n);
 *         int status = wrk_thing_create(&thing);
 *         hit = oom_disarm();
 *         CU_ASSERT_EQUAL(status, hit ? CLU_E_NO_MEMORY : CLU_OK);
 *     }
 *
 * A test that uses it is declared with OOM in its sluice_test() line: the linker then sends malloc,
 * calloc, realloc and strdup of the code under test through the counters here (--wrap, no hook in
 * product code). oom_arm(n) lets n allocations pass and fails the one after; oom_disarm() returns
 * whether one failed. Include it in one .c of a test. Not for tests with threads that must not be
 * hit: the counter is global.
 */
#ifndef TESTS_OOM_H
#define TESTS_OOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static long oom_left = -1; /* -1: not armed */
static bool oom_hit;

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);
char *__wrap_strdup(const char *text);

static inline bool oom_now(void)
{
    if (oom_left < 0 || oom_left-- > 0)
        return false;
    oom_left = -1;
    oom_hit = true;
    return true;
}

void *__wrap_malloc(size_t size)
{
    return oom_now() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return oom_now() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return oom_now() ? NULL : __real_realloc(old, size);
}

char *__wrap_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = oom_now() ? NULL : __real_malloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}

static inline void oom_arm(long n_passing)
{
    oom_hit = false;
    oom_left = n_passing;
}

static inline bool oom_disarm(void)
{
    oom_left = -1;
    return oom_hit;
}

#endif
