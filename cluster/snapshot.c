/* Snapshots on disk. The order of the calls is the whole protocol:
 *
 *     1  files written and fsynced by their writers           crash before 4: a .part, (S5)
 *     2  manifest.json written atomically, fsynced
 *     3  rows/ and the .part folder fsynced
 *     4  step-N.part becomes step-N, parent fsynced           crash before 5: `latest` one behind
 *     5  `latest` replaced atomically
 *     6  what keep no longer wants is removed                 crash in 6: (S2), (S4)
 *
 * (S1) A folder step-N with a manifest.json was whole when it got its name.
 * (S2) Removing begins with another name, step-N.old: whoever dies meanwhile leaves no half folder
 *      where a whole one is looked for.
 * (S3) `latest` is a convenience: readers that must be right list the folder (clu_snapshot_newest).
 * (S4) The newest go first: a link is removed after what was made upon it, so at no moment does a
 *      snapshot stand there whose base was removed.
 * (S5) What a dead committer leaves is a .part or a .old. The job's next commit removes both, but
 *      for a .part of a later step; so does its next life (clu_snapshot_sweep). A .part that is
 *      locked is being written by a process that the job does not know (`sluice reshard`), and
 *      stays.
 */
#include "cluster/snapshot.h"

#include "cluster/chain.h"
#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

static const char *const step_prefix = "step-";
static const char *const part_suffix = ".part";
static const char *const removed_suffix = ".old"; /* as clu_install_folder calls it, too */
static const char *const aside_suffix = ".damaged";

int clu_snapshot_root(const char *out, char root_p[CLU_PATH_BYTES])
{
    return clu_path_join(root_p, CLU_PATH_BYTES, out, "run/snapshot");
}

int clu_snapshot_folder(const char *root, uint64_t step, bool part, char folder_p[CLU_PATH_BYTES])
{
    char name[64];
    snprintf(name, sizeof(name), "%s%012" PRIu64 "%s", step_prefix, step, part ? part_suffix : "");
    return clu_path_join(folder_p, CLU_PATH_BYTES, root, name);
}

/* True when a process holds a lock on a folder that is being written, (S5). */
static bool is_locked(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool locked = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (fd >= 0)
        close(fd);
    return locked;
}

int clu_snapshot_begin(const char *root, uint64_t step, char folder_p[CLU_PATH_BYTES])
{
    char folder[CLU_PATH_BYTES], rows[CLU_PATH_BYTES];
    int status = clu_snapshot_folder(root, step, true, folder);
    if (!status)
        status = clu_path_join(rows, sizeof(rows), folder, "rows");
    if (!status && is_locked(folder))
        status = clu_fail(CLU_E_AGAIN, "%s: another process is writing it", folder);
    if (!status)
        status = clu_remove_tree(folder);
    if (!status)
        status = clu_mkdirs(rows);
    if (!status)
        memcpy(folder_p, folder, CLU_PATH_BYTES);
    return status;
}

/* ---- the root ---- */

/* The step of a folder's name and what follows it (in name), or -1. */
static int64_t step_of(const char *name, const char **suffix_p)
{
    size_t prefix = strlen(step_prefix);
    char *end;
    if (strncmp(name, step_prefix, prefix) != 0 || name[prefix] < '0' || name[prefix] > '9')
        return -1;
    int64_t step = strtoll(name + prefix, &end, 10);
    *suffix_p = end;
    return step;
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The steps of the folders under root that look whole, ascending; *steps_p is the caller's. */
static int list_steps(const char *root, int64_t **steps_p, size_t *n_p)
{
    int64_t *steps = NULL;
    size_t n = 0;
    DIR *dir = opendir(root);
    *steps_p = NULL;
    *n_p = 0;
    if (!dir)
        return errno == ENOENT
                   ? CLU_OK
                   : clu_fail(clu_status_from_errno(errno), "%s: %s", root, strerror(errno));
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        char path[CLU_PATH_BYTES];
        const char *suffix = "";
        int64_t step = step_of(entry->d_name, &suffix);
        if (step < 0 || *suffix ||
            snprintf(path, sizeof(path), "%s/%s/manifest.json", root, entry->d_name) >=
                (int)sizeof(path) ||
            !clu_path_exists(path))
            continue;
        int64_t *grown = realloc(steps, (n + 1) * sizeof(*steps));
        if (!grown) {
            closedir(dir);
            free(steps);
            return clu_fail(CLU_E_NO_MEMORY, "no memory for the list of snapshots");
        }
        steps = grown;
        steps[n++] = step;
    }
    closedir(dir);
    if (n > 0)
        qsort(steps, n, sizeof(*steps), ascending);
    *steps_p = steps;
    *n_p = n;
    return CLU_OK;
}

