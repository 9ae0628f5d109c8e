/* Who may push, and what becomes of the steps that a dead group of workers left unfinished.
 *
 * The workers of a job may die and be started again while the servers stand: with durability `log`
 * every step that was applied is on disk, and at staleness > 0 nobody was promised more than a
 * bound. The shards then hold what the dead left: steps applied up to A (each shard its own A: a
 * push reaches one a little before another), and pushes of steps beyond A that lack those of some
 * rank. What follows from it, and why each step is still applied once and the bound still holds:
 *
 * - A step that is complete at a shard is applied there before anything else is looked at, so it
 *   is in A. A step that lacks a rank's push never becomes complete: the dead do not send it, and
 *   the living must not, for they compute other gradients under the same number. So it is dropped.
 * - The fence: a rank's first word to a shard is its hello, and an answered hello means that of
 *   the rank's older incarnations nothing waits and nothing will be taken, however late it arrives
 *   (R8). With a bound, one rank's hello makes every unfinished step unfinishable; without one,
 *   each rank's pushes stand alone and its own hello closes them. After the hellos of all ranks A
 *   is final; each answer carries it.
 * - The new group goes on at the step after R, the largest A of all shards (and at least the step
 *   of the dense weights it begins from). Rank 0 tells every shard (BEGIN) before any rank pulls.
 *   A shard with A < R skips the steps between: their gradients are lost there, and only there.
 *   No number is used twice with different gradients: steps up to R are over everywhere, steps
 *   after R were applied nowhere.
 * - A pull of step t >= R + 1 waits for steps <= t - 1 - staleness, as ever; those up to R count as
 *   applied. It misses at most the promised steps, beside what was lost, which is told.
 * - BEGIN is durable before it is answered and does nothing where R is reached already, so it may
 *   be repeated, by the same group or by the next one, which finds the same R or a larger one.
 *
 * Rejected: replaying the steps since the dense weights' (their samples would count twice in rows
 * that hold them already), and taking the unfinished pushes as if they were whole (which ranks'
 * samples count would then differ from shard to shard).
 */
#include "ps/shard_internal.h"

#include "cluster/status.h"

int psv_shard_create_gate(const struct psv_shard *shard, uint64_t done, struct psv_gate **gate_p)
{
    const struct psv_terms *terms = &shard->options.terms;
    return psv_gate_create(terms->n_ranks, (int)terms->staleness + 1 + SPARE_WINDOW,
                           shard->options.max_buffered_bytes, done, gate_p);
}

/* Questions of the dead: nobody hears the answer, and a snapshot would be begun for nobody. */
static void drop_held(struct psv_shard *shard, uint32_t rank, uint64_t incarnation)
{
    int kept = 0;
    for (int i = 0; i < shard->n_held; i++) {
        struct psv_request *request = shard->held[i];
        if (request->rank == rank && request->incarnation < incarnation) {
            shard->held_bytes -= psv_request_bytes(request);
            psv_request_free(request);
        } else {
            shard->held[kept++] = request;
        }
    }
    shard->n_held = kept;
}

int psv_shard_meet(struct psv_shard *shard, uint32_t rank, uint64_t incarnation)
{
    if (rank >= (uint32_t)shard->options.terms.n_ranks || incarnation == shard->incarnation[rank])
        return CLU_OK;
    if (incarnation < shard->incarnation[rank])
        return CLU_E_LOST;
    if (shard
            ->stalled) /* a step of the dead is complete, and half in the store: it will be whole */
        return CLU_E_AGAIN;
    shard->incarnation[rank] = incarnation;
    drop_held(shard, rank, incarnation);
    if (psv_shard_is_async(shard)) {
        psv_gate_free(shard->rank_gate[rank]); /* made anew by the first push */
        shard->rank_gate[rank] = NULL;
    } else {
        psv_gate_drop(shard->gate, (int)rank, incarnation);
    }
    return CLU_OK;
}

int psv_shard_go_on(struct psv_shard *shard, uint64_t step)
{
    struct psv_gate *gate = NULL;
    if (step <= shard->applied)
        return CLU_OK;
    if (shard->stalled)
        return CLU_E_AGAIN;
    int status = psv_shard_is_async(shard) ? CLU_OK : psv_shard_create_gate(shard, step, &gate);
    if (!status)
        status = emb_shard_tick(shard->rows, step);
    if (!status)
        status = emb_shard_commit(shard->rows);
    if (status) { /* full for now: it is asked again */
        psv_gate_free(gate);
        return status == CLU_E_FULL || status == CLU_E_IO ? CLU_E_AGAIN : status;
    }
    if (gate) {
        psv_gate_free(shard->gate);
        shard->gate = gate;
    }
    shard->applied = step;
    return CLU_OK;
}
