/* The dense half of a snapshot: what the ranks know and the servers do not.
 *
 *     step-<12 digits>/
 *       dense.safetensors         the weights to use: their moving average where one is kept
 *       dense_state.safetensors   what training goes on from: weights.*, adam_m.*, adam_v.*
 *       state.json                step, data position, seed, the best epoch so far, the model
 *                                 (export_manifest.h)
 *       pinned                    only in the best epoch's: it stays while the job goes on
 *
 * Rank 0 writes these into the folder of a snapshot under way; the servers write rows/ beside
 * them, and the scheduler commits them all with manifest.json. All ranks hold the same numbers, so
 * one copy is the whole. Random draws of training are hashes of (seed, step, key): the step is
 * their state.
 */
#ifndef WORKER_STATE_H
#define WORKER_STATE_H

#include "worker/export_manifest.h"
#include "worker/stopping.h"

#include <stddef.h>
#include <stdint.h>

#define WRK_STATE_FILE        "state.json"
#define WRK_STATE_DENSE_FILE  "dense.safetensors"
#define WRK_STATE_RESUME_FILE "dense_state.safetensors"

struct wrk_state {
    uint64_t step;         /* steps done */
    uint64_t epoch, batch; /* the next global batch */
    uint64_t samples_done; /* since the start of the job */
    uint64_t seed;
    uint64_t updates;             /* dense updates done: what Adam corrects its bias by */
    struct wrk_stopping stopping; /* verdicts up to this step; patience is the job's, not stored */
    struct mdl_config config;
    float *weights;         /* [mdl_n_params] */
    float *adam_m, *adam_v; /* [mdl_n_params] */
    float *average;         /* [mdl_n_params], or NULL when no average is kept */
};

/* Writes the files into dir, each whole and synced, and the manifest's description of the
 * model into state.json. Errors: CLU_E_IO, CLU_E_FULL, CLU_E_NO_MEMORY. */
int wrk_state_save(const char *dir, const struct wrk_state *state,
                   const struct wrk_manifest *manifest);

/* *to_p = *from, its arrays copied into memory [4, mdl_n_params]. */
void wrk_state_copy(const struct wrk_state *from, float *memory, struct wrk_state *to_p);

/* Reads the files back into state, whose config is set and whose arrays are the caller's. Refuses a
 * snapshot of another model. Errors: CLU_E_CORRUPT, CLU_E_CONFIG (another model, named),
 * CLU_E_NOT_FOUND. */
int wrk_state_load(const char *dir, struct wrk_state *state);

/* Reads only what the snapshot's model is. The caller ends it with wrk_manifest_fini. */
int wrk_state_manifest(const char *dir, struct wrk_manifest *manifest_p);

/* Reads only the numbers (step, epoch, batch, samples_done, seed, stopping); the arrays are NULL.
 */
int wrk_state_position(const char *dir, struct wrk_state *state_p);

/* A flat vector in the model's layout, and what stands before its tensors' names in a file. */
struct wrk_vector {
    const char *prefix;
    float *values; /* [mdl_n_params] */
};

/* Writes vectors [n_vectors] as one safetensors file, whole and synced. */
int wrk_state_save_vectors(const char *path, const struct mdl_config *config, int n_vectors,
                           const struct wrk_vector *vectors);

/* Fills vectors [n_vectors] from such a file; every tensor must be there in the model's shape
 * (CLU_E_CONFIG names the one that is not). */
int wrk_state_load_vectors(const char *path, const struct mdl_config *config, int n_vectors,
                           const struct wrk_vector *vectors);

#endif
