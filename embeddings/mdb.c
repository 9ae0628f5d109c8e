/* One place where LMDB's codes become statuses. */
#include "embeddings/mdb.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <errno.h>
#include <lmdb.h>
#include <stdbool.h>
#include <sys/statvfs.h>

int emb_mdb_status(int code)
{
    switch (code) {
    case MDB_SUCCESS:
        return CLU_OK;
    case MDB_NOTFOUND:
        return CLU_E_NOT_FOUND;
    case MDB_MAP_FULL:
    case MDB_TXN_FULL:
        return CLU_E_FULL;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_PANIC:
    case MDB_INCOMPATIBLE:
    case MDB_BAD_VALSIZE:
        return CLU_E_CORRUPT;
    default:
        return code > 0 ? clu_status_from_errno(code) : CLU_E_IO;
    }
}

/* LMDB calls a write that was cut short EIO: it is, but for a lack of room. */
static bool is_full(const char *path)
{
    struct statvfs disk;
    return statvfs(path, &disk) == 0 && disk.f_bavail == 0;
}

int emb_mdb_fail(int code, const char *action, const char *path)
{
    if (code == EIO && is_full(path))
        code = ENOSPC;
    int status = emb_mdb_status(code);
    if (status == CLU_OK || status == CLU_E_NOT_FOUND)
        return status;
    return clu_fail(status, "%s: %s: %s", path, action, mdb_strerror(code));
}
