/* A folder for targets whose decoder reads files of fixed names: in memory where the system has a
 * place for that (some decoders sync what they write), removed at exit.
 */
#ifndef TESTS_FUZZ_FOLDER_H
#define TESTS_FUZZ_FOLDER_H

#include "cluster/file.h"
#include "cluster/log.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char fuzz_folder[128];

static void fuzz_folder_remove(void)
{
    clu_remove_tree(fuzz_folder);
}

/* Makes the folder at the first call, and keeps refusals out of the output. */
static inline void fuzz_folder_make(const char *name)
{
    if (fuzz_folder[0])
        return;
    clu_log_init(CLU_LOG_ERROR, "fuzz", -1, false);
    const char *root = access("/dev/shm", W_OK) ? P_tmpdir : "/dev/shm";
    snprintf(fuzz_folder, sizeof(fuzz_folder), "%s/sluice-fuzz-%s-%d", root, name, (int)getpid());
    if (clu_mkdirs(fuzz_folder))
        abort();
    atexit(fuzz_folder_remove);
}

/* Writes fuzz_folder/name anew. */
static inline void fuzz_folder_write(const char *name, const void *data, size_t size)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", fuzz_folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size || close(fd))
        abort();
}

#endif
