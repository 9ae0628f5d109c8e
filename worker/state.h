/* The dense half of a snapshot: what the ranks know and the servers do not.
 *
 *     step-<12 digits>/
 *       dense.safetensors         the weights to use: the average of the last steps where one is kept
 *       dense_state.safetensors   what training goes on from: weights.*, adam_m.*, adam_v.*
 *       state.json                step, data position, seeds, the model (export_manifest.h)
 *
 * Rank 0 writes these three into the folder of a snapshot under way; the servers write rows/ beside them,
 * and the scheduler commits them all with manifest.json. All ranks hold the same numbers, so one copy is
 * the whole. Random draws of training are hashes of (seed, step, key): the step is their state.
 */
#ifndef WORKER_STATE_H
#define WORKER_STATE_H

#include "worker/export_manifest.h"

#include <stddef.h>
#include <stdint.h>

struct wrk_state {
    uint64_t step;             /* steps done */
    uint64_t epoch, batch;     /* the next global batch */
    uint64_t samples_done;     /* since the start of the job */
    uint64_t seed;
    struct mdl_config config;
    float *weights;            /* [mdl_n_params] */
    float *adam_m, *adam_v;    /* [mdl_n_params] */
    float *average;            /* [mdl_n_params], or NULL when no average is kept */
};

/* Writes the three files into dir, each whole and synced, and the manifest's description of the model into
 * state.json. Errors: CLU_E_IO, CLU_E_FULL, CLU_E_NO_MEMORY. */
int wrk_state_save(const char *dir, const struct wrk_state *state,
                   const struct wrk_manifest *manifest);

/* Reads the files back into state, whose config is set and whose arrays are the caller's. Refuses a snapshot
 * of another model. Errors: CLU_E_CORRUPT, CLU_E_CONFIG (another model, named), CLU_E_NOT_FOUND. */
int wrk_state_load(const char *dir, struct wrk_state *state);

/* Reads only what the snapshot's model is. The caller ends it with wrk_manifest_fini. */
int wrk_state_manifest(const char *dir, struct wrk_manifest *manifest_p);

#endif
