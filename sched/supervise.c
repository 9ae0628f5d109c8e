/* The supervisor's loop. It has one thread and one place to wait: poll over the children's pipes
 * and a signalfd. What may happen, and what is done:
 *
 *     a child ends, and it was time            nothing; when all have ended, so has the job
 *     a child ends otherwise                   blame it, wait for better words, recover or end
 *     the scheduler tells "broken"             the same
 *     the scheduler is silent                  kill it, then the same
 *     Ctrl-C or SIGTERM                        tell the scheduler to stop: a last snapshot, then 75
 *     a second one                             end at once
 *     SIGUSR1                                  everybody writes their state to the log
 *
 * To end means: SIGTERM to every child's group, KILL_AFTER_MS later SIGKILL, then whatever has
 * become a child of ours (ranks whose mpirun died), until there is none.
 *
 * A recovery asks the scheduler, which decides who may stand (sched/coordinator_recover.c), ends
 * what is left of those it names, and starts them again. A dead scheduler is only started again:
 * its members join it and nobody rolls back. What dies twice at the same step takes everything with
 * it the second time: every process but the scheduler begins anew.
 */
#include "sched/folder.h"
#include "sched/supervise_internal.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    POLL_MS = 100,
    GRACE_MS = 300,
    KILL_AFTER_MS = 2000,
    END_WITHIN_MS = 15000, /* after the scheduler said that the job is done */
    STOP_WITHIN_MS = 1500, /* after it said that the job was stopped; some may never have joined */
    STRAYS_WITHIN_MS = 2000,
    MAX_DEATHS_AT_STEP = 3,
    MAX_BACK_OFF_MS = 30000,
};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- every child ---- */

static int n_processes(const struct schd_supervisor *s)
{
    return 2 + s->n_ps;
}

static struct schd_process *process_at(struct schd_supervisor *s, int i)
{
    return i == 0 ? &s->sched : i == 1 ? &s->workers : &s->ps[i - 2];
}

static bool runs(const struct schd_process *p)
{
    return p->pid > 0 && !p->ended;
}

static int n_running(struct schd_supervisor *s)
{
    int n = 0;
    for (int i = 0; i < n_processes(s); i++)
        n += runs(process_at(s, i));
    return n;
}

static void command(struct schd_supervisor *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void command(struct schd_supervisor *s, const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof(line) - 1, format, args);
    va_end(args);
    line[n] = '\n';
    if (runs(&s->sched) && write(s->sched.command_fd, line, (size_t)n + 1) != n + 1)
        clu_debug("the scheduler does not take commands: %s", strerror(errno));
}

struct ps_context {
    struct schd_supervisor *s;
    int rank;
};

static void read_ps(void *context, char *line)
{
    struct ps_context *ps = context;
    schd_supervisor_ps_line(ps->s, ps->rank, line);
}

static void read_process(struct schd_supervisor *s, int i)
{
    struct schd_process *p = process_at(s, i);
    struct ps_context ps = {s, i - 2};
    if (i == 0) {
        schd_lines_read(&p->events, schd_supervisor_event, s);
        schd_lines_read(&p->log, schd_supervisor_sched_line, s);
    } else if (i == 1) {
        schd_lines_read(&p->log, schd_supervisor_worker_line, s);
    } else {
        schd_lines_read(&p->log, read_ps, &ps);
    }
}

/* ---- ends ---- */

/* Says so when a SIGKILL was the kernel's, for want of memory. */
static void name_oom(struct schd_supervisor *s, char *how, size_t how_bytes)
{
    if (strstr(how, "killed by signal 9 ") && schd_oom_killed(&s->oom))
        snprintf(how, how_bytes, "was killed by the kernel: out of memory (cgroup %.150s)",
                 s->oom.cgroup);
}

