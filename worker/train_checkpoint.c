/* See the header. A folder is written as <generation>-<step>.part, synced, and renamed; the one
 * before is removed after that, so that there is always a whole one. Half of the cost of a step at
 * most: a checkpoint that is still being written when the next is due lets that one pass.
 */
#include "worker/train_checkpoint.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <dirent.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct wrk_checkpointer {
    char root[CLU_PATH_BYTES];
    const struct wrk_manifest *manifest;
    uint64_t generation;
    float *copy; /* [4, n_params] */
    struct wrk_state state;
    pthread_t thread;
    bool has_thread;
    _Atomic bool busy;
};

/* "<generation>-<step>", nothing behind it. */
static bool parse(const char *name, uint64_t *generation_p, uint64_t *step_p)
{
    int end = 0;
    return sscanf(name, "%" SCNu64 "-%" SCNu64 "%n", generation_p, step_p, &end) == 2 &&
           name[end] == '\0';
}

/* Removes everything in root but the folder of this generation and step. */
static void sweep(const char *root, uint64_t generation, uint64_t step, bool any_step)
{
    DIR *dir = opendir(root);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char path[CLU_PATH_BYTES];
        uint64_t g, s;
        if (entry->d_name[0] == '.')
            continue;
        if (parse(entry->d_name, &g, &s) && g == generation && (any_step || s == step))
            continue;
        if (!clu_path_join(path, sizeof(path), root, entry->d_name))
            clu_remove_tree(path);
    }
    if (dir)
        closedir(dir);
}

int wrk_checkpointer_create(const struct clu_job *job, const struct wrk_manifest *manifest,
                            size_t n_params, uint64_t generation,
                            struct wrk_checkpointer **checkpointer_p)
{
    struct wrk_checkpointer *c = calloc(1, sizeof(*c));
    if (c)
        c->copy = malloc(4 * n_params * sizeof(float));
    if (!c || !c->copy) {
        free(c);
        return clu_fail(CLU_E_NO_MEMORY, "no memory for dense checkpoints");
    }
    c->manifest = manifest;
    c->generation = generation;
    int status = clu_path_join(c->root, sizeof(c->root), job->out, "run/dense");
    if (!status)
        status = clu_mkdirs(c->root);
    if (status) {
        wrk_checkpointer_free(c);
        return status;
    }
    sweep(c->root, generation, 0, true);
    *checkpointer_p = c;
    return CLU_OK;
}

static void join(struct wrk_checkpointer *c)
{
    if (c->has_thread)
        pthread_join(c->thread, NULL);
    c->has_thread = false;
}

void wrk_checkpointer_free(struct wrk_checkpointer *c)
{
    if (!c)
        return;
    join(c);
    free(c->copy);
    free(c);
}

static int write_folder(const struct wrk_checkpointer *c)
{
    char name[64], folder[CLU_PATH_BYTES], part[CLU_PATH_BYTES];
    snprintf(name, sizeof(name), "%" PRIu64 "-%" PRIu64, c->generation, c->state.step);
    int status = clu_path_join(folder, sizeof(folder), c->root, name);
    if (!status && snprintf(part, sizeof(part), "%s.part", folder) >= (int)sizeof(part))
        status = CLU_E_CONFIG;
    if (!status)
        status = clu_remove_tree(part);
    if (!status)
        status = clu_mkdirs(part);
    if (!status)
        status = wrk_state_save(part, &c->state, c->manifest);
    if (!status)
        status = clu_rename_durable(part, folder);
    return status;
}

static void *run(void *arg)
{
    struct wrk_checkpointer *c = arg;
    int status = write_folder(c);
    if (status)
        clu_warn("the dense checkpoint of step %" PRIu64 " is not written: %s", c->state.step,
                 clu_status_text(status));
    else
        sweep(c->root, c->generation, c->state.step, false);
    atomic_store(&c->busy, false);
    return NULL;
}

void wrk_checkpointer_begin(struct wrk_checkpointer *c, const struct wrk_state *state)
{
    if (atomic_load(&c->busy))
        return;
    join(c);
    wrk_state_copy(state, c->copy, &c->state);
    atomic_store(&c->busy, true);
    c->has_thread = pthread_create(&c->thread, NULL, run, c) == 0;
    if (!c->has_thread)
        run(c);
}

int wrk_checkpoint_find(const char *out, uint64_t generation, char folder_p[CLU_PATH_BYTES],
                        uint64_t *step_p)
{
    char root[CLU_PATH_BYTES], name[64];
    uint64_t g, s, newest = 0;
    int status = clu_path_join(root, sizeof(root), out, "run/dense");
    if (status)
        return status;
    DIR *dir = opendir(root);
    struct dirent *entry;
    while (dir && (entry = readdir(dir)))
        if (parse(entry->d_name, &g, &s) && g == generation && s > newest)
            newest = s;
    if (dir)
        closedir(dir);
    if (!newest)
        return CLU_E_NOT_FOUND;
    snprintf(name, sizeof(name), "%" PRIu64 "-%" PRIu64, generation, newest);
    *step_p = newest;
    return clu_path_join(folder_p, CLU_PATH_BYTES, root, name);
}
