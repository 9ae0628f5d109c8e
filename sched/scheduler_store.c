/* What a restarted scheduler needs, in OUT/run/state: one value, the coordinator's bytes (see
 * coordinator_state.c), replaced whole and durably whenever who is in the job changes. A few kilobytes, a
 * few times in a job's life.
 */
#include "sched/scheduler_internal.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_STATE_BYTES = 64 << 20 };

static int state_path(const struct schd_scheduler *s, char path_p[CLU_PATH_BYTES])
{
    return clu_path_join(path_p, CLU_PATH_BYTES, s->run, "state/coordinator");
}

int schd_scheduler_open_store(struct schd_scheduler *s)
{
    char folder[CLU_PATH_BYTES];
    int status = clu_path_join(folder, sizeof(folder), s->run, "state");
    return status ? status : clu_mkdirs(folder);
}

void schd_scheduler_close_store(struct schd_scheduler *s)
{
    (void)s;
}

void schd_scheduler_store(struct schd_scheduler *s)
{
    char path[CLU_PATH_BYTES];
    struct clu_packer packer;
    clu_packer_init(&packer);
    schd_coordinator_save(s->coordinator, &packer);
    int status = clu_packer_status(&packer);
    if (!status)
        status = state_path(s, path);
    if (!status)
        status = clu_file_write_atomic(path, packer.data, packer.size_bytes);
    if (status)
        clu_error("the scheduler's state is not stored: %s; a restart of it would end the job",
                  clu_status_text(status));
    clu_packer_fini(&packer);
}

static int load(struct schd_scheduler *s, char **data_p, size_t *size_p)
{
    char path[CLU_PATH_BYTES];
    int status = state_path(s, path);
    if (!status && !clu_path_exists(path))
        return CLU_E_NOT_FOUND;
    return status ? status : clu_file_read_all(path, MAX_STATE_BYTES, data_p, size_p);
}

void schd_scheduler_last_life(struct schd_scheduler *s, uint64_t *job_id_p, uint64_t *generation_p)
{
    char *data;
    size_t size;
    *job_id_p = *generation_p = 0;
    if (load(s, &data, &size))
        return;
    if (schd_coordinator_peek(data, size, job_id_p, generation_p))
        clu_warn("the stored state of the job is damaged; it starts as a new one");
    free(data);
}

int schd_scheduler_restore(struct schd_scheduler *s)
{
    char *data;
    size_t size;
    int status = load(s, &data, &size);
    if (status)
        return clu_fail(status, "there is no stored state to take up");
    status = schd_coordinator_load(s->coordinator, schd_now_ms(), data, size);
    free(data);
    if (status)
        return clu_fail(status, "the stored state of the job is damaged, or of another shape");
    return CLU_OK;
}
