/* The second hand: pieces run beside the owner, in their turn, at the priority asked for. */
#include "embeddings/scribe.h"

#include "cluster/status.h"
#include "tests/suite.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>

struct piece {
    pthread_t owner;
    pthread_mutex_t gate; /* held by the owner: the piece does not end before it is let go */
    int policy, status, n;
    bool beside;
};

static int work(void *context)
{
    struct piece *piece = context;
    pthread_mutex_lock(&piece->gate);
    piece->policy = sched_getscheduler(0);
    piece->beside = !pthread_equal(pthread_self(), piece->owner);
    piece->n++;
    pthread_mutex_unlock(&piece->gate);
    return piece->status;
}

static void test_the_owner_goes_on_while_a_piece_is_under_way(void)
{
    struct piece piece = {.owner = pthread_self(), .status = CLU_E_AGAIN};
    struct emb_scribe *scribe;
    pthread_mutex_init(&piece.gate, NULL);
    CU_ASSERT_EQUAL_FATAL(emb_scribe_create(&scribe), CLU_OK);
    CU_ASSERT_FALSE(emb_scribe_is_busy(scribe));
    CU_ASSERT_EQUAL(emb_scribe_take(scribe), CLU_OK);
    for (int i = 1; i <= 3; i++) {
        pthread_mutex_lock(&piece.gate);
        emb_scribe_give(scribe, work, &piece);
        CU_ASSERT_TRUE(emb_scribe_is_busy(scribe));
        pthread_mutex_unlock(&piece.gate);
        CU_ASSERT_EQUAL(emb_scribe_take(scribe), CLU_E_AGAIN);
        CU_ASSERT_FALSE(emb_scribe_is_busy(scribe));
        CU_ASSERT_EQUAL(emb_scribe_take(scribe), CLU_OK); /* told once */
        CU_ASSERT_TRUE(piece.beside);
        CU_ASSERT_EQUAL(piece.n, i);
    }
    emb_scribe_free(scribe);
    pthread_mutex_destroy(&piece.gate);
}

static void test_pieces_stand_back_until_there_is_a_hurry_and_again_after_it(void)
{
    static const int policies[] = {SCHED_IDLE, SCHED_OTHER, SCHED_IDLE};
    struct piece piece = {.owner = pthread_self()};
    struct emb_scribe *scribe;
    pthread_mutex_init(&piece.gate, NULL);
    CU_ASSERT_EQUAL_FATAL(emb_scribe_create(&scribe), CLU_OK);
    for (int i = 0; i < 3; i++) {
        emb_scribe_hurry(scribe, i == 1);
        emb_scribe_give(scribe, work, &piece);
        CU_ASSERT_EQUAL(emb_scribe_take(scribe), CLU_OK);
        CU_ASSERT_EQUAL(piece.policy, policies[i]);
    }
    CU_ASSERT_EQUAL(sched_getscheduler(0), SCHED_OTHER); /* the owner's is its own */
    emb_scribe_free(scribe);
    pthread_mutex_destroy(&piece.gate);
}

static void test_what_is_under_way_at_the_end_is_done(void)
{
    struct piece piece = {.owner = pthread_self()};
    struct emb_scribe *scribe;
    pthread_mutex_init(&piece.gate, NULL);
    CU_ASSERT_EQUAL_FATAL(emb_scribe_create(&scribe), CLU_OK);
    emb_scribe_give(scribe, work, &piece);
    emb_scribe_free(scribe);
    CU_ASSERT_EQUAL(piece.n, 1);
    emb_scribe_free(NULL);
    pthread_mutex_destroy(&piece.gate);
}

SUITE("embeddings.scribe", T(test_the_owner_goes_on_while_a_piece_is_under_way),
      T(test_pieces_stand_back_until_there_is_a_hurry_and_again_after_it),
      T(test_what_is_under_way_at_the_end_is_done))
