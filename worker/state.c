/* Dense weights, Adam's moments and the place in the data, out to a snapshot's folder and back.
 *
 * The weights to use and the weights to go on from are two files: dense.safetensors is what export
 * copies and what two runs are compared by; dense_state.safetensors is for the next life of the job
 * alone. Each is written whole and synced before its name appears; the folder around them is
 * committed by the scheduler.
 *
 * Loading compares every tensor's name and shape with the model that the job describes: a job file
 * that was changed between two lives is refused with the tensor that no longer fits, rather than
 * trained on.
 */
#include "worker/state.h"

#include "cluster/file.h"
#include "cluster/job.h"
#include "cluster/log.h"
#include "cluster/snapshot.h"
#include "cluster/status.h"
#include "model/params.h"
#include "worker/json_file.h"
#include "worker/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STATE_BYTES = 64 << 20, STATE_VERSION = 1 };

/* ---- vectors and tensors ---- */

/* a flat vector as tensors [mdl_n_tensors], named prefix + name */
static int describe(const struct mdl_config *config, const float *values, const char *prefix,
                    struct wrk_tensor *tensors)
{
    for (int i = 0; i < mdl_n_tensors(config); i++) {
        struct mdl_tensor shape;
        mdl_tensor(config, i, &shape);
        memset(&tensors[i], 0, sizeof(tensors[i]));
        int size = snprintf(tensors[i].name, sizeof(tensors[i].name), "%s%s", prefix, shape.name);
        if (size >= (int)sizeof(tensors[i].name))
            return clu_fail(CLU_E_BUG, "tensor name '%s%s' is too long", prefix, shape.name);
        tensors[i].rows = shape.n_dims == 2 ? (size_t)shape.rows : 0;
        tensors[i].cols = (size_t)shape.cols;
        tensors[i].data = values + shape.offset;
    }
    return CLU_OK;
}

int wrk_state_save_vectors(const char *path, const struct mdl_config *config, int n_vectors,
                           const struct wrk_vector *vectors)
{
    int n = mdl_n_tensors(config);
    struct wrk_tensor *tensors = calloc((size_t)(n * n_vectors) + 1, sizeof(*tensors));
    if (!tensors)
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory to write it", path);
    int status = CLU_OK;
    for (int i = 0; i < n_vectors && !status; i++)
        status = describe(config, vectors[i].values, vectors[i].prefix, tensors + i * n);
    if (!status)
        status = wrk_safetensors_save(path, tensors, (size_t)(n * n_vectors), NULL);
    free(tensors);
    return status;
}

int wrk_state_load_vectors(const char *path, const struct mdl_config *config, int n_vectors,
                           const struct wrk_vector *vectors)
{
    int n = mdl_n_tensors(config);
    struct wrk_tensor *wanted = calloc((size_t)n, sizeof(*wanted));
    if (!wanted)
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory to read it", path);
    struct wrk_safetensors *file = NULL;
    int status = wrk_safetensors_open(path, &file);
    for (int v = 0; v < n_vectors && !status; v++) {
        status = describe(config, vectors[v].values, vectors[v].prefix, wanted);
        for (int i = 0; i < n && !status; i++) {
            const struct wrk_tensor *want = &wanted[i];
            const struct wrk_tensor *have = wrk_safetensors_find(file, want->name);
            if (!have)
                status = clu_fail(CLU_E_CONFIG, "%s: no tensor '%s', which this model has", path,
                                  want->name);
            else if (have->rows != want->rows || have->cols != want->cols)
                status = clu_fail(CLU_E_CONFIG,
                                  "%s: tensor '%s' is %zu x %zu, this model's is %zu x "
                                  "%zu",
                                  path, want->name, have->rows, have->cols, want->rows, want->cols);
            else
                memcpy(vectors[v].values + (want->data - vectors[v].values), have->data,
                       (want->rows ? want->rows : 1) * want->cols * sizeof(float));
        }
    }
    wrk_safetensors_close(file);
    free(wanted);
    return status;
}

