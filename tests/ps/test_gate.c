/* A step opens when all ranks are there, once, in order; early ones wait in bounded room. */
#include "cluster/status.h"
#include "ps/gate.h"
#include "tests/suite.h"

static struct psv_request *make(uint32_t rank, uint64_t incarnation, uint64_t step, size_t bytes)
{
    struct clu_wire_request header = {
        .op = CLU_WIRE_PUSH, .rank = rank, .step = step, .seq = step, .incarnation = incarnation};
    struct clu_message message;
    struct psv_request *push = NULL;
    clu_message_init(&message);
    message.peer_size = 1;
    message.peer[0] = (unsigned char)(rank + 1);
    clu_message_add(&message);
    clu_frame_init_size(clu_message_add(&message), bytes);
    CU_ASSERT_EQUAL_FATAL(psv_request_create(&header, &message, &push), 0);
    return push;
}

static void test_a_step_opens_when_every_rank_is_there(void)
{
    struct psv_gate *gate;
    int n_missing;
    CU_ASSERT_EQUAL_FATAL(psv_gate_create(3, 4, 1 << 20, 10, &gate), 0);
    CU_ASSERT_PTR_NULL(psv_gate_ready(gate));
    CU_ASSERT_EQUAL(psv_gate_offer(gate, 11, 2, make(2, 1, 11, 8)), 0);
    CU_ASSERT_EQUAL(psv_gate_offer(gate, 12, 0, make(0, 1, 12, 8)), 0);
    CU_ASSERT_EQUAL(psv_gate_offer(gate, 11, 0, make(0, 1, 11, 8)), 0);
    CU_ASSERT_PTR_NULL(psv_gate_ready(gate));
    CU_ASSERT_EQUAL(psv_gate_missing(gate, &n_missing), 1);
    CU_ASSERT_EQUAL(n_missing, 1);
    CU_ASSERT_EQUAL(psv_gate_offer(gate, 11, 1, make(1, 1, 11, 8)), 0);
    struct psv_request **push = psv_gate_ready(gate);
    CU_ASSERT_PTR_NOT_NULL_FATAL(push);
    for (uint32_t r = 0; r < 3; r++)
        CU_ASSERT_EQUAL(push[r]->rank, r);
    psv_gate_pop(gate);
    CU_ASSERT_EQUAL(psv_gate_done(gate), 11);
    CU_ASSERT_PTR_NULL(psv_gate_ready(gate));
    psv_gate_free(gate);
}

static void test_a_push_again_changes_only_where_the_answer_goes(void)
{
    struct psv_gate *gate;
    CU_ASSERT_EQUAL_FATAL(psv_gate_create(2, 4, 1 << 20, 0, &gate), 0);
    CU_ASSERT_EQUAL(psv_gate_offer(gate, 1, 0, make(0, 5, 1, 8)), 0);
    uint64_t bytes = psv_gate_bytes(gate);
    struct psv_request *again = make(0, 5, 1, 8);
    again->peer[0] = 77;
    CU_ASSERT_EQUAL(psv_gate_offer(gate, 1, 0, again), CLU_E_EXISTS);
    psv_request_free(again);
    CU_ASSERT_EQUAL(psv_gate_bytes(gate), bytes);
    struct psv_request *newer = make(0, 6, 1, 8); /* the rank was started again */
    CU_ASSERT_EQUAL(psv_gate_offer(gate, 1, 0, newer), 0);
    CU_ASSERT_EQUAL(psv_gate_bytes(gate), bytes);
    CU_ASSERT_EQUAL(psv_gate_offer(gate, 1, 1, make(1, 6, 1, 8)), 0);
    struct psv_request **push = psv_gate_ready(gate);
    CU_ASSERT_PTR_NOT_NULL_FATAL(push);
    CU_ASSERT_EQUAL(push[0]->incarnation, 6);
    psv_gate_pop(gate);
    CU_ASSERT_EQUAL(psv_gate_bytes(gate), 0);
    struct psv_request *late = make(0, 6, 1, 8);
    CU_ASSERT_EQUAL(psv_gate_offer(gate, 1, 0, late), CLU_E_EXISTS);
    psv_request_free(late);
    psv_gate_free(gate);
}

static void test_room_is_bounded_but_never_for_the_next_step(void)
{
    struct psv_gate *gate;
    struct psv_request *push;
    CU_ASSERT_EQUAL_FATAL(psv_gate_create(1, 4, 10000, 0, &gate), 0);
    CU_ASSERT_EQUAL(psv_gate_offer(gate, 2, 0, make(0, 1, 2, 8000)), 0);
    push = make(0, 1, 3, 8000);
    CU_ASSERT_EQUAL(psv_gate_offer(gate, 3, 0, push), CLU_E_AGAIN);
    CU_ASSERT_EQUAL(psv_gate_offer(gate, 5, 0, push), CLU_E_AGAIN); /* beyond the window */
    psv_request_free(push);
    CU_ASSERT_EQUAL(psv_gate_offer(gate, 1, 0, make(0, 1, 1, 8000)), 0);
    CU_ASSERT_PTR_NOT_NULL(psv_gate_ready(gate));
    psv_gate_pop(gate);
    CU_ASSERT_PTR_NOT_NULL(psv_gate_ready(gate));
    psv_gate_free(gate);
}

static void test_what_an_older_incarnation_left_can_be_dropped(void)
{
    struct psv_gate *gate;
    int n_missing;
    CU_ASSERT_EQUAL_FATAL(psv_gate_create(2, 4, 1 << 20, 0, &gate), 0);
    CU_ASSERT_EQUAL(psv_gate_offer(gate, 1, 0, make(0, 5, 1, 8)), 0);
    CU_ASSERT_EQUAL(psv_gate_offer(gate, 2, 0, make(0, 5, 2, 8)), 0);
    uint64_t bytes = psv_gate_bytes(gate);
    CU_ASSERT_EQUAL(psv_gate_offer(gate, 1, 1, make(1, 5, 1, 8)), 0);
    psv_gate_drop(gate, 1, 5); /* not older */
    CU_ASSERT_PTR_NOT_NULL(psv_gate_ready(gate));
    psv_gate_drop(gate, 1, 6);
    CU_ASSERT_PTR_NULL(psv_gate_ready(gate));
    CU_ASSERT_EQUAL(psv_gate_missing(gate, &n_missing), 1);
    CU_ASSERT_EQUAL(psv_gate_bytes(gate), bytes);
    psv_gate_drop(gate, 0, 6);
    CU_ASSERT_EQUAL(psv_gate_bytes(gate), 0);
    CU_ASSERT_EQUAL(psv_gate_done(gate), 0);
    psv_gate_free(gate);
}

SUITE("ps.gate", T(test_what_an_older_incarnation_left_can_be_dropped),
      T(test_a_step_opens_when_every_rank_is_there),
      T(test_a_push_again_changes_only_where_the_answer_goes),
      T(test_room_is_bounded_but_never_for_the_next_step))