/* ---- chains ---- */

static int folder_of_base(const char *folder, uint64_t base_step, char base_p[CLU_PATH_BYTES])
{
    const char *slash = strrchr(folder, '/');
    if (!slash)
        return clu_snapshot_folder(".", base_step, false, base_p);
    char root[CLU_PATH_BYTES];
    snprintf(root, sizeof(root), "%.*s", (int)(slash - folder), folder);
    return clu_snapshot_folder(slash == folder ? "/" : root, base_step, false, base_p);
}

/* Reads the link of a folder, and checks it against the one above when there is one. */
static int read_link(const char *folder, const struct clu_snapshot_link *above,
                     struct clu_snapshot_link *link)
{
    snprintf(link->folder, sizeof(link->folder), "%s", folder);
    int status = clu_manifest_load(folder, &link->manifest);
    if (status && above)
        clu_error("%s is a delta upon %s, which cannot be read", above->folder, folder);
    if (status || !above)
        return status;
    if (link->manifest.step != above->manifest.base_step ||
        link->manifest.checksum != above->manifest.base_checksum)
        return clu_fail(CLU_E_CORRUPT, "%s: not the snapshot that %s was made upon", folder,
                        above->folder);
    return CLU_OK;
}

int clu_snapshot_open(const char *folder, struct clu_snapshot *snapshot_p)
{
    struct clu_snapshot s = {0};
    char next[CLU_PATH_BYTES];
    snprintf(next, sizeof(next), "%s", folder);
    for (size_t size = strlen(next); size > 1 && next[size - 1] == '/'; size--)
        next[size - 1] = '\0';
    int status;
    do { /* the newest first; steps fall, so this ends */
        void *grown = realloc(s.links, (s.n_links + 1) * sizeof(*s.links));
        if (!grown) {
            status = clu_fail(CLU_E_NO_MEMORY, "%s: no memory for its manifest", next);
            break;
        }
        s.links = grown;
        struct clu_snapshot_link *link = &s.links[s.n_links];
        memset(link, 0, sizeof(*link));
        status = read_link(next, s.n_links ? link - 1 : NULL, link);
        s.n_links++;
        if (!status && link->manifest.base_step)
            status = folder_of_base(link->folder, link->manifest.base_step, next);
    } while (!status && s.links[s.n_links - 1].manifest.base_step);
    for (size_t i = 0; i < s.n_links / 2; i++) {
        struct clu_snapshot_link swap = s.links[i];
        s.links[i] = s.links[s.n_links - 1 - i];
        s.links[s.n_links - 1 - i] = swap;
    }
    if (status)
        clu_snapshot_fini(&s);
    else
        *snapshot_p = s;
    return status;
}

void clu_snapshot_fini(struct clu_snapshot *snapshot)
{
    for (size_t i = 0; i < snapshot->n_links; i++)
        clu_manifest_fini(&snapshot->links[i].manifest);
    free(snapshot->links);
    *snapshot = (struct clu_snapshot){0};
}

int clu_snapshot_verify(const struct clu_snapshot *snapshot, bool sums)
{
    int status = CLU_OK;
    for (size_t i = 0; i < snapshot->n_links && !status; i++)
        status = clu_manifest_verify(snapshot->links[i].folder, &snapshot->links[i].manifest, sums);
    return status;
}

static bool is_row_file(const struct clu_manifest_file *file)
{
    return strncmp(file->path, "rows/", 5) == 0;
}

