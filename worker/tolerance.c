/* A log with a million bad lines must not write a million warnings. */
#include "worker/tolerance.h"

#include "cluster/log.h"
#include "cluster/status.h"

enum { MAX_TOLD = 10 };

int wrk_tolerance_count(struct wrk_tolerance *tolerance, const char *path, uint64_t line,
                        uint64_t n_lines, const char *text)
{
    tolerance->n_bad += n_lines;
    if (tolerance->n_bad > tolerance->max_bad) {
        if (tolerance->max_bad == 0)
            return clu_fail(CLU_E_DATA,
                            "%s, line %llu: %s (to leave bad lines out, give --max-bad N)", path,
                            (unsigned long long)line, text);
        return clu_fail(CLU_E_DATA, "%s, line %llu: %s (more bad lines than --max-bad %llu allows)",
                        path, (unsigned long long)line, text,
                        (unsigned long long)tolerance->max_bad);
    }
    if (tolerance->n_told++ < MAX_TOLD)
        clu_warn("%s, line %llu: left out: %s%s", path, (unsigned long long)line, text,
                 tolerance->n_told == MAX_TOLD ? " (further ones are only counted)" : "");
    return CLU_OK;
}
