/* Training: one rank of the workers' MPI job.
 *
 *     reader (thread) -> fill (thread) -> pull rows of batch t + k ............ client (thread)
 *                                            |
 *     step t: wait for its rows -> gather -> forward, backward -> scatter -> push its gradients
 *                                            '-> all-reduce of dense gradients -> Adam
 *
 * k is the staleness: 0 pulls a step's rows when every push of the step before is applied, and the
 * result is exact. One block of extra floats rides in the dense all-reduce: losses, seconds, and
 * the wish to stop, so that all ranks agree on the same step boundary.
 */
#ifndef WORKER_TRAIN_H
#define WORKER_TRAIN_H

struct clu_job;
struct clu_metrics;

struct wrk_train_options {
    const char *job_path;        /* the effective job file */
    const char *sched_endpoint;  /* tcp://host:port */
    struct clu_metrics *metrics; /* the process's, filled here; may be NULL */
    /* called once, when this rank knows which one it is: returns the URL where the metrics are
     * served, to be told to the scheduler; may be NULL */
    const char *(*serve)(void *context, const struct clu_job *job, int rank);
    void *context;
};

/* Runs this rank until the job is done, is stopped, or fails. Collective over the ranks mpirun
 * started. A failure is logged, reported to the scheduler, and ends all ranks (MPI_Abort) with its
 * exit code. */
int wrk_train_run(const struct wrk_train_options *options);

#endif
