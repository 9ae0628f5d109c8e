/* The job: one training run, described by one YAML file, held as plain data.
 *
 * struct clu_job may be copied with memcpy; the table behind it (clu_job_settings) gives each key
 * its default, range and sentence. Precedence: flag > environment > job file > default. The
 * effective job is written beside the results, and that file is what the roles of a job are started
 * with. Threads: any on distinct objects.
 */
#ifndef CLUSTER_JOB_H
#define CLUSTER_JOB_H

#include "cluster/settings.h"

#include <stdbool.h>
#include <stdint.h>

enum { CLU_MAX_TABLES = 64, CLU_NAME_BYTES = 64, CLU_PATH_BYTES = 1024, CLU_WORD_BYTES = 32 };

enum { CLU_STALENESS_ASYNC = -1 };

/* What the job file says of one table; 0 or "" where it says nothing and the job-wide key holds. */
struct clu_job_table {
    char name[CLU_NAME_BYTES];
    int64_t dim;
    char optimizer[CLU_WORD_BYTES];
    double learning_rate, init_range;
    char dtype[CLU_WORD_BYTES];
    int64_t min_count, expire_steps;
};

struct clu_job {
    /* where */
    char data[CLU_PATH_BYTES]; /* the data set's folder */
    char out[CLU_PATH_BYTES];  /* everything the job writes */
    /* shape */
    int64_t servers, shards /* a server */, workers;
    /* model: MODEL.md's M comes from the data set */
    char model[CLU_WORD_BYTES];
    int64_t width, heads, history;
    double alpha, beta, gamma;
    char read[CLU_WORD_BYTES]; /* greedy | exact */
    int64_t user_dim, item_dim, feature_dim;
    /* training */
    int64_t seed, epochs, max_steps /* 0: as many as the epochs hold */;
    int64_t batch /* global */, samples_per_user, threads;
    double dense_learning_rate, weight_decay, id_dropout, average_decay;
    double history_dropout;     /* share of history entries that a training step hides */
    bool history_counts;        /* F_u ends with counts of the history */
    int64_t warmup_steps;       /* the dense learning rate rises over these */
    double final_learning_rate; /* and falls to this share of itself at the last step */
    /* tables */
    char sparse_optimizer[CLU_WORD_BYTES];
    double sparse_learning_rate, init_range;
    char row_dtype[CLU_WORD_BYTES];
    int64_t min_count, expire_steps;
    uint64_t memory_bytes; /* a server, over its shards */
    char durability[CLU_WORD_BYTES];
    struct clu_job_table tables[CLU_MAX_TABLES];
    int64_t n_tables;
    /* consistency */
    int64_t staleness; /* CLU_STALENESS_ASYNC: no bound */
    int64_t dense_every;
    bool deal; /* ... of async: parts of batches go to ranks that ask */
    char wire_dtype[CLU_WORD_BYTES], wire_keys[CLU_WORD_BYTES];
    /* intervals, in steps; 0: only at the end */
    int64_t log_every, eval_every, snapshot_every, keep;
    int64_t dense_checkpoint_steps; /* durability log, staleness > 0 */
    double snapshot_minutes;        /* and by time; 0: by steps only */
    double snapshot_spread;         /* of the time since the one before, to write one over */
    int64_t snapshot_full_every;    /* every so many-th is full, the others are deltas */
    int64_t valid_percent; /* of the training part, its last by time, kept out for evaluation */
    int64_t patience;      /* epochs without a better validation loss that end training; 0: none */
    /* network */
    char host[256];         /* the address that sockets bind to */
    int64_t port;           /* of the scheduler; 0: any free one */
    int64_t page_port;      /* of its status page and metrics; 0: any free one, -1: none */
    int64_t metrics_port;   /* the first of the other processes'; 0: any free ones, -1: none */
    char metrics_host[256]; /* of page and metrics; "": as clu_job_metrics_host chooses */
    char hostfile[CLU_PATH_BYTES], keys[CLU_PATH_BYTES];
    bool insecure;
    /* patience, in milliseconds */
    int64_t request_timeout_ms, move_ms, heartbeat_ms, dead_after_ms, start_timeout_ms,
        max_restarts;
    /* log */
    char log_level[CLU_WORD_BYTES];
    bool log_json;
};

/* The table of the job's scalar keys, bound to an object. */
struct clu_binding clu_job_settings(struct clu_job *job);

/* Defaults, then what the file says. Errors: CONFIG, with file, line, key and allowed range logged.
 */
int clu_job_load(const char *path, struct clu_job *job_p);

/* Checks what no single key can know: heads divides width, key folder or loopback, and the like.
 * CONFIG. */
int clu_job_check(const struct clu_job *job);

/* Where the page and the metrics of all processes bind to: an address, a name or an interface. */
const char *clu_job_metrics_host(const struct clu_job *job);

/* Writes every key with its value in force, and the tables, as a job file (atomically). */
int clu_job_save(const struct clu_job *job, const char *path);

/* The entry for a table of that name, or NULL. */
const struct clu_job_table *clu_job_find_table(const struct clu_job *job, const char *name);

#endif
