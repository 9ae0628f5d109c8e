/* Key folders: made, checked, loaded.
 *
 * A key is 40 characters of Z85 in a file of its own. What matters is who can touch the files: a
 * secret that others can read is no secret, and an allow list that others can write admits anybody;
 * both are refused rather than warned about. Folder and files are judged by descriptor (fstat after
 * open), so that what was judged is what is read.
 */
#include "cluster/security.h"

#include "cluster/file.h"
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
#include <zmq.h>

enum { KEY_LENGTH = CLU_KEY_TEXT_SIZE - 1, MAX_ALLOW_BYTES = CLU_MAX_ALLOWED * 128 };

static const char *const client_role[] = {"sched", "ps", "worker", "tool"};

enum { N_CLIENT_ROLES = sizeof(client_role) / sizeof(client_role[0]) };

/* Writes a whole new file of mode 0600. */
static int write_new(const char *dir, const char *name, const char *text)
{
    char path[1200];
    int status = clu_path_join(path, sizeof(path), dir, name);
    if (status)
        return status;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return clu_fail(clu_status_from_errno(errno), "%s: %s", path, strerror(errno));
    size_t size = strlen(text);
    bool whole = write(fd, text, size) == (ssize_t)size && !fsync(fd);
    if (!whole)
        status = clu_fail(clu_status_from_errno(errno), "%s: %s", path, strerror(errno));
    close(fd);
    return status;
}

static bool is_key(const char *text)
{
    uint8_t bytes[32];
    return strlen(text) == KEY_LENGTH && zmq_z85_decode(bytes, text);
}

/* Refuses what others could have changed, or (secret) read. */
static int check_mode(int fd, const char *path, bool secret)
{
    struct stat info;
    if (fstat(fd, &info))
        return clu_fail(clu_status_from_errno(errno), "%s: %s", path, strerror(errno));
    if (info.st_uid != geteuid() && info.st_uid != 0)
        return clu_fail(CLU_E_DENIED, "%s belongs to another user (uid %u)", path,
                        (unsigned)info.st_uid);
    if (info.st_mode & 022)
        return clu_fail(CLU_E_DENIED,
                        "%s can be written by others (mode %04o); chmod go-w it and "
                        "make new keys if you do not know why",
                        path, (unsigned)(info.st_mode & 07777));
    if (secret && (info.st_mode & 077))
        return clu_fail(CLU_E_DENIED, "%s can be read by others (mode %04o); make new keys", path,
                        (unsigned)(info.st_mode & 07777));
    return 0;
}

/* Reads a checked file of at most capacity - 1 bytes. */
static int read_checked(const char *dir, const char *name, bool secret, char *text, size_t capacity)
{
    char path[1200];
    int status = clu_path_join(path, sizeof(path), dir, name);
    if (status)
        return status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return clu_fail(clu_status_from_errno(errno), "%s: %s", path, strerror(errno));
    status = check_mode(fd, path, secret);
    size_t size = 0;
    while (!status) {
        ssize_t n = read(fd, text + size, capacity - size);
        if (n < 0 && errno != EINTR)
            status = clu_fail(clu_status_from_errno(errno), "%s: %s", path, strerror(errno));
        if (n == 0)
            break;
        if (n > 0)
            size += (size_t)n;
        if (size == capacity)
            status = clu_fail(CLU_E_CONFIG, "%s is longer than %zu bytes", path, capacity - 1);
    }
    close(fd);
    if (!status)
        text[size] = 0;
    return status;
}

static int load_key(const char *dir, const char *role, const char *suffix, char *key_p)
{
    char name[64], text[256];
    snprintf(name, sizeof(name), "%s.%s", role, suffix);
    int status = read_checked(dir, name, !strcmp(suffix, "key"), text, sizeof(text));
    if (status)
        return status;
    text[strcspn(text, "\r\n")] = 0;
    if (!is_key(text))
        status =
            clu_fail(CLU_E_CONFIG, "%s/%s: not a key (expected 40 characters of Z85)", dir, name);
    else
        memcpy(key_p, text, CLU_KEY_TEXT_SIZE);
    explicit_bzero(text, sizeof(text));
    return status;
}

static int compare_keys(const void *a, const void *b)
{
    return memcmp(a, b, KEY_LENGTH);
}

