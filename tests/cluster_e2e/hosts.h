/* Several hosts on this machine, one a role: each a network namespace with an address of its own;
 * mpirun reaches them through a launch agent, as it would over ssh.
 *
 *     NETm 10.77.0.1  sluice train, sched, mpirun --.
 *     NETp 10.77.0.2  ps 0                        --+
 *     NETq 10.77.0.3  ps 1                        --+-- the network (wire_between.h)
 *     NETa 10.77.0.4  worker 0                    --+
 *     NETb 10.77.0.5  worker 1                    --'
 *
 * It needs root and iproute2. Where there are namespaces and no tun devices, a bridge joins them,
 * and of what a network does wrong only cuts can be had: two hosts are taught a wrong hardware
 * address of each other, so that frames leave and nobody takes them.
 */
#ifndef TESTS_CLUSTER_E2E_HOSTS_H
#define TESTS_CLUSTER_E2E_HOSTS_H

#include "tests/cluster_e2e/driver.h"
#include "tests/cluster_e2e/wire_between.h"

#include <stdarg.h>

enum { HOSTS_N = 5 };

#define HOSTS_PREFIX "sluice" /* then the test's pid, then a letter */

static const char hosts_letters[] = "mpqab";
static const char *const hosts_roles[] = {"sched", "ps0", "ps1", "worker0", "worker1"};

struct hosts {
    char net[32];
    struct wire_between *wire; /* NULL: joined by a bridge, in the namespace NETr */
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

static inline void hosts_close(struct hosts *h)
{
    wire_between_close(h->wire);
    h->wire = NULL;
    for (const char *c = "rmpqab"; *c; c++)
        hosts_shell("[ ! -e /run/netns/%s%c ] || ip netns del %s%c", h->net, *c, h->net, *c);
}

/* Removes the namespaces of tests that were killed. */
static inline void hosts_sweep(void)
{
    DIR *dir = opendir("/run/netns");
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        int pid, at = 0;
        char letter;
        if (sscanf(entry->d_name, HOSTS_PREFIX "%d%c%n", &pid, &letter, &at) == 2 &&
            entry->d_name[at] == '\0' && kill((pid_t)pid, 0) && errno == ESRCH)
            hosts_shell("ip netns del %s", entry->d_name);
    }
    if (dir)
        closedir(dir);
}

/* Without tun devices. */
static inline bool hosts_bridge(const struct hosts *h)
{
    const char *net = h->net;
    if (hosts_shell("ip netns add %sr && ip -n %sr link add br0 type bridge && "
                    "ip -n %sr link set br0 up",
                    net, net, net))
        return false;
    for (int i = 0; i < HOSTS_N; i++) {
        char c = hosts_letters[i];
        if (hosts_shell("ip -n %s%c link add eth0 type veth peer name v%c netns %sr", net, c, c,
                        net) ||
            hosts_shell("ip -n %sr link set v%c master br0 && ip -n %sr link set v%c up", net, c,
                        net, c) ||
            hosts_shell("ip -n %s%c addr add 10.77.0.%d/24 dev eth0 && "
                        "ip -n %s%c link set eth0 up && ip -n %s%c link set lo up",
                        net, c, i + 1, net, c, net, c))
            return false;
    }
    return true;
}

/* True when the hosts stand; hosts_close in any case. */
static inline bool hosts_open(struct hosts *h)
{
    char names[HOSTS_N][48];
    const char *pointers[HOSTS_N];
    h->wire = NULL;
    snprintf(h->net, sizeof(h->net), HOSTS_PREFIX "%d", (int)getpid());
    if (geteuid() != 0)
        return false;
    hosts_sweep();
    for (int i = 0; i < HOSTS_N; i++) {
        snprintf(names[i], sizeof(names[i]), "%s%c", h->net, hosts_letters[i]);
        pointers[i] = names[i];
        if (hosts_shell("ip netns add %s 2>/dev/null", names[i]))
            return false;
    }
    h->wire = wire_between_open(pointers, HOSTS_N, 7);
    if (h->wire)
        return true;
    printf("tun devices cannot be made here: a bridge joins the hosts, and cuts stand for delay "
           "and loss\n");
    return hosts_bridge(h);
}

