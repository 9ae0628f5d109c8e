/* Drives a whole job from a test: starts `PROGRAM train ...`, finds the processes of its roles,
 * kills them, waits with a deadline, and looks whether anything was left behind.
 *
 * Processes are known by their command line, which names the job's own folder: no other job has it.
 */
#ifndef TESTS_CLUSTER_E2E_DRIVER_H
#define TESTS_CLUSTER_E2E_DRIVER_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct driver {
    char folder[512]; /* a temporary one: the job's out, and its job file */
    pid_t pid;        /* of the supervisor */
    char text[65536]; /* what it wrote to the terminal, read by driver_wait */
};

static inline int64_t driver_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static inline void driver_nap(int ms)
{
    struct timespec nap = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&nap, NULL);
}

/* Makes the folder and writes job.yaml. */
static inline int driver_open(struct driver *d, const char *job_text)
{
    const char *root = getenv("TMPDIR");
    char path[600];
    memset(d, 0, sizeof(*d));
    snprintf(d->folder, sizeof(d->folder), "%s/sluice-e2e-XXXXXX", root ? root : "/tmp");
    if (!mkdtemp(d->folder))
        return -1;
    snprintf(path, sizeof(path), "%s/job.yaml", d->folder);
    FILE *file = fopen(path, "w");
    if (!file)
        return -1;
    fprintf(file, "out: %s/out\n%s", d->folder, job_text);
    return fclose(file);
}

/* Starts `program train FOLDER/job.yaml extra...`; extra ends with NULL and may be NULL. */
static inline int driver_start(struct driver *d, const char *program, char *const *extra)
{
    char job[600], terminal[600], *argv[40] = {(char *)program, "train", job};
    int n = 3;
    snprintf(job, sizeof(job), "%s/job.yaml", d->folder);
    snprintf(terminal, sizeof(terminal), "%s/terminal", d->folder);
    for (; extra && *extra && n < 39; extra++)
        argv[n++] = *extra;
    d->pid = fork();
    if (d->pid == 0) {
        int fd = open(terminal, O_WRONLY | O_CREAT | O_APPEND, 0644);
        dup2(fd, 1);
        dup2(fd, 2);
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that is killed leaves no job behind */
        execv(program, argv);
        _exit(127);
    }
    return d->pid > 0 ? 0 : -1;
}

/* The command line of a process with spaces between its words; "" when it is gone (or a zombie). */
static inline void driver_command_line(pid_t pid, char *out, size_t out_bytes)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
    out[0] = '\0';
    FILE *file = fopen(path, "r");
    if (!file)
        return;
    size_t n = fread(out, 1, out_bytes - 1, file);
    fclose(file);
    for (size_t i = 0; i + 1 < n; i++)
        if (out[i] == '\0')
            out[i] = ' ';
    out[n] = '\0';
}

/* The n-th (0...) process of the job, by pid, whose command line holds every one of the two words;
 * -1. */
static inline pid_t driver_find(const struct driver *d, const char *word, const char *word2,
                                int nth)
{
    pid_t found = -1;
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char line[8192];
        pid_t pid = (pid_t)atoi(entry->d_name);
        if (pid <= 0)
            continue;
        driver_command_line(pid, line, sizeof(line));
        if (strstr(line, d->folder) && strstr(line, word) && strstr(line, word2) && nth-- == 0) {
            found = pid;
            break;
        }
    }
    if (dir)
        closedir(dir);
    return found;
}

/* Sends a signal to a process that was looked for; false when it was not found: -1 would mean every
 * process there is. */
static inline bool driver_kill(pid_t pid, int signal_number)
{
    return pid > 0 && kill(pid, signal_number) == 0;
}

/* The same as driver_find, waiting for it. */
static inline pid_t driver_await(const struct driver *d, const char *word, const char *word2,
                                 int nth, int timeout_ms)
{
    int64_t until = driver_now_ms() + timeout_ms;
    pid_t pid;
    while ((pid = driver_find(d, word, word2, nth)) < 0 && driver_now_ms() < until)
        driver_nap(10);
    return pid;
}