int clu_snapshot_row_files(const struct clu_snapshot *snapshot, const char ***paths_p, size_t *n_p)
{
    size_t n = 0, at = 0;
    for (size_t i = 0; i < snapshot->n_links; i++)
        n += (size_t)snapshot->links[i].manifest.n_files;
    const char **paths = malloc(n * (sizeof(*paths) + CLU_PATH_BYTES) + 1);
    if (!paths)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for the names of %zu files", n);
    char *text = (char *)(paths + n);
    for (size_t i = 0; i < snapshot->n_links; i++) {
        const struct clu_snapshot_link *link = &snapshot->links[i];
        size_t before = at;
        for (int f = 0; f < link->manifest.n_files; f++) {
            if (!is_row_file(&link->manifest.files[f]))
                continue;
            paths[at] = text + at * CLU_PATH_BYTES;
            int status = clu_path_join(text + at * CLU_PATH_BYTES, CLU_PATH_BYTES, link->folder,
                                       link->manifest.files[f].path);
            if (status) {
                free(paths);
                return status;
            }
            at++;
        }
        if (at == before) {
            free(paths);
            return clu_fail(CLU_E_CORRUPT, "%s: its manifest lists no file under rows/",
                            link->folder);
        }
    }
    *paths_p = paths;
    *n_p = at;
    return CLU_OK;
}

/* ---- commit ---- */

/* (S2) */
static int remove_snapshot(const char *folder)
{
    char old[CLU_PATH_BYTES + 8];
    snprintf(old, sizeof(old), "%s%s", folder, removed_suffix);
    int status = clu_remove_tree(old);
    if (!status)
        status = clu_rename_durable(folder, old);
    return status ? status : clu_remove_tree(old);
}

static bool is_pinned(const char *folder)
{
    char path[CLU_PATH_BYTES];
    return !clu_path_join(path, sizeof(path), folder, CLU_SNAPSHOT_PIN_FILE) &&
           clu_path_exists(path);
}

/* What the links under root are, by manifests and sizes; *links_p [*n_p] is the caller's. */
static int read_links(const char *root, struct clu_link **links_p, size_t *n_p)
{
    int64_t *steps;
    int status = list_steps(root, &steps, n_p);
    if (status)
        return status;
    struct clu_link *links = calloc(*n_p + 1, sizeof(*links));
    for (size_t i = 0; links && i < *n_p; i++) {
        char folder[CLU_PATH_BYTES];
        struct clu_manifest manifest = {0};
        links[i].step = (uint64_t)steps[i];
        links[i].whole = !clu_snapshot_folder(root, links[i].step, false, folder) &&
                         !clu_manifest_load(folder, &manifest) && manifest.step == links[i].step &&
                         !clu_manifest_verify(folder, &manifest, false);
        links[i].pinned = links[i].whole && is_pinned(folder);
        links[i].base_step = manifest.base_step;
        links[i].checksum = manifest.checksum;
        links[i].base_checksum = manifest.base_checksum;
        clu_manifest_fini(&manifest);
    }
    free(steps);
    *links_p = links;
    return links ? CLU_OK : clu_fail(CLU_E_NO_MEMORY, "no memory for the list of snapshots");
}

static int prune(const char *root, int64_t keep)
{
    struct clu_link *links;
    size_t n;
    int status = read_links(root, &links, &n);
    if (status)
        return status;
    bool *kept = calloc(n + 1, sizeof(*kept));
    if (kept)
        clu_chain_keep(links, n, keep, kept);
    else
        status = clu_fail(CLU_E_NO_MEMORY, "no memory for the list of snapshots");
    for (size_t i = n; i-- > 0 && !status;) { /* (S4) */
        char folder[CLU_PATH_BYTES];
        if (kept[i])
            continue;
        status = clu_snapshot_folder(root, links[i].step, false, folder);
        if (!status)
            status = remove_snapshot(folder);
    }
    free(kept);
    free(links);
    return status;
}

static int write_latest(const char *root, uint64_t step)
{
    char path[CLU_PATH_BYTES], line[64];
    int size = snprintf(line, sizeof(line), "%s%012" PRIu64 "\n", step_prefix, step);
    int status = clu_path_join(path, sizeof(path), root, "latest");
    return status ? status : clu_file_write_atomic(path, line, (size_t)size);
}

/* True when the folder holds this very snapshot, whole: its commit is being repeated. */
static bool is_same(const char *folder, const struct clu_manifest *manifest)
{
    struct clu_manifest there;
    if (clu_manifest_load(folder, &there))
        return false;
    bool same = there.base_step == manifest->base_step && there.job_id == manifest->job_id &&
                there.generation == manifest->generation &&
                !clu_manifest_verify(folder, &there, true);
    clu_manifest_fini(&there);
    return same;
}