/* ---- the files ---- */

static int save_json(const char *dir, const struct wrk_state *state,
                     const struct wrk_manifest *manifest)
{
    char path[CLU_PATH_BYTES];
    int status = clu_path_join(path, sizeof(path), dir, WRK_STATE_FILE);
    if (status)
        return status;
    const struct wrk_stopping *stopping = &state->stopping;
    json_t *json = json_pack(
        "{s:s, s:i, s:I, s:{s:I, s:I}, s:I, s:I, s:I, s:b, s:{s:I, s:I, s:f, s:I}, s:o}", "format",
        "sluice-state", "version", STATE_VERSION, "step", (json_int_t)state->step, "position",
        "epoch", (json_int_t)state->epoch, "batch", (json_int_t)state->batch, "samples_done",
        (json_int_t)state->samples_done, "updates", (json_int_t)state->updates, "seed",
        (json_int_t)state->seed, "averaged", state->average != NULL, "stopping", "judged",
        (json_int_t)stopping->judged, "best_step", (json_int_t)stopping->best_step, "best_loss",
        stopping->best_loss, "n_not_better", (json_int_t)stopping->n_not_better, "model",
        wrk_manifest_to_json(manifest));
    return wrk_json_save(path, json, 17);
}

static int save_pin(const char *dir)
{
    static const char text[] = "the best epoch so far, by the validation slice\n";
    char path[CLU_PATH_BYTES];
    int status = clu_path_join(path, sizeof(path), dir, CLU_SNAPSHOT_PIN_FILE);
    return status ? status : clu_file_write_atomic(path, text, sizeof(text) - 1);
}

int wrk_state_save(const char *dir, const struct wrk_state *state,
                   const struct wrk_manifest *manifest)
{
    char path[CLU_PATH_BYTES];
    int status = clu_path_join(path, sizeof(path), dir, WRK_STATE_DENSE_FILE);
    if (status)
        return status;
    struct wrk_vector weights = {"", state->average ? state->average : state->weights};
    status = wrk_state_save_vectors(path, &state->config, 1, &weights);
    if (!status)
        status = clu_path_join(path, sizeof(path), dir, WRK_STATE_RESUME_FILE);
    if (status)
        return status;
    struct wrk_vector resume[] = {
        {"weights.", state->weights}, {"adam_m.", state->adam_m}, {"adam_v.", state->adam_v}};
    status = wrk_state_save_vectors(path, &state->config, 3, resume);
    if (!status && state->stopping.patience > 0 && state->stopping.best_step == state->step)
        status = save_pin(dir);
    return status ? status : save_json(dir, state, manifest);
}

void wrk_state_copy(const struct wrk_state *from, float *memory, struct wrk_state *to_p)
{
    size_t n = mdl_n_params(&from->config);
    *to_p = *from;
    to_p->weights = memory;
    to_p->adam_m = memory + n;
    to_p->adam_v = memory + 2 * n;
    to_p->average = from->average ? memory + 3 * n : NULL;
    memcpy(to_p->weights, from->weights, n * sizeof(float));
    memcpy(to_p->adam_m, from->adam_m, n * sizeof(float));
    memcpy(to_p->adam_v, from->adam_v, n * sizeof(float));
    if (from->average)
        memcpy(to_p->average, from->average, n * sizeof(float));
}

static int load_json(const char *dir, json_t **json_p, char path[CLU_PATH_BYTES])
{
    int status = clu_path_join(path, CLU_PATH_BYTES, dir, WRK_STATE_FILE);
    if (status)
        return status;
    json_t *json = NULL;
    status = wrk_json_load(path, MAX_STATE_BYTES, &json);
    if (status)
        return status;
    const char *format = json_string_value(json_object_get(json, "format"));
    if (!format || strcmp(format, "sluice-state") != 0 ||
        json_integer_value(json_object_get(json, "version")) != STATE_VERSION) {
        json_decref(json);
        return clu_fail(CLU_E_CORRUPT, "%s: not a sluice-state of version %d", path, STATE_VERSION);
    }
    *json_p = json;
    return CLU_OK;
}

