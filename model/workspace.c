/* An aligned block of the heap, and advice to the kernel: huge pages need no privilege and no
 * configuration where transparent huge pages are "madvise" or "always", and where they are not the
 * advice is ignored.
 */
#include "model/workspace.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { LINE_BYTES = 64, HUGE_BYTES = 2 << 20 };

int mdl_workspace_grow(void **workspace, size_t *size_bytes, size_t wanted)
{
    if (wanted <= *size_bytes)
        return CLU_OK;
    wanted += wanted / 4;
    size_t unit = wanted >= HUGE_BYTES ? HUGE_BYTES : LINE_BYTES;
    wanted = (wanted + unit - 1) / unit * unit;
    void *larger = NULL;
    if (posix_memalign(&larger, unit, wanted))
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a workspace of %zu bytes", wanted);
#ifdef MADV_HUGEPAGE
    if (unit == HUGE_BYTES)
        (void)madvise(larger, wanted, MADV_HUGEPAGE);
#endif
    free(*workspace);
    *workspace = larger;
    *size_bytes = wanted;
    return CLU_OK;
}