/* Its launcher has ended without having started it. */
static void on_failed_start(struct schd_supervisor *s, const struct schd_process *p,
                            const char *how)
{
    command(s, "gone %s %d %d %s", clu_role_name(p->role), p->rank, CLU_E_UNAVAILABLE, how);
    if (p->role == CLU_ROLE_PS && s->joining && p->rank >= s->first_added && runs(&s->sched))
        return; /* the scheduler decides whether the job can do without */
    if (p == &s->workers && s->recovering)
        return; /* and whether they were needed any longer */
    bool first = !s->verdict.there;
    schd_supervisor_blame(s, CLU_E_UNAVAILABLE, false, "%s %s",
                          p == &s->workers ? "the workers" : p->name, how);
    s->verdict.launch |= first && s->verdict.there;
}

/* A child has ended; its pipes are read to the end first, so that its last words count. */
static void on_end(struct schd_supervisor *s, int i, int wait_status)
{
    struct schd_process *p = process_at(s, i);
    char how[CLU_TEXT_BYTES];
    p->ended = true;
    p->wait_status = wait_status;
    read_process(s, i);
    schd_describe_end(wait_status, how, sizeof(how));
    clu_debug("%s %s", p->name, how);
    if ((p == &s->sched && s->end_told) || p->unwanted)
        return;
    if (p == &s->workers && s->dead_rank >= 0) /* mpirun says how that one died */
        name_oom(s, s->dead_how, sizeof(s->dead_how));
    else
        name_oom(s, how, sizeof(how));
    int status = schd_status_of_end(wait_status);
    if (status && schd_launch_why(&s->launch, p, &s->words[i], how, sizeof(how))) {
        on_failed_start(s, p, how);
        return;
    }
    if (p == &s->workers) {
        if (status == CLU_OK || (schd_is_stop(wait_status) && (runs(&s->sched) || s->end_told)))
            return; /* stopped on request: the scheduler knows by whom */
        command(s, "gone worker %d %d %s", s->dead_rank >= 0 ? s->dead_rank : 0,
                status ? status : CLU_E_LOST, s->dead_rank >= 0 ? s->dead_how : how);
        if (s->recovering)
            return; /* the scheduler says whether they were needed any longer */
        if (s->dead_rank >= 0)
            schd_supervisor_blame(s, CLU_E_LOST, false, "worker %d %s", s->dead_rank, s->dead_how);
        else if (WIFSIGNALED(wait_status))
            schd_supervisor_blame(s, status, false, "mpirun, the workers' launcher, %s", how);
        else
            schd_supervisor_blame(s, status, false, "a worker %s", how);
        return;
    }
    if (p->role == CLU_ROLE_PS && status == CLU_OK &&
        (s->end_told || strcmp(s->phase, "stopping") == 0 || strcmp(s->phase, "ended") == 0))
        return;
    if (p->role == CLU_ROLE_PS && s->released[p->rank])
        return;
    if (p->role == CLU_ROLE_PS && s->joining && p->rank >= s->first_added && runs(&s->sched)) {
        command(s, "gone ps %d %d %s", p->rank, status ? status : CLU_E_LOST, how);
        return; /* the scheduler decides whether the job can do without */
    }
    if (p->role == CLU_ROLE_PS && schd_is_stop(wait_status) && (runs(&s->sched) || s->end_told))
        return;
    schd_supervisor_blame(s, status ? status : CLU_E_LOST, false, "%s %s", p->name, how);
    if (p->role == CLU_ROLE_PS)
        command(s, "gone ps %d %d %s", p->rank, status ? status : CLU_E_LOST, how);
}

static void reap(struct schd_supervisor *s)
{
    int wait_status;
    pid_t pid;
    while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0)
        for (int i = 0; i < n_processes(s); i++)
            if (process_at(s, i)->pid == pid && !process_at(s, i)->ended)
                on_end(s, i, wait_status);
}

