/* MPI, as far as training needs it: who am I, and sums over all ranks that cannot wait for ever.
 *
 * Open MPI's blocking collectives spin, which on a machine shared with servers takes the core that
 * the server needs to answer the very request the other rank is waiting for; and they have no
 * deadline. So sums are started without blocking and tested: a short spin, then naps that grow to
 * 100 us. When the deadline passes the caller gets CLU_E_TIMEOUT and is expected to end the job
 * through wrk_mpi_abort.
 *
 * The order in which ranks are added is the library's, fixed for a given number of ranks and
 * length: the same numbers give the same bits on every run and on every rank.
 *
 * A process that was not started by mpirun is a world of one. Threads: the thread that called init,
 * beside one of its own on rank 0 where ranks draw numbers.
 */
#ifndef WORKER_MPI_H
#define WORKER_MPI_H

#include <stddef.h>
#include <stdint.h>

struct wrk_mpi;

/* The deadline of a collective: a last resort. A rank that died is noticed by mpirun and a rank
 * that hangs by the scheduler long before. */
enum { WRK_MPI_TIMEOUT_MS = 600000 };

/* Starts MPI. Collective. Errors: CLU_E_UNAVAILABLE. */
int wrk_mpi_init(struct wrk_mpi **mpi_p);

/* Ends MPI; every rank must come here, or one must abort. Collective. NULL is fine. */
void wrk_mpi_fini(struct wrk_mpi *mpi);

/* Ends every rank of the job now; the process exits with the status's exit code. Does not return.
 */
void wrk_mpi_abort(struct wrk_mpi *mpi, int status) __attribute__((noreturn));

int wrk_mpi_rank(const struct wrk_mpi *mpi);
int wrk_mpi_size(const struct wrk_mpi *mpi);

/* values [n] become their sums over all ranks, in place. Collective. */
int wrk_mpi_sum_floats(struct wrk_mpi *mpi, float *values, size_t n, int timeout_ms);
int wrk_mpi_sum_doubles(struct wrk_mpi *mpi, double *values, size_t n, int timeout_ms);

/* values [n] become the largest over all ranks, in place. Collective. */
int wrk_mpi_max_ints(struct wrk_mpi *mpi, int64_t *values, size_t n, int timeout_ms);

/* Rank 0's size_bytes bytes replace everybody's. Collective. */
int wrk_mpi_broadcast(struct wrk_mpi *mpi, void *data, size_t size_bytes, int timeout_ms);

/* The next number of a round (> its rounds before), over all ranks: 0, 1, 2 ..., each handed to one
 * rank. Not collective: rank 0 answers, from a thread, whatever else it does. A round may begin
 * only when no rank draws from the one before any longer. The first draw needs
 * wrk_mpi_start_draws. */
int wrk_mpi_draw(struct wrk_mpi *mpi, uint64_t round, int64_t *number_p, int timeout_ms);

/* Rank 0 begins to answer; nothing to do on others. */
int wrk_mpi_start_draws(struct wrk_mpi *mpi);

/* Every rank's bytes, in rank order, on rank 0: a heap array there (the caller frees it), NULL
 * elsewhere. sizes [wrk_mpi_size] receives every rank's number of bytes, on every rank. Collective.
 * */
int wrk_mpi_gather(struct wrk_mpi *mpi, const void *data, size_t size_bytes, int timeout_ms,
                   void **all_p, size_t *sizes);

#endif
