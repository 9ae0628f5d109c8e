/* The coordinator's state for others: as bytes that outlive the scheduler's process, and as plain
 * views for the status page. What is stored is who was let in, under which incarnation, and how far
 * the job is; times, queued orders and figures are not: members send reports again, and orders are
 * given again when they are still due.
 *
 *     array: format, job, generation, incarnations, phase, finished, stopping, why, step, n_steps,
 *            whole_step, resume, resume_step, status, text, ran, must_go_back, workers_stand,
 *            least_incarnation, whole, whole_at, n_gone_on, lost_steps, lost_samples, map,
 *            change, first_added, n_moved, n_to_move,
 *            members: array of [role, rank, state, incarnation, pid, host, stand, kept]
 */
#include "sched/coordinator_internal.h"

#include "cluster/status.h"

#include <stdlib.h>
#include <string.h>

enum { FORMAT = 3, N_FIELDS = 30, N_MEMBER_FIELDS = 8 };

void schd_coordinator_save(const struct schd_coordinator *c, struct clu_packer *packer)
{
    clu_packer_clear(packer);
    clu_pack_array(packer, N_FIELDS);
    clu_pack_uint(packer, FORMAT);
    clu_pack_uint(packer, c->life.job_id);
    clu_pack_uint(packer, c->life.generation);
    clu_pack_uint(packer, c->n_incarnations);
    clu_pack_uint(packer, (uint64_t)c->phase);
    clu_pack_bool(packer, c->finished);
    clu_pack_bool(packer, c->stopping);
    clu_pack_text(packer, c->stop_why);
    clu_pack_uint(packer, c->step);
    clu_pack_uint(packer, c->n_steps);
    clu_pack_uint(packer, c->whole_step);
    clu_pack_text(packer, c->life.resume);
    clu_pack_uint(packer, c->life.resume_step);
    clu_pack_int(packer, c->status);
    clu_pack_text(packer, c->text);
    clu_pack_bool(packer, c->ran);
    clu_pack_bool(packer, c->must_go_back);
    clu_pack_bool(packer, c->workers_stand);
    clu_pack_uint(packer, c->least_incarnation);
    clu_pack_text(packer, c->whole);
    clu_pack_uint(packer, c->whole_at);
    clu_pack_uint(packer, c->n_gone_on);
    clu_pack_uint(packer, c->lost_steps);
    clu_pack_uint(packer, c->lost_samples);
    clu_map_pack(&c->map, packer);
    clu_pack_uint(packer, (uint64_t)c->change);
    clu_pack_uint(packer, (uint64_t)c->first_added);
    clu_pack_uint(packer, (uint64_t)c->n_moved);
    clu_pack_uint(packer, (uint64_t)c->n_to_move);
    clu_pack_array(packer, (size_t)c->n_members);
    for (int i = 0; i < c->n_members; i++) {
        const struct member *m = &c->members[i];
        clu_pack_array(packer, N_MEMBER_FIELDS);
        clu_pack_uint(packer, (uint64_t)m->role);
        clu_pack_uint(packer, (uint64_t)m->rank);
        clu_pack_uint(packer, (uint64_t)m->state);
        clu_pack_uint(packer, m->incarnation);
        clu_pack_int(packer, m->pid);
        clu_pack_text(packer, m->host);
        clu_pack_bool(packer, m->stand);
        clu_pack_bool(packer, m->kept);
    }
}

static int unpack_text(struct clu_unpacker *u, char *out, size_t out_bytes)
{
    const char *text;
    size_t size;
    int status = clu_unpack_text(u, &text, &size);
    if (!status && size >= out_bytes)
        status = CLU_E_PROTOCOL;
    if (!status) {
        memcpy(out, text, size);
        out[size] = '\0';
    }
    return status;
}

/* Reads a number that must be at most max. */
static int unpack_small(struct clu_unpacker *u, uint64_t max, int *value_p)
{
    uint64_t value;
    int status = clu_unpack_uint(u, &value);
    if (!status && value > max)
        status = CLU_E_PROTOCOL;
    if (!status)
        *value_p = (int)value;
    return status;
}

