#include "tests/suite.h"

#include "cluster/status.h"

#include <errno.h>

static void test_only_success_exits_with_zero(void)
{
    CU_ASSERT_EQUAL(clu_status_exit_code(CLU_OK), 0);
    for (int status = -1; status > -CLU_ORDINAL_END; status--) {
        CU_ASSERT(clu_status_exit_code(status) >= 64 && clu_status_exit_code(status) <= 78);
        CU_ASSERT(strlen(clu_status_name(status)) > 0);
        CU_ASSERT(strlen(clu_status_text(status)) > 0);
    }
}

static void test_a_number_outside_the_list_is_a_bug(void)
{
    static const int outside[] = {1, -CLU_ORDINAL_END, -9999};
    for (size_t i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(clu_status_exit_code(outside[i]), 70);
        CU_ASSERT_STRING_EQUAL(clu_status_name(outside[i]), "UNKNOWN");
    }
}

static void test_wire_numbers_never_change(void)
{
    CU_ASSERT_EQUAL(CLU_E_USAGE, -1);
    CU_ASSERT_EQUAL(CLU_E_UNAVAILABLE, -5);
    CU_ASSERT_EQUAL(CLU_E_TIMEOUT, -6);
    CU_ASSERT_EQUAL(CLU_E_CONFIG, -17);
    CU_ASSERT_EQUAL(clu_status_exit_code(CLU_E_CONFIG), 78);
}

static void test_errno_is_translated(void)
{
    CU_ASSERT_EQUAL(clu_status_from_errno(ENOSPC), CLU_E_FULL);
    CU_ASSERT_EQUAL(clu_status_from_errno(ENOENT), CLU_E_NOT_FOUND);
    CU_ASSERT_EQUAL(clu_status_from_errno(ENOMEM), CLU_E_NO_MEMORY);
    CU_ASSERT_EQUAL(clu_status_from_errno(EXDEV), CLU_E_IO);
}

SUITE("cluster.status", T(test_only_success_exits_with_zero),
      T(test_a_number_outside_the_list_is_a_bug), T(test_wire_numbers_never_change),
      T(test_errno_is_translated))
