/* One question to a running job. */
#include "sched/ask.h"

#include "cluster/control.h"
#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/security.h"
#include "cluster/status.h"
#include "cluster/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { ANSWER_WITHIN_MS = 3000 };

#define DEFAULT_OUT "sluice-run"

static int ask_at(const struct clu_job *job, const char *endpoint, const char *question,
                  char **body_p)
{
    struct clu_security security;
    struct clu_transport *transport = NULL;
    bool secure = job->keys[0] != '\0';
    int status = secure ? clu_security_load(job->keys, "tool", &security) : CLU_OK;
    if (status)
        return status;
    struct clu_transport_options options = {.security = secure ? &security : NULL,
                                            .insecure = job->insecure};
    status = clu_transport_create(&options, &transport);
    if (!status)
        status = clu_control_ask(transport, endpoint, question, ANSWER_WITHIN_MS, body_p);
    if (status == CLU_E_TIMEOUT && schd_is_supervised(job->out))
        clu_error("the scheduler does not answer at %s: it may be starting again", endpoint);
    else if (status == CLU_E_TIMEOUT)
        clu_error("no scheduler answers at %s: the job in %s does not run (any more)", endpoint,
                  job->out);
    clu_transport_free(transport);
    if (secure)
        clu_security_fini(&security);
    return status;
}

bool schd_is_supervised(const char *out)
{
    char path[CLU_PATH_BYTES];
    if (clu_path_join(path, sizeof(path), out && out[0] ? out : DEFAULT_OUT, "run/lock"))
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool held = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
    if (fd >= 0)
        close(fd);
    return held;
}

int schd_ask(const char *out, const char *question, char **body_p)
{
    char path[CLU_PATH_BYTES], *endpoint = NULL;
    size_t size;
    if (!out || !out[0])
        out = DEFAULT_OUT;
    struct clu_job *job = calloc(1, sizeof(*job));
    if (!job)
        return clu_fail(CLU_E_NO_MEMORY, "no memory to ask");
    int status = clu_path_join(path, sizeof(path), out, "run/job.yaml");
    if (!status && !clu_path_exists(path))
        status = clu_fail(CLU_E_NOT_FOUND, "%s is not there: no job was started in %s", path, out);
    if (!status)
        status = clu_job_load(path, job);
    if (!status)
        status = clu_path_join(path, sizeof(path), out, "run/sched.endpoint");
    if (!status)
        status = clu_file_read_all(path, 4096, &endpoint, &size);
    if (!status) {
        endpoint[strcspn(endpoint, "\r\n")] = '\0';
        status = ask_at(job, endpoint, question, body_p);
    }
    free(endpoint);
    free(job);
    return status;
}