/* A job's file of hosts and launch agent, beside its job file. Servers take the hosts in turn,
 * ranks those that have a slot. */
static inline int hosts_prepare(const struct hosts *h, const struct driver *d)
{
    char path[700];
    snprintf(path, sizeof(path), "%s/agent", d->folder);
    FILE *file = fopen(path, "w");
    if (!file)
        return -1;
    fputs("#!/bin/sh\nhost=$1\nshift\nexport TMPDIR=\"$(dirname \"$0\")/tmp-$host\"\n"
          "mkdir -p \"$TMPDIR\"\nexec ip netns exec $host sh -c \"$*\"\n",
          file);
    fclose(file);
    chmod(path, 0755);
    setenv("OMPI_MCA_plm_rsh_agent", path, 1);
    snprintf(path, sizeof(path), "%s/hosts", d->folder);
    file = fopen(path, "w");
    if (!file)
        return -1;
    for (int i = 1; i < HOSTS_N; i++)
        fprintf(file, "%s%c slots=%d\n", h->net, hosts_letters[i], i > 2);
    return fclose(file);
}

/* `ip netns exec HOST PROGRAM train ...`: the driver starts a script that does. Temporary files go
 * to FOLDER/tmp, where driver_remains looks; those of the other hosts to FOLDER/tmp-HOST. There
 * Open MPI's daemon removes them when it loses mpirun; here it cannot: the supervisor, an ancestor
 * of it as of everything on one machine, kills it with all strays. */
static inline int hosts_start(const struct hosts *h, struct driver *d, const char *program)
{
    char path[700], hosts[700];
    char *extra[] = {"--hostfile", hosts, NULL};
    snprintf(path, sizeof(path), "%s/tmp", d->folder);
    if (mkdir(path, 0700) && errno != EEXIST)
        return -1;
    snprintf(path, sizeof(path), "%s/train", d->folder);
    snprintf(hosts, sizeof(hosts), "%s/hosts", d->folder);
    FILE *file = fopen(path, "w");
    if (!file)
        return -1;
    fprintf(file, "#!/bin/sh\nTMPDIR='%s/tmp' exec ip netns exec %sm '%s' \"$@\"\n", d->folder,
            h->net, program);
    fclose(file);
    chmod(path, 0755);
    return driver_start(d, path, extra);
}

/* A wrong hardware address, on the host numbered one, of the other; or none. */
static inline int hosts_mislead(const struct hosts *h, int one, int other, bool wrong)
{
    char c = hosts_letters[one];
    if (!wrong)
        return hosts_shell("ip -n %s%c neigh del 10.77.0.%d dev eth0 2>/dev/null || true", h->net,
                           c, other + 1);
    return hosts_shell("ip -n %s%c neigh replace 10.77.0.%d lladdr 02:00:00:00:00:99 "
                       "nud permanent dev eth0",
                       h->net, c, other + 1);
}

/* How packets between two hosts travel from now on. Not 0 where that cannot be had. */
static inline int hosts_bend(const struct hosts *h, int one, int two, enum wire_verdict verdict)
{
    if (h->wire) {
        wire_between_set(h->wire, one, two, verdict);
        return 0;
    }
    if (verdict != WIRE_PASS && verdict != WIRE_CUT)
        return -1;
    return hosts_mislead(h, one, two, verdict == WIRE_CUT) |
           hosts_mislead(h, two, one, verdict == WIRE_CUT);
}

/* The same, between one host and all others. */
static inline int hosts_bend_all(const struct hosts *h, int one, enum wire_verdict verdict)
{
    int failed = 0;
    for (int i = 0; i < HOSTS_N; i++)
        if (i != one)
            failed |= hosts_bend(h, one, i, verdict);
    return failed;
}

#endif
