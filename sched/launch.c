/* Command lines of the roles. The settings given to Open MPI, and why:
 *
 * - as root (containers) mpirun refuses without two variables;
 * - --oversubscribe and --bind-to none: servers, scheduler and ranks share the cores, and mpirun,
 * which knows
 *   of the ranks only, would pin them all to the first ones;
 * - loopback only, and no launch agent, while everything is on this machine: mpirun would otherwise
 * look for
 *   ssh and listen on every interface;
 * - one BLAS thread: a rank's threads are its own business (the job's `threads`);
 * - session files and shared memory in one folder that the supervisor removes: a killed mpirun
 * leaves them. On other hosts they are where Open MPI likes, and its daemons there, which lose
 * mpirun, remove them.
 */
#include "sched/launch.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_ARGUMENTS = 64 };

static const char scratch_prefix[] = "sluice-mpi-";

static const char *scratch_root(void)
{
    return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
}

static void sweep_scratch(const char *root)
{
    DIR *dir = opendir(root);
    if (!dir)
        return;
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        char path[CLU_PATH_BYTES], *end;
        if (strncmp(entry->d_name, scratch_prefix, sizeof(scratch_prefix) - 1) != 0)
            continue;
        long pid = strtol(entry->d_name + sizeof(scratch_prefix) - 1, &end, 10);
        if (*end || pid <= 0 || kill((pid_t)pid, 0) == 0 || errno != ESRCH)
            continue;
        if (!clu_path_join(path, sizeof(path), root, entry->d_name))
            clu_remove_tree(path);
    }
    closedir(dir);
}

void schd_launch_open(struct schd_launch *launch)
{
    char name[64];
    launch->scratch[0] = '\0';
    sweep_scratch(scratch_root());
    snprintf(name, sizeof(name), "%s%d", scratch_prefix, (int)getpid());
    if (clu_path_join(launch->scratch, sizeof(launch->scratch), scratch_root(), name) ||
        clu_mkdirs(launch->scratch))
        launch->scratch[0] = '\0';
    if (launch->scratch[0])
        schd_janitor_start(&launch->janitor, launch->scratch);
}

void schd_launch_dismiss(struct schd_launch *launch)
{
    schd_janitor_stop(&launch->janitor);
}

void schd_launch_close(struct schd_launch *launch)
{
    if (launch->scratch[0])
        clu_remove_tree(launch->scratch);
}

int schd_launch_sched(const struct schd_launch *launch, bool again, struct schd_process *process)
{
    const char *argv[] = {
        launch->program,          "sched", "--job", launch->job_path, "--supervised",
        again ? "--again" : NULL, NULL};
    struct schd_process_options options = {.argv = argv, .commands = true, .events = true};
    return schd_process_start(process, &options);
}

static void thread_settings(const struct clu_job *job, char blas[40], char omp[40])
{
    snprintf(blas, 40, "OPENBLAS_NUM_THREADS=%lld", (long long)job->threads);
    snprintf(omp, 40, "OMP_NUM_THREADS=%lld", (long long)job->threads);
}

struct arguments {
    int n;
    const char *argv[MAX_ARGUMENTS];
};

static void add(struct arguments *arguments, const char *argument)
{
    if (arguments->n < MAX_ARGUMENTS - 1)
        arguments->argv[arguments->n++] = argument;
}

static void add_setting(struct arguments *arguments, const char *name, const char *value)
{
    add(arguments, "--mca");
    add(arguments, name);
    add(arguments, value);
}

/* What every mpirun of ours is given, whatever it starts. */
static void add_common(struct arguments *a, const struct schd_launch *launch)
{
    const bool one_host = !launch->job->hostfile[0];
    add(a, "--oversubscribe");
    add(a, "--bind-to");
    add(a, "none");
    if (launch->scratch[0]) /* without a hostfile also what the ranks are told */
        add_setting(a, one_host ? "orte_tmpdir_base" : "orte_local_tmpdir_base", launch->scratch);
    if (!one_host)
        return;
    if (launch->scratch[0])
        add_setting(a, "btl_vader_backing_directory", launch->scratch);
    add_setting(a, "plm", "isolated");
    add_setting(a, "btl_tcp_if_include", "lo");
    add_setting(a, "oob_tcp_if_include", "lo");
}

/* The names of the hosts in a file, one line a host, its name first, '#' begins a comment; spaces
 * between them. hosts_p: malloc'd. */
