/* MPI behind sums, a gather and a counter, none of which waits for ever.
 *
 * Open MPI's blocking all-reduce spins in the progress engine until the last rank arrives. On a
 * machine where servers share the cores with the ranks that steals exactly the core on which the
 * server would answer the late rank. So every collective here is the non-blocking one, tested in a
 * loop: a spin of about 50 us (the time of an all-reduce whose ranks arrive together), then naps,
 * doubled up to 100 us. A deadline is checked at each nap.
 *
 * A collective whose deadline passed cannot be cancelled (the standard has no way to): the only
 * thing left to do with MPI is wrk_mpi_abort, which is what callers do.
 *
 * The counter that ranks draw from is rank 0's, and a thread there answers, so that nobody waits
 * until rank 0 has computed its step. MPI is asked for calls from several threads, one at a time
 * (SERIALIZED, which costs the library nothing): the lock is held for a start or a test, never for
 * a wait. The thread looks every ANSWER_NAP_NS whether somebody asks: a draw takes about as long.
 */
#include "worker/mpi.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <mpi.h>

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>

/* Asked at the end of a process that looks for leaks. The MPI library keeps memory to the end and
 * unloads the plugins that took it, so nobody can tell its leaks from ours. */
int __lsan_is_turned_off(void)
{
    int started = 0;
    MPI_Initialized(&started);
    return started;
}
#endif

enum { SPINS = 200, PIECE_BYTES = 1 << 30, ANSWER_NAP_NS = 200000, TAG_DRAW = 1, TAG_NUMBER = 2 };

struct wrk_mpi {
    int rank, size;
    pthread_mutex_t lock; /* one call at a time; and of what follows */
    pthread_t thread;     /* rank 0: answers draws */
    bool has_thread, stopping;
    uint64_t round; /* rank 0: in which next_number is */
    int64_t next_number;
};

static int translate(int code, const char *what)
{
    if (code == MPI_SUCCESS)
        return CLU_OK;
    char text[MPI_MAX_ERROR_STRING] = "";
    int size = 0;
    MPI_Error_string(code, text, &size);
    return clu_fail(CLU_E_UNAVAILABLE, "mpi %s failed: %s", what, text);
}

int wrk_mpi_init(struct wrk_mpi **mpi_p)
{
    struct wrk_mpi *mpi = calloc(1, sizeof(*mpi));
    if (!mpi)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for mpi");
    int provided = 0;
    /* said to mpirun alone (sched/launch.c); it tells its ranks all the same, and the library
     * refuses that beside the folder of the ranks' own host */
    unsetenv("OMPI_MCA_orte_local_tmpdir_base");
    int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided);
    int status = translate(code, "init");
    if (!status && provided < MPI_THREAD_SERIALIZED) {
        MPI_Finalize();
        status = clu_fail(CLU_E_UNAVAILABLE, "this MPI library cannot run beside threads");
    }
    if (status) {
        free(mpi);
        return status;
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    pthread_mutex_init(&mpi->lock, NULL);
    MPI_Comm_rank(MPI_COMM_WORLD, &mpi->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &mpi->size);
    *mpi_p = mpi;
    return CLU_OK;
}

void wrk_mpi_fini(struct wrk_mpi *mpi)
{
    if (!mpi)
        return;
    pthread_mutex_lock(&mpi->lock);
    mpi->stopping = true;
    pthread_mutex_unlock(&mpi->lock);
    if (mpi->has_thread)
        pthread_join(mpi->thread, NULL);
    MPI_Finalize();
    pthread_mutex_destroy(&mpi->lock);
    free(mpi);
}

void wrk_mpi_abort(struct wrk_mpi *mpi, int status)
{
    int code = clu_status_exit_code(status ? status : CLU_E_BUG);
    if (mpi)
        MPI_Abort(MPI_COMM_WORLD, code);
    _Exit(code);
}

int wrk_mpi_rank(const struct wrk_mpi *mpi)
{
    return mpi ? mpi->rank : 0;
}