/* How many snapshots of this job have become whole; of which steps, a busy machine decides. */
static inline int driver_n_snapshots(const struct driver *d)
{
    char path[700], line[4096];
    int n = 0;
    snprintf(path, sizeof(path), "%s/out/run/metrics.jsonl", d->folder);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof(line), file))
        n += strstr(line, "\"kind\":\"snapshot\"") && strstr(line, "\"status\":0");
    if (file)
        fclose(file);
    return n;
}

/* Waits until there are n: false when there are not within timeout_ms. */
static inline bool driver_await_snapshots(const struct driver *d, int n, int timeout_ms)
{
    for (int64_t until = driver_now_ms() + timeout_ms; driver_n_snapshots(d) < n; driver_nap(5))
        if (driver_now_ms() > until)
            return false;
    return true;
}

/* Waits until the file OUT/run/NAME holds text. */
static inline bool driver_await_text(const struct driver *d, const char *name, const char *text,
                                     int timeout_ms)
{
    char path[700];
    int64_t until = driver_now_ms() + timeout_ms;
    snprintf(path, sizeof(path), "%s/out/run/%s", d->folder, name);
    do {
        char line[16384];
        FILE *file = fopen(path, "r");
        while (file && fgets(line, sizeof(line), file))
            if (strstr(line, text)) {
                fclose(file);
                return true;
            }
        if (file)
            fclose(file);
        driver_nap(20);
    } while (driver_now_ms() < until);
    return false;
}

/* Waits until the supervisor attends to signals: the first that it does. One before that ends a
 * program that is being loaded and has done nothing, as it ends any other. */
static inline bool driver_await_start(const struct driver *d, int timeout_ms)
{
    char path[64], line[256];
    int64_t until = driver_now_ms() + timeout_ms;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)d->pid);
    do {
        unsigned long long blocked = 0;
        FILE *file = fopen(path, "r");
        while (file && fgets(line, sizeof(line), file) &&
               sscanf(line, "SigBlk: %llx", &blocked) < 1)
            ;
        if (file)
            fclose(file);
        if (blocked >> (SIGTERM - 1) & 1)
            return true;
        driver_nap(1);
    } while (driver_now_ms() < until);
    return false;
}

/* Waits for the supervisor; its exit code, 128 + signal, or -1 when the time was over (it is then
 * killed). */
