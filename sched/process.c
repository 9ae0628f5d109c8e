/* Child processes. What can go wrong when a launcher dies is that its children do not notice. Three
 * nets hang below each other here:
 *
 * - PR_SET_PDEATHSIG: the kernel kills a direct child when its parent goes, even by SIGKILL. Set
 * between fork
 *   and exec; the parent may be gone already by then, so it is compared afterwards.
 * - The supervisor is a subreaper: grandchildren whose parent died (ranks of a killed mpirun)
 * become its
 *   children, and schd_reap_strays finds and kills them.
 * - Ranks ask for PDEATHSIG themselves (schd_die_with_parent), for the case that mpirun and the
 * supervisor
 *   are killed at once.
 *
 * Processes are not all that stays: mpirun keeps files in shared memory. A janitor waits at a pipe
 * whose other end is ours alone; when it reads the end of it, we are gone, and it removes them.
 */
#include "sched/process.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/* Libraries start threads before main does anything (OpenBLAS), which block no signal: the kernel
 * hands them what the first thread blocks. One that is handed it blocks it from then on and sends
 * it again, so that in the end it waits at the process, where the descriptor finds it. */
static void pass_on(int signal_number, siginfo_t *info, void *context)
{
    ucontext_t *interrupted = context;
    int error = errno;
    (void)info;
    sigaddset(&interrupted->uc_sigmask, signal_number);
    kill(getpid(), signal_number);
    errno = error;
}

int schd_signals_open(const int *signals, int *fd_p)
{
    struct sigaction action = {.sa_sigaction = pass_on, .sa_flags = SA_RESTART | SA_SIGINFO};
    sigset_t set;
    sigemptyset(&set);
    for (; *signals; signals++)
        sigaddset(&set, *signals);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* first: our own thread must never run the handler */
    for (int i = 1; i < NSIG; i++)
        if (sigismember(&set, i) == 1)
            sigaction(i, &action, NULL);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0)
        return clu_fail(clu_status_from_errno(errno), "no descriptor for signals: %s",
                        strerror(errno));
    *fd_p = fd;
    return CLU_OK;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* In the child, between fork and exec: only async-signal-safe calls. */
static void become(const struct schd_process_options *options, pid_t parent, int in, int out,
                   int err)
{
    sigset_t none;
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0)
        _exit(127);
    execvp(options->argv[0], (char *const *)options->argv);
    static const char text[] = "cannot be executed\n";
    if (write(STDERR_FILENO, options->argv[0], strlen(options->argv[0])) < 0 ||
        write(STDERR_FILENO, ": ", 2) < 0 || write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
        _exit(126);
    _exit(127);
}

static int open_pipes(const struct schd_process_options *options, int in[2], int out[2], int err[2])
{
    if (options->commands ? pipe2(in, O_CLOEXEC)
                          : (in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0)
        return CLU_E_UNAVAILABLE;
    if (pipe2(err, O_CLOEXEC) || (options->events && pipe2(out, O_CLOEXEC)))
        return CLU_E_UNAVAILABLE;
    return CLU_OK;
}

/* The environment is set in the parent around the fork: setenv is not safe in the child. */
static void set_environment(const char *const *environment)
{
    for (; environment && *environment; environment++) {
        char name[256];
        const char *equal = strchr(*environment, '=');
        size_t size = (size_t)(equal - *environment);
        if (!equal || size >= sizeof(name))
            continue;
        memcpy(name, *environment, size);
        name[size] = '\0';
        setenv(name, equal + 1, 1);
    }
}

int schd_process_start(struct schd_process *process, const struct schd_process_options *options)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
    process->pid = 0;
    process->ended = process->unwanted = false;
    process->command_fd = process->events.fd = process->log.fd = -1;
    process->events.n_bytes = process->log.n_bytes = 0;
    pid_t parent = getpid(), pid = -1;
    if (!open_pipes(options, in, out, err)) {
        set_environment(options->environment);
        pid = fork();
    }
    if (pid == 0)
        become(options, parent, in[0], options->events ? out[1] : err[1], err[1]);
    int error = errno;
    close_fd(&in[0]);
    close_fd(&out[1]);
    close_fd(&err[1]);
    if (pid < 0) {
        close_fd(&in[1]);
        close_fd(&out[0]);
        close_fd(&err[0]);
        return clu_fail(CLU_E_UNAVAILABLE, "%s cannot be started: %s", process->name,
                        strerror(error));
    }
    setpgid(pid, pid); /* here too: whichever comes first */
    process->pid = pid;
    process->command_fd = in[1];
    process->events.fd = out[0];
    process->log.fd = err[0];
    if (out[0] >= 0)
        fcntl(out[0], F_SETFL, O_NONBLOCK);
    fcntl(err[0], F_SETFL, O_NONBLOCK);
    return CLU_OK;
}

void schd_process_signal(const struct schd_process *process, int signal_number)
{
    if (process->pid > 0 && !process->ended)
        kill(-process->pid, signal_number);
}

void schd_process_close(struct schd_process *process)
{
    close_fd(&process->command_fd);
    close_fd(&process->events.fd);
    close_fd(&process->log.fd);
}

void schd_lines_read(struct schd_lines *lines, void (*take)(void *context, char *line),
                     void *context)
{
    while (lines->fd >= 0) {
        ssize_t n =
            read(lines->fd, lines->text + lines->n_bytes, sizeof(lines->text) - lines->n_bytes - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n > 0)
            lines->n_bytes += (size_t)n;
        lines->text[lines->n_bytes] = '\0';
        char *line = lines->text, *end;
        while ((end = strchr(line, '\n'))) {
            *end = '\0';
            take(context, line);
            line = end + 1;
        }
        lines->n_bytes = strlen(line);
        if (lines->n_bytes == sizeof(lines->text) - 1 || (n <= 0 && lines->n_bytes > 0)) {
            take(context, line); /* too long for a line, or the last one without its end */
            lines->n_bytes = 0;
        } else {
            memmove(lines->text, line, lines->n_bytes + 1);
        }
        if (n <= 0)
            close_fd(&lines->fd);
    }
}

