/* See the header. Links are few (what one folder holds), so searching is a scan.
 *
 * (C1) A base has a lower step than its delta; so walking down ends.
 */
#include "cluster/chain.h"

#include "cluster/status.h"

int clu_chain_base(const struct clu_link *links, size_t n, size_t i)
{
    if (links[i].base_step == 0)
        return CLU_LINK_FULL;
    for (size_t j = 0; j < n; j++)
        if (links[j].step == links[i].base_step && links[j].step < links[i].step /* (C1) */ &&
            links[j].checksum == links[i].base_checksum)
            return (int)j;
    return CLU_LINK_BROKEN;
}

size_t clu_chain_length(const struct clu_link *links, size_t n, size_t i)
{
    size_t length = 0;
    int at = (int)i;
    while (at >= 0 && links[at].whole) {
        length++;
        at = clu_chain_base(links, n, (size_t)at);
    }
    return at == CLU_LINK_FULL ? length : 0;
}

static void keep_chain(const struct clu_link *links, size_t n, size_t i, bool *kept_p)
{
    for (int at = (int)i; at >= 0 && !kept_p[at]; at = clu_chain_base(links, n, (size_t)at))
        kept_p[at] = true;
}

void clu_chain_keep(const struct clu_link *links, size_t n, int64_t keep, bool *kept_p)
{
    size_t oldest = n;
    for (size_t i = 0; i < n; i++)
        kept_p[i] = keep < 1;
    for (size_t i = n; i-- > 0 && keep > 0;) {
        if (clu_chain_length(links, n, i) == 0)
            continue;
        keep--;
        for (int at = (int)i; at >= 0 && !kept_p[at]; at = clu_chain_base(links, n, (size_t)at)) {
            kept_p[at] = true;
            oldest = (size_t)at < oldest ? (size_t)at : oldest;
        }
    }
    for (size_t i = oldest; i < n; i++)
        if (clu_chain_length(links, n, i) == 0)
            kept_p[i] = true;
    for (size_t i = n; i-- > 0;)
        if (links[i].pinned && clu_chain_length(links, n, i) > 0) {
            keep_chain(links, n, i, kept_p);
            break;
        }
}

uint64_t clu_chain_next(const struct clu_chain_plan *plan)
{
    bool full = plan->n_links >= plan->full_every || plan->delta_bytes >= plan->full_bytes;
    return full ? 0 : plan->base_step;
}

void clu_chain_committed(struct clu_chain_plan *plan, uint64_t step, uint64_t base_step,
                         uint64_t bytes)
{
    if (base_step == 0) {
        plan->n_links = 0;
        plan->full_bytes = bytes;
        plan->delta_bytes = 0;
    } else {
        plan->delta_bytes += bytes;
    }
    plan->n_links++;
    plan->base_step = step;
}

void clu_chain_failed(struct clu_chain_plan *plan, int status)
{
    if (status == CLU_E_NOT_FOUND || status == CLU_E_CORRUPT)
        plan->base_step = 0;
}
