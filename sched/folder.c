/* The lock is flock's, so it is released by whatever ends its holder; the record is one small file,
 * written whole. What a killed job cannot write is pieced together: its last step from the tail of
 * metrics.jsonl, its newest snapshot from snapshot/latest, which is also where a job that could
 * still speak left it. */
#include "sched/folder.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/snapshot.h"
#include "cluster/status.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

enum { TAIL_BYTES = 16384, LOCK_WITHIN_MS = 1000 };

/* Who asks whether it is held holds it for a moment (schd_folder_is_held): that is waited out. */
static bool take(int fd)
{
    struct timespec nap = {.tv_nsec = 20000000};
    for (int waited = 0; flock(fd, LOCK_EX | LOCK_NB); waited += 20) {
        if (waited >= LOCK_WITHIN_MS)
            return false;
        nanosleep(&nap, NULL);
    }
    return true;
}

int schd_folder_lock(const char *out, int *fd_p)
{
    char path[CLU_PATH_BYTES], end[CLU_PATH_BYTES];
    int status = clu_path_join(path, sizeof(path), out, "run/lock");
    if (!status)
        status = clu_path_join(end, sizeof(end), out, "run/end.json");
    if (status)
        return status;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return clu_fail(clu_status_from_errno(errno), "%s: %s", path, strerror(errno));
    if (!take(fd)) {
        close(fd);
        return clu_fail(CLU_E_EXISTS,
                        "another job runs in %s: wait for it, stop it (sluice stop %s), "
                        "or choose another --out",
                        out, out);
    }
    *fd_p = fd;
    return clu_remove_tree(end);
}

bool schd_folder_is_held(const char *out)
{
    char path[CLU_PATH_BYTES];
    if (clu_path_join(path, sizeof(path), out, "run/lock"))
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool held = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
    if (fd >= 0)
        close(fd);
    return held;
}

int schd_folder_save_end(const char *out, int status, const char *text, uint64_t step,
                         uint64_t n_steps)
{
    char path[CLU_PATH_BYTES];
    struct timespec now;
    int failure = clu_path_join(path, sizeof(path), out, "run/end.json");
    if (failure)
        return failure;
    clock_gettime(CLOCK_REALTIME, &now);
    json_t *root = json_pack("{s:s, s:i, s:s, s:I, s:I, s:I}", "status", clu_status_name(status),
                             "exit_code", clu_status_exit_code(status), "text", text, "step",
                             (json_int_t)step, "n_steps", (json_int_t)n_steps, "time_ms",
                             (json_int_t)now.tv_sec * 1000 + now.tv_nsec / 1000000);
    char *line = root ? json_dumps(root, JSON_COMPACT) : NULL;
    failure = line ? clu_file_write_atomic(path, line, strlen(line)) : CLU_E_NO_MEMORY;
    free(line);
    json_decref(root);
    return failure;
}

static int status_of_name(const char *name)
{
    for (int status = 0; status > -CLU_ORDINAL_END; status--)
        if (strcmp(clu_status_name(status), name) == 0)
            return status;
    return CLU_E_LOST;
}

static void load_told(const char *path, struct schd_end *end_p)
{
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error);
    const char *status = json_string_value(json_object_get(root, "status"));
    const char *text = json_string_value(json_object_get(root, "text"));
    if (status && text) {
        end_p->told = true;
        end_p->status = status_of_name(status);
        snprintf(end_p->text, sizeof(end_p->text), "%s", text);
        end_p->step = (uint64_t)json_integer_value(json_object_get(root, "step"));
        end_p->n_steps = (uint64_t)json_integer_value(json_object_get(root, "n_steps"));
        end_p->time_ms = json_integer_value(json_object_get(root, "time_ms"));
    }
    json_decref(root);
}

/* The step of the last line that a job reported progress with. */
static uint64_t last_step(const char *path)
{
    char text[TAIL_BYTES + 1];
    uint64_t step = 0;
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    if (fseek(file, -TAIL_BYTES, SEEK_END) && fseek(file, 0, SEEK_SET)) {
        fclose(file);
        return 0;
    }
    text[fread(text, 1, TAIL_BYTES, file)] = '\0';
    fclose(file);
    for (const char *at = text; (at = strstr(at, "\"kind\":\"progress\"")); at++) {
        const char *number = strstr(at, "\"step\":");
        if (number)
            sscanf(number, "\"step\":%" SCNu64, &step);
    }
    return step;
}

static uint64_t newest_snapshot(const char *out)
{
    char root[CLU_PATH_BYTES], path[CLU_PATH_BYTES], line[64];
    uint64_t step = 0;
    FILE *file = NULL;
    if (!clu_snapshot_root(out, root) && !clu_path_join(path, sizeof(path), root, "latest"))
        file = fopen(path, "re");
    if (!file)
        return 0;
    if (fgets(line, sizeof(line), file))
        sscanf(line, "step-%" SCNu64, &step);
    fclose(file);
    return step;
}

void schd_folder_load_end(const char *out, struct schd_end *end_p)
{
    char path[CLU_PATH_BYTES];
    *end_p = (struct schd_end){.status = CLU_E_LOST, .snapshot_step = newest_snapshot(out)};
    if (!clu_path_join(path, sizeof(path), out, "run/end.json"))
        load_told(path, end_p);
    if (!end_p->told && !clu_path_join(path, sizeof(path), out, "run/metrics.jsonl"))
        end_p->step = last_step(path);
}

const char *schd_end_describe(const struct schd_end *end, char *out_p, size_t out_bytes)
{
    char newest[96] = "", when[32];
    time_t seconds = (time_t)(end->time_ms / 1000);
    struct tm local;
    if (end->snapshot_step > 0)
        snprintf(newest, sizeof(newest), "; its newest whole snapshot is of step %" PRIu64,
                 end->snapshot_step);
    else
        snprintf(newest, sizeof(newest), "; it left no whole snapshot");
    strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", localtime_r(&seconds, &local));
    if (!end->told)
        snprintf(out_p, out_bytes,
                 "ended without a word, as when its supervisor is killed; the last step heard of "
                 "is %" PRIu64 "%s",
                 end->step, newest);
    else
        snprintf(out_p, out_bytes, "ended %s (exit code %d): %s%s", when,
                 clu_status_exit_code(end->status), end->text, end->status ? newest : "");
    return out_p;
}
