/* See mapped.h. */
#include "embeddings/mapped.h"

#include "cluster/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#if __has_include(<linux/userfaultfd.h>)
#include <linux/userfaultfd.h>
#endif

enum { PAGE_BYTES = 4096, AROUND_BYTES = 64 << 10 /* what a fault makes resident by default */ };

void emb_mapped_init(struct emb_mapped *mapped)
{
    *mapped = (struct emb_mapped){.fd = -1, .touch_bytes = AROUND_BYTES};
}

void emb_mapped_moved(struct emb_mapped *mapped)
{
    uint64_t touched = emb_mapped_touched(mapped);
    if (mapped->fd >= 0)
        close(mapped->fd);
    emb_mapped_init(mapped);
    mapped->touched = touched;
}

void emb_mapped_fini(struct emb_mapped *mapped)
{
    emb_mapped_moved(mapped);
}

/* Where the file is mapped, which LMDB does not tell: the mapping of its inode. */
static bool find(struct emb_mapped *mapped, MDB_env *env)
{
    char line[4400];
    struct stat st;
    mdb_filehandle_t fd;
    bool found = false;
    FILE *maps = fopen("/proc/self/maps", "r");
    if (!maps)
        return false;
    if (mdb_env_get_fd(env, &fd) == 0 && fstat(fd, &st) == 0)
        while (!found && fgets(line, sizeof(line), maps)) {
            unsigned long start, end, inode;
            unsigned device_major, device_minor;
            if (sscanf(line, "%lx-%lx %*s %*x %x:%x %lu", &start, &end, &device_major,
                       &device_minor, &inode) != 5 ||
                inode != st.st_ino || device_major != major(st.st_dev) ||
                device_minor != minor(st.st_dev))
                continue;
            mapped->base = (char *)start;
            mapped->size_bytes = end - start;
            found = true;
        }
    fclose(maps);
    return found;
}

/* Faults of a range registered so bring single pages. */
static void ask_for_single_pages(struct emb_mapped *mapped)
{
#if defined(UFFD_USER_MODE_ONLY) && defined(SYS_userfaultfd)
    const uint64_t wp_async = 1 << 15; /* UFFD_FEATURE_WP_ASYNC: any mapping, nobody to answer */
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    if (fd < 0) {
        clu_debug("no userfaultfd: %s", strerror(errno));
        return;
    }
    struct uffdio_api api = {.api = UFFD_API, .features = wp_async};
    struct uffdio_register range = {
        .range = {.start = (uintptr_t)mapped->base, .len = mapped->size_bytes},
        .mode = UFFDIO_REGISTER_MODE_WP};
    if (ioctl(fd, UFFDIO_API, &api) != 0 || ioctl(fd, UFFDIO_REGISTER, &range) != 0) {
        clu_debug("no single pages from userfaultfd: %s", strerror(errno));
        close(fd);
        return;
    }
    mapped->fd = fd;
    __atomic_store_n(&mapped->touch_bytes, PAGE_BYTES, __ATOMIC_RELAXED);
#else
    (void)mapped;
#endif
}

void emb_mapped_trim(struct emb_mapped *mapped, MDB_env *env, size_t used_bytes)
{
    if (!mapped->base) {
        if (!find(mapped, env))
            return;
        ask_for_single_pages(mapped);
    }
    /* a shared file mapping: the pages stay in the page cache, only this process's use of them
     * ends */
    if (used_bytes > mapped->size_bytes)
        used_bytes = mapped->size_bytes;
    __atomic_store_n(&mapped->touched, 0, __ATOMIC_RELAXED);
    madvise(mapped->base, used_bytes, MADV_DONTNEED);
}