static void on_signal(struct schd_supervisor *s, int signal_number)
{
    if (signal_number == SIGUSR1) {
        command(s, "dump");
        schd_supervisor_say(s, CLU_LOG_INFO, "state: phase %s, step %llu of %llu, %d processes run",
                            s->phase, (unsigned long long)s->step, (unsigned long long)s->n_steps,
                            n_running(s));
    } else if (signal_number == SIGINT || signal_number == SIGTERM) {
        const char *name = signal_number == SIGINT ? "an interrupt (SIGINT)" : "SIGTERM";
        if (++s->n_interrupts == 1) {
            schd_supervisor_say(s, CLU_LOG_INFO, "%s: stopping; once more ends the job at once",
                                name);
            command(s, "stop stopped by %s", name);
        } else {
            schd_supervisor_blame(s, CLU_E_INTERRUPTED, true, "ended at once by %s", name);
        }
    }
}

/* Waits up to timeout_ms for anything, and deals with it. */
static void pump(struct schd_supervisor *s, int timeout_ms)
{
    int n = n_processes(s);
    struct pollfd *items = calloc(2 * (size_t)n + 1, sizeof(*items));
    if (!items)
        return;
    items[0] = (struct pollfd){.fd = s->signal_fd, .events = POLLIN};
    for (int i = 0; i < n; i++) {
        struct schd_process *p = process_at(s, i);
        items[1 + 2 * i] = (struct pollfd){.fd = p->pid ? p->log.fd : -1, .events = POLLIN};
        items[2 + 2 * i] = (struct pollfd){.fd = p->pid ? p->events.fd : -1, .events = POLLIN};
    }
    poll(items, 2 * (nfds_t)n + 1, timeout_ms);
    for (int i = 0; i < n; i++)
        if (items[1 + 2 * i].revents || items[2 + 2 * i].revents)
            read_process(s, i);
    free(items);
    struct signalfd_siginfo info;
    while (read(s->signal_fd, &info, sizeof(info)) == sizeof(info))
        on_signal(s, (int)info.ssi_signo);
    reap(s);
}

/* Ends the children that are unwanted, within 2 x KILL_AFTER_MS. */
static void end_unwanted(struct schd_supervisor *s)
{
    for (int round = 0; round < 2; round++) {
        int signal_number = round == 0 ? SIGTERM : SIGKILL;
        for (int i = 0; i < n_processes(s); i++)
            if (process_at(s, i)->unwanted)
                schd_process_signal(process_at(s, i), signal_number);
        for (int64_t until = now_ms() + KILL_AFTER_MS; now_ms() < until;) {
            int n = 0;
            for (int i = 0; i < n_processes(s); i++)
                n += process_at(s, i)->unwanted && runs(process_at(s, i));
            if (n == 0)
                break;
            pump(s, 20);
        }
    }
    for (int i = 0; i < n_processes(s); i++)
        if (process_at(s, i)->pid && process_at(s, i)->unwanted)
            schd_process_close(process_at(s, i));
}

/* Ends the children from first on (0: all; 1: all but the scheduler). */
static void end_processes(struct schd_supervisor *s, int first)
{
    s->killing = true;
    for (int i = first; i < n_processes(s); i++)
        process_at(s, i)->unwanted = true;
    end_unwanted(s);
    s->killing = false;
}

/* ---- start ---- */

static int wait_for(struct schd_supervisor *s, bool *flag, const char *what)
{
    int64_t until = now_ms() + s->job->start_timeout_ms;
    *flag = false;
    while (!*flag && !s->sched.ended && s->n_interrupts < 2) {
        if (now_ms() > until) {
            schd_supervisor_blame(s, CLU_E_TIMEOUT, false, "sched has not %s within %lld ms", what,
                                  (long long)s->job->start_timeout_ms);
            break;
        }
        pump(s, POLL_MS);
    }
    return *flag ? CLU_OK : CLU_E_LOST; /* who died meanwhile is for watch() */
}