int wrk_mpi_size(const struct wrk_mpi *mpi)
{
    return mpi ? mpi->size : 1;
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* waits for requests [n] until the deadline */
static int finish(struct wrk_mpi *mpi, MPI_Request *requests, int n, int timeout_ms,
                  const char *what)
{
    int64_t deadline = 0;
    long nap_ns = 5000;
    for (long turn = 0;; turn++) {
        int done = 0;
        pthread_mutex_lock(&mpi->lock);
        int code = MPI_Testall(n, requests, &done, MPI_STATUSES_IGNORE);
        pthread_mutex_unlock(&mpi->lock);
        if (code != MPI_SUCCESS)
            return translate(code, what);
        if (done)
            return CLU_OK;
        if (turn < SPINS)
            continue;
        if (!deadline)
            deadline = now_ms() + timeout_ms;
        else if (now_ms() > deadline)
            return clu_fail(CLU_E_TIMEOUT, "rank %d waited %d ms for the other ranks in %s",
                            mpi->rank, timeout_ms, what);
        struct timespec nap = {0, nap_ns};
        nanosleep(&nap, NULL);
        nap_ns = nap_ns < 50000 ? nap_ns * 2 : 100000;
    }
}

static int all_reduce(struct wrk_mpi *mpi, void *values, size_t n, MPI_Datatype type, MPI_Op op,
                      int timeout_ms, const char *what)
{
    if (wrk_mpi_size(mpi) == 1 || !n)
        return CLU_OK;
    if (n > INT32_MAX)
        return clu_fail(CLU_E_BUG, "%s of %zu numbers at once", what, n);
    MPI_Request request;
    pthread_mutex_lock(&mpi->lock);
    int code = MPI_Iallreduce(MPI_IN_PLACE, values, (int)n, type, op, MPI_COMM_WORLD, &request);
    pthread_mutex_unlock(&mpi->lock);
    int status = translate(code, what);
    return status ? status : finish(mpi, &request, 1, timeout_ms, what);
}

int wrk_mpi_sum_floats(struct wrk_mpi *mpi, float *values, size_t n, int timeout_ms)
{
    return all_reduce(mpi, values, n, MPI_FLOAT, MPI_SUM, timeout_ms, "sum of gradients");
}

int wrk_mpi_sum_doubles(struct wrk_mpi *mpi, double *values, size_t n, int timeout_ms)
{
    return all_reduce(mpi, values, n, MPI_DOUBLE, MPI_SUM, timeout_ms, "sum");
}

int wrk_mpi_max_ints(struct wrk_mpi *mpi, int64_t *values, size_t n, int timeout_ms)
{
    return all_reduce(mpi, values, n, MPI_INT64_T, MPI_MAX, timeout_ms, "maximum");
}

int wrk_mpi_broadcast(struct wrk_mpi *mpi, void *data, size_t size_bytes, int timeout_ms)
{
    if (wrk_mpi_size(mpi) == 1)
        return CLU_OK;
    for (size_t at = 0; at < size_bytes; at += PIECE_BYTES) {
        size_t size = size_bytes - at < PIECE_BYTES ? size_bytes - at : PIECE_BYTES;
        MPI_Request request;
        pthread_mutex_lock(&mpi->lock);
        int code = MPI_Ibcast((char *)data + at, (int)size, MPI_BYTE, 0, MPI_COMM_WORLD, &request);
        pthread_mutex_unlock(&mpi->lock);
        int status = translate(code, "broadcast");
        if (!status)
            status = finish(mpi, &request, 1, timeout_ms, "broadcast");
        if (status)
            return status;
    }
    return CLU_OK;
}

/* one message of size_bytes, in pieces that an int can count */
static int transfer(struct wrk_mpi *mpi, char *data, size_t size_bytes, int peer, int sending,
                    int tag, int timeout_ms)
{
    for (size_t at = 0; at < size_bytes; at += PIECE_BYTES) {
        size_t size = size_bytes - at < PIECE_BYTES ? size_bytes - at : PIECE_BYTES;
        MPI_Request request;
        const char *what = tag ? "a draw" : "gather";
        pthread_mutex_lock(&mpi->lock);
        int code =
            sending
                ? MPI_Isend(data + at, (int)size, MPI_BYTE, peer, tag, MPI_COMM_WORLD, &request)
                : MPI_Irecv(data + at, (int)size, MPI_BYTE, peer, tag, MPI_COMM_WORLD, &request);
        pthread_mutex_unlock(&mpi->lock);
        int status = translate(code, what);
        if (!status)
            status = finish(mpi, &request, 1, timeout_ms, what);
        if (status)
            return status;
    }
    return CLU_OK;
}

int wrk_mpi_gather(struct wrk_mpi *mpi, const void *data, size_t size_bytes, int timeout_ms,
                   void **all_p, size_t *sizes)
{
    int rank = wrk_mpi_rank(mpi), size = wrk_mpi_size(mpi);
    int64_t *counts = calloc((size_t)size, sizeof(*counts));
    if (!counts)
        return clu_fail(CLU_E_NO_MEMORY, "no memory to gather from %d ranks", size);
    counts[rank] = (int64_t)size_bytes;
    char *all = NULL;
    size_t total = 0;
    /* zero everywhere but at its own rank, so the largest is the size */
    int status = wrk_mpi_max_ints(mpi, counts, (size_t)size, timeout_ms);
    for (int r = 0; !status && r < size; r++) {
        sizes[r] = (size_t)counts[r];
        total += sizes[r];
    }
    free(counts);
    if (!status && rank == 0) {
        all = malloc(total + 1);
        if (!all)
            status = clu_fail(CLU_E_NO_MEMORY, "no memory to gather %zu bytes", total);
    }
    if (!status && rank > 0)
        status = transfer(mpi, (char *)(uintptr_t)data, size_bytes, 0, 1, 0, timeout_ms);
    size_t at = 0;
    for (int r = 0; !status && rank == 0 && r < size; r++) {
        if (r == 0 && size_bytes)
            memcpy(all, data, size_bytes);
        else if (r > 0)
            status = transfer(mpi, all + at, sizes[r], r, 0, 0, timeout_ms);
        at += sizes[r];
    }
    if (status) {
        free(all);
        return status;
    }
    *all_p = all;
    return CLU_OK;
}

/* ---- draws ---- */

/* under the lock: the next number of a round, from the first one where it is a new round */
static int64_t take_number(struct wrk_mpi *mpi, uint64_t round)
{
    if (mpi->round != round) {
        mpi->round = round;
        mpi->next_number = 0;
    }
    return mpi->next_number++;
}

/* rank 0: answers a rank that asks, if there is one. *any_p: there was */
static int answer(struct wrk_mpi *mpi, bool *any_p)
{
    MPI_Status from;
    int asks = 0;
    uint64_t round = 0;
    pthread_mutex_lock(&mpi->lock);
    int code = MPI_Iprobe(MPI_ANY_SOURCE, TAG_DRAW, MPI_COMM_WORLD, &asks, &from);
    pthread_mutex_unlock(&mpi->lock);
    int status = translate(code, "a draw");
    *any_p = asks;
    if (status || !asks)
        return status;
    status = transfer(mpi, (char *)&round, sizeof(round), from.MPI_SOURCE, 0, TAG_DRAW,
                      WRK_MPI_TIMEOUT_MS);
    if (status)
        return status;
    pthread_mutex_lock(&mpi->lock);
    int64_t number = take_number(mpi, round);
    pthread_mutex_unlock(&mpi->lock);
    return transfer(mpi, (char *)&number, sizeof(number), from.MPI_SOURCE, 1, TAG_NUMBER,
                    WRK_MPI_TIMEOUT_MS);
}

static void *answer_all(void *arg)
{
    struct wrk_mpi *mpi = arg;
    for (;;) {
        bool any = false;
        if (answer(mpi, &any)) /* told; who asked runs into its deadline, or MPI has ended all */
            return NULL;
        pthread_mutex_lock(&mpi->lock);
        bool stopping = mpi->stopping;
        pthread_mutex_unlock(&mpi->lock);
        if (stopping)
            return NULL;
        struct timespec nap = {0, ANSWER_NAP_NS};
        if (!any)
            nanosleep(&nap, NULL);
    }
}

int wrk_mpi_start_draws(struct wrk_mpi *mpi)
{
    if (wrk_mpi_rank(mpi) != 0 || wrk_mpi_size(mpi) == 1 || mpi->has_thread)
        return CLU_OK;
    int error = pthread_create(&mpi->thread, NULL, answer_all, mpi);
    if (error)
        return clu_fail(clu_status_from_errno(error), "no thread to answer draws: %s",
                        strerror(error));
    mpi->has_thread = true;
    return CLU_OK;
}

int wrk_mpi_draw(struct wrk_mpi *mpi, uint64_t round, int64_t *number_p, int timeout_ms)
{
    if (wrk_mpi_rank(mpi) == 0) {
        pthread_mutex_lock(&mpi->lock);
        *number_p = take_number(mpi, round);
        pthread_mutex_unlock(&mpi->lock);
        return CLU_OK;
    }
    int status = transfer(mpi, (char *)&round, sizeof(round), 0, 1, TAG_DRAW, timeout_ms);
    if (!status)
        status = transfer(mpi, (char *)number_p, sizeof(*number_p), 0, 0, TAG_NUMBER, timeout_ms);
    return status;
}
