/* `sluice VERB ...`: finds the verb, fills its options by its table, runs it, and turns its status
 * into the exit code. Everything a verb needs is decided here, before it runs: a job's settings are
 * complete and checked (defaults, job file, environment, flags, in that order), so that no verb
 * reads argv or environ. */
#include "cluster/job.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "sched/verbs.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const struct clu_setting *find_row(const struct schd_verb *verb, const char *name)
{
    return clu_settings_find((struct clu_binding){verb->rows, verb->n_rows, NULL}, name);
}

/* The job file: the flag --job where the verb has one, else the first positional. */
static const char *job_file_of(const struct schd_verb *verb, const void *options, int n_positionals,
                               char **positionals)
{
    const struct clu_setting *row = find_row(verb, "job");
    if (row)
        return (const char *)options + row->offset;
    return n_positionals > 0 ? positionals[0] : "";
}

/* Fills options and job. Flags are parsed twice for a job: once to learn the job file's name, once
 * to overwrite what that file says. */
static int parse(const struct schd_verb *verb, int argc, char **argv, void *options,
                 struct clu_job *job, int *n_positionals_p)
{
    struct clu_binding bindings[] = {{verb->rows, verb->n_rows, options}, clu_job_settings(job)};
    size_t n_bindings = verb->takes_job ? 2 : 1;
    char **copy = calloc((size_t)argc + 1, sizeof(*copy));
    if (!copy)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for the arguments");
    memcpy(copy, argv, (size_t)argc * sizeof(*copy));
    clu_settings_defaults(bindings[0]);
    clu_settings_defaults(clu_job_settings(job));
    int status = clu_settings_arguments(bindings, n_bindings, argc, copy, n_positionals_p);
    if (status == CLU_OK && verb->takes_job) {
        const char *path = job_file_of(verb, options, *n_positionals_p, copy);
        if (path[0] != '\0')
            status = clu_job_load(path, job);
        if (status == CLU_OK)
            status = clu_settings_environment(clu_job_settings(job));
    }
    free(copy);
    if (status == CLU_OK)
        status = clu_settings_arguments(bindings, n_bindings, argc, argv, n_positionals_p);
    if (status == CLU_OK &&
        (*n_positionals_p < verb->min_positionals ||
         (verb->max_positionals >= 0 && *n_positionals_p > verb->max_positionals)))
        status = clu_fail(CLU_E_USAGE, "usage: sluice %s %s", verb->name, verb->usage);
    return status;
}

static int run_verb(const struct schd_verb *verb, const char *program, int argc, char **argv)
{
    void *options = calloc(1, verb->object_bytes + 1);
    struct clu_job *job = calloc(1, sizeof(*job));
    if (!options || !job) {
        free(options);
        free(job);
        return clu_fail(CLU_E_NO_MEMORY, "no memory to start");
    }
    int n_positionals = 0;
    int status = parse(verb, argc, argv, options, job, &n_positionals);
    if (status == CLU_OK) {
        if (verb->takes_job)
            clu_log_init(clu_log_level_of(job->log_level), verb->name, -1, job->log_json);
        struct schd_call call = {options, verb->takes_job ? job : NULL, n_positionals, argv,
                                 program};
        status = verb->run(&call);
    }
    free(job);
    free(options);
    return status;
}

static const char *executable(char *buffer, size_t size, const char *argv0)
{
    ssize_t n = readlink("/proc/self/exe", buffer, size - 1);
    if (n < 0)
        return argv0;
    buffer[n] = '\0';
    return buffer;
}

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

/* Restoring opens every file of a chain, one a shard and link: beyond the usual soft limit. */
static void allow_many_files(void)
{
    enum { ENOUGH = 65536 }; /* programs that close every descriptor before exec pay for more */
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < ENOUGH) {
        limit.rlim_cur = limit.rlim_max < ENOUGH ? limit.rlim_max : ENOUGH;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int main(int argc, char **argv)
{
    char program[4096];
    allow_many_files();
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is a failed write, seen where it is written */
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    if (strcmp(name, "--version") == 0) {
        printf("sluice %s\n", SLUICE_VERSION);
        return fflush(stdout) == 0 ? 0 : clu_status_exit_code(CLU_E_IO);
    }
    const struct schd_verb *verb = schd_verb_find(name);
    if (!verb) {
        const char *near = name[0] ? schd_verb_nearest(name) : NULL;
        if (near)
            clu_error("no verb '%s', did you mean '%s'? `sluice help` lists them", name, near);
        else if (name[0])
            clu_error("no verb '%s', `sluice help` lists them", name);
        else
            clu_error("usage: sluice VERB [ARGUMENTS], `sluice help` lists the verbs");
        return clu_status_exit_code(CLU_E_USAGE);
    }
    clu_log_init(CLU_LOG_INFO, verb->name, -1, false);
    int status = CLU_OK;
    if (asks_for_help(argc - 2, argv + 2))
        schd_verb_print_help(verb, stdout);
    else
        status = run_verb(verb, executable(program, sizeof(program), argv[0]), argc - 2, argv + 2);
    if (fflush(stdout) != 0 && status == CLU_OK)
        status = clu_fail(CLU_E_IO, "cannot write the output: %s", strerror(errno));
    return clu_status_exit_code(status);
}
