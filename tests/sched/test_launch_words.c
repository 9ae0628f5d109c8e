/* What Open MPI's launcher writes when it cannot start a role, as recorded from Open MPI 4.1. */
#include "sched/launch_words.h"

#include "tests/suite.h"

#define LINE "--------------------------------------------------------------------------"

static char text[512];

/* Hears lines, NULL at the end; what follows from them. */
static bool hear(const char *const *lines, const char *hosts)
{
    struct schd_launch_words words = {0};
    text[0] = '\0';
    for (; *lines; lines++)
        schd_launch_words_hear(&words, *lines);
    return schd_launch_words_describe(&words, hosts, text, sizeof(text));
}

static void test_the_host_that_ssh_named_is_told_with_its_words(void)
{
    const char *const lines[] = {
        "ssh: Could not resolve hostname nod-2: Name or service not known",
        "[vm:16703] plm:rsh: Warning: setpgid(16709,16709) failed in parent",
        LINE,
        "ORTE was unable to reliably start one or more daemons.",
        "This usually is caused by:",
        "",
        "* not finding the required libraries and/or binaries on",
        LINE,
        LINE,
        "ORTE does not know how to route a message to the specified daemon",
        "  my node:   vm",
        "  target node:  nod-22",
        LINE,
        NULL};
    CU_ASSERT(hear(lines, "nod nod-1 nod-2 nod-22 nod-2.far"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "could not start its daemon on nod-2 (ssh: Could not "
                                        "resolve hostname nod-2: Name or service not known): "));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "Open MPI is installed there"));
}

static void test_a_silent_agent_leaves_all_hosts(void)
{
    const char *const lines[] = {LINE, "ORTE was unable to reliably start one or more daemons.",
                                 LINE, NULL};
    CU_ASSERT(hear(lines, "one two one"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "daemon on one of one, two: check"));
    char hosts[20000] = "";
    for (int i = 0; i < 2000; i++)
        snprintf(hosts + strlen(hosts), sizeof(hosts) - strlen(hosts), "host%04d ", i);
    CU_ASSERT(hear(lines, hosts));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "host0000, host0001"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, " and others: check the name"));
}

static void test_an_agent_that_is_not_there_is_told(void)
{
    const char *const lines[] = {
        LINE,
        "The value of the MCA parameter \"plm_rsh_agent\" was set to a path",
        "that could not be found:",
        "",
        "  plm_rsh_agent: /opt/none",
        "",
        "Please either unset the parameter, or check that the path is correct",
        LINE,
        NULL};
    CU_ASSERT(hear(lines, "one"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "is not on this machine: /opt/none: "));
}

static void test_a_program_that_is_not_on_a_host_is_told_with_the_host(void)
{
    const char *const lines[] = {
        LINE,
        "mpirun was unable to launch the specified application as it could not access",
        "or execute an executable:",
        "",
        "Executable: /opt/sluice",
        "Node: two",
        "",
        "while attempting to start process rank 1.",
        LINE,
        NULL};
    CU_ASSERT(hear(lines, "one two"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "/opt/sluice is not on two, or may not be executed"));
}

static void test_a_launcher_that_started_everything_is_no_fault(void)
{
    const char *const lines[] = {
        "2026-11-28T01:36:58.459Z error worker 1: unable to reliably start one or more daemons",
        "{\"level\":\"error\",\"text\":\"Executable: x\"}",
        LINE,
        "mpirun noticed that process rank 1 with PID 0 on node x exited on signal 9 (Killed).",
        LINE,
        NULL};
    CU_ASSERT_FALSE(hear(lines, "one two"));
}

SUITE("sched.launch_words", T(test_the_host_that_ssh_named_is_told_with_its_words),
      T(test_a_silent_agent_leaves_all_hosts), T(test_an_agent_that_is_not_there_is_told),
      T(test_a_program_that_is_not_on_a_host_is_told_with_the_host),
      T(test_a_launcher_that_started_everything_is_no_fault))