static int load_allowed(const char *dir, struct clu_security *security)
{
    char *text = malloc(MAX_ALLOW_BYTES);
    if (!text)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for the allow list");
    int status = read_checked(dir, "allow", false, text, MAX_ALLOW_BYTES);
    security->allowed = status ? NULL : calloc(CLU_MAX_ALLOWED, sizeof(*security->allowed));
    if (!status && !security->allowed)
        status = clu_fail(CLU_E_NO_MEMORY, "no memory for the allow list");
    int line = 0;
    for (char *at = text, *next; !status && *at; at = next) {
        size_t size = strcspn(at, "\n");
        next = at + size + (at[size] == '\n');
        at[size] = 0;
        line++;
        at[strcspn(at, " \t\r")] = 0;
        if (!at[0] || (at[0] == '#' && at[1] == 0))
            continue;
        if (!is_key(at))
            status = clu_fail(CLU_E_CONFIG, "%s/allow, line %d: not a key", dir, line);
        else if (security->n_allowed == CLU_MAX_ALLOWED)
            status = clu_fail(CLU_E_CONFIG, "%s/allow: more than %d keys", dir, CLU_MAX_ALLOWED);
        else
            memcpy(security->allowed[security->n_allowed++], at, CLU_KEY_TEXT_SIZE);
    }
    if (!status)
        qsort(security->allowed, (size_t)security->n_allowed, sizeof(*security->allowed),
              compare_keys);
    free(text);
    return status;
}

static int check_folder(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return clu_fail(clu_status_from_errno(errno), "key folder %s: %s", dir, strerror(errno));
    int status = check_mode(fd, dir, false);
    close(fd);
    return status;
}

int clu_security_load(const char *dir, const char *role, struct clu_security *security_p)
{
    struct clu_security security;
    memset(&security, 0, sizeof(security));
    bool binds = !strcmp(role, "sched") || !strcmp(role, "ps");
    int status = check_folder(dir);
    if (!status)
        status = load_key(dir, "server", "pub", security.server_public);
    if (!status && binds)
        status = load_key(dir, "server", "key", security.server_secret);
    if (!status)
        status = load_key(dir, role, "pub", security.public_key);
    if (!status)
        status = load_key(dir, role, "key", security.secret_key);
    if (!status && binds)
        status = load_allowed(dir, &security);
    if (status) {
        clu_security_fini(&security);
        return status;
    }
    *security_p = security;
    explicit_bzero(&security, sizeof(security));
    return 0;
}

void clu_security_fini(struct clu_security *security)
{
    free(security->allowed);
    explicit_bzero(security, sizeof(*security));
}

int clu_security_allows(const struct clu_security *security, const char *public_key)
{
    return security->allowed && bsearch(public_key, security->allowed, (size_t)security->n_allowed,
                                        sizeof(*security->allowed), compare_keys) != NULL;
}

/* Writes NAME.key and NAME.pub. */
static int generate_pair(const char *dir, const char *role, char *public_p)
{
    char public_key[CLU_KEY_TEXT_SIZE + 1], secret_key[CLU_KEY_TEXT_SIZE + 1], name[64];
    if (zmq_curve_keypair(public_key, secret_key))
        return clu_fail(CLU_E_UNAVAILABLE, "this libzmq has no CURVE: %s", zmq_strerror(errno));
    memcpy(public_p, public_key, CLU_KEY_TEXT_SIZE);
    public_key[KEY_LENGTH] = secret_key[KEY_LENGTH] = '\n';
    public_key[KEY_LENGTH + 1] = secret_key[KEY_LENGTH + 1] = 0;
    snprintf(name, sizeof(name), "%s.key", role);
    int status = write_new(dir, name, secret_key);
    explicit_bzero(secret_key, sizeof(secret_key));
    snprintf(name, sizeof(name), "%s.pub", role);
    return status ? status : write_new(dir, name, public_key);
}

static int check_empty(const char *dir)
{
    int n = 0;
    DIR *folder = opendir(dir);
    if (!folder)
        return clu_fail(clu_status_from_errno(errno), "%s: %s", dir, strerror(errno));
    for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder))
        n += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
    closedir(folder);
    if (n)
        return clu_fail(CLU_E_EXISTS, "%s is not empty; keys are never overwritten", dir);
    return 0;
}

int clu_security_generate(const char *dir)
{
    char allow[N_CLIENT_ROLES * 64], key[CLU_KEY_TEXT_SIZE];
    int status = clu_mkdirs(dir);
    if (!status)
        status = check_empty(dir);
    if (!status && chmod(dir, 0700))
        status = clu_fail(clu_status_from_errno(errno), "%s: %s", dir, strerror(errno));
    if (!status)
        status = generate_pair(dir, "server", key);
    size_t at = 0;
    for (int i = 0; !status && i < N_CLIENT_ROLES; i++) {
        status = generate_pair(dir, client_role[i], key);
        at += (size_t)snprintf(allow + at, sizeof(allow) - at, "%s %s\n", key, client_role[i]);
    }
    if (!status)
        status = write_new(dir, "allow", allow);
    return status ? status : clu_fsync_path(dir);
}
