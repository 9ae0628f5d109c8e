/* The network that tests bend (tests/cluster_e2e/wire_between.h) really cuts, delays and loses, and
 * otherwise hands everything on as it is: else the tests upon it would prove nothing.
 *
 * A socket belongs to the namespace it was made in, so this one process talks to itself across
 * them. Skipped (77) where namespaces or tun devices cannot be made.
 */
#include "tests/cluster_e2e/hosts.h"
#include "tests/suite.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

enum { N_LOSSY = 4000, PORT = 7700, SOON_MS = 10000, BYTES = 65000, STREAM_BYTES = 8 << 20 };

static struct hosts hosts;
static int here = -1; /* the namespace of the test */
static int udp[HOSTS_N];

static int socket_at(int host, int type)
{
    char path[256];
    snprintf(path, sizeof(path), "/run/netns/%s%c", hosts.net, hosts_letters[host]);
    int net = open(path, O_RDONLY | O_CLOEXEC);
    CU_ASSERT_FATAL(net >= 0 && setns(net, CLONE_NEWNET) == 0);
    close(net);
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    CU_ASSERT_FATAL(setns(here, CLONE_NEWNET) == 0 && fd >= 0);
    return fd;
}

static struct sockaddr_in address_of(int host)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    to.sin_addr.s_addr = htonl(0x0a4d0001u + (uint32_t)host);
    return to;
}

static int bound_at(int host, int type)
{
    struct sockaddr_in own = address_of(host);
    int fd = socket_at(host, type), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    CU_ASSERT_FATAL(bind(fd, (struct sockaddr *)&own, sizeof(own)) == 0);
    return fd;
}

static void close_all(void)
{
    for (int i = 0; i < HOSTS_N; i++)
        close(udp[i]);
    hosts_close(&hosts);
}

static void open_all(void)
{
    CU_ASSERT_FATAL(hosts_open(&hosts) && hosts.wire);
    for (int i = 0; i < HOSTS_N; i++)
        udp[i] = bound_at(i, SOCK_DGRAM);
}

static void say(int from, int to, const void *bytes, size_t size)
{
    struct sockaddr_in there = address_of(to);
    CU_ASSERT_EQUAL(sendto(udp[from], bytes, size, 0, (struct sockaddr *)&there, sizeof(there)),
                    (ssize_t)size);
}

/* What a host has heard, -1 when nothing comes in time. */
static ssize_t hear(int host, void *bytes, size_t size, int timeout_ms)
{
    struct pollfd fd = {.fd = udp[host], .events = POLLIN};
    return poll(&fd, 1, timeout_ms) == 1 ? recv(udp[host], bytes, size, 0) : -1;
}

/* There and back, in milliseconds; -1 when no answer comes in time. */
static int64_t ping(int one, int two, int timeout_ms)
{
    static uint64_t number;
    uint64_t sent = ++number, heard = 0;
    int64_t began_ms = driver_now_ms();
    say(one, two, &sent, sizeof(sent));
    while (heard != sent) /* an older one may come late */
        if (hear(two, &heard, sizeof(heard), timeout_ms) < 0)
            return -1;
    say(two, one, &sent, sizeof(sent));
    for (heard = 0; heard != sent;)
        if (hear(one, &heard, sizeof(heard), timeout_ms) < 0)
            return -1;
    return driver_now_ms() - began_ms;
}

/* The shortest of several: a busy machine makes one or the other late. */
static int64_t shortest_ping(int one, int two)
{
    int64_t shortest = -1;
    for (int i = 0; i < 20; i++) {
        int64_t ms = ping(one, two, SOON_MS);
        if (shortest < 0 || ms < shortest)
            shortest = ms;
    }
    return shortest;
}

static void test_packets_of_every_size_arrive_whole_between_any_two(void)
{
    static const size_t sizes[] = {0, 1, 28, 1471, 1472, 1473, 9000, BYTES};
    static unsigned char sent[BYTES], heard[BYTES];
    uint64_t random = 1;
    open_all();
    for (int one = 0; one < HOSTS_N; one++)
        for (int two = 0; two < HOSTS_N; two++)
            for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && one != two; i++) {
                for (size_t k = 0; k < sizes[i]; k++)
                    sent[k] = (unsigned char)suite_random(&random);
                say(one, two, sent, sizes[i]);
                CU_ASSERT_EQUAL(hear(two, heard, sizeof(heard), SOON_MS), (ssize_t)sizes[i]);
                CU_ASSERT_EQUAL(memcmp(sent, heard, sizes[i]), 0);
            }
}

