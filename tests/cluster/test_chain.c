/* Chains of snapshots: what can be restored, what is kept, and what the next one is. */
#include "cluster/chain.h"

#include "cluster/status.h"
#include "tests/suite.h"

enum { MAX_LINKS = 24 };

/* full 1 <- 2 <- 3, full 4 <- 5; checksums are 100 + step */
static void two_chains(struct clu_link links[5])
{
    for (uint64_t i = 0; i < 5; i++)
        links[i] = (struct clu_link){.step = i + 1, .checksum = 101 + i, .whole = true};
    for (uint64_t i = 0; i < 5; i++)
        if (i != 0 && i != 3) {
            links[i].base_step = i;
            links[i].base_checksum = 100 + i;
        }
}

static void test_a_chain_is_whole_only_if_every_link_is(void)
{
    struct clu_link links[5];
    two_chains(links);
    const size_t whole[] = {1, 2, 3, 1, 2};
    for (size_t i = 0; i < 5; i++)
        CU_ASSERT_EQUAL(clu_chain_length(links, 5, i), whole[i]);
    CU_ASSERT_EQUAL(clu_chain_base(links, 5, 0), CLU_LINK_FULL);
    CU_ASSERT_EQUAL(clu_chain_base(links, 5, 2), 1);
    links[1].whole = false;
    CU_ASSERT_EQUAL(clu_chain_length(links, 5, 0), 1);
    CU_ASSERT_EQUAL(clu_chain_length(links, 5, 1), 0);
    CU_ASSERT_EQUAL(clu_chain_length(links, 5, 2), 0);
    CU_ASSERT_EQUAL(clu_chain_length(links, 5, 4), 2);
    two_chains(links);
    links[0].checksum++; /* another snapshot stands at that step */
    CU_ASSERT_EQUAL(clu_chain_base(links, 5, 1), CLU_LINK_BROKEN);
    CU_ASSERT_EQUAL(clu_chain_length(links, 5, 2), 0);
    two_chains(links);
    CU_ASSERT_EQUAL(clu_chain_length(links + 1, 4, 1), 0); /* the full one is missing */
}

static void test_the_newest_pinned_link_is_kept_with_its_chain(void)
{
    struct clu_link links[5];
    bool kept[5];
    two_chains(links);
    links[0].pinned = links[1].pinned = true;
    clu_chain_keep(links, 5, 1, kept);
    CU_ASSERT(kept[0] && kept[1] && !kept[2] && kept[3] && kept[4]);
    links[1].whole = false; /* the one before it then */
    clu_chain_keep(links, 5, 1, kept);
    CU_ASSERT(kept[0] && !kept[1] && !kept[2] && kept[3] && kept[4]);
    two_chains(links);
    clu_chain_keep(links, 5, 1, kept);
    CU_ASSERT(!kept[0] && !kept[1] && !kept[2] && kept[3] && kept[4]);
}

static void test_a_link_upon_itself_ends_nowhere(void)
{
    struct clu_link links[2] = {{.step = 1, .base_step = 2, .base_checksum = 9, .whole = true},
                                {.step = 2, .base_step = 1, .checksum = 9, .whole = true}};
    CU_ASSERT_EQUAL(clu_chain_length(links, 2, 0), 0);
    CU_ASSERT_EQUAL(clu_chain_length(links, 2, 1), 0);
}

/* Random folders: some links damaged, some bases wrong. */
static size_t random_links(struct clu_link *links, uint64_t *random)
{
    size_t n = suite_random(random) % (MAX_LINKS + 1);
    uint64_t step = 0;
    for (size_t i = 0; i < n; i++) {
        step += 1 + suite_random(random) % 3;
        links[i] = (struct clu_link){
            .step = step, .checksum = suite_random(random), .whole = suite_random(random) % 6 != 0};
        if (i == 0 || suite_random(random) % 4 == 0)
            continue;
        size_t base = suite_random(random) % 5 ? i - 1 : suite_random(random) % i;
        links[i].base_step = links[base].step;
        links[i].base_checksum = links[base].checksum + (suite_random(random) % 12 == 0);
    }
    return n;
}

