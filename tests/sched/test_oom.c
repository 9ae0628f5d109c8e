/* Who killed it: on files that a test writes in place of the kernel's. */
#include "sched/oom.h"

#include "cluster/file.h"
#include "cluster/status.h"
#include "tests/suite.h"

#include <unistd.h>

static char folder[256], groups[300];

static void write_file(const char *name, const char *text)
{
    char path[600], *slash;
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    slash = strrchr(path, '/');
    *slash = '\0';
    CU_ASSERT_EQUAL_FATAL(clu_mkdirs(path), CLU_OK);
    *slash = '/';
    FILE *file = fopen(path, "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    fputs(text, file);
    fclose(file);
}

static void open_folder(void)
{
    snprintf(folder, sizeof(folder), "/tmp/sluice-test-oom-%d", (int)getpid());
    snprintf(groups, sizeof(groups), "%s/groups", folder);
    clu_remove_tree(folder);
}

static void test_a_kill_of_cgroup_2_is_told_once(void)
{
    struct schd_oom oom;
    open_folder();
    write_file("groups", "0::/user.slice/job\n");
    write_file("user.slice/job/memory.events", "low 0\nhigh 3\nmax 5\noom 2\noom_kill 2\n");
    schd_oom_open(&oom, groups, folder);
    CU_ASSERT_STRING_EQUAL(oom.cgroup, "/user.slice/job");
    CU_ASSERT_FALSE(schd_oom_killed(&oom)); /* the two were before our time */
    write_file("user.slice/job/memory.events", "low 0\nhigh 3\nmax 9\noom 3\noom_kill 2\n");
    CU_ASSERT_FALSE(schd_oom_killed(&oom)); /* an allocation was refused; nobody died of it */
    write_file("user.slice/job/memory.events", "low 0\noom 3\noom_kill 3\noom_group_kill 7\n");
    CU_ASSERT_TRUE(schd_oom_killed(&oom));
    CU_ASSERT_FALSE(schd_oom_killed(&oom));
    clu_remove_tree(folder);
}

static void test_cgroup_1_counts_where_it_has_the_memory(void)
{
    struct schd_oom oom;
    open_folder();
    write_file("groups", "9:name=systemd:/x\n4:cpu,memory:/pod/job\n1:memoryless:/y\n0::/\n");
    write_file("memory/pod/job/memory.oom_control", "oom_kill_disable 0\noom_kill 0\n");
    write_file("memory.events", "oom_kill 9\n");
    schd_oom_open(&oom, groups, folder);
    CU_ASSERT_STRING_EQUAL(oom.cgroup, "/pod/job");
    write_file("memory/pod/job/memory.oom_control", "oom_kill_disable 0\noom_kill 1\n");
    CU_ASSERT_TRUE(schd_oom_killed(&oom));
    clu_remove_tree(folder);
}

static void test_a_container_that_sees_only_its_own_cgroup(void)
{
    struct schd_oom oom;
    open_folder();
    write_file("groups", "4:memory:/kubepods/pod7/job\n");
    write_file("memory/memory.oom_control", "oom_kill 4\n");
    schd_oom_open(&oom, groups, folder);
    CU_ASSERT_FALSE(schd_oom_killed(&oom));
    write_file("memory/memory.oom_control", "oom_kill 5\n");
    CU_ASSERT_TRUE(schd_oom_killed(&oom));
    clu_remove_tree(folder);
}

static void test_nothing_is_claimed_where_nothing_can_be_read(void)
{
    struct schd_oom oom;
    open_folder();
    schd_oom_open(&oom, groups, folder); /* no such file at all */
    CU_ASSERT_FALSE(schd_oom_killed(&oom));
    write_file("groups", "garbage\n0::/\n");
    schd_oom_open(&oom, groups, folder);
    CU_ASSERT_FALSE(schd_oom_killed(&oom));
    write_file("memory.events", "oom_kill 1\n");
    schd_oom_open(&oom, groups, folder);
    clu_remove_tree(folder); /* it goes away: the count does not fall to nothing and rise again */
    CU_ASSERT_FALSE(schd_oom_killed(&oom));
    write_file("memory.events", "oom_kill 1\n");
    CU_ASSERT_FALSE(schd_oom_killed(&oom));
    clu_remove_tree(folder);
}

SUITE("sched.oom", T(test_a_kill_of_cgroup_2_is_told_once),
      T(test_cgroup_1_counts_where_it_has_the_memory),
      T(test_a_container_that_sees_only_its_own_cgroup),
      T(test_nothing_is_claimed_where_nothing_can_be_read))