static void test_a_cut_is_between_two_only_and_ends(void)
{
    struct wire_counts counts;
    hosts_bend(&hosts, 1, 3, WIRE_CUT);
    CU_ASSERT_EQUAL(ping(1, 3, 300), -1);
    CU_ASSERT_EQUAL(ping(3, 1, 300), -1);
    wire_between_counts(hosts.wire, 3, 1, &counts);
    CU_ASSERT_EQUAL(counts.cut, 2);
    CU_ASSERT(ping(1, 2, SOON_MS) >= 0 && ping(2, 3, SOON_MS) >= 0 && ping(0, 3, SOON_MS) >= 0);
    hosts_bend(&hosts, 1, 3, WIRE_PASS);
    CU_ASSERT(ping(1, 3, SOON_MS) >= 0);
    wire_between_counts(hosts.wire, 3, 1, &counts);
    CU_ASSERT_EQUAL(counts.cut, 2);
}

static void test_a_delay_is_of_every_packet_between_two_and_ends(void)
{
    int64_t before_ms = shortest_ping(0, 4);
    hosts_bend(&hosts, 0, 4, WIRE_DELAY);
    for (int i = 0; i < 3; i++)
        CU_ASSERT(ping(i % 2 ? 4 : 0, i % 2 ? 0 : 4, SOON_MS) >= 2 * WIRE_DELAY_MS);
    int64_t other_ms = shortest_ping(0, 3);
    for (uint64_t i = 0; i < 50; i++) /* in order, and none is lost */
        say(0, 4, &i, sizeof(i));
    for (uint64_t i = 0, heard; i < 50; i++)
        CU_ASSERT(hear(4, &heard, sizeof(heard), SOON_MS) == sizeof(heard) && heard == i);
    hosts_bend(&hosts, 0, 4, WIRE_PASS);
    int64_t after_ms = shortest_ping(0, 4);
    printf("  there and back: %lld ms before, %lld ms after, %lld ms beside it\n",
           (long long)before_ms, (long long)after_ms, (long long)other_ms);
    CU_ASSERT(before_ms < WIRE_DELAY_MS && after_ms < WIRE_DELAY_MS && other_ms < WIRE_DELAY_MS);
}

/* Sends numbered packets and marks those that arrive; how many did not. */
static int lose(int one, int two, unsigned char *arrived)
{
    int n = 0;
    memset(arrived, 0, N_LOSSY);
    for (int i = 0; i < N_LOSSY; i += 20) {
        for (int k = i; k < i + 20; k++)
            say(one, two, &k, sizeof(k));
        for (int k; hear(two, &k, sizeof(k), 2) == sizeof(k); n++)
            arrived[k] = 1;
    }
    for (int k; hear(two, &k, sizeof(k), 1000) == sizeof(k); n++)
        arrived[k] = 1;
    return N_LOSSY - n;
}

static void test_loss_is_what_it_says_and_by_the_seed(void)
{
    static unsigned char first[N_LOSSY], again[N_LOSSY];
    for (int i = 0; i < 2; i++) {
        struct wire_counts counts;
        close_all();
        open_all();
        CU_ASSERT(shortest_ping(2, 3) >= 0);
        hosts_bend(&hosts, 2, 3, WIRE_LOSE);
        int n_lost = lose(2, 3, i ? again : first);
        hosts_bend(&hosts, 2, 3, WIRE_PASS);
        wire_between_counts(hosts.wire, 2, 3, &counts);
        printf("  %d of %d lost\n", n_lost, N_LOSSY);
        CU_ASSERT_EQUAL(n_lost, (int)counts.lost);
        CU_ASSERT(n_lost > N_LOSSY * 35 / 1000 && n_lost < N_LOSSY * 65 / 1000);
        CU_ASSERT(ping(2, 3, SOON_MS) >= 0);
    }
    CU_ASSERT_EQUAL(memcmp(first, again, N_LOSSY), 0);
}