static uint64_t count_of(const json_t *json, const char *key, int *bad_p)
{
    const json_t *value = json_object_get(json, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        *bad_p = 1;
    return (uint64_t)json_integer_value(value);
}

/* the numbers of state.json; arrays and config of *state are left alone */
static int read_numbers(const json_t *json, const char *path, struct wrk_state *state)
{
    int bad = 0;
    const json_t *position = json_object_get(json, "position");
    struct wrk_state found = *state;
    found.step = count_of(json, "step", &bad);
    found.epoch = count_of(position, "epoch", &bad);
    found.batch = count_of(position, "batch", &bad);
    found.samples_done = count_of(json, "samples_done", &bad);
    found.updates = count_of(json, "updates", &bad);
    found.seed = (uint64_t)json_integer_value(json_object_get(json, "seed"));
    const json_t *stopping = json_object_get(json, "stopping");
    if (stopping) { /* absent in what was written before there was early stopping */
        found.stopping.judged = count_of(stopping, "judged", &bad);
        found.stopping.best_step = count_of(stopping, "best_step", &bad);
        found.stopping.best_loss = json_number_value(json_object_get(stopping, "best_loss"));
        found.stopping.n_not_better = (int64_t)count_of(stopping, "n_not_better", &bad);
    }
    if (bad)
        return clu_fail(CLU_E_CORRUPT,
                        "%s: step, position, samples_done, updates or a number of stopping is "
                        "missing",
                        path);
    *state = found;
    return CLU_OK;
}

int wrk_state_load(const char *dir, struct wrk_state *state)
{
    json_t *json = NULL;
    char path[CLU_PATH_BYTES];
    int status = load_json(dir, &json, path);
    if (status)
        return status;
    struct wrk_state found = *state;
    status = read_numbers(json, path, &found);
    int averaged = json_is_true(json_object_get(json, "averaged"));
    json_decref(json);
    if (!status && found.seed != state->seed)
        status = clu_fail(CLU_E_CONFIG, "%s: trained with seed %" PRId64 ", the job says %" PRId64,
                          path, (int64_t)found.seed, (int64_t)state->seed);
    if (!status)
        status = clu_path_join(path, sizeof(path), dir, WRK_STATE_RESUME_FILE);
    struct wrk_vector resume[] = {
        {"weights.", state->weights}, {"adam_m.", state->adam_m}, {"adam_v.", state->adam_v}};
    if (!status)
        status = wrk_state_load_vectors(path, &state->config, 3, resume);
    if (!status && state->average) {
        status = clu_path_join(path, sizeof(path), dir, WRK_STATE_DENSE_FILE);
        struct wrk_vector average = {"", state->average};
        if (!status && averaged)
            status = wrk_state_load_vectors(path, &state->config, 1, &average);
        else if (!status)
            /* a job that starts to average here starts from the weights as they are */
            memcpy(state->average, state->weights, mdl_n_params(&state->config) * sizeof(float));
    }
    if (!status)
        *state = found;
    return status;
}

int wrk_state_manifest(const char *dir, struct wrk_manifest *manifest_p)
{
    json_t *json = NULL;
    char path[CLU_PATH_BYTES];
    int status = load_json(dir, &json, path);
    if (status)
        return status;
    status = wrk_manifest_from_json(json_object_get(json, "model"), path, manifest_p);
    if (!status)
        manifest_p->step = (uint64_t)json_integer_value(json_object_get(json, "step"));
    json_decref(json);
    return status;
}

int wrk_state_position(const char *dir, struct wrk_state *state_p)
{
    json_t *json = NULL;
    char path[CLU_PATH_BYTES];
    int status = load_json(dir, &json, path);
    if (status)
        return status;
    struct wrk_state found = {0};
    status = read_numbers(json, path, &found);
    json_decref(json);
    if (!status)
        *state_p = found;
    return status;
}
