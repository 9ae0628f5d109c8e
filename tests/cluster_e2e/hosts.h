/* Several hosts on this machine: each a network namespace with an address of its own, joined by a
 * bridge; mpirun reaches them through a launch agent, as it would over ssh.
 *
 *     NETm 10.77.0.1  sched, mpirun --.
 *     NETa 10.77.0.2  ps 0, worker 0 --+-- bridge (NETr)
 *     NETb 10.77.0.3  ps 1, worker 1 -'
 *
 * It needs root and iproute2. Two hosts are cut from each other by teaching them a wrong hardware
 * address: frames leave and nobody takes them, as with a dead cable; no program sees an error.
 */
#ifndef TESTS_CLUSTER_E2E_HOSTS_H
#define TESTS_CLUSTER_E2E_HOSTS_H

#include "tests/cluster_e2e/driver.h"

#include <stdarg.h>

enum { HOSTS_N = 3 };

static const char hosts_letters[] = "mab";

struct hosts {
    char net[16];
};

static inline int hosts_shell(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Runs a shell's command; its exit code. */
static inline int hosts_shell(const char *format, ...)
{
    char command[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof(command), format, args);
    va_end(args);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static inline void hosts_close(const struct hosts *h)
{
    for (const char *c = "rmab"; *c; c++)
        hosts_shell("ip netns del %s%c 2>/dev/null", h->net, *c);
}

/* True when the three hosts stand; hosts_close in any case. */
static inline bool hosts_open(struct hosts *h)
{
    snprintf(h->net, sizeof(h->net), "sl%d", (int)getpid() % 1000000);
    const char *net = h->net;
    if (geteuid() != 0 || hosts_shell("ip netns add %sr 2>/dev/null", net) ||
        hosts_shell("ip -n %sr link add br0 type bridge && ip -n %sr link set br0 up", net, net))
        return false;
    for (int i = 0; i < HOSTS_N; i++) {
        char c = hosts_letters[i];
        if (hosts_shell("ip netns add %s%c && "
                        "ip -n %s%c link add eth0 type veth peer name v%c netns %sr",
                        net, c, net, c, c, net) ||
            hosts_shell("ip -n %sr link set v%c master br0 && ip -n %sr link set v%c up", net, c,
                        net, c) ||
            hosts_shell("ip -n %s%c addr add 10.77.0.%d/24 dev eth0 && "
                        "ip -n %s%c link set eth0 up && ip -n %s%c link set lo up",
                        net, c, i + 1, net, c, net, c))
            return false;
    }
    return true;
}

/* A job's file of hosts and launch agent, beside its job file. */
static inline int hosts_prepare(const struct hosts *h, const struct driver *d)
{
    char path[700];
    snprintf(path, sizeof(path), "%s/agent", d->folder);
    FILE *file = fopen(path, "w");
    if (!file)
        return -1;
    fputs("#!/bin/sh\nhost=$1\nshift\nexec ip netns exec $host sh -c \"$*\"\n", file);
    fclose(file);
    chmod(path, 0755);
    setenv("OMPI_MCA_plm_rsh_agent", path, 1);
    snprintf(path, sizeof(path), "%s/hosts", d->folder);
    file = fopen(path, "w");
    if (!file)
        return -1;
    fprintf(file, "%sa slots=1\n%sb slots=1\n", h->net, h->net);
    return fclose(file);
}

/* `ip netns exec HOST PROGRAM train ...`: the driver starts a script that does. */
static inline int hosts_start(const struct hosts *h, struct driver *d, const char *program)
{
    char path[700], hosts[700];
    char *extra[] = {"--hostfile", hosts, NULL};
    snprintf(path, sizeof(path), "%s/train", d->folder);
    snprintf(hosts, sizeof(hosts), "%s/hosts", d->folder);
    FILE *file = fopen(path, "w");
    if (!file)
        return -1;
    fprintf(file, "#!/bin/sh\nexec ip netns exec %sm '%s' \"$@\"\n", h->net, program);
    fclose(file);
    chmod(path, 0755);
    return driver_start(d, path, extra);
}

/* Cuts the hosts numbered one and two from each other, or joins them again. */
static inline int hosts_cut(const struct hosts *h, int one, int two, bool cut)
{
    int failed = 0;
    for (int i = 0; i < 2; i++) {
        char from = hosts_letters[i ? two : one];
        int to = (i ? one : two) + 1;
        if (cut)
            failed |= hosts_shell("ip -n %s%c neigh replace 10.77.0.%d lladdr 02:00:00:00:00:99 "
                                  "nud permanent dev eth0",
                                  h->net, from, to);
        else
            failed |= hosts_shell("ip -n %s%c neigh del 10.77.0.%d dev eth0", h->net, from, to);
    }
    return failed;
}

/* How everything that one host sends travels from now on: netem's words ("delay 200ms"), NULL for
 * as ever. Not 0 where the kernel has no netem. */
static inline int hosts_bend(const struct hosts *h, int one, const char *netem)
{
    if (!netem)
        return hosts_shell("ip netns exec %s%c tc qdisc del dev eth0 root 2>/dev/null", h->net,
                           hosts_letters[one]);
    return hosts_shell("ip netns exec %s%c tc qdisc add dev eth0 root netem %s 2>/dev/null", h->net,
                       hosts_letters[one], netem);
}

#endif
