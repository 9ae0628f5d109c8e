/* A whole job behind keys: it trains, its tools are let in, strangers at every port of it get
 * nothing and are counted and named in the log, and nothing else happens. */
#include "cluster/transport.h"
#include "tests/cluster_e2e/driver.h"
#include "tests/cluster_e2e/small_data.h"
#include "tests/suite.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <sys/socket.h>

enum { DIES_WITHIN_MS = 10000, MAX_PORTS = 16 };

static struct small_data data;

/* Writes what the command prints into answer; returns its exit code. */
static int run(char *answer, size_t answer_bytes, const char *format, const char *a, const char *b)
{
    char command[1400];
    snprintf(command, sizeof(command), format, SLUICE, a, b);
    FILE *pipe = popen(command, "r");
    size_t n = pipe ? fread(answer, 1, answer_bytes - 1, pipe) : 0;
    answer[n] = '\0';
    int status = pipe ? pclose(pipe) : -1;
    return WEXITSTATUS(status);
}

static void open_job(struct driver *d)
{
    char text[1024], keys[600], answer[1024];
    if (!data.folder[0])
        CU_ASSERT_EQUAL_FATAL(small_data_open(&data, SLUICE), 0);
    snprintf(text, sizeof(text),
             "data: %s\nservers: 2\nshards: 2\nworkers: 2\nwidth: 16\nheads: 2\nhistory: 20\n"
             "batch: 64\nlog_every: 5\nepochs: 1000\nstaleness: 1\n",
             data.set);
    CU_ASSERT_EQUAL_FATAL(driver_open(d, text), 0);
    snprintf(keys, sizeof(keys), "%s/keys", d->folder);
    CU_ASSERT_EQUAL_FATAL(run(answer, sizeof(answer), "'%s' keys '%s'%s 2>&1", keys, ""), 0);
}

static void start(struct driver *d)
{
    char keys[600], *extra[] = {"--keys", keys, NULL};
    snprintf(keys, sizeof(keys), "%s/keys", d->folder);
    CU_ASSERT_EQUAL_FATAL(driver_start(d, SLUICE, extra), 0);
}

/* The inodes of a process's sockets; returns how many. */
static int sockets_of(pid_t pid, unsigned long *inode, int max)
{
    char path[64], link[512], target[64];
    int n = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && n < max && (entry = readdir(dir));) {
        snprintf(link, sizeof(link), "%s/%s", path, entry->d_name);
        ssize_t size = readlink(link, target, sizeof(target) - 1);
        target[size < 0 ? 0 : size] = '\0';
        n += sscanf(target, "socket:[%lu]", &inode[n]) == 1;
    }
    if (dir)
        closedir(dir);
    return n;
}

/* The TCP ports that a process listens on; returns how many. */
static int ports_of(pid_t pid, int *port)
{
    unsigned long inode[256], owner;
    unsigned local, state;
    char line[512];
    int n_inodes = sockets_of(pid, inode, 256), n = 0;
    FILE *file = fopen("/proc/net/tcp", "r");
    while (file && n < MAX_PORTS && fgets(line, sizeof(line), file))
        if (sscanf(line, " %*d: %*x:%x %*x:%*x %x %*s %*s %*s %*s %*s %lu", &local, &state,
                   &owner) == 3 &&
            state == 0x0a)
            for (int i = 0; i < n_inodes; i++)
                if (inode[i] == owner && n < MAX_PORTS)
                    port[n++] = (int)local;
    if (file)
        fclose(file);
    return n;
}

/* A client without keys, which libzmq lets ask and wait for an answer. True when one came. */
static bool plain_client_is_answered(int port)
{
    struct clu_transport_options options = {0};
    struct clu_transport *transport;
    struct clu_socket *socket;
    struct clu_socket_options dealer = {.kind = CLU_SOCKET_DEALER};
    struct clu_message message;
    char endpoint[64];
    clu_message_init(&message);
    snprintf(endpoint, sizeof(endpoint), "tcp://127.0.0.1:%d", port);
    CU_ASSERT_EQUAL_FATAL(clu_transport_create(&options, &transport), 0);
    CU_ASSERT_EQUAL_FATAL(clu_socket_open(transport, &dealer, &socket), 0);
    CU_ASSERT_EQUAL_FATAL(clu_socket_connect(socket, endpoint), 0);
    clu_frame_init_copy(clu_message_add(&message), "rows?", 5);
    clu_socket_send(socket, &message);
    struct clu_poll poll = {.socket = socket};
    clu_poll(&poll, 1, 300);
    bool answered = clu_socket_recv(socket, &message) == 0;
    clu_message_close(&message);
    clu_socket_close(socket);
    clu_transport_free(transport);
    return answered;
}