/* A delta's base and the chain below it must all be there still. */
static int check_base(const char *part, struct clu_manifest *manifest)
{
    char base[CLU_PATH_BYTES];
    struct clu_snapshot chain;
    int status = folder_of_base(part, manifest->base_step, base);
    if (!status)
        status = clu_snapshot_open(base, &chain);
    if (status)
        return status;
    manifest->base_checksum = chain.links[chain.n_links - 1].manifest.checksum;
    status = clu_snapshot_verify(&chain, false);
    clu_snapshot_fini(&chain);
    return status;
}

int clu_snapshot_commit(const char *root, const struct clu_manifest *manifest, int64_t keep)
{
    char part[CLU_PATH_BYTES], whole[CLU_PATH_BYTES], path[CLU_PATH_BYTES];
    struct clu_manifest full = {0};
    int status = clu_snapshot_folder(root, manifest->step, true, part);
    if (!status)
        status = clu_snapshot_folder(root, manifest->step, false, whole);
    if (!status)
        status = clu_path_join(path, sizeof(path), whole, "manifest.json");
    if (status)
        return status;
    if (clu_path_exists(path) && is_same(whole, manifest)) {
        status = clu_remove_tree(part);
        return status ? status : write_latest(root, manifest->step);
    }
    status = clu_manifest_list(part, manifest, &full);
    if (!status && full.base_step)
        status = check_base(part, &full);
    if (!status && full.time_ms == 0)
        full.time_ms = (int64_t)time(NULL) * 1000;
    if (!status)
        status = clu_manifest_save(part, &full);
    if (!status) /* one of an earlier life, or damaged, or half removed, may stand there */
        status = clu_install_folder(part, whole);
    if (!status)
        status = write_latest(root, manifest->step);
    clu_manifest_fini(&full);
    if (status || keep < 1)
        return status;
    status = prune(root, keep);
    return status ? status : clu_snapshot_sweep(root, manifest->step);
}

/* ---- finding one ---- */

/* What is known of a folder: nothing, that all of it verified, or all but the bytes of its rows. */
enum { UNKNOWN, WHOLE, SEEMS_WHOLE, DAMAGED };

static int8_t verify_link(const struct clu_snapshot_link *link, bool sure)
{
    if (sure)
        return clu_manifest_verify_small(link->folder, &link->manifest) ? DAMAGED : SEEMS_WHOLE;
    return clu_manifest_verify(link->folder, &link->manifest, true) ? DAMAGED : WHOLE;
}

/* Whether a snapshot of a root can be restored. known [n]; sure: as of clu_snapshot_newest. */
static bool is_restorable(const char *folder, const int64_t *steps, size_t n, bool sure,
                          int8_t *known)
{
    struct clu_snapshot chain;
    int status = clu_snapshot_open(folder, &chain);
    if (status)
        return false;
    for (size_t i = 0; i < chain.n_links && !status; i++) {
        const struct clu_snapshot_link *link = &chain.links[i];
        size_t at = 0;
        while (at < n && (uint64_t)steps[at] != link->manifest.step)
            at++;
        if (at < n && (known[at] == UNKNOWN || (known[at] == SEEMS_WHOLE && !sure)))
            known[at] = verify_link(link, sure);
        if (at == n || known[at] == DAMAGED)
            status = CLU_E_CORRUPT;
        if (status && i + 1 < chain.n_links)
            clu_warn("%s is damaged, and %s is a delta upon it", link->folder, folder);
    }
    clu_snapshot_fini(&chain);
    return !status;
}

int clu_snapshot_newest(const char *root, uint64_t sure, char folder_p[CLU_PATH_BYTES],
                        struct clu_manifest *manifest_p)
{
    int64_t *steps;
    size_t n;
    int status = list_steps(root, &steps, &n);
    if (status)
        return status;
    int8_t *known = calloc(n + 1, 1);
    if (!known)
        status = clu_fail(CLU_E_NO_MEMORY, "no memory for the list of snapshots");
    bool found = false;
    for (size_t i = n; i-- > 0 && !status && !found;) {
        char folder[CLU_PATH_BYTES];
        struct clu_manifest manifest = {0};
        status = clu_snapshot_folder(root, (uint64_t)steps[i], false, folder);
        if (status)
            break;
        found = is_restorable(folder, steps, n, sure && (uint64_t)steps[i] == sure, known) &&
                !clu_manifest_load(folder, &manifest);
        if (found && manifest.step != (uint64_t)steps[i]) {
            clu_error("%s: its manifest says step %" PRIu64, folder, manifest.step);
            found = false;
        }
        if (found && manifest_p)
            *manifest_p = manifest;
        else
            clu_manifest_fini(&manifest);
        if (found)
            memcpy(folder_p, folder, CLU_PATH_BYTES);
        else
            clu_warn("%s is damaged and passed over", folder);
    }
    free(known);
    free(steps);
    return status || found ? status : CLU_E_NOT_FOUND;
}

