/* The process between the namespaces. It belongs to none of them: it enters each once, to open the
 * tun device there, and a descriptor works wherever it was opened.
 *
 * Verdicts and counts are in memory shared with the test, so that a verdict holds from the next
 * packet on and nobody is asked. Since every delay is the same, packets that wait are a queue in
 * order of arrival. It ends when the test's end of a pipe does, however the test ended.
 */
#include "tests/cluster_e2e/wire_between.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_WAITING = 65536, BURST = 64, IPV4_HEADER_BYTES = 20 };

struct pair { /* [one][two] with one < two */
    _Atomic int verdict;
    _Atomic uint64_t passed, cut, delayed, lost;
};

struct shared {
    struct pair pairs[WIRE_MAX][WIRE_MAX];
};

struct wire_between {
    struct shared *shared;
    pid_t pid;
    int alive_fd; /* our end of the pipe */
};

struct packet {
    struct packet *next;
    int64_t due_ns;
    int to;
    size_t size;
    unsigned char bytes[];
};

struct forwarder {
    struct shared *shared;
    int n;
    struct pollfd fds[WIRE_MAX + 1]; /* the tuns, then the test's pipe */
    struct packet *first, **end;     /* those that wait */
    int n_waiting;
    uint64_t random;
};

static struct pair *pair_of(struct shared *shared, int one, int two)
{
    return one < two ? &shared->pairs[one][two] : &shared->pairs[two][one];
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* splitmix64 */
static uint64_t draw(uint64_t *state)
{
    uint64_t x = (*state += 0x9e3779b97f4a7c15u);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Enters a namespace and opens a tun device named eth0 there; -1. */
static int open_tun(const char *namespace)
{
    char path[256];
    struct ifreq request = {.ifr_name = "eth0", .ifr_flags = IFF_TUN | IFF_NO_PI};
    snprintf(path, sizeof(path), "/run/netns/%s", namespace);
    int net = open(path, O_RDONLY | O_CLOEXEC);
    if (net < 0 || setns(net, CLONE_NEWNET)) {
        if (net >= 0)
            close(net);
        return -1;
    }
    close(net);
    int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tun >= 0 && ioctl(tun, TUNSETIFF, &request) == 0)
        return tun;
    if (tun >= 0)
        close(tun);
    return -1;
}

/* A packet that the kernel does not take (the device is down) is lost, as on a cable. */
static void hand_on(const struct forwarder *f, int to, const void *bytes, size_t size)
{
    ssize_t written = write(f->fds[to].fd, bytes, size);
    (void)written;
}

static bool hold_back(struct forwarder *f, int to, const void *bytes, size_t size)
{
    struct packet *packet = f->n_waiting < MAX_WAITING ? malloc(sizeof(*packet) + size) : NULL;
    if (!packet)
        return false;
    packet->next = NULL;
    packet->due_ns = now_ns() + (int64_t)WIRE_DELAY_MS * 1000000;
    packet->to = to;
    packet->size = size;
    memcpy(packet->bytes, bytes, size);
    *f->end = packet;
    f->end = &packet->next;
    f->n_waiting++;
    return true;
}

static void judge(struct forwarder *f, int from, const unsigned char *bytes, size_t size)
{
    static const unsigned char network[] = {10, 77, 0};
    if (size < IPV4_HEADER_BYTES || bytes[0] >> 4 != 4 || memcmp(bytes + 16, network, 3) != 0)
        return;
    int to = bytes[19] - 1;
    if (to < 0 || to >= f->n || to == from)
        return;
    struct pair *pair = pair_of(f->shared, from, to);
    switch ((enum wire_verdict)pair->verdict) {
    case WIRE_CUT:
        pair->cut++;
        return;
    case WIRE_DELAY:
        if (hold_back(f, to, bytes, size))
            pair->delayed++;
        else
            pair->lost++;
        return;
    case WIRE_LOSE:
        if (draw(&f->random) % 100 < WIRE_LOSS_PERCENT) {
            pair->lost++;
            return;
        }
        break;
    case WIRE_PASS:
        break;
    }
    pair->passed++;
    hand_on(f, to, bytes, size);
}

/* Hands on what has waited long enough; how long until the next, in milliseconds rounded up; -1:
 * nothing waits. */
static int release(struct forwarder *f)
{
    while (f->first) {
        struct packet *packet = f->first;
        int64_t left_ns = packet->due_ns - now_ns();
        if (left_ns > 0)
            return (int)((left_ns + 999999) / 1000000);
        hand_on(f, packet->to, packet->bytes, packet->size);
        f->first = packet->next;
        if (!f->first)
            f->end = &f->first;
        f->n_waiting--;
        free(packet);
    }
    return -1;
}

static void forward(struct forwarder *f)
{
    unsigned char bytes[65536];
    for (;;) {
        int timeout_ms = release(f);
        if (poll(f->fds, (nfds_t)f->n + 1, timeout_ms) < 0 && errno != EINTR)
            return;
        if (f->fds[f->n].revents)
            return; /* the test has ended */
        for (int i = 0; i < f->n; i++) {
            ssize_t size;
            if (!(f->fds[i].revents & POLLIN))
                continue;
            for (int k = 0; k < BURST && (size = read(f->fds[i].fd, bytes, sizeof(bytes))) > 0; k++)
                judge(f, i, bytes, (size_t)size);
        }
    }
}

/* The child: says one byte when the devices are there, and forwards until the test ends. */
static void run(struct shared *shared, const char *const *namespaces, int n, uint64_t seed,
                int ready_fd, int alive_fd)
{
    struct forwarder f = {.shared = shared, .n = n, .random = seed};
    f.end = &f.first;
    signal(SIGINT, SIG_IGN); /* the terminal's: the test ends, then we */
    for (int i = 0; i < n; i++) {
        f.fds[i] = (struct pollfd){.fd = open_tun(namespaces[i]), .events = POLLIN};
        if (f.fds[i].fd < 0)
            _exit(1);
    }
    f.fds[n] = (struct pollfd){.fd = alive_fd, .events = POLLIN};
    setpriority(PRIO_PROCESS, 0, -10); /* a network does not wait for a core */
    if (write(ready_fd, "", 1) != 1)
        _exit(1);
    close(ready_fd);
    forward(&f);
    _exit(0);
}

static int set_up(const char *namespace, int i)
{
    char command[512];
    snprintf(command, sizeof(command),
             "ip -n %s addr add 10.77.0.%d/24 dev eth0 && "
             "ip -n %s link set eth0 mtu %d txqueuelen 2000 up && ip -n %s link set lo up",
             namespace, i + 1, namespace, WIRE_MTU, namespace);
    return system(command);
}

/* Starts the child and waits until the devices are there. */
static int start(struct wire_between *wire, const char *const *namespaces, int n, uint64_t seed)
{
    int ready[2], alive[2];
    char byte;
    if (pipe2(ready, O_CLOEXEC))
        return -1;
    if (pipe2(alive, O_CLOEXEC)) {
        close(ready[0]);
        close(ready[1]);
        return -1;
    }
    fflush(NULL);
    wire->pid = fork();
    if (wire->pid == 0) {
        close(ready[0]);
        close(alive[1]);
        run(wire->shared, namespaces, n, seed, ready[1], alive[0]);
    }
    close(ready[1]);
    close(alive[0]);
    wire->alive_fd = alive[1];
    ssize_t size = wire->pid > 0 ? read(ready[0], &byte, 1) : 0;
    close(ready[0]);
    return size == 1 ? 0 : -1;
}

struct wire_between *wire_between_open(const char *const *namespaces, int n, uint64_t seed)
{
    struct wire_between *wire = calloc(1, sizeof(*wire));
    if (!wire || n > WIRE_MAX) {
        free(wire);
        return NULL;
    }
    wire->pid = wire->alive_fd = -1;
    wire->shared = mmap(NULL, sizeof(*wire->shared), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int failed = wire->shared == MAP_FAILED || start(wire, namespaces, n, seed);
    for (int i = 0; i < n && !failed; i++)
        failed = set_up(namespaces[i], i);
    if (!failed)
        return wire;
    wire_between_close(wire);
    return NULL;
}

void wire_between_close(struct wire_between *wire)
{
    if (!wire)
        return;
    if (wire->alive_fd >= 0)
        close(wire->alive_fd);
    if (wire->pid > 0) {
        kill(wire->pid, SIGKILL); /* the devices go with it */
        waitpid(wire->pid, NULL, 0);
    }
    if (wire->shared != MAP_FAILED)
        munmap(wire->shared, sizeof(*wire->shared));
    free(wire);
}

void wire_between_set(struct wire_between *wire, int one, int two, enum wire_verdict verdict)
{
    pair_of(wire->shared, one, two)->verdict = verdict;
}

void wire_between_counts(const struct wire_between *wire, int one, int two,
                         struct wire_counts *counts_p)
{
    const struct pair *pair = pair_of(wire->shared, one, two);
    *counts_p = (struct wire_counts){
        .passed = pair->passed, .cut = pair->cut, .delayed = pair->delayed, .lost = pair->lost};
}
