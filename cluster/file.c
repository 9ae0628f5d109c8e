/* Plain POSIX calls; the one idea is the order of the durable writes: content, fsync, rename, fsync
 * of the folder. Without the last, a power cut may bring the old name back although rename() had
 * returned. */
#include "cluster/file.h"

#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK_BYTES = 1 << 16 };

static int fail_errno(const char *what, const char *path)
{
    int number = errno;
    return clu_fail(clu_status_from_errno(number), "cannot %s %s: %s", what, path,
                    strerror(number));
}

int clu_file_read_all(const char *path, size_t max_bytes, char **data_p, size_t *size_p)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno("open", path);
    int status = CLU_OK;
    size_t size = 0, capacity = 0;
    char *data = NULL;
    for (;;) {
        if (size + CHUNK_BYTES + 1 > capacity) {
            capacity = capacity ? capacity * 2 : 2 * CHUNK_BYTES;
            char *grown = realloc(data, capacity);
            if (!grown) {
                status = clu_fail(CLU_E_NO_MEMORY, "no memory to read %s", path);
                break;
            }
            data = grown;
        }
        ssize_t n = read(fd, data + size, CHUNK_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            status = fail_errno("read", path);
            break;
        }
        if (n == 0)
            break;
        size += (size_t)n;
        if (size > max_bytes) {
            status = clu_fail(CLU_E_DATA, "%s is larger than %zu bytes", path, max_bytes);
            break;
        }
    }
    close(fd);
    if (status != CLU_OK) {
        free(data);
        return status;
    }
    data[size] = '\0';
    *data_p = data;
    *size_p = size;
    return CLU_OK;
}

static int write_all(int fd, const char *path, const void *data, size_t size)
{
    const char *bytes = data;
    while (size > 0) {
        ssize_t n = write(fd, bytes, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno("write", path);
        bytes += n;
        size -= (size_t)n;
    }
    return CLU_OK;
}

int clu_file_write_atomic(const char *path, const void *data, size_t size_bytes)
{
    char part[4096];
    if ((size_t)snprintf(part, sizeof(part), "%s.%ld.part", path, (long)getpid()) >= sizeof(part))
        return clu_fail(CLU_E_CONFIG, "path is too long: %s", path);
    int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return fail_errno("create", part);
    int status = write_all(fd, part, data, size_bytes);
    if (status == CLU_OK && fsync(fd) != 0)
        status = fail_errno("sync", part);
    if (close(fd) != 0 && status == CLU_OK)
        status = fail_errno("close", part);
    if (status == CLU_OK)
        status = clu_rename_durable(part, path);
    if (status != CLU_OK)
        unlink(part);
    return status;
}

int clu_file_checksum(const char *path, uint64_t *checksum_p, uint64_t *size_p)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno("open", path);
    struct clu_hash_stream *state = clu_hash_stream_create();
    char *chunk = malloc(CHUNK_BYTES);
    uint64_t size = 0;
    int status = CLU_OK;
    if (!state || !chunk)
        status = clu_fail(CLU_E_NO_MEMORY, "no memory to read %s", path);
    while (status == CLU_OK) {
        ssize_t n = read(fd, chunk, CHUNK_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            status = fail_errno("read", path);
        if (n <= 0)
            break;
        clu_hash_stream_add(state, chunk, (size_t)n);
        size += (uint64_t)n;
    }
    if (status == CLU_OK && checksum_p)
        *checksum_p = clu_hash_stream_value(state);
    if (status == CLU_OK && size_p)
        *size_p = size;
    clu_hash_stream_free(state);
    free(chunk);
    close(fd);
    return status;
}

bool clu_path_exists(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0;
}

int clu_path_join(char *out, size_t out_bytes, const char *folder, const char *name)
{
    size_t length = strlen(folder);
    const char *slash = length > 0 && folder[length - 1] == '/' ? "" : "/";
    if ((size_t)snprintf(out, out_bytes, "%s%s%s", folder, slash, name) >= out_bytes)
        return clu_fail(CLU_E_CONFIG, "path is too long: %s/%s", folder, name);
    return CLU_OK;
}

int clu_mkdirs(const char *path)
{
    char part[4096];
    if ((size_t)snprintf(part, sizeof(part), "%s", path) >= sizeof(part))
        return clu_fail(CLU_E_CONFIG, "path is too long: %s", path);
    for (char *p = part + 1;; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        char kept = *p;
        *p = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST)
            return fail_errno("create folder", part);
        *p = kept;
        if (kept == '\0')
            break;
    }
    struct stat info;
    if (stat(path, &info) != 0)
        return fail_errno("create folder", path);
    if (!S_ISDIR(info.st_mode))
        return clu_fail(CLU_E_EXISTS, "%s is there already and is not a folder", path);
    return CLU_OK;
}