static int start_sched(struct schd_supervisor *s, bool again)
{
    s->sched.role = CLU_ROLE_SCHED;
    snprintf(s->sched.name, sizeof(s->sched.name), "sched");
    s->began = s->began && again;
    /* one that died before it listened may have stored nothing: what is there is an older job's */
    int status = schd_launch_sched(&s->launch, s->began, &s->sched);
    if (status)
        schd_supervisor_blame(s, status, false, "sched cannot be started");
    if (!status)
        status = wait_for(s, &s->listening, "begun to listen");
    s->began = s->began || !status;
    return status;
}

static int start_ps(struct schd_supervisor *s, int rank)
{
    struct schd_process *p = &s->ps[rank];
    p->role = CLU_ROLE_PS;
    p->rank = rank;
    snprintf(p->name, sizeof(p->name), "ps %d", rank);
    s->words[2 + rank] = (struct schd_launch_words){0};
    return schd_launch_ps(&s->launch, rank, p);
}

void schd_supervisor_start_server(struct schd_supervisor *s, int rank)
{
    if (rank < s->n_ps || rank >= CLU_MAX_SHARDS)
        return; /* told again by a restarted scheduler */
    if (!s->joining)
        s->first_added = rank;
    s->joining = true;
    s->n_ps = rank + 1;
    s->job->servers++;
    int status = clu_job_save(s->job, s->launch.job_path);
    if (!status)
        status = schd_supervisor_open_ps_log(s, rank);
    if (!status)
        status = start_ps(s, rank);
    if (status)
        command(s, "gone ps %d %d cannot be started: %s", rank, status, clu_status_text(status));
}

void schd_supervisor_release_server(struct schd_supervisor *s, int rank)
{
    if (rank >= s->n_ps || s->released[rank])
        return;
    s->released[rank] = true;
    s->job->servers--;
    int status = clu_job_save(s->job, s->launch.job_path);
    if (status)
        schd_supervisor_say(s, CLU_LOG_WARN, "%s still names the old number of servers: %s",
                            s->launch.job_path, clu_status_text(status));
}

/* Starts the servers and workers that are marked (start_ps, start_workers). */
static int start_marked(struct schd_supervisor *s)
{
    int status = CLU_OK;
    for (int r = 0; r < s->n_ps && !status; r++) {
        if (!s->start_ps[r])
            continue;
        status = start_ps(s, r);
    }
    if (!status && s->start_workers) {
        s->dead_rank = -1;
        s->words[1] = (struct schd_launch_words){0};
        s->workers.role = CLU_ROLE_WORKER;
        snprintf(s->workers.name, sizeof(s->workers.name), "mpirun");
        status = schd_launch_workers(&s->launch, &s->workers);
    }
    if (status)
        schd_supervisor_blame(s, status, false, "a role cannot be started");
    return status;
}

static int start_members(struct schd_supervisor *s)
{
    for (int r = 0; r < s->n_ps; r++)
        s->start_ps[r] = !s->released[r];
    s->start_workers = true;
    return start_marked(s);
}

/* Signals arrive on a descriptor; children unblock them again (process.c). */
static int open_signals(struct schd_supervisor *s)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGUSR1, SIGCHLD, 0};
    int status = schd_signals_open(signals, &s->signal_fd);
    if (status)
        return status;
    if (prctl(PR_SET_CHILD_SUBREAPER, 1))
        clu_debug("not a subreaper: %s", strerror(errno));
    return CLU_OK;
}

static int open_job(struct schd_supervisor *s)
{
    int status = open_signals(s); /* before anything is there that a signal could leave behind */
    if (!status)
        status = clu_path_join(s->run, sizeof(s->run), s->job->out, "run");
    if (!status)
        status = clu_path_join(s->log_folder, sizeof(s->log_folder), s->run, "log");
    if (!status)
        status = clu_path_join(s->launch.job_path, sizeof(s->launch.job_path), s->run, "job.yaml");
    if (!status)
        status = clu_mkdirs(s->log_folder);
    if (!status)
        status = schd_folder_lock(s->job->out, &s->lock_fd);
    if (!status)
        status = clu_job_save(s->job, s->launch.job_path);
    if (!status)
        status = schd_supervisor_open_logs(s);
    if (!status)
        schd_launch_open(&s->launch);
    return status;
}

