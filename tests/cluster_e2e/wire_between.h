/* A network between network namespaces, in user space: what the kernel's netem would do, on any
 * kernel that has tun devices.
 *
 *     namespace 0: eth0 10.77.0.1 --.
 *     namespace 1: eth0 10.77.0.2 --+-- a process that reads every packet, looks at the verdict on
 *     namespace 2: eth0 10.77.0.3 -'    its two ends, and hands it on now, later, or not at all
 *
 * eth0 is a tun device whose other end that process holds: the devices are gone when it is, and it
 * ends with the test. Packets are IPv4, whole (no segmentation offload), at most WIRE_MTU bytes.
 * Whatever else a kernel sends (IPv6, multicast) is dropped.
 *
 * Threads: one owner. Cost: two system calls a packet; some 100 MB/s.
 */
#ifndef TESTS_CLUSTER_E2E_WIRE_BETWEEN_H
#define TESTS_CLUSTER_E2E_WIRE_BETWEEN_H

#include <stdint.h>

enum { WIRE_MAX = 8, WIRE_MTU = 1500, WIRE_DELAY_MS = 200, WIRE_LOSS_PERCENT = 5 };

enum wire_verdict {
    WIRE_PASS,
    WIRE_CUT,   /* nothing arrives, and nobody is told */
    WIRE_DELAY, /* every packet arrives WIRE_DELAY_MS late, either way */
    WIRE_LOSE   /* of a hundred packets WIRE_LOSS_PERCENT do not arrive, either way; by the seed */
};

struct wire_counts { /* packets between two namespaces, both ways */
    uint64_t passed, cut, delayed, lost;
};

struct wire_between;

/* Joins n namespaces, which `ip netns` knows by these names and which have no eth0 yet; the i-th
 * gets 10.77.0.(i + 1). NULL where tun devices cannot be made: not root, or no /dev/net/tun. */
struct wire_between *wire_between_open(const char *const *namespaces, int n, uint64_t seed);
void wire_between_close(struct wire_between *wire);

/* What happens from now on to packets between two of them. */
void wire_between_set(struct wire_between *wire, int one, int two, enum wire_verdict verdict);

void wire_between_counts(const struct wire_between *wire, int one, int two,
                         struct wire_counts *counts_p);

#endif
