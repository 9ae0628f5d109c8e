/* The tables behind status.h: every answer is read off the one X-macro list, so a code cannot exist
 * without its name, its exit code and its sentence. */
#include "cluster/status.h"

#include <errno.h>
#include <stddef.h>

struct status_row {
    const char *name;
    int exit_code;
    const char *text;
};

static const struct status_row rows[] = {{"OK", 0, "no error"},
#define CLU_X(name, exit_code, sentence) {#name, exit_code, sentence},
                                         CLU_STATUS_LIST(CLU_X)
#undef CLU_X
};

static const struct status_row *row_of(int status)
{
    return status <= 0 && status > -CLU_ORDINAL_END ? &rows[-status] : NULL;
}

const char *clu_status_name(int status)
{
    const struct status_row *row = row_of(status);
    return row ? row->name : "UNKNOWN";
}

const char *clu_status_text(int status)
{
    const struct status_row *row = row_of(status);
    return row ? row->text : "unknown status";
}

int clu_status_exit_code(int status)
{
    const struct status_row *row = row_of(status);
    return row ? row->exit_code : 70;
}

int clu_status_from_errno(int error_number)
{
    switch (error_number) {
    case ENOENT:
    case ENOTDIR:
        return CLU_E_NOT_FOUND;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return CLU_E_FULL;
    case ENOMEM:
        return CLU_E_NO_MEMORY;
    case EACCES:
    case EPERM:
    case EROFS:
        return CLU_E_DENIED;
    case EEXIST:
        return CLU_E_EXISTS;
    case EINTR:
        return CLU_E_INTERRUPTED;
    case ETIMEDOUT:
        return CLU_E_TIMEOUT;
    case EAGAIN:
        return CLU_E_AGAIN;
    case ECONNREFUSED:
    case ECONNRESET:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EADDRINUSE:
    case EADDRNOTAVAIL:
        return CLU_E_UNAVAILABLE;
    default:
        return CLU_E_IO;
    }
}