static inline int driver_wait(struct driver *d, int timeout_ms)
{
    int64_t until = driver_now_ms() + timeout_ms;
    int status = 0;
    pid_t pid;
    while ((pid = waitpid(d->pid, &status, WNOHANG)) == 0 && driver_now_ms() < until)
        driver_nap(10);
    bool late = pid == 0;
    if (late) {
        kill(d->pid, SIGKILL);
        waitpid(d->pid, &status, 0);
    }
    char path[600];
    snprintf(path, sizeof(path), "%s/terminal", d->folder);
    FILE *file = fopen(path, "r");
    if (file) {
        size_t n = fread(d->text, 1, sizeof(d->text) - 1, file);
        d->text[n] = '\0';
        fclose(file);
    }
    if (late)
        return -1;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* How many processes of the job are left after at most timeout_ms; each is named and killed. */
static inline int driver_left(const struct driver *d, int timeout_ms)
{
    int64_t until = driver_now_ms() + timeout_ms;
    pid_t pid;
    while (driver_find(d, "", "", 0) > 0 && driver_now_ms() < until)
        driver_nap(20);
    int n = 0;
    while ((pid = driver_find(d, "", "", 0)) > 0 && n < 100) {
        char line[512];
        driver_command_line(pid, line, sizeof(line));
        printf("  left behind: %d %s\n", (int)pid, line);
        kill(pid, SIGKILL);
        driver_nap(50);
        n++;
    }
    return n;
}

/* The same, of processes that are the program itself: the command line of an mpirun that started
 * one holds the same words. */
static inline pid_t driver_find_role(const struct driver *d, const char *word, const char *word2,
                                     int nth)
{
    pid_t pid;
    for (int i = 0; (pid = driver_find(d, word, word2, i)) > 0; i++) {
        char line[8192];
        driver_command_line(pid, line, sizeof(line));
        if (strncmp(line, "mpirun", 6) != 0 && nth-- == 0)
            return pid;
    }
    return -1;
}

/* The nth (0...) rank, by pid; -1. */
static inline pid_t driver_find_worker(const struct driver *d, int nth)
{
    return driver_find_role(d, "sluice worker", "", nth);
}

/* What `PROGRAM VERB OUT flag` prints, errors too; its exit code. flag may be "". */
static inline int driver_ask(const struct driver *d, const char *program, const char *verb,
                             const char *flag, char *answer, size_t answer_bytes)
{
    char command[1200];
    snprintf(command, sizeof(command), "'%s' %s '%s/out' %s 2>&1", program, verb, d->folder, flag);
    FILE *pipe = popen(command, "r");
    size_t n = pipe ? fread(answer, 1, answer_bytes - 1, pipe) : 0;
    answer[n] = '\0';
    int status = pipe ? pclose(pipe) : -1;
    return WEXITSTATUS(status);
}

/* True when an entry of a folder is named by the supervisor's pid, as what jobs make is. */
static inline bool driver_is_ours(const struct driver *d, const char *name)
{
    char pid[32];
    size_t size = (size_t)snprintf(pid, sizeof(pid), "sluice-mpi-%d", (int)d->pid);
    const char *at = strstr(name, pid);
    return at && (at[size] < '0' || at[size] > '9');
}

static inline int driver_count_ours(const struct driver *d, const char *folder)
{
    int n = 0;
    DIR *dir = opendir(folder);
    struct dirent *entry;
    while (dir && (entry = readdir(dir)))
        if (driver_is_ours(d, entry->d_name)) {
            printf("  left behind: %s/%s\n", folder, entry->d_name);
            n++;
        }
    if (dir)
        closedir(dir);
    return n;
}

/* How much of the job is left after at most timeout_ms: processes (killed then), shared memory and
 * session files that no process is needed for, sockets in its folder, whatever is in the folder for
 * temporary files that a test made there (FOLDER/tmp). Each is named. */
static inline int driver_remains(const struct driver *d, int timeout_ms)
{
    char command[700], line[600];
    int n = driver_left(d, timeout_ms) + driver_count_ours(d, "/dev/shm") +
            driver_count_ours(d, "/tmp");
    snprintf(command, sizeof(command),
             "f='%s'; find $f -type s; find $f/tmp -mindepth 1 2>/dev/null; "
             "ls -d /tmp/ompi.*/pid.%d 2>/dev/null",
             d->folder, (int)d->pid);
    FILE *pipe = popen(command, "r");
    for (; pipe && fgets(line, sizeof(line), pipe); n++)
        printf("  left behind: %s", line);
    if (pipe)
        pclose(pipe);
    return n;
}

/* How much stands beside a finished job's snapshots that is none: folders without a manifest, half
 * written, half removed. Damaged ones, which are set aside for a look, may stay. Each is named. */
static inline int driver_snapshot_rubbish(const struct driver *d)
{
    char command[1024], line[600];
    int n = 0;
    snprintf(command, sizeof(command),
             "cd '%s/out/run/snapshot' && for e in *; do case $e in latest | *.damaged) ;; "
             "*.*) echo $e ;; *) [ -f $e/manifest.json ] || echo $e ;; esac; done",
             d->folder);
    FILE *pipe = popen(command, "r");
    for (; pipe && fgets(line, sizeof(line), pipe); n++)
        printf("  not a snapshot: %s", line);
    return pipe && pclose(pipe) == 0 ? n : -1;
}

/* Prints what the supervisor said, when the test went wrong; removes the folder otherwise. */
static inline void driver_close(struct driver *d, bool failed)
{
    char command[700];
    if (failed) {
        printf("--- %s\n%s---\n", d->folder, d->text);
        return;
    }
    snprintf(command, sizeof(command), "rm -rf '%s'", d->folder);
    if (system(command) != 0)
        printf("  %s is not removed\n", d->folder);
}

#endif