/* Bytes of another protocol; returns how many bytes came back beyond libzmq's greeting. */
static ssize_t noise_is_answered(int port)
{
    static const char noise[] = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
                                "and more than a greeting's sixty-four bytes of it";
    char back[4096];
    ssize_t n = 0, got;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval patience = {.tv_usec = 300000};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    CU_ASSERT_EQUAL(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    if (send(fd, noise, sizeof(noise), MSG_NOSIGNAL) > 0)
        while ((got = recv(fd, back, sizeof(back), 0)) > 0)
            n += got;
    close(fd);
    return n > 64 ? n - 64 : 0;
}

static uint64_t figure_of(const char *status, const char *name)
{
    char key[64];
    uint64_t sum = 0;
    size_t size = (size_t)snprintf(key, sizeof(key), "\"%s\": ", name);
    for (const char *at = strstr(status, key); at; at = strstr(at + 1, key))
        sum += (uint64_t)strtod(at + size, NULL);
    return sum;
}

static bool log_has(const struct driver *d, const char *role, const char *text)
{
    char name[64];
    snprintf(name, sizeof(name), "log/%s.log", role);
    return driver_await_text(d, name, text, 3000);
}

/* Metrics are plain HTTP, for whoever is on this machine: not a port behind keys, and on loopback
 * alone. */
static bool serves_metrics(const char *status, int port)
{
    char url[64];
    snprintf(url, sizeof(url), "\"http://127.0.0.1:%d/\"", port);
    return strstr(status, url) != NULL;
}

static void test_strangers_get_nothing_from_a_job_with_keys(void)
{
    struct driver d;
    static char status[1 << 16];
    unsigned before = CU_get_number_of_failures();
    int port[MAX_PORTS], n_ports = 0, n_shards_asked = 0, n_metrics = 0;
    open_job(&d);
    start(&d);
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"step\":20", 30000));
    CU_ASSERT_EQUAL(run(status, sizeof(status), "'%s' status '%s/out' --json%s", d.folder, ""), 0);
    for (int s = 0; s < 2; s++) {
        char rank[16];
        snprintf(rank, sizeof(rank), "--rank %d", s);
        n_ports = ports_of(driver_find(&d, "sluice ps", rank, 0), port);
        CU_ASSERT_EQUAL(n_ports, 3); /* an endpoint a shard, and the metrics */
        for (int i = 0; i < n_ports; i++) {
            if (serves_metrics(status, port[i])) {
                n_metrics++;
                continue;
            }
            n_shards_asked++;
            CU_ASSERT(!plain_client_is_answered(port[i]));
            CU_ASSERT_EQUAL(noise_is_answered(port[i]), 0);
        }
    }
    CU_ASSERT_EQUAL(n_shards_asked, 4);
    CU_ASSERT_EQUAL(n_metrics, 2);
    char endpoint[128] = "";
    char path[700];
    snprintf(path, sizeof(path), "%s/out/run/sched.endpoint", d.folder);
    FILE *file = fopen(path, "r");
    CU_ASSERT(file && fgets(endpoint, sizeof(endpoint), file));
    if (file)
        fclose(file);
    CU_ASSERT(!plain_client_is_answered(atoi(strrchr(endpoint, ':') + 1)));
    uint64_t denied = 0;
    for (int i = 0; i < 50 && denied < 4; i++) { /* servers report every other second */
        CU_ASSERT_EQUAL(run(status, sizeof(status), "'%s' status '%s/out' --json%s", d.folder, ""),
                        0);
        denied = figure_of(status, "denied_total");
        driver_nap(100);
    }
    CU_ASSERT(denied >= 4);
    CU_ASSERT(figure_of(status, "denied_connections") >= 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(status, "\"phase\": \"running\""));
    CU_ASSERT(log_has(&d, "ps-0", "refused"));
    CU_ASSERT(log_has(&d, "ps-1", "refused"));
    CU_ASSERT(log_has(&d, "sched-0", "refused"));
    CU_ASSERT(driver_await_text(&d, "metrics.jsonl", "\"staleness_1_total\"", 0) ||
              driver_await_text(&d, "metrics.jsonl", "\"staleness_0_total\"", 0));
    CU_ASSERT_EQUAL(run(status, sizeof(status), "'%s' stop '%s/out'%s 2>&1", d.folder, ""), 0);
    CU_ASSERT_EQUAL(driver_wait(&d, DIES_WITHIN_MS), 75);
    CU_ASSERT_EQUAL(driver_left(&d, 2000), 0);
    driver_close(&d, CU_get_number_of_failures() > before);
}

static void test_keys_that_others_can_write_are_refused_with_77(void)
{
    struct driver d;
    unsigned before = CU_get_number_of_failures();
    char path[700];
    open_job(&d);
    snprintf(path, sizeof(path), "%s/keys/allow", d.folder);
    CU_ASSERT_EQUAL(chmod(path, 0666), 0);
    start(&d);
    CU_ASSERT_EQUAL(driver_wait(&d, DIES_WITHIN_MS), 77);
    CU_ASSERT_PTR_NOT_NULL(strstr(d.text, "keys/allow can be written by others"));
    CU_ASSERT_EQUAL(driver_left(&d, 2000), 0);
    driver_close(&d, CU_get_number_of_failures() > before);
}

static void test_clean_up(void)
{
    small_data_close(&data);
}

SUITE("cluster_e2e.keys", T(test_strangers_get_nothing_from_a_job_with_keys),
      T(test_keys_that_others_can_write_are_refused_with_77), T(test_clean_up))
