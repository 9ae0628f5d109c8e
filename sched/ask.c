/* One question to a running job. A job that does not run is known by its lock; but a lock on a file
 * system that hosts share may be seen on its own host only. So where nobody is seen to hold it, a
 * plain connection to the scheduler's port is tried: when that is refused, nobody is there. Where
 * it is not, or the host does not answer at all, the question is asked, with its deadline.
 */
#include "sched/ask.h"
#include "sched/folder.h"

#include "cluster/control.h"
#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/security.h"
#include "cluster/status.h"
#include "cluster/transport.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECT_WITHIN_MS = 500 };

#define DEFAULT_OUT "sluice-run"

const char *schd_ask_folder(const char *out)
{
    return out && out[0] ? out : DEFAULT_OUT;
}

/* 0, or why no connection can be made; 0 as well when that takes longer than CONNECT_WITHIN_MS. */
static int try_connect(const struct addrinfo *place)
{
    int error = 0, fd = socket(place->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    socklen_t size = sizeof(error);
    if (fd < 0)
        return 0;
    if (connect(fd, place->ai_addr, place->ai_addrlen))
        error = errno;
    struct pollfd item = {.fd = fd, .events = POLLOUT};
    if (error == EINPROGRESS) {
        error = 0;
        if (poll(&item, 1, CONNECT_WITHIN_MS) > 0)
            getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    }
    close(fd);
    return error;
}

/* Whether nobody listens at tcp://HOST:PORT, as far as can be told at once. */
static bool is_refused(const char *endpoint)
{
    char host[CLU_ENDPOINT_BYTES];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST}, *found;
    const char *colon = strrchr(endpoint, ':');
    if (strncmp(endpoint, "tcp://", 6) != 0 || colon < endpoint + 6)
        return false;
    snprintf(host, sizeof(host), "%.*s", (int)(colon - endpoint - 6), endpoint + 6);
    if (host[0] == '[') { /* [::1] */
        memmove(host, host + 1, strlen(host));
        host[strcspn(host, "]")] = '\0';
    }
    if (getaddrinfo(host, colon + 1, &hints, &found))
        return false;
    int error = try_connect(found);
    freeaddrinfo(found);
    return error == ECONNREFUSED;
}

static int say_gone(const char *out)
{
    struct schd_end end;
    char text[2048];
    schd_folder_load_end(out, &end);
    return clu_fail(CLU_E_UNAVAILABLE, "the job in %s does not run; it %s", out,
                    schd_end_describe(&end, text, sizeof(text)));
}

static int ask_at(const struct clu_job *job, const char *endpoint, const char *question,
                  int timeout_ms, char **body_p)
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
        status = clu_control_ask(transport, endpoint, question, timeout_ms, body_p);
    clu_transport_free(transport);
    if (secure)
        clu_security_fini(&security);
    return status;
}

/* The endpoint as the file has it; malloc'd. NULL: none is known, as before a job's first moment.
 */
static int load_endpoint(const char *out, char **endpoint_p)
{
    char path[CLU_PATH_BYTES];
    size_t size;
    int status = clu_path_join(path, sizeof(path), out, "run/sched.endpoint");
    *endpoint_p = NULL;
    if (!status && clu_path_exists(path))
        status = clu_file_read_all(path, 4096, endpoint_p, &size);
    if (*endpoint_p)
        (*endpoint_p)[strcspn(*endpoint_p, "\r\n")] = '\0';
    return status;
}

/* again: whoever asks knows that a job ends, or that its scheduler may be restarted. */
static int ask(const char *out, const char *question, bool again, int timeout_ms, char **body_p)
{
    char path[CLU_PATH_BYTES], *endpoint = NULL;
    out = schd_ask_folder(out);
    struct clu_job *job = calloc(1, sizeof(*job));
    if (!job)
        return clu_fail(CLU_E_NO_MEMORY, "no memory to ask");
    int status = clu_path_join(path, sizeof(path), out, "run/job.yaml");
    if (!status && !clu_path_exists(path))
        status = clu_fail(CLU_E_NOT_FOUND, "%s is not there: no job was started in %s", path, out);
    if (!status)
        status = clu_job_load(path, job);
    if (!status)
        status = load_endpoint(out, &endpoint);
    if (status)
        goto end;
    bool held = schd_folder_is_held(out);
    if (!held && (!endpoint || is_refused(endpoint)))
        status = again ? CLU_E_UNAVAILABLE : say_gone(out);
    else if (!endpoint)
        status = CLU_E_TIMEOUT;
    else
        status = ask_at(job, endpoint, question, timeout_ms, body_p);
    if (status == CLU_E_TIMEOUT && !schd_folder_is_held(out))
        status = again ? CLU_E_UNAVAILABLE : say_gone(out);
    else if (status == CLU_E_TIMEOUT && !again)
        clu_error("the scheduler of the job in %s does not answer: it may be starting (again)",
                  out);
end:
    free(endpoint);
    free(job);
    return status;
}

int schd_ask(const char *out, const char *question, char **body_p)
{
    return ask(out, question, false, SCHD_ANSWER_WITHIN_MS, body_p);
}

int schd_ask_again(const char *out, const char *question, int timeout_ms, char **body_p)
{
    return ask(out, question, true, timeout_ms, body_p);
}