/* ---- recovery ---- */

/* Whether starting again could help: not for what the next life would meet as well. */
static bool is_recoverable(int status)
{
    switch (status) {
    case CLU_E_USAGE:
    case CLU_E_CONFIG:
    case CLU_E_DATA:
    case CLU_E_DENIED:
    case CLU_E_EXISTS:
    case CLU_E_NOT_FOUND:
    case CLU_E_FULL:
    case CLU_E_INTERRUPTED:
        return false;
    default:
        return true;
    }
}

/* Waits before a restart: 0.2 s, doubled each time that the job got no further than before. */
static void back_off(struct schd_supervisor *s)
{
    int64_t wait_ms = 200;
    for (int i = 1; i < s->n_back_off && wait_ms < MAX_BACK_OFF_MS; i++)
        wait_ms *= 2;
    for (int64_t until = now_ms() + wait_ms; now_ms() < until && !s->n_interrupts;)
        pump(s, POLL_MS);
}

static const char *words_for_way(const struct schd_supervisor *s)
{
    if (strcmp(s->way, "stand") == 0)
        return "everybody else goes on; the servers' rows stand";
    if (strcmp(s->way, "workers") == 0)
        return "the servers' rows stand; new workers go on";
    return "going back to the last snapshot:";
}

/* why: how the one before ended, which `sluice status` shall show. */
static int recover_scheduler(struct schd_supervisor *s, const char *why)
{
    schd_process_close(&s->sched);
    int status = start_sched(s, true);
    if (!status)
        command(s, "note %.900s", why);
    if (!status && s->n_interrupts > 0)
        command(s, "stop stopped on request");
    return status;
}

/* Ends whom the plan names; their ends are ours from now on. */
static void end_planned(struct schd_supervisor *s)
{
    for (int r = 0; r < s->n_ps; r++)
        s->ps[r].unwanted |= s->start_ps[r];
    s->workers.unwanted |= s->start_workers;
    end_unwanted(s);
}

/* Has the scheduler decide how the job goes on, ends whom it names, has it go on so, and starts
 * them again. anew: everybody. Nobody who is replaced can speak for the one who replaces it: it is
 * dead before the scheduler lets anybody in. */
static int recover_members(struct schd_supervisor *s, bool anew)
{
    s->verdict.there = false; /* before the question: what is told after it counts */
    s->recovering = true;
    s->recovered = false;
    command(s, anew ? "plan anew" : "plan");
    int status = wait_for(s, &s->planned, "planned a recovery");
    while (!status && !s->recovered) {
        end_planned(s);
        command(s, anew ? "recover anew" : "recover");
        status = wait_for(s, &s->planned, "recovered"); /* or planned again */
    }
    s->recovering = false;
    if (status)
        return status;
    schd_supervisor_say(s, CLU_LOG_INFO, "%s after step %llu", words_for_way(s),
                        (unsigned long long)s->step);
    return start_marked(s);
}

/* The scheduler is a new process: what it cannot have seen. */
static void tell_ends(struct schd_supervisor *s)
{
    char how[160];
    for (int i = 1; i < n_processes(s); i++) {
        const struct schd_process *p = process_at(s, i);
        if (p->pid == 0 || !p->ended)
            continue;
        int status = schd_status_of_end(p->wait_status);
        schd_describe_end(p->wait_status, how, sizeof(how));
        command(s, "gone %s %d %d %s", clu_role_name(p->role), p->rank,
                status ? status : CLU_E_LOST, how);
    }
}

