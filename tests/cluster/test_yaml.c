#include "tests/suite.h"

#include "cluster/status.h"
#include "cluster/yaml.h"

static int parse(const char *text, struct clu_yaml **document_p)
{
    return clu_yaml_parse("test.yaml", text, strlen(text), document_p);
}

static void test_nodes_know_their_kind_text_and_line(void)
{
    struct clu_yaml *file;
    CU_ASSERT_EQUAL_FATAL(parse("# head\nname: x\nlist:\n  - 1\n  - two\n", &file), CLU_OK);
    const struct clu_yaml_node *root = clu_yaml_root(file);
    CU_ASSERT(clu_yaml_kind(root) == CLU_YAML_MAP && clu_yaml_size(root) == 2);
    const struct clu_yaml_node *name = clu_yaml_find(file, root, "name");
    const struct clu_yaml_node *list = clu_yaml_find(file, root, "list");
    CU_ASSERT_FATAL(name && list);
    CU_ASSERT(!strcmp(clu_yaml_text(name), "x") && clu_yaml_line(name) == 2);
    CU_ASSERT(clu_yaml_kind(list) == CLU_YAML_LIST && clu_yaml_size(list) == 2);
    CU_ASSERT_EQUAL(clu_yaml_line(clu_yaml_item(file, list, 1)), 5);
    CU_ASSERT_STRING_EQUAL(clu_yaml_key(file, root, 1), "list");
    CU_ASSERT_STRING_EQUAL(clu_yaml_text(list), "");
    CU_ASSERT_PTR_NULL(clu_yaml_find(file, root, "nothing"));
    clu_yaml_free(file);
}

static void test_an_empty_text_is_an_empty_map(void)
{
    static const char *const empty[] = {"", "\n", "# only a comment\n"};
    for (int i = 0; i < 3; i++) {
        struct clu_yaml *file;
        CU_ASSERT_EQUAL_FATAL(parse(empty[i], &file), CLU_OK);
        CU_ASSERT(clu_yaml_kind(clu_yaml_root(file)) == CLU_YAML_MAP);
        CU_ASSERT_EQUAL(clu_yaml_size(clu_yaml_root(file)), 0);
        clu_yaml_free(file);
    }
}

static void test_what_is_not_one_clean_document_is_refused(void)
{
    static const char *const bad[] = {
        "a: 1\na: 2\n",      "a: [1\n",      "a: 1\n b: 2\n", "{a: 1\n",
        "a: 1\n---\nb: 2\n", "? [x]\n: 1\n", "a: *none\n",    "\x01"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct clu_yaml *file = NULL;
        CU_ASSERT_EQUAL(parse(bad[i], &file), CLU_E_CONFIG);
        CU_ASSERT_PTR_NULL(file);
    }
}

static void test_a_document_cut_at_any_byte_does_no_harm(void)
{
    static const char text[] = "a: {b: [1, 2, \"x\\n\"]}\nc: &r\n  - d: |\n      long\n  - *r\n";
    for (size_t size = 0; size < sizeof(text); size++) {
        struct clu_yaml *file;
        if (clu_yaml_parse("cut", text, size, &file) == CLU_OK)
            clu_yaml_free(file);
    }
    CU_PASS("no sanitizer spoke");
}

SUITE("cluster.yaml", T(test_nodes_know_their_kind_text_and_line),
      T(test_an_empty_text_is_an_empty_map), T(test_what_is_not_one_clean_document_is_refused),
      T(test_a_document_cut_at_any_byte_does_no_harm))