/* A stream of bytes from one host to another, while the network between them is as told. */
static void stream(enum wire_verdict verdict, size_t size, const char *what)
{
    static unsigned char bytes[STREAM_BYTES], heard[STREAM_BYTES];
    struct sockaddr_in there = address_of(2);
    size_t n_sent = 0, n_heard = 0;
    uint64_t random = 2;
    struct wire_counts before, after;
    int listening = bound_at(2, SOCK_STREAM), client = socket_at(1, SOCK_STREAM);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)suite_random(&random);
    CU_ASSERT_FATAL(listen(listening, 1) == 0);
    CU_ASSERT_FATAL(connect(client, (struct sockaddr *)&there, sizeof(there)) == 0);
    int server = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    int64_t began_ms = driver_now_ms();
    wire_between_counts(hosts.wire, 1, 2, &before);
    hosts_bend(&hosts, 1, 2, verdict);
    while (n_heard < size) {
        struct pollfd fds[] = {
            {.fd = client, .events = n_sent < size ? POLLOUT : 0},
            {.fd = server, .events = POLLIN},
        };
        if (poll(fds, 2, 60000) < 1)
            break;
        ssize_t n = 0;
        if (fds[0].revents & POLLOUT)
            n = send(client, bytes + n_sent, size - n_sent, MSG_DONTWAIT);
        n_sent += n > 0 ? (size_t)n : 0;
        n = recv(server, heard + n_heard, size - n_heard, MSG_DONTWAIT);
        n_heard += n > 0 ? (size_t)n : 0;
    }
    hosts_bend(&hosts, 1, 2, WIRE_PASS);
    int64_t took_ms = driver_now_ms() - began_ms;
    wire_between_counts(hosts.wire, 1, 2, &after);
    printf("  %s: %.1f MB/s, %d packets lost, %d late\n", what,
           (double)size / 1e3 / (double)(took_ms + 1), (int)(after.lost - before.lost),
           (int)(after.delayed - before.delayed));
    const uint64_t n_packets = size / WIRE_MTU; /* at least, and most of them full */
    CU_ASSERT_EQUAL(after.lost - before.lost > n_packets / 50, verdict == WIRE_LOSE);
    CU_ASSERT_EQUAL(after.delayed - before.delayed > n_packets / 2, verdict == WIRE_DELAY);
    CU_ASSERT_EQUAL(n_heard, size);
    CU_ASSERT_EQUAL(memcmp(bytes, heard, size), 0);
    close(client);
    close(server);
    close(listening);
}

static void test_streams_come_through_whatever_the_network_does(void)
{
    stream(WIRE_PASS, STREAM_BYTES, "as it is");
    stream(WIRE_LOSE, STREAM_BYTES, "5 % lost");
    stream(WIRE_DELAY, STREAM_BYTES / 16, "200 ms late");
}

/* A test that is killed cannot remove anything: its devices go by themselves, and the next test
 * removes its namespaces. */
static void test_nothing_is_left_of_a_killed_test(void)
{
    struct hosts killed, next;
    int ready[2];
    char byte;
    close_all();
    CU_ASSERT_FATAL(pipe2(ready, O_CLOEXEC) == 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        if (!hosts_open(&killed) || !killed.wire || write(ready[1], "", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    CU_ASSERT_FATAL(read(ready[0], &byte, 1) == 1);
    close(ready[0]);
    snprintf(killed.net, sizeof(killed.net), HOSTS_PREFIX "%d", (int)child);
    CU_ASSERT_EQUAL(hosts_shell("ip -n %sb link show eth0 >/dev/null", killed.net), 0);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    int64_t until = driver_now_ms() + SOON_MS;
    while (hosts_shell("ip -n %sb link show eth0 >/dev/null 2>&1", killed.net) == 0 &&
           driver_now_ms() < until)
        driver_nap(20);
    CU_ASSERT(driver_now_ms() < until);
    CU_ASSERT_EQUAL(hosts_shell("ls /run/netns | grep -c '^%s.$' | grep -q 5", killed.net), 0);
    CU_ASSERT(hosts_open(&next));
    CU_ASSERT_NOT_EQUAL(hosts_shell("ls /run/netns | grep '^%s'", killed.net), 0);
    CU_ASSERT_EQUAL(hosts_shell("ls /run/netns | grep -c '^%s.$' | grep -q 5", next.net), 0);
    hosts_close(&next);
    CU_ASSERT_NOT_EQUAL(hosts_shell("ls /run/netns | grep '^%s'", next.net), 0);
}

int main(int argc, char **argv)
{
    static const struct suite_test tests[] = {
        T(test_packets_of_every_size_arrive_whole_between_any_two),
        T(test_a_cut_is_between_two_only_and_ends),
        T(test_a_delay_is_of_every_packet_between_two_and_ends),
        T(test_loss_is_what_it_says_and_by_the_seed),
        T(test_streams_come_through_whatever_the_network_does),
        T(test_nothing_is_left_of_a_killed_test),
    };
    setvbuf(stdout, NULL, _IOLBF, 0);
    here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    bool stand = here >= 0 && hosts_open(&hosts) && hosts.wire;
    hosts_close(&hosts);
    if (!stand) {
        printf("network namespaces or tun devices cannot be made here\n");
        return 77;
    }
    int failed = suite_run("cluster_e2e.wire", tests, sizeof(tests) / sizeof(tests[0]),
                           argc > 1 ? argv[1] : NULL);
    hosts_close(&hosts);
    close(here);
    return failed;
}