/* The same role at the same step again? Its name is the sentence's first two words. Of those that a
 * launcher does not start on some host it is chance which is heard first. */
static void count_death(struct schd_supervisor *s)
{
    char who[64];
    const char *space = strchr(s->verdict.text, ' ');
    space = space ? strchr(space + 1, ' ') : NULL;
    snprintf(who, sizeof(who), "%.*s", space ? (int)(space - s->verdict.text) : 63,
             s->verdict.text);
    if (s->verdict.launch)
        snprintf(who, sizeof(who), "launch");
    bool same = s->step == s->died_at_step && strcmp(who, s->died_who) == 0;
    s->n_deaths_at_step = same ? s->n_deaths_at_step + 1 : 1;
    s->n_back_off = s->step > s->died_at_step ? 1 : s->n_back_off + 1;
    s->died_at_step = s->step;
    memcpy(s->died_who, who, sizeof(who));
}

/* The job ends: says why, which is kept for say_end. */
static void conclude(struct schd_supervisor *s, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void conclude(struct schd_supervisor *s, int level, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(s->last_words, sizeof(s->last_words), format, args);
    va_end(args);
    schd_supervisor_say(s, level, "%s", s->last_words);
}

/* Deals with a verdict: starts the job again from its last snapshot when it may (*again_p), or says
 * how it ends. */
static int recover_or_end(struct schd_supervisor *s, bool *again_p)
{
    struct schd_verdict v = s->verdict;
    bool only_sched = s->sched.ended && !s->end_told;
    for (int i = 1; i < n_processes(s); i++)
        only_sched = only_sched && (runs(process_at(s, i)) || (i >= 2 && s->released[i - 2]));
    if (s->n_interrupts == 1 && is_recoverable(v.status) && s->job->max_restarts > 0) {
        conclude(s, CLU_LOG_WARN,
                 "%s while the job was being stopped; the same command goes on from the "
                 "last snapshot, step %llu",
                 v.text, (unsigned long long)s->snapshot_step);
        return CLU_E_INTERRUPTED;
    }
    if (s->n_interrupts > 0 || s->n_restarts >= s->job->max_restarts || !is_recoverable(v.status)) {
        conclude(s, CLU_LOG_ERROR, "%s; the job ends at step %llu", v.text,
                 (unsigned long long)s->step);
        return v.status;
    }
    count_death(s);
    if (s->n_deaths_at_step >= MAX_DEATHS_AT_STEP && v.status == CLU_E_IO) {
        conclude(s, CLU_LOG_ERROR,
                 "%s; the %d. time at step %llu: make room on its disk, or see %s", v.text,
                 s->n_deaths_at_step, (unsigned long long)s->step, s->log_folder);
        return v.status;
    }
    if (s->n_deaths_at_step >= MAX_DEATHS_AT_STEP && v.launch) {
        conclude(s, CLU_LOG_ERROR, "%s; the job ends at step %llu, after %d tries", v.text,
                 (unsigned long long)s->step, s->n_deaths_at_step);
        return v.status;
    }
    if (s->n_deaths_at_step >= MAX_DEATHS_AT_STEP) {
        conclude(s, CLU_LOG_ERROR, "%s; the %d. time at step %llu: that is a bug, not bad luck",
                 v.text, s->n_deaths_at_step, (unsigned long long)s->step);
        return CLU_E_BUG;
    }
    s->n_restarts++;
    schd_supervisor_say(s, CLU_LOG_WARN, "%s; restart %d of at most %lld%s", v.text, s->n_restarts,
                        (long long)s->job->max_restarts, only_sched ? ", from where it was" : "");
    s->verdict.there = false;
    back_off(s);
    bool sched_again = s->sched.ended;
    int status = sched_again ? recover_scheduler(s, v.text) : CLU_OK;
    if (!status && sched_again) /* of those, too, that ended while there was no scheduler to tell */
        tell_ends(s);
    /* what was started again in place and died again at the same step is started anew */
    if (!status && !only_sched)
        status = recover_members(s, s->n_deaths_at_step > 1);
    if (status && s->end_told) /* it was to stop, and had nothing to go on with */
        return s->end_status;
    *again_p = !status || s->verdict.there; /* something else died meanwhile: once more */
    return status;
}

/* ---- the job ---- */

/* A scheduler that stands still (stopped, starved, deadlocked) is as bad as a dead one. */
static void check_scheduler(struct schd_supervisor *s)
{
    int64_t silent_ms = now_ms() - s->sched_heard_ms;
    if (!runs(&s->sched) || s->verdict.there || s->end_told || silent_ms <= s->job->dead_after_ms)
        return;
    schd_supervisor_blame(s, CLU_E_LOST, false, "sched stands still: silent for %lld ms",
                          (long long)silent_ms);
    schd_process_signal(&s->sched, SIGKILL);
}

static int watch(struct schd_supervisor *s)
{
    for (;;) {
        pump(s, POLL_MS);
        check_scheduler(s);
        if (s->verdict.there && now_ms() - s->verdict.time_ms >= GRACE_MS) {
            s->sched_heard_ms = now_ms();
            bool again = false;
            int status = recover_or_end(s, &again);
            if (!again)
                return status;
            continue;
        }
        if (s->verdict.there)
            continue;
        if (n_running(s) == 0)
            break;
        bool done = s->end_status == CLU_OK;
        if (s->end_told && now_ms() - s->end_ms > (done ? END_WITHIN_MS : STOP_WITHIN_MS)) {
            if (done)
                schd_supervisor_say(s, CLU_LOG_WARN,
                                    "%d processes did not end by themselves in time", n_running(s));
            break;
        }
    }
    return s->end_told ? s->end_status : CLU_E_BUG;
}

/* The job has stopped to change its shape: the same again with as many servers as were asked for.
 * Rows move through the snapshot, which any shape restores. */
static int reshape(struct schd_supervisor *s)
{
    end_processes(s, 0);
    schd_supervisor_close_logs(s);
    schd_supervisor_say(s, CLU_LOG_INFO, "stopped at step %llu; going on with %d server%s",
                        (unsigned long long)s->step, s->reshape_servers,
                        s->reshape_servers == 1 ? "" : "s");
    memset(s->ps, 0, (size_t)s->n_ps * sizeof(*s->ps));
    memset(s->released, 0, sizeof(s->released));
    s->joining = false;
    s->n_ps = s->reshape_servers;
    memset(s->start_ps, 0, CLU_MAX_SHARDS * sizeof(*s->start_ps));
    s->job->servers = s->reshape_servers;
    s->reshape_servers = 0;
    s->end_told = false;
    s->phase[0] = '\0';
    int status = clu_job_save(s->job, s->launch.job_path);
    if (!status)
        status = schd_supervisor_open_logs(s);
    if (!status)
        status = start_sched(s, false);
    return status ? status : start_members(s);
}

static int run_job(struct schd_supervisor *s)
{
    int status = start_sched(s, false);
    if (!status && s->n_interrupts == 0) /* else the scheduler ends the job that has not begun */
        status = start_members(s);
    if (s->verdict.there)
        status = CLU_OK; /* watch() starts it again, or says why not */
    while (!status) {
        status = watch(s);
        if (status != CLU_E_INTERRUPTED || !s->reshape_servers || s->n_interrupts > 0 ||
            s->verdict.there)
            return status;
        status = reshape(s);
    }
    if (s->verdict.there)
        conclude(s, CLU_LOG_ERROR, "%s", s->verdict.text);
    return status;
}

/* How the job ended, as one sentence. */
static void describe_end(const struct schd_supervisor *s, int status, int64_t seconds, char *text,
                         size_t text_bytes)
{
    const unsigned long long step = s->step, snapshot_step = s->snapshot_step;
    char reached[64] = " was reached before";
    if (s->snapshot_step > 0)
        snprintf(reached, sizeof(reached), " after %lld s", (long long)seconds);
    if (status == CLU_OK && s->kept[0])
        snprintf(text, text_bytes, "done: step %llu%s; %s; snapshots are in %s/snapshot", step,
                 reached, s->kept, s->run);
    else if (status == CLU_OK && s->snapshot_step == 0)
        snprintf(text, text_bytes, "done: step %llu%s; its snapshot is in %s/snapshot", step,
                 reached, s->run);
    else if (status == CLU_OK)
        snprintf(text, text_bytes, "done: step %llu%s; the snapshot of step %llu is in %s/snapshot",
                 step, reached, snapshot_step, s->run);
    else if (s->last_words[0])
        snprintf(text, text_bytes, "%s", s->last_words);
    else if (status == CLU_E_INTERRUPTED)
        snprintf(text, text_bytes, "%s at step %llu; the same command goes on from there",
                 s->end_text, step);
    else
        snprintf(text, text_bytes, "%s", s->end_text[0] ? s->end_text : clu_status_text(status));
}

/* Says it, unless that was done when it was decided, and writes it down. */
static void say_end(struct schd_supervisor *s, int status, int64_t seconds)
{
    char text[CLU_PATH_BYTES + 2 * CLU_TEXT_BYTES];
    const bool well = status == CLU_OK || status == CLU_E_INTERRUPTED;
    describe_end(s, status, seconds, text, sizeof(text));
    if (status == CLU_OK || !s->last_words[0])
        schd_supervisor_say(s, well ? CLU_LOG_INFO : CLU_LOG_ERROR, "%s", text);
    if (s->lock_fd >= 0) /* else the folder is another's */
        schd_folder_save_end(s->job->out, status, text, s->step, s->n_steps);
}

static void close_job(struct schd_supervisor *s)
{
    end_processes(s, 0);
    schd_launch_dismiss(&s->launch);
    int strays = schd_reap_strays(STRAYS_WITHIN_MS);
    if (strays > 0)
        clu_debug("%d stray processes ended", strays);
    schd_launch_close(&s->launch);
    schd_progress_clear(&s->progress);
    schd_supervisor_close_logs(s);
    if (s->signal_fd >= 0)
        close(s->signal_fd);
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    free(s->ps);
    free(s->start_ps);
    free(s->words);
    free(s->job);
    free(s);
}

int schd_supervise(const struct clu_job *job, const char *program)
{
    struct schd_supervisor *s = calloc(1, sizeof(*s));
    struct schd_process *ps =
        calloc(CLU_MAX_SHARDS, sizeof(*ps)); /* untouched pages cost nothing */
    bool *start_ps = calloc(CLU_MAX_SHARDS, sizeof(*start_ps));
    struct schd_launch_words *words = calloc(2 + CLU_MAX_SHARDS, sizeof(*words));
    struct clu_job *copy = malloc(sizeof(*copy));
    if (!s || !ps || !start_ps || !words || !copy) {
        free(s);
        free(ps);
        free(start_ps);
        free(words);
        free(copy);
        return clu_fail(CLU_E_NO_MEMORY, "no memory for the supervisor");
    }
    int64_t started_ms = now_ms();
    *copy = *job;
    s->job = copy;
    s->ps = ps;
    s->start_ps = start_ps;
    s->words = words;
    s->n_ps = (int)job->servers;
    s->launch.job = copy;
    s->launch.program = program;
    s->lock_fd = s->signal_fd = -1;
    s->dead_rank = -1;
    schd_oom_open(&s->oom, "/proc/self/cgroup", "/sys/fs/cgroup");
    schd_progress_init(&s->progress);
    int status = open_job(s);
    if (!status)
        status = run_job(s);
    say_end(s, status, (now_ms() - started_ms) / 1000);
    close_job(s);
    return status;
}