static int unpack_member(struct schd_coordinator *c, struct clu_unpacker *u, int i, int64_t now)
{
    struct member *m = &c->members[i];
    size_t n;
    int role, rank, state;
    int status = clu_unpack_array(u, &n);
    if (!status && n != N_MEMBER_FIELDS)
        status = CLU_E_PROTOCOL;
    if (!status)
        status = unpack_small(u, CLU_N_ROLES, &role);
    if (!status)
        status = unpack_small(u, UINT16_MAX, &rank);
    if (!status)
        status = unpack_small(u, SCHD_DRAINED, &state);
    if (!status && (role != (int)m->role || rank != m->rank))
        status = CLU_E_PROTOCOL;
    if (!status)
        status = clu_unpack_uint(u, &m->incarnation);
    if (!status)
        status = clu_unpack_int(u, &m->pid);
    if (!status)
        status = unpack_text(u, m->host, sizeof(m->host));
    if (!status)
        status = clu_unpack_bool(u, &m->stand);
    if (!status)
        status = clu_unpack_bool(u, &m->kept);
    if (!status) {
        m->state = (enum schd_member_state)state;
        m->heard_ms = now;
        m->attached = false;
    }
    return status;
}

/* What recoveries need and have cost. */
static int unpack_going_on(struct schd_coordinator *c, struct clu_unpacker *u)
{
    int status = clu_unpack_bool(u, &c->ran);
    if (!status)
        status = clu_unpack_bool(u, &c->must_go_back);
    if (!status)
        status = clu_unpack_bool(u, &c->workers_stand);
    if (!status)
        status = clu_unpack_uint(u, &c->least_incarnation);
    if (!status)
        status = unpack_text(u, c->whole, sizeof(c->whole));
    uint64_t *const numbers[] = {&c->whole_at, &c->n_gone_on, &c->lost_steps, &c->lost_samples};
    for (size_t i = 0; !status && i < sizeof(numbers) / sizeof(numbers[0]); i++)
        status = clu_unpack_uint(u, numbers[i]);
    return status;
}

static int unpack_head(struct schd_coordinator *c, struct clu_unpacker *u)
{
    int status, phase = 0, format = 0;
    size_t n;
    int64_t code = 0;
    if ((status = clu_unpack_array(u, &n)) || n != N_FIELDS ||
        (status = unpack_small(u, FORMAT, &format)) || format != FORMAT ||
        (status = clu_unpack_uint(u, &c->life.job_id)) ||
        (status = clu_unpack_uint(u, &c->life.generation)) ||
        (status = clu_unpack_uint(u, &c->n_incarnations)) ||
        (status = unpack_small(u, SCHD_ENDED, &phase)) ||
        (status = clu_unpack_bool(u, &c->finished)) ||
        (status = clu_unpack_bool(u, &c->stopping)) ||
        (status = unpack_text(u, c->stop_why, sizeof(c->stop_why))) ||
        (status = clu_unpack_uint(u, &c->step)) || (status = clu_unpack_uint(u, &c->n_steps)) ||
        (status = clu_unpack_uint(u, &c->whole_step)) ||
        (status = unpack_text(u, c->life.resume, sizeof(c->life.resume))) ||
        (status = clu_unpack_uint(u, &c->life.resume_step)) ||
        (status = clu_unpack_int(u, &code)) ||
        (status = unpack_text(u, c->text, sizeof(c->text))) || (status = unpack_going_on(c, u)))
        return status;
    if (n != N_FIELDS || format != FORMAT)
        return CLU_E_PROTOCOL;
    c->phase = (enum schd_phase)phase;
    c->status = (int)code;
    return clu_map_unpack(u, &c->map);
}

static int unpack_change(struct schd_coordinator *c, struct clu_unpacker *u)
{
    int change = 0;
    int status = unpack_small(u, SCHD_CHANGE_LEAVING, &change);
    if (!status)
        status = unpack_small(u, CLU_MAX_SHARDS, &c->first_added);
    if (!status)
        status = unpack_small(u, INT32_MAX, &c->n_moved);
    if (!status)
        status = unpack_small(u, INT32_MAX, &c->n_to_move);
    c->change = (enum schd_change)change;
    return status;
}

