/* Workspaces grow, never shrink, are aligned, and stay as they were when there is no memory. */
#include "cluster/status.h"
#include "model/workspace.h"
#include "tests/suite.h"

static void test_a_workspace_grows_and_is_aligned(void)
{
    void *workspace = NULL;
    size_t size_bytes = 0;
    static const size_t wanted[] = {1, 1000, 100, 3 << 20, 5 << 20, 100};
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        void *before = workspace;
        size_t size_before = size_bytes;
        CU_ASSERT_EQUAL(mdl_workspace_grow(&workspace, &size_bytes, wanted[i]), CLU_OK);
        CU_ASSERT(size_bytes >= wanted[i] && size_bytes >= size_before);
        CU_ASSERT_EQUAL((uintptr_t)workspace % 64, 0);
        if (wanted[i] <= size_before)
            CU_ASSERT_PTR_EQUAL(workspace, before);
        memset(workspace, 1, size_bytes);
    }
    free(workspace);
}

static void test_without_memory_the_old_workspace_stays(void)
{
#ifdef __SANITIZE_THREAD__ /* its allocator ends the process instead of saying no */
    puts("    not under the thread sanitizer");
    return;
#endif
    void *workspace = NULL;
    size_t size_bytes = 0;
    CU_ASSERT_EQUAL_FATAL(mdl_workspace_grow(&workspace, &size_bytes, 64), CLU_OK);
    void *before = workspace;
    size_t size_before = size_bytes;
    CU_ASSERT_EQUAL(mdl_workspace_grow(&workspace, &size_bytes, SIZE_MAX / 4), CLU_E_NO_MEMORY);
    CU_ASSERT_PTR_EQUAL(workspace, before);
    CU_ASSERT_EQUAL(size_bytes, size_before);
    free(workspace);
}

SUITE("model.workspace", T(test_a_workspace_grows_and_is_aligned),
      T(test_without_memory_the_old_workspace_stays))