int clu_snapshot_set_aside(const char *root, uint64_t step)
{
    int64_t *steps;
    size_t n;
    int status = list_steps(root, &steps, &n);
    for (size_t i = 0; i < n && !status; i++) {
        char folder[CLU_PATH_BYTES], aside[CLU_PATH_BYTES + 16];
        if ((uint64_t)steps[i] <= step)
            continue;
        status = clu_snapshot_folder(root, (uint64_t)steps[i], false, folder);
        snprintf(aside, sizeof(aside), "%s%s", folder, aside_suffix);
        if (!status)
            status = clu_remove_tree(aside);
        if (!status && rename(folder, aside))
            status = clu_fail(clu_status_from_errno(errno), "%s: %s", folder, strerror(errno));
    }
    free(steps);
    return status;
}

int clu_snapshot_resolve(const char *path, char folder_p[CLU_PATH_BYTES])
{
    static const char *const below[] = {"", "run/snapshot", "snapshot"};
    char name[CLU_PATH_BYTES];
    int status = clu_path_join(name, sizeof(name), path, "manifest.json");
    if (!status && clu_path_exists(name)) {
        snprintf(folder_p, CLU_PATH_BYTES, "%s", path);
        return CLU_OK;
    }
    for (size_t i = 0; i < sizeof(below) / sizeof(below[0]) && !status; i++) {
        int64_t *steps;
        size_t n;
        char root[CLU_PATH_BYTES];
        if (below[i][0])
            status = clu_path_join(root, sizeof(root), path, below[i]);
        else
            snprintf(root, sizeof(root), "%s", path);
        if (!status)
            status = list_steps(root, &steps, &n);
        if (status)
            break;
        int64_t newest = n > 0 ? steps[n - 1] : -1;
        free(steps);
        if (newest >= 0)
            return clu_snapshot_folder(root, (uint64_t)newest, false, folder_p);
    }
    if (status)
        return status;
    return clu_fail(CLU_E_NOT_FOUND,
                    "%s: no snapshot there (neither manifest.json nor a folder step-... with one)",
                    path);
}

/* Whether a folder is of no use to anybody; path is its address. */
static bool is_rubbish(const char *path, int64_t step, const char *suffix, uint64_t before_step)
{
    char manifest[CLU_PATH_BYTES];
    if (strcmp(suffix, removed_suffix) == 0)
        return true;
    if (strcmp(suffix, part_suffix) == 0)
        return (uint64_t)step < before_step && !is_locked(path);
    return !*suffix && before_step == CLU_SNAPSHOT_ALL &&
           !clu_path_join(manifest, sizeof(manifest), path, "manifest.json") &&
           !clu_path_exists(manifest);
}

int clu_snapshot_sweep(const char *root, uint64_t before_step)
{
    DIR *dir = opendir(root);
    if (!dir)
        return errno == ENOENT
                   ? CLU_OK
                   : clu_fail(clu_status_from_errno(errno), "%s: %s", root, strerror(errno));
    struct dirent *entry;
    int status = CLU_OK;
    while (!status && (entry = readdir(dir))) {
        char path[CLU_PATH_BYTES];
        const char *suffix = "";
        int64_t step = step_of(entry->d_name, &suffix);
        bool latest =
            strncmp(entry->d_name, "latest.", 7) == 0; /* not renamed to latest any more */
        if (step < 0 && !latest)
            continue;
        status = clu_path_join(path, sizeof(path), root, entry->d_name);
        if (!status && (latest || is_rubbish(path, step, suffix, before_step)))
            status = clu_remove_tree(path);
    }
    closedir(dir);
    return status;
}

int clu_snapshot_lock(const char *folder, int *fd_p)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB)) {
        int number = errno;
        if (fd >= 0)
            close(fd);
        return clu_fail(number == EWOULDBLOCK ? CLU_E_AGAIN : clu_status_from_errno(number),
                        "%s: cannot be locked: %s", folder, strerror(number));
    }
    *fd_p = fd;
    return CLU_OK;
}