static int load_hosts(const char *hostfile, char **hosts_p)
{
    char *text, *line, *rest = NULL;
    size_t size, n = 0;
    int status = clu_file_read_all(hostfile, 16 << 20, &text, &size);
    if (status)
        return status;
    char *hosts = calloc(size + 2, 1); /* names and one space each are no longer than their lines */
    for (line = strtok_r(text, "\r\n", &rest); hosts && line;
         line = strtok_r(NULL, "\r\n", &rest)) {
        line += strspn(line, " \t");
        size_t length = strcspn(line, " \t#");
        if (length > 0)
            n += (size_t)sprintf(hosts + n, "%s%.*s", n ? " " : "", (int)length, line);
    }
    free(text);
    if (n > 0) {
        *hosts_p = hosts;
        return CLU_OK;
    }
    status = hosts ? CLU_E_CONFIG : CLU_E_NO_MEMORY;
    free(hosts);
    return clu_fail(status, "%s names no host: expected one a line", hostfile);
}

/* The host on which server `rank` runs: the hosts of the file in turn. */
static int host_of(const char *hostfile, int rank, char *host_p, size_t host_bytes)
{
    char *hosts;
    int n = 1, status = load_hosts(hostfile, &hosts);
    if (status)
        return status;
    for (const char *at = hosts; (at = strchr(at, ' ')); at++)
        n++;
    const char *name = hosts;
    for (int i = 0; i < rank % n; i++)
        name = strchr(name, ' ') + 1;
    snprintf(host_p, host_bytes, "%.*s", (int)strcspn(name, " "), name);
    free(hosts);
    return CLU_OK;
}

bool schd_launch_why(const struct schd_launch *launch, const struct schd_process *process,
                     const struct schd_launch_words *words, char *out, size_t out_bytes)
{
    char host[256], *hosts = NULL;
    const char *hostfile = launch->job->hostfile;
    bool failed = false;
    if (!hostfile[0])
        return schd_launch_words_describe(words, "this machine", out, out_bytes);
    if (process->role == CLU_ROLE_PS && !host_of(hostfile, process->rank, host, sizeof(host)))
        return schd_launch_words_describe(words, host, out, out_bytes);
    if (!load_hosts(hostfile, &hosts))
        failed = schd_launch_words_describe(words, hosts, out, out_bytes);
    free(hosts);
    return failed;
}

int schd_launch_ps(const struct schd_launch *launch, int rank, struct schd_process *process)
{
    static const char *const environment[] = {"OMPI_ALLOW_RUN_AS_ROOT=1",
                                              "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1", NULL};
    struct arguments a = {0};
    char number[16], host[256] = "";
    snprintf(number, sizeof(number), "%d", rank);
    if (launch->job->hostfile
            [0]) { /* Open MPI's launcher knows the way to other hosts: one server, one mpirun */
        int status = host_of(launch->job->hostfile, rank, host, sizeof(host));
        if (status)
            return status;
        add(&a, "mpirun");
        add(&a, "-n");
        add(&a, "1");
        add(&a, "--host");
        add(&a, host);
        add_common(&a, launch);
    }
    const char *const command[] = {launch->program, "ps",   "--job",   launch->job_path,
                                   "--rank",        number, "--sched", launch->endpoint};
    for (size_t i = 0; i < sizeof(command) / sizeof(command[0]); i++)
        add(&a, command[i]);
    struct schd_process_options options = {.argv = a.argv,
                                           .environment = geteuid() == 0 ? environment : NULL};
    return schd_process_start(process, &options);
}

int schd_launch_workers(const struct schd_launch *launch, struct schd_process *process)
{
    const struct clu_job *job = launch->job;
    struct arguments a = {0};
    char ranks[24], blas[40], omp[40];
    snprintf(ranks, sizeof(ranks), "%lld", (long long)job->workers);
    thread_settings(job, blas, omp);
    const char *environment[] = {blas, omp, "OMPI_ALLOW_RUN_AS_ROOT=1",
                                 "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1", NULL};
    if (geteuid() != 0)
        environment[2] = NULL;
    add(&a, "mpirun");
    add(&a, "-n");
    add(&a, ranks);
    add_common(&a, launch);
    add_setting(&a, "pml", "ob1");
    add_setting(&a, "btl", "self,vader,tcp");
    add_setting(&a, "btl_vader_single_copy_mechanism", "none");
    if (job->hostfile[0]) {
        add(&a, "--hostfile");
        add(&a, job->hostfile);
        add(&a, "-x");
        add(&a, "OPENBLAS_NUM_THREADS");
        add(&a, "-x");
        add(&a, "OMP_NUM_THREADS");
    }
    add(&a, launch->program);
    add(&a, "worker");
    add(&a, "--job");
    add(&a, launch->job_path);
    add(&a, "--sched");
    add(&a, launch->endpoint);
    struct schd_process_options options = {.argv = a.argv, .environment = environment};
    int status = schd_process_start(process, &options);
    if (!status)
        clu_info("starting %s worker%s with mpirun%s, %s, not bound to cores%s", ranks,
                 job->workers == 1 ? "" : "s", geteuid() == 0 ? " (as root)" : "", blas,
                 job->hostfile[0] ? "" : ", loopback only");
    return status;
}
