/* What a restarted scheduler needs, in an LMDB environment of its own, OUT/run/state: one value,
 * the coordinator's bytes (coordinator_state.c), replaced in a synced transaction whenever who is
 * in the job changes. A few kilobytes, a few times in a job's life.
 */
#include "sched/scheduler_internal.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "embeddings/kv.h"

#include <stdlib.h>
#include <string.h>

static const char state_key[] = "coordinator";

int schd_scheduler_open_store(struct schd_scheduler *s)
{
    char folder[CLU_PATH_BYTES];
    int status = clu_path_join(folder, sizeof(folder), s->run, "state");
    return status ? status : emb_kv_open(folder, &s->store);
}

void schd_scheduler_close_store(struct schd_scheduler *s)
{
    emb_kv_close(s->store);
}

void schd_scheduler_store(struct schd_scheduler *s)
{
    struct clu_packer packer;
    clu_packer_init(&packer);
    schd_coordinator_save(s->coordinator, &packer);
    int status = clu_packer_status(&packer);
    if (!status)
        status = emb_kv_put(s->store, state_key, packer.data, packer.size_bytes);
    if (status)
        clu_error("the scheduler's state is not stored: %s; a restart of it would end the job",
                  clu_status_text(status));
    clu_packer_fini(&packer);
}

void schd_scheduler_last_life(struct schd_scheduler *s, uint64_t *job_id_p, uint64_t *generation_p)
{
    void *data;
    size_t size;
    *job_id_p = *generation_p = 0;
    int status = emb_kv_get(s->store, state_key, &data, &size);
    if (status == CLU_E_NOT_FOUND)
        return;
    if (!status) {
        status = schd_coordinator_peek(data, size, job_id_p, generation_p);
        free(data);
    }
    if (status)
        clu_warn("the stored state of the job is damaged; it starts as a new one");
}

int schd_scheduler_restore(struct schd_scheduler *s)
{
    void *data;
    size_t size;
    int status = emb_kv_get(s->store, state_key, &data, &size);
    if (status)
        return clu_fail(status, "there is no stored state to take up");
    status = schd_coordinator_load(s->coordinator, schd_now_ms(), data, size);
    free(data);
    if (status)
        return clu_fail(status, "the stored state of the job is damaged, or of another shape");
    return CLU_OK;
}