/* The first status of the list with this exit code; BUG for a code that is nobody's. */
static int status_of_exit_code(int code)
{
    if (code == 0)
        return CLU_OK;
    for (int status = -1; status > -CLU_ORDINAL_END; status--)
        if (clu_status_exit_code(status) == code)
            return status;
    return CLU_E_BUG;
}

void schd_describe_end(int wait_status, char *out, size_t out_bytes)
{
    if (WIFSIGNALED(wait_status)) {
        snprintf(out, out_bytes, "was killed by signal %d (%s)", WTERMSIG(wait_status),
                 strsignal(WTERMSIG(wait_status)));
        return;
    }
    int code = WEXITSTATUS(wait_status);
    if (code == 127)
        snprintf(out, out_bytes, "could not be executed (exit code 127)");
    else if (code > 128 && code < 128 + 65)
        snprintf(out, out_bytes, "was killed by signal %d (%s)", code - 128, strsignal(code - 128));
    else if (code > 128) /* no role has such a one: 256 less the number of an error */
        snprintf(out, out_bytes, "ended with exit code %d (Open MPI's error %d)", code, code - 256);
    else
        snprintf(out, out_bytes, "ended with exit code %d (%s)", code,
                 code ? clu_status_text(status_of_exit_code(code)) : "well");
}

int schd_status_of_end(int wait_status)
{
    if (WIFSIGNALED(wait_status) || WEXITSTATUS(wait_status) > 128)
        return CLU_E_LOST;
    return WEXITSTATUS(wait_status) == 127 ? CLU_E_UNAVAILABLE
                                           : status_of_exit_code(WEXITSTATUS(wait_status));
}

bool schd_is_stop(int wait_status)
{
    return WIFEXITED(wait_status) &&
           WEXITSTATUS(wait_status) == clu_status_exit_code(CLU_E_INTERRUPTED);
}

void schd_die_with_parent(void)
{
    pid_t parent = getppid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(clu_status_exit_code(CLU_E_LOST));
}

/* The parent of a process, from /proc/PID/stat; -1 when it is gone. */
static pid_t parent_of(pid_t pid)
{
    char path[64], text[512];
    int parent = -1;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return -1;
    size_t n = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[n] = '\0';
    const char *after = strrchr(text, ')'); /* the name may hold anything, parentheses too */
    if (!after || sscanf(after + 1, " %*c %d", &parent) != 1)
        return -1;
    return parent;
}

static int kill_children(void)
{
    int n = 0;
    DIR *dir = opendir("/proc");
    if (!dir)
        return 0;
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        char *end;
        long pid = strtol(entry->d_name, &end, 10);
        if (*end || pid <= 0 || parent_of((pid_t)pid) != getpid())
            continue;
        kill((pid_t)pid, SIGKILL);
        n++;
    }
    closedir(dir);
    return n;
}

int schd_reap_strays(int timeout_ms)
{
    int n = 0;
    struct timespec nap = {.tv_nsec = 10000000};
    for (int waited = 0;; waited += 10) {
        pid_t pid = waitpid(-1, NULL, WNOHANG);
        if (pid < 0 && errno == ECHILD)
            return n;
        if (pid > 0)
            continue;
        if (waited > timeout_ms)
            return n;
        int killed = kill_children(); /* a killed one may leave orphans: look again */
        if (killed > n)
            n = killed;
        nanosleep(&nap, NULL);
    }
}

/* What the kernel kills at our death may write for a moment longer: it is looked again. */
static void clean_up(const char *folder)
{
    struct timespec nap = {.tv_nsec = 50000000};
    for (int i = 0, n_gone = 0; i < 100 && n_gone < 4; i++) {
        clu_remove_tree(folder);
        n_gone = access(folder, F_OK) ? n_gone + 1 : 0;
        nanosleep(&nap, NULL);
    }
}

int schd_janitor_start(struct schd_janitor *janitor, const char *folder)
{
    int ends[2];
    char byte;
    *janitor = (struct schd_janitor){.fd = -1};
    if (pipe2(ends, O_CLOEXEC))
        return clu_fail(CLU_E_UNAVAILABLE, "no pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR);
        setsid(); /* what is sent to our terminal or group is not for it */
        signal(SIGINT, SIG_IGN);
        signal(SIGTERM, SIG_IGN);
        signal(SIGHUP, SIG_IGN);
        if (dup2(ends[0], 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0 ||
            close_range(3, ~0u, 0)) /* locks, logs and pipes end with us */
            _exit(1);
        ssize_t n;
        while ((n = read(0, &byte, 1)) > 0 || (n < 0 && errno == EINTR))
            ;
        clean_up(folder);
        _exit(0);
    }
    int error = errno;
    close(ends[0]);
    if (pid < 0) {
        close(ends[1]);
        return clu_fail(CLU_E_UNAVAILABLE, "cannot fork: %s", strerror(error));
    }
    *janitor = (struct schd_janitor){pid, ends[1]};
    return CLU_OK;
}

void schd_janitor_stop(struct schd_janitor *janitor)
{
    if (janitor->pid > 0 && waitpid(janitor->pid, NULL, WNOHANG) == 0) { /* still ours */
        kill(janitor->pid, SIGKILL);
        waitpid(janitor->pid, NULL, 0);
    }
    if (janitor->pid > 0)
        close(janitor->fd);
    *janitor = (struct schd_janitor){.fd = -1};
}
