/* Where the counter is:
 *
 *     cgroup 2   /proc/self/cgroup has "0::/path":            ROOT/path/memory.events, which counts
 *                                                             what is below as well
 *     cgroup 1   it has "4:memory:/path" (or "..,memory,.."): ROOT/memory/path/memory.oom_control
 *
 * In both the line is "oom_kill N". A container may show a path of the host that it cannot see:
 * then the root of what it does see is its own cgroup. On a machine with both, version 1 counts
 * when it has the memory controller.
 */
#include "sched/oom.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* -1 when there is no such file, or no such line in it. */
static long read_count(const char *file)
{
    char line[256];
    long count = -1, value;
    FILE *stream = fopen(file, "re");
    while (stream && fgets(line, sizeof(line), stream))
        if (sscanf(line, "oom_kill %ld", &value) == 1)
            count = value;
    if (stream)
        fclose(stream);
    return count;
}

/* True for a word of a list such as "cpu,memory". */
static bool has_memory(const char *list, size_t size)
{
    for (size_t at = 0; at < size;) {
        size_t length = 0;
        while (at + length < size && list[at + length] != ',')
            length++;
        if (length == 6 && memcmp(list + at, "memory", 6) == 0)
            return true;
        at += length + 1;
    }
    return false;
}

/* Takes the counter below folder, for the cgroup as named or for the one at the root. */
static bool take(struct schd_oom *oom, const char *folder, const char *cgroup, const char *name)
{
    const char *const places[] = {cgroup, "/"};
    for (int i = 0; i < 2; i++) {
        int n = snprintf(oom->file, sizeof(oom->file), "%s%s/%s", folder,
                         strcmp(places[i], "/") == 0 ? "" : places[i], name);
        oom->n_kills = n < (int)sizeof(oom->file) ? read_count(oom->file) : -1;
        if (oom->n_kills >= 0) {
            snprintf(oom->cgroup, sizeof(oom->cgroup), "%s", cgroup);
            return true;
        }
    }
    oom->file[0] = '\0';
    return false;
}

void schd_oom_open(struct schd_oom *oom, const char *groups_path, const char *root)
{
    char line[CLU_PATH_BYTES], folder[CLU_PATH_BYTES];
    memset(oom, 0, sizeof(*oom));
    FILE *groups = fopen(groups_path, "re");
    for (bool found = false; groups && !found && fgets(line, sizeof(line), groups);) {
        line[strcspn(line, "\n")] = '\0';
        char *list = strchr(line, ':'), *cgroup = list ? strchr(list + 1, ':') : NULL;
        if (!cgroup)
            continue;
        size_t size = (size_t)(cgroup - list - 1);
        cgroup++;
        if (size == 0)
            found = take(oom, root, cgroup, "memory.events");
        else if (has_memory(list + 1, size) &&
                 snprintf(folder, sizeof(folder), "%s/memory", root) < (int)sizeof(folder))
            found = take(oom, folder, cgroup, "memory.oom_control");
    }
    if (groups)
        fclose(groups);
}

bool schd_oom_killed(struct schd_oom *oom)
{
    long before = oom->n_kills, now = oom->file[0] ? read_count(oom->file) : -1;
    if (now >= 0)
        oom->n_kills = now;
    return now > before;
}