/* Removes what a folder (given by its descriptor, which is closed here) holds. */
static int empty_folder(int fd, const char *path)
{
    DIR *folder = fdopendir(fd);
    if (!folder) {
        close(fd);
        return fail_errno("open folder", path);
    }
    int status = CLU_OK;
    struct dirent *entry;
    while (status == CLU_OK && (entry = readdir(folder))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char inner[4096];
        status = clu_path_join(inner, sizeof(inner), path, entry->d_name);
        if (status == CLU_OK)
            status = clu_remove_tree(inner);
    }
    closedir(folder);
    return status;
}

int clu_remove_tree(const char *path)
{
    struct stat info;
    if (lstat(path, &info) != 0)
        return errno == ENOENT ? CLU_OK : fail_errno("look at", path);
    if (S_ISDIR(info.st_mode)) {
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            return fail_errno("open folder", path);
        int status = empty_folder(fd, path);
        if (status != CLU_OK)
            return status;
        return rmdir(path) == 0 ? CLU_OK : fail_errno("remove", path);
    }
    return unlink(path) == 0 || errno == ENOENT ? CLU_OK : fail_errno("remove", path);
}

int clu_fsync_path(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno("open", path);
    int status = fsync(fd) == 0 ? CLU_OK : fail_errno("sync", path);
    close(fd);
    return status;
}

static int sync_folder_of(const char *to)
{
    char folder[4096];
    if ((size_t)snprintf(folder, sizeof(folder), "%s", to) >= sizeof(folder))
        return clu_fail(CLU_E_CONFIG, "path is too long: %s", to);
    char *slash = strrchr(folder, '/');
    if (slash == folder)
        slash[1] = '\0';
    else if (slash)
        *slash = '\0';
    else
        snprintf(folder, sizeof(folder), ".");
    return clu_fsync_path(folder);
}

static int move(const char *from, const char *to, unsigned flags)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, flags) == 0)
        return CLU_OK;
    int number = errno;
    return clu_fail(clu_status_from_errno(number), "cannot rename %s to %s: %s", from, to,
                    strerror(number));
}

int clu_rename_durable(const char *from, const char *to)
{
    int status = clu_fsync_path(from);
    if (status == CLU_OK)
        status = move(from, to, 0);
    return status != CLU_OK ? status : sync_folder_of(to);
}

int clu_install_folder(const char *from, const char *to)
{
    char old[4096];
    if (!clu_path_exists(to))
        return clu_rename_durable(from, to);
    int status = clu_fsync_path(from);
    if (status != CLU_OK)
        return status;
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE) == 0) {
        status = sync_folder_of(to);
        return status != CLU_OK ? status : clu_remove_tree(from);
    }
    /* a file system without exchange: for a moment nothing stands at `to` */
    if ((size_t)snprintf(old, sizeof(old), "%s.old", to) >= sizeof(old))
        return clu_fail(CLU_E_CONFIG, "path is too long: %s", to);
    status = clu_remove_tree(old);
    if (status == CLU_OK)
        status = move(to, old, 0);
    if (status == CLU_OK)
        status = clu_rename_durable(from, to);
    return status != CLU_OK ? status : clu_remove_tree(old);
}