/* As many members as were stored: servers may have been added since the job began. */
static int resize_members(struct schd_coordinator *c, size_t n)
{
    int n_workers = c->shape.n_workers;
    if (n > (size_t)(CLU_MAX_SHARDS + n_workers) || n <= (size_t)n_workers)
        return CLU_E_PROTOCOL;
    struct member *members = calloc(n + 1, sizeof(*members));
    if (!members)
        return CLU_E_NO_MEMORY;
    free(c->members); /* made for this scheduler a moment ago: nobody has joined */
    c->members = members;
    c->n_members = (int)n;
    c->n_servers = (int)n - n_workers;
    for (int i = 0; i < c->n_members; i++) {
        members[i].role = i < c->n_servers ? CLU_ROLE_PS : CLU_ROLE_WORKER;
        members[i].rank = i < c->n_servers ? i : i - c->n_servers;
    }
    return CLU_OK;
}

int schd_coordinator_load(struct schd_coordinator *c, int64_t now, const void *data,
                          size_t size_bytes)
{
    struct clu_unpacker u;
    clu_unpacker_init(&u, data, size_bytes);
    size_t n = 0;
    int status = unpack_head(c, &u);
    if (!status)
        status = unpack_change(c, &u);
    if (!status)
        status = clu_unpack_array(&u, &n);
    if (!status)
        status = resize_members(c, n);
    for (int i = 0; i < c->n_members && !status; i++)
        status = unpack_member(c, &u, i, now);
    if (status)
        return CLU_E_CORRUPT;
    c->snapshot = SNAPSHOT_NONE;
    c->snapshot_due_ms = now + c->shape.snapshot_ms;
    c->deadline_ms = now + c->shape.start_timeout_ms;
    c->stop_deadline_ms = now + c->shape.stop_timeout_ms;
    c->change_began_ms = c->change_now_ms = now;
    c->change_deadline_ms = now + c->shape.start_timeout_ms;
    return CLU_OK;
}

int schd_coordinator_peek(const void *data, size_t size_bytes, uint64_t *job_id_p,
                          uint64_t *generation_p)
{
    struct clu_unpacker u;
    clu_unpacker_init(&u, data, size_bytes);
    size_t n;
    int format;
    uint64_t job_id, generation;
    int status = clu_unpack_array(&u, &n);
    if (!status)
        status = unpack_small(&u, FORMAT, &format);
    if (!status)
        status = clu_unpack_uint(&u, &job_id);
    if (!status)
        status = clu_unpack_uint(&u, &generation);
    if (status || n != N_FIELDS || format != FORMAT)
        return CLU_E_CORRUPT;
    *job_id_p = job_id;
    *generation_p = generation;
    return CLU_OK;
}

void schd_coordinator_view(const struct schd_coordinator *c, struct schd_view *view_p)
{
    *view_p = (struct schd_view){
        .phase = c->phase,
        .job_id = c->life.job_id,
        .generation = c->life.generation,
        .step = c->step,
        .n_steps = c->n_steps,
        .snapshot_step = c->whole_step,
        .n_gone_on = c->n_gone_on,
        .lost_steps = c->lost_steps,
        .lost_samples = c->lost_samples,
        .snapshot_under_way = c->snapshot != SNAPSHOT_NONE,
        .stopping = c->stopping,
        .change = c->change,
        .n_moved = c->n_moved,
        .n_to_move = c->n_to_move,
        .change_ms = c->change_now_ms - c->change_began_ms,
        .change_text = c->change_text,
        .n_servers = schd_core_n_servers(c),
        .n_members = c->n_members,
        .status = c->status,
        .text = c->text,
        .kept = c->finished && !c->stopping ? c->stop_why : "",
        .progress = &c->progress,
        .evaluation = &c->evaluation,
    };
}

void schd_coordinator_member(const struct schd_coordinator *c, int i, int64_t now,
                             struct schd_member_view *view_p)
{
    const struct member *m = &c->members[i];
    *view_p = (struct schd_member_view){
        .role = m->role,
        .rank = m->rank,
        .state = m->state,
        .suspect = m->suspect,
        .lags = m->lags,
        .silent_ms = m->heard_ms ? now - m->heard_ms : 0,
        .pid = m->pid,
        .incarnation = m->incarnation,
        .host = m->host,
        .text = m->text,
        .status = m->status,
        .figures = m->figures,
    };
}

const struct clu_bucket_map *schd_coordinator_map(const struct schd_coordinator *c)
{
    return &c->map;
}
