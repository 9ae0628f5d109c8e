/* Sums over ranks: right, the same on every rank, and never waited for past a deadline. Runs as one
 * process and, as worker.mpi_ranks, under mpirun with three. */
#include "tests/suite.h"

#include "cluster/status.h"
#include "worker/mpi.h"

#include <unistd.h>

static struct wrk_mpi *the_world; /* MPI can be started once a process */

static void end_world(void)
{
    wrk_mpi_fini(the_world);
}

static struct wrk_mpi *world(void)
{
    if (!the_world) {
        if (wrk_mpi_init(&the_world) != CLU_OK)
            exit(2);
        atexit(end_world);
    }
    return the_world;
}

static void test_sums_are_those_of_all_ranks(void)
{
    struct wrk_mpi *mpi = world();
    int rank = wrk_mpi_rank(mpi), size = wrk_mpi_size(mpi);
    enum { N = 100003 };
    float *values = malloc(N * sizeof(*values));
    for (int i = 0; i < N; i++)
        values[i] = (float)(rank + 1) * (float)(i % 1000);
    CU_ASSERT_EQUAL(wrk_mpi_sum_floats(mpi, values, N, 10000), CLU_OK);
    int wrong = 0;
    for (int i = 0; i < N; i++)
        wrong += values[i] != (float)(size * (size + 1) / 2) * (float)(i % 1000);
    CU_ASSERT_EQUAL(wrong, 0);
    free(values);
}

/* rounding depends on order: whatever the order is, it must be the same everywhere */
static void test_sums_have_the_same_bits_on_every_rank(void)
{
    struct wrk_mpi *mpi = world();
    uint64_t seed = 77 + (uint64_t)wrk_mpi_rank(mpi);
    enum { N = 4099 };
    float values[N], first[N];
    for (int i = 0; i < N; i++)
        values[i] = (float)suite_uniform(&seed, -1e3, 1e3);
    CU_ASSERT_EQUAL(wrk_mpi_sum_floats(mpi, values, N, 10000), CLU_OK);
    memcpy(first, values, sizeof(first));
    CU_ASSERT_EQUAL(wrk_mpi_broadcast(mpi, first, sizeof(first), 10000), CLU_OK);
    CU_ASSERT_EQUAL(memcmp(first, values, sizeof(first)), 0);
}

static void test_the_largest_is_everybodys(void)
{
    struct wrk_mpi *mpi = world();
    int64_t values[2] = {wrk_mpi_rank(mpi), -wrk_mpi_rank(mpi)};
    CU_ASSERT_EQUAL(wrk_mpi_max_ints(mpi, values, 2, 10000), CLU_OK);
    CU_ASSERT_EQUAL(values[0], wrk_mpi_size(mpi) - 1);
    CU_ASSERT_EQUAL(values[1], 0);
}

static void test_gather_keeps_rank_order_and_lengths(void)
{
    struct wrk_mpi *mpi = world();
    int rank = wrk_mpi_rank(mpi), size = wrk_mpi_size(mpi);
    char own[8];
    memset(own, 'a' + rank, sizeof(own));
    void *all = NULL;
    size_t sizes[64];
    CU_ASSERT_EQUAL_FATAL(wrk_mpi_gather(mpi, own, (size_t)rank * 2, 10000, &all, sizes), CLU_OK);
    size_t at = 0;
    for (int r = 0; r < size; r++) {
        CU_ASSERT_EQUAL(sizes[r], (size_t)r * 2);
        for (size_t i = 0; rank == 0 && i < sizes[r]; i++)
            CU_ASSERT_EQUAL(((char *)all)[at + i], 'a' + r);
        at += sizes[r];
    }
    CU_ASSERT_EQUAL(all != NULL, rank == 0);
    free(all);
}

/* Numbers of a round: each once over all ranks, while rank 0 is not in MPI at all. */
static void test_a_number_is_drawn_once_whatever_rank_0_does(void)
{
    struct wrk_mpi *mpi = world();
    enum { N = 300 };
    int rank = wrk_mpi_rank(mpi), size = wrk_mpi_size(mpi);
    CU_ASSERT_EQUAL_FATAL(wrk_mpi_start_draws(mpi), CLU_OK);
    for (uint64_t round = 1; round <= 3; round++) {
        float times[N] = {0};
        int64_t number = 0, last = -1, n_own = 0;
        char none_left
            [64]; /* rank 1 makes it once nothing is left; until then rank 0 is elsewhere */
        snprintf(none_left, sizeof(none_left), "/tmp/sluice-draws-%ld-%d", (long)getppid(),
                 (int)round);
        for (int i = 0; rank == 0 && size > 1 && access(none_left, F_OK) != 0 && i < 1000; i++)
            usleep(10000);
        for (;;) {
            CU_ASSERT_EQUAL_FATAL(wrk_mpi_draw(mpi, round * 10, &number, 10000), CLU_OK);
            CU_ASSERT(number > last);
            last = number;
            if (number >= N)
                break;
            times[number]++;
            n_own++;
        }
        FILE *file = rank == 1 ? fopen(none_left, "w") : NULL;
        if (file)
            fclose(file);
        CU_ASSERT(size == 1 || rank != 0 || n_own == 0);
        CU_ASSERT_EQUAL(wrk_mpi_sum_floats(mpi, times, N, 10000), CLU_OK); /* the meeting */
        for (int i = 0; i < N; i++)
            CU_ASSERT_EQUAL(times[i], 1);
        if (rank == 0)
            unlink(none_left);
    }
}

/* the last: a collective that missed its deadline cannot be taken back */
static void test_a_rank_that_does_not_come_is_not_waited_for(void)
{
    struct wrk_mpi *mpi = world();
    static float value = 1; /* outlives the sum that rank 0 gives up on */
    if (wrk_mpi_size(mpi) == 1)
        return;        /* nobody to wait for */
    char given_up[64]; /* rank 0 makes it once it has given up; mpirun is the parent of all ranks */
    snprintf(given_up, sizeof(given_up), "/tmp/sluice-mpi-%ld", (long)getppid());
    for (int i = 0; wrk_mpi_rank(mpi) == 1 && access(given_up, F_OK) != 0 && i < 1000; i++)
        usleep(10000);
    int status = wrk_mpi_sum_floats(mpi, &value, 1, wrk_mpi_rank(mpi) == 0 ? 100 : 10000);
    CU_ASSERT_EQUAL(status, wrk_mpi_rank(mpi) == 0 ? CLU_E_TIMEOUT : CLU_OK);
    FILE *file = wrk_mpi_rank(mpi) == 0 ? fopen(given_up, "w") : NULL;
    if (file)
        fclose(file);
    if (wrk_mpi_rank(mpi) == 1)
        unlink(given_up);
}

SUITE("worker.mpi", T(test_sums_are_those_of_all_ranks),
      T(test_sums_have_the_same_bits_on_every_rank), T(test_the_largest_is_everybodys),
      T(test_gather_keeps_rank_order_and_lengths),
      T(test_a_number_is_drawn_once_whatever_rank_0_does),
      T(test_a_rank_that_does_not_come_is_not_waited_for))