static void test_retention_keeps_what_can_be_restored_and_nothing_else(void)
{
    uint64_t random = suite_seed();
    for (int round = 0; round < 20000; round++) {
        struct clu_link links[MAX_LINKS + 1];
        bool kept[MAX_LINKS + 1], needed[MAX_LINKS + 1] = {false}, right = true;
        size_t n = random_links(links, &random), oldest = n;
        int64_t keep = (int64_t)(suite_random(&random) % 5), left = keep;
        clu_chain_keep(links, n, keep, kept);
        for (size_t i = n; i-- > 0 && left > 0;) {
            if (!clu_chain_length(links, n, i))
                continue;
            left--;
            right &= kept[i];
            for (int at = (int)i; at >= 0; at = clu_chain_base(links, n, (size_t)at)) {
                right &= kept[at]; /* a base that a kept one needs is never removed */
                needed[at] = true;
                oldest = (size_t)at < oldest ? (size_t)at : oldest;
            }
        }
        for (size_t i = 0; i < n; i++) {
            bool broken = !clu_chain_length(links, n, i);
            right &= kept[i] == (keep < 1 || needed[i] || (broken && i > oldest));
        }
        CU_ASSERT_TRUE_FATAL(right);
    }
}

static void test_every_full_every_th_is_full(void)
{
    struct clu_chain_plan plan = {.full_every = 3};
    const bool full[] = {true, false, false, true, false, false, true};
    for (uint64_t i = 0; i < 7; i++) {
        uint64_t base = clu_chain_next(&plan);
        CU_ASSERT_EQUAL(base, full[i] ? 0 : 10 * i);
        clu_chain_committed(&plan, 10 * (i + 1), base, base ? 10 : 1000);
    }
    plan = (struct clu_chain_plan){.full_every = 1};
    for (uint64_t i = 1; i < 4; i++) {
        CU_ASSERT_EQUAL(clu_chain_next(&plan), 0);
        clu_chain_committed(&plan, i, 0, 100);
    }
}

static void test_deltas_as_large_as_the_full_one_end_a_chain(void)
{
    struct clu_chain_plan plan = {.full_every = 100};
    clu_chain_committed(&plan, 1, 0, 1000);
    clu_chain_committed(&plan, 2, clu_chain_next(&plan), 600);
    CU_ASSERT_EQUAL(clu_chain_next(&plan), 2);
    clu_chain_committed(&plan, 3, 2, 400);
    CU_ASSERT_EQUAL(clu_chain_next(&plan), 0);
}

static void test_a_failure_leaves_the_base_unless_it_is_the_reason(void)
{
    struct clu_chain_plan plan = {.full_every = 100};
    CU_ASSERT_EQUAL(clu_chain_next(&plan), 0); /* a life begins with a full one */
    clu_chain_committed(&plan, 1, 0, 1000);
    clu_chain_failed(&plan, CLU_E_FULL);
    CU_ASSERT_EQUAL(clu_chain_next(&plan), 1);
    clu_chain_failed(&plan, CLU_E_NOT_FOUND);
    CU_ASSERT_EQUAL(clu_chain_next(&plan), 0);
    clu_chain_committed(&plan, 2, 0, 1000);
    CU_ASSERT_EQUAL(clu_chain_next(&plan), 2);
    clu_chain_failed(&plan, CLU_E_CORRUPT);
    CU_ASSERT_EQUAL(clu_chain_next(&plan), 0);
}

SUITE("cluster.chain", T(test_a_chain_is_whole_only_if_every_link_is),
      T(test_the_newest_pinned_link_is_kept_with_its_chain),
      T(test_a_link_upon_itself_ends_nowhere),
      T(test_retention_keeps_what_can_be_restored_and_nothing_else),
      T(test_every_full_every_th_is_full), T(test_deltas_as_large_as_the_full_one_end_a_chain),
      T(test_a_failure_leaves_the_base_unless_it_is_the_reason))
