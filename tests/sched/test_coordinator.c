/* The coordinator's policies, one by one. How it recovers: test_coordinator_recover.c. */
#include "tests/sched/coordinator_rig.h"

static void test_servers_are_welcomed_together_with_the_whole_map(void)
{
    begin(false);
    join(CLU_ROLE_PS, 0);
    CU_ASSERT_EQUAL(sent(CLU_CONTROL_WELCOME), 0);
    join(CLU_ROLE_PS, 1);
    CU_ASSERT_EQUAL(sent(CLU_CONTROL_WELCOME), 2);
    CU_ASSERT_EQUAL(phase(), SCHD_RESTORING);
    CU_ASSERT_TRUE(clu_map_is_complete(schd_coordinator_map(c)));
    CU_ASSERT_STRING_EQUAL(schd_coordinator_map(c)->endpoint[3], "tcp://127.0.0.1:1003");
    CU_ASSERT_EQUAL(actions[n_actions - 1].welcome.n_shards, 4);
    end();
}

static void test_state_is_saved_before_a_welcome_is_sent(void)
{
    begin(false);
    clear();
    join(CLU_ROLE_PS, 0);
    join(CLU_ROLE_PS, 1);
    int saved = -1, welcomed = -1;
    for (int i = 0; i < n_actions; i++) {
        if (actions[i].kind == SCHD_SAVE)
            saved = i;
        if (actions[i].kind == SCHD_SEND && actions[i].op == CLU_CONTROL_WELCOME && welcomed < 0)
            welcomed = i;
    }
    CU_ASSERT(saved >= 0 && saved < welcomed);
    end();
}

static void test_workers_wait_until_every_server_has_restored(void)
{
    begin(false);
    join(CLU_ROLE_WORKER, 0);
    join(CLU_ROLE_PS, 0);
    join(CLU_ROLE_PS, 1);
    report(CLU_ROLE_PS, 0, CLU_REPORT_READY, 0);
    clear();
    join(CLU_ROLE_WORKER, 1);
    CU_ASSERT_EQUAL(sent(CLU_CONTROL_WELCOME), 0);
    report(CLU_ROLE_PS, 1, CLU_REPORT_READY, 0);
    CU_ASSERT_EQUAL(sent(CLU_CONTROL_WELCOME), 2);
    CU_ASSERT_EQUAL(phase(), SCHD_RUNNING);
    end();
}

static void test_incarnations_are_never_the_same(void)
{
    uint64_t seen[8];
    int n = 0;
    begin(true);
    for (int life = 0; life < 2; life++) {
        run();
        for (int i = 0; i < 2; i++) {
            seen[n++] = member(CLU_ROLE_PS, i).incarnation;
            seen[n++] = member(CLU_ROLE_WORKER, i).incarnation;
        }
        schd_coordinator_recover(c, now, SCHD_WAY_ANEW, "", 0);
        collect();
    }
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            CU_ASSERT_NOT_EQUAL(seen[i], seen[j]);
    end();
}

static void test_a_stranger_of_the_wrong_shape_is_refused(void)
{
    begin(false);
    join(CLU_ROLE_WORKER, 2);
    CU_ASSERT_EQUAL(last(SCHD_SEND, CLU_CONTROL_REFUSE)->status, CLU_E_CONFIG);
    clear();
    m.n_endpoints = 3;
    hear(CLU_ROLE_PS, 0, CLU_CONTROL_JOIN);
    CU_ASSERT_EQUAL(last(SCHD_SEND, CLU_CONTROL_REFUSE)->status, CLU_E_CONFIG);
    CU_ASSERT_EQUAL(member(CLU_ROLE_PS, 0).state, SCHD_ABSENT);
    end();
}

static void test_a_taken_rank_is_refused(void)
{
    begin(false);
    run();
    m.pid = 7;
    hear(CLU_ROLE_WORKER, 1, CLU_CONTROL_JOIN);
    CU_ASSERT_PTR_NULL(last(SCHD_SEND, CLU_CONTROL_REFUSE)); /* perhaps the other is no more */
    tick(100);
    beat(CLU_ROLE_WORKER, 1); /* it is */
    m.pid = 7;
    hear(CLU_ROLE_WORKER, 1, CLU_CONTROL_JOIN);
    CU_ASSERT_EQUAL(last(SCHD_SEND, CLU_CONTROL_REFUSE)->status, CLU_E_EXISTS);
    m.pid = 8;
    m.n_endpoints = 2;
    hear(CLU_ROLE_PS, 1, CLU_CONTROL_JOIN);
    CU_ASSERT_EQUAL(sent(CLU_CONTROL_REFUSE), 2); /* a server that serves is asked nothing */
    end();
}

static void test_a_lost_welcome_is_sent_again(void)
{
    begin(false);
    run();
    join(CLU_ROLE_WORKER, 1);
    CU_ASSERT_EQUAL(sent(CLU_CONTROL_WELCOME), 1);
    end();
}

static void test_a_message_of_an_earlier_life_changes_nothing(void)
{
    begin(true);
    run();
    uint64_t old = member(CLU_ROLE_PS, 0).incarnation;
    schd_coordinator_recover(c, now, SCHD_WAY_ANEW, "", 0);
    join(CLU_ROLE_PS, 0);
    clear();
    m.incarnation = old;
    m.number = 1;
    m.report.kind = CLU_REPORT_READY;
    hear(CLU_ROLE_PS, 0, CLU_CONTROL_REPORT);
    CU_ASSERT_EQUAL(last(SCHD_SEND, CLU_CONTROL_REFUSE)->status, CLU_E_LOST);
    CU_ASSERT_EQUAL(member(CLU_ROLE_PS, 0).state, SCHD_JOINED);
    end();
}

static void test_a_silent_member_is_suspect_then_dead(void)
{
    begin(false);
    run();
    live(500);
    for (int i = 0; i < 4; i++) {
        beat(CLU_ROLE_PS, 0);
        beat(CLU_ROLE_PS, 1);
        beat(CLU_ROLE_WORKER, 0);
        tick(100);
    }
    CU_ASSERT_TRUE(member(CLU_ROLE_WORKER, 1).suspect);
    CU_ASSERT_EQUAL(phase(), SCHD_RUNNING);
    beat(CLU_ROLE_WORKER, 1);
    CU_ASSERT_FALSE(member(CLU_ROLE_WORKER, 1).suspect);
    for (int i = 0; i < 11; i++) {
        beat(CLU_ROLE_PS, 0);
        beat(CLU_ROLE_PS, 1);
        beat(CLU_ROLE_WORKER, 0);
        tick(100);
    }
    CU_ASSERT_EQUAL(phase(), SCHD_BROKEN);
    CU_ASSERT_EQUAL(member(CLU_ROLE_WORKER, 1).state, SCHD_DEAD);
    beat(CLU_ROLE_WORKER, 1); /* it wakes up: too late */
    CU_ASSERT_EQUAL(last(SCHD_SEND, CLU_CONTROL_REFUSE)->status, CLU_E_LOST);
    end();
}

/* A progress report with the times that ranks took; the warning that it led to, or NULL. */
static const char *progress(uint64_t step, int laggard, double seconds, double others,
                            double step_seconds)
{
    clear();
    clu_figures_put(&m.report.figures, "laggard_rank", laggard);
    clu_figures_put(&m.report.figures, "laggard_seconds", seconds);
    clu_figures_put(&m.report.figures, "other_ranks_seconds", others);
    clu_figures_put(&m.report.figures, "slowest_rank", laggard);
    clu_figures_put(&m.report.figures, "slowest_rank_seconds", step_seconds);
    report(CLU_ROLE_WORKER, 0, CLU_REPORT_PROGRESS, step);
    struct schd_action *told = last(SCHD_TELL, 0);
    return told ? told->text : NULL;
}

static void test_a_worker_that_lags_is_named_once_until_it_keeps_up(void)
{
    begin(false);
    run();
    CU_ASSERT_PTR_NULL(progress(10, 0, 1.1, 1.0, 0.1));
    const char *told = progress(20, 1, 3.0, 1.0, 0.3);
    CU_ASSERT_PTR_NOT_NULL_FATAL(told);
    CU_ASSERT_STRING_EQUAL(
        told, "worker 1 is slow: it computed for 3.00 s before step 20, the others for 1.00 s");
    CU_ASSERT_TRUE(member(CLU_ROLE_WORKER, 1).lags);
    CU_ASSERT_FALSE(member(CLU_ROLE_WORKER, 0).lags);
    CU_ASSERT_PTR_NULL(progress(30, 1, 3.0, 1.0, 0.3)); /* known already */
    CU_ASSERT_PTR_NOT_NULL(progress(40, 0, 3.0, 1.0, 0.3));
    CU_ASSERT_TRUE(member(CLU_ROLE_WORKER, 0).lags);
    CU_ASSERT_FALSE(member(CLU_ROLE_WORKER, 1).lags);
    CU_ASSERT_PTR_NULL(progress(50, 0, 1.1, 1.0, 0.1));
    CU_ASSERT_FALSE(member(CLU_ROLE_WORKER, 0).lags);
    CU_ASSERT_PTR_NULL(progress(60, 1, 0.3, 0.1, 0.1)); /* a multiple, but of next to nothing */
    told = progress(70, 1, 1.5, 1.0, 0.9);              /* one step that stood still */
    CU_ASSERT_PTR_NOT_NULL_FATAL(told);
    CU_ASSERT_PTR_NOT_NULL(strstr(told, "worker 1 is slow: 0.90 s for a step before step 70"));
    CU_ASSERT_TRUE(member(CLU_ROLE_WORKER, 1).lags);
    end();
}

static void test_how_a_member_ended_is_known_of_the_one_after_it(void)
{
    begin(true);
    run();
    schd_coordinator_gone(c, now, CLU_ROLE_PS, 1, CLU_E_LOST, "was killed by signal 9 (Killed)");
    collect();
    schd_coordinator_recover(c, now, SCHD_WAY_BACK, "", 0);
    collect();
    CU_ASSERT_EQUAL(member(CLU_ROLE_PS, 1).state, SCHD_ABSENT);
    CU_ASSERT_STRING_EQUAL(member(CLU_ROLE_PS, 1).text, "was killed by signal 9 (Killed)");
    CU_ASSERT_STRING_EQUAL(member(CLU_ROLE_PS, 0).text, "");
    end();
}

static void test_a_broken_job_without_supervisor_stops_everybody_and_ends(void)
{
    begin(false);
    run();
    leave(CLU_ROLE_WORKER, 1, CLU_E_DATA);
    CU_ASSERT_EQUAL(phase(), SCHD_BROKEN);
    CU_ASSERT_EQUAL(sent(CLU_CONTROL_ORDER), 3);
    CU_ASSERT_EQUAL(last(SCHD_SEND, CLU_CONTROL_ORDER)->order.kind, CLU_ORDER_STOP);
    leave(CLU_ROLE_WORKER, 0, CLU_E_DATA);
    leave(CLU_ROLE_PS, 0, CLU_E_DATA);
    tick(100);
    CU_ASSERT_EQUAL(phase(), SCHD_BROKEN);
    leave(CLU_ROLE_PS, 1, CLU_E_DATA);
    tick(100);
    CU_ASSERT_EQUAL(phase(), SCHD_ENDED);
    CU_ASSERT_EQUAL(last(SCHD_END, 0)->status, CLU_E_DATA);
    CU_ASSERT_PTR_NOT_NULL(strstr(last(SCHD_END, 0)->text, "worker 1 failed"));
    end();
}

static void test_a_broken_job_ends_though_nobody_answers(void)
{
    begin(false);
    run();
    leave(CLU_ROLE_PS, 0, CLU_E_IO);
    tick(6000);
    CU_ASSERT_EQUAL(phase(), SCHD_ENDED);
    end();
}

static void test_a_supervised_job_waits_for_its_supervisor_and_recovers(void)
{
    begin(true);
    run();
    schd_coordinator_gone(c, now, CLU_ROLE_PS, 1, CLU_E_LOST, "was killed by signal 9");
    collect();
    tick(60000);
    CU_ASSERT_EQUAL(phase(), SCHD_BROKEN);
    clear();
    CU_ASSERT_EQUAL(schd_coordinator_plan(c), SCHD_WAY_BACK);
    schd_coordinator_recover(c, now, SCHD_WAY_BACK, "/snap/step-000000000010", 10);
    collect();
    CU_ASSERT_EQUAL(phase(), SCHD_GATHERING);
    CU_ASSERT_EQUAL(member(CLU_ROLE_PS, 0).state, SCHD_JOINED); /* it lives, and is kept */
    CU_ASSERT_EQUAL(member(CLU_ROLE_PS, 1).state, SCHD_ABSENT);
    CU_ASSERT_EQUAL(member(CLU_ROLE_WORKER, 0).state, SCHD_ABSENT);
    CU_ASSERT_EQUAL(sent(CLU_CONTROL_ORDER), 0);
    join(CLU_ROLE_PS, 1);
    CU_ASSERT_EQUAL(sent(CLU_CONTROL_ORDER), 1);
    const struct clu_order *restore = &last(SCHD_SEND, CLU_CONTROL_ORDER)->order;
    CU_ASSERT_EQUAL(restore->kind, CLU_ORDER_RESTORE);
    CU_ASSERT(restore->generation == 2 && restore->step == 10);
    CU_ASSERT_EQUAL(restore->least_incarnation, (uint64_t)2 << 32);
    struct clu_welcome *w = &last(SCHD_SEND, CLU_CONTROL_WELCOME)->welcome;
    CU_ASSERT_EQUAL(w->generation, 2);
    CU_ASSERT_EQUAL(w->resume_step, 10);
    CU_ASSERT_STRING_EQUAL(w->resume, "/snap/step-000000000010");
    end();
}

static void test_nothing_waits_for_ever_at_the_start(void)
{
    begin(false);
    join(CLU_ROLE_PS, 0);
    for (int i = 0; i < 60; i++) {
        join(CLU_ROLE_PS, 0);
        tick(100);
    }
    CU_ASSERT_EQUAL(phase(), SCHD_BROKEN);
    CU_ASSERT_PTR_NOT_NULL(strstr(last(SCHD_TELL, 0)->text, "ps 1 has not joined"));
    end();
    begin(false);
    join(CLU_ROLE_PS, 0);
    join(CLU_ROLE_PS, 1);
    for (int i = 0; i < 60; i++) {
        beat(CLU_ROLE_PS, 0);
        beat(CLU_ROLE_PS, 1);
        clear();
        tick(100);
        if (phase() == SCHD_BROKEN)
            break;
    }
    CU_ASSERT_PTR_NOT_NULL(strstr(last(SCHD_TELL, 0)->text, "has not restored its rows"));
    end();
    begin(false);
    run();
    end();
    begin(false);
    for (int i = 0; i < 2; i++)
        join(CLU_ROLE_PS, i);
    for (int i = 0; i < 2; i++)
        report(CLU_ROLE_PS, i, CLU_REPORT_READY, 0);
    join(CLU_ROLE_WORKER, 0);
    for (int i = 0; i < 60 && phase() == SCHD_RUNNING; i++) {
        beat(CLU_ROLE_PS, 0);
        beat(CLU_ROLE_PS, 1);
        beat(CLU_ROLE_WORKER, 0);
        clear();
        tick(100);
    }
    CU_ASSERT_PTR_NOT_NULL(strstr(last(SCHD_TELL, 0)->text, "worker 1 has not joined"));
    end();
}

static void test_an_order_is_sent_until_a_beat_acknowledges_it(void)
{
    begin(false);
    run();
    CU_ASSERT_EQUAL(schd_coordinator_snapshot(c, now), CLU_OK);
    collect();
    CU_ASSERT_EQUAL(sent(CLU_CONTROL_ORDER), 1);
    clear();
    m.incarnation = member(CLU_ROLE_WORKER, 0).incarnation;
    hear(CLU_ROLE_WORKER, 0, CLU_CONTROL_BEAT); /* has none yet */
    CU_ASSERT_EQUAL(sent(CLU_CONTROL_ORDER), 1);
    clear();
    beat(CLU_ROLE_WORKER, 0);
    CU_ASSERT_EQUAL(sent(CLU_CONTROL_ORDER), 0);
    end();
}

static void test_a_report_counts_once(void)
{
    begin(false);
    run();
    report(CLU_ROLE_WORKER, 0, CLU_REPORT_PROGRESS, 20);
    n_reports--;
    clear();
    report(CLU_ROLE_WORKER, 0, CLU_REPORT_PROGRESS, 20);
    CU_ASSERT_EQUAL(sent(CLU_CONTROL_RECEIPT), 1);
    CU_ASSERT_PTR_NULL(last(SCHD_PROGRESS, 0));
    end();
}

/* Places of the last action of a kind among those collected; -1: there is none. */
static int place_of(enum schd_action_kind kind, enum clu_control_op op)
{
    const struct schd_action *action = last(kind, op);
    return action ? (int)(action - actions) : -1;
}

/* With its receipt a member forgets what it said: a scheduler that dies then must know it. */
static void test_what_was_said_is_stored_before_its_receipt_is_sent(void)
{
    begin(true);
    join(CLU_ROLE_PS, 0);
    join(CLU_ROLE_PS, 1);
    clear();
    report(CLU_ROLE_PS, 0, CLU_REPORT_READY, 0);
    CU_ASSERT(place_of(SCHD_SAVE, 0) >= 0);
    CU_ASSERT(place_of(SCHD_SEND, CLU_CONTROL_RECEIPT) > place_of(SCHD_SAVE, 0));
    report(CLU_ROLE_PS, 1, CLU_REPORT_READY, 0);
    join(CLU_ROLE_WORKER, 0);
    join(CLU_ROLE_WORKER, 1);
    clear();
    report(CLU_ROLE_WORKER, 0, CLU_REPORT_FINISHED, 10);
    CU_ASSERT(place_of(SCHD_SAVE, 0) >= 0);
    CU_ASSERT(place_of(SCHD_SEND, CLU_CONTROL_RECEIPT) > place_of(SCHD_SAVE, 0));
    clear();
    leave(CLU_ROLE_WORKER, 0, CLU_OK);
    CU_ASSERT(place_of(SCHD_SAVE, 0) >= 0);
    CU_ASSERT(place_of(SCHD_SEND, CLU_CONTROL_RECEIPT) > place_of(SCHD_SAVE, 0));
    end();
}

static void test_a_snapshot_is_committed_and_rank_0_is_told(void)
{
    begin(false);
    run();
    report(CLU_ROLE_WORKER, 0, CLU_REPORT_SNAPSHOT, 40);
    CU_ASSERT_EQUAL(last(SCHD_COMMIT, 0)->step, 40);
    CU_ASSERT_EQUAL(schd_coordinator_snapshot(c, now), CLU_E_AGAIN);
    clear();
    schd_coordinator_committed(c, now, 40, CLU_OK);
    collect();
    CU_ASSERT_EQUAL(last(SCHD_SEND, CLU_CONTROL_ORDER)->order.kind, CLU_ORDER_COMMITTED);
    CU_ASSERT_EQUAL(last(SCHD_SEND, CLU_CONTROL_ORDER)->order.step, 40);
    CU_ASSERT_EQUAL(schd_coordinator_snapshot(c, now), CLU_OK);
    end();
}

static void test_a_failed_snapshot_is_dropped_and_training_goes_on(void)
{
    begin(false);
    run();
    m.report.status = CLU_E_FULL;
    report(CLU_ROLE_WORKER, 0, CLU_REPORT_SNAPSHOT, 40);
    CU_ASSERT_EQUAL(last(SCHD_DROP, 0)->step, 40);
    CU_ASSERT_PTR_NULL(last(SCHD_COMMIT, 0));
    CU_ASSERT_EQUAL(phase(), SCHD_RUNNING);
    end();
}

static void test_the_job_ends_well_only_when_finished(void)
{
    begin(false);
    run();
    report(CLU_ROLE_WORKER, 0, CLU_REPORT_FINISHED, 100);
    leave(CLU_ROLE_WORKER, 0, CLU_OK);
    leave(CLU_ROLE_WORKER, 1, CLU_OK);
    CU_ASSERT_EQUAL(phase(), SCHD_STOPPING);
    leave(CLU_ROLE_PS, 0, CLU_OK);
    leave(CLU_ROLE_PS, 1, CLU_OK);
    CU_ASSERT_EQUAL(phase(), SCHD_ENDED);
    CU_ASSERT_EQUAL(last(SCHD_END, 0)->status, CLU_OK);
    end();
    begin(false);
    run();
    leave(CLU_ROLE_WORKER, 0, CLU_OK);
    leave(CLU_ROLE_WORKER, 1, CLU_OK);
    CU_ASSERT_EQUAL(phase(), SCHD_BROKEN);
    end();
}

static void test_a_stop_takes_a_snapshot_and_ends_with_interrupted(void)
{
    begin(false);
    run();
    schd_coordinator_stop(c, now, "stopped by SIGTERM");
    collect();
    CU_ASSERT_EQUAL(sent(CLU_CONTROL_ORDER), 2);
    CU_ASSERT_TRUE(last(SCHD_SEND, CLU_CONTROL_ORDER)->order.snapshot);
    leave(CLU_ROLE_WORKER, 0, CLU_E_INTERRUPTED);
    leave(CLU_ROLE_WORKER, 1, CLU_E_INTERRUPTED);
    leave(CLU_ROLE_PS, 0, CLU_E_INTERRUPTED);
    leave(CLU_ROLE_PS, 1, CLU_E_INTERRUPTED);
    CU_ASSERT_EQUAL(last(SCHD_END, 0)->status, CLU_E_INTERRUPTED);
    CU_ASSERT_STRING_EQUAL(last(SCHD_END, 0)->text, "stopped by SIGTERM");
    end();
}

static void test_a_stop_that_takes_too_long_ends_all_the_same(void)
{
    begin(false);
    run();
    schd_coordinator_stop(c, now, "x");
    live(3500);
    CU_ASSERT_EQUAL(phase(), SCHD_ENDED);
    end();
}

static void test_a_stop_before_the_start_ends_at_once(void)
{
    begin(true);
    join(CLU_ROLE_PS, 0);
    schd_coordinator_stop(c, now, "x");
    collect();
    CU_ASSERT_EQUAL(last(SCHD_END, 0)->status, CLU_E_INTERRUPTED);
    end();
}

/* Servers are ready, workers are still on their way: nobody else would tell them. */
static void test_a_stop_before_all_workers_joined_ends_at_once(void)
{
    for (int n_joined = 0; n_joined < 2; n_joined++) {
        begin(true);
        for (int i = 0; i < 2; i++)
            join(CLU_ROLE_PS, i);
        for (int i = 0; i < 2; i++)
            report(CLU_ROLE_PS, i, CLU_REPORT_READY, 0);
        if (n_joined)
            join(CLU_ROLE_WORKER, 0);
        CU_ASSERT_EQUAL(phase(), SCHD_RUNNING);
        schd_coordinator_stop(c, now, "x");
        collect();
        CU_ASSERT_EQUAL(phase(), SCHD_ENDED);
        CU_ASSERT_EQUAL(last(SCHD_END, 0)->status, CLU_E_INTERRUPTED);
        end();
    }
}

static void test_snapshots_by_time(void)
{
    struct schd_shape s = shape;
    struct schd_life life = {.job_id = 1, .generation = 1};
    s.snapshot_ms = 2000;
    now = 1000;
    n_reports = 0;
    c = schd_coordinator_create(&s, &life, now);
    run();
    live(1500);
    CU_ASSERT_EQUAL(sent(CLU_CONTROL_ORDER), 0);
    for (int i = 0; i < 6 && !last(SCHD_SEND, CLU_CONTROL_ORDER); i++) {
        beat(CLU_ROLE_WORKER, 0);
        beat(CLU_ROLE_WORKER, 1);
        beat(CLU_ROLE_PS, 0);
        beat(CLU_ROLE_PS, 1);
        tick(100);
    }
    CU_ASSERT_PTR_NOT_NULL_FATAL(last(SCHD_SEND, CLU_CONTROL_ORDER));
    CU_ASSERT_EQUAL(last(SCHD_SEND, CLU_CONTROL_ORDER)->order.kind, CLU_ORDER_SNAPSHOT);
    end();
}

static void test_a_restarted_scheduler_takes_its_members_back(void)
{
    struct clu_packer packer;
    struct schd_life life = {0};
    uint64_t incarnation;
    begin(false);
    run();
    report(CLU_ROLE_WORKER, 0, CLU_REPORT_PROGRESS, 60);
    clu_packer_init(&packer);
    schd_coordinator_save(c, &packer);
    incarnation = member(CLU_ROLE_WORKER, 1).incarnation;
    end();
    uint64_t job_id, generation;
    CU_ASSERT_EQUAL(schd_coordinator_peek(packer.data, packer.size_bytes, &job_id, &generation), 0);
    CU_ASSERT_EQUAL(job_id, 1);
    CU_ASSERT_EQUAL(generation, 1);
    now += 500;
    c = schd_coordinator_create(&shape, &life, now);
    CU_ASSERT_EQUAL_FATAL(schd_coordinator_load(c, now, packer.data, packer.size_bytes), CLU_OK);
    collect();
    clear();
    CU_ASSERT_EQUAL(phase(), SCHD_RUNNING);
    beat(CLU_ROLE_WORKER, 1); /* must join again: its order numbers are of the old scheduler */
    CU_ASSERT_EQUAL(last(SCHD_SEND, CLU_CONTROL_REFUSE)->status, CLU_E_AGAIN);
    m.incarnation = incarnation;
    join(CLU_ROLE_WORKER, 1);
    CU_ASSERT_EQUAL(last(SCHD_SEND, CLU_CONTROL_WELCOME)->welcome.incarnation, incarnation);
    CU_ASSERT_EQUAL(last(SCHD_SEND, CLU_CONTROL_WELCOME)->welcome.generation, 1);
    tick(6000);
    CU_ASSERT_EQUAL(phase(), SCHD_BROKEN); /* the others never came back */
    for (size_t cut = 0; cut < packer.size_bytes; cut += cut < 300 ? 1 : 37) {
        struct schd_coordinator *other = schd_coordinator_create(&shape, &life, now);
        CU_ASSERT_EQUAL(schd_coordinator_load(other, now, packer.data, cut), CLU_E_CORRUPT);
        schd_coordinator_free(other);
    }
    clu_packer_fini(&packer);
    end();
}

SUITE("sched.coordinator", T(test_servers_are_welcomed_together_with_the_whole_map),
      T(test_state_is_saved_before_a_welcome_is_sent),
      T(test_workers_wait_until_every_server_has_restored), T(test_incarnations_are_never_the_same),
      T(test_a_stranger_of_the_wrong_shape_is_refused), T(test_a_taken_rank_is_refused),
      T(test_a_lost_welcome_is_sent_again), T(test_a_message_of_an_earlier_life_changes_nothing),
      T(test_a_silent_member_is_suspect_then_dead),
      T(test_a_worker_that_lags_is_named_once_until_it_keeps_up),
      T(test_how_a_member_ended_is_known_of_the_one_after_it),
      T(test_a_broken_job_without_supervisor_stops_everybody_and_ends),
      T(test_a_broken_job_ends_though_nobody_answers),
      T(test_a_supervised_job_waits_for_its_supervisor_and_recovers),
      T(test_nothing_waits_for_ever_at_the_start),
      T(test_an_order_is_sent_until_a_beat_acknowledges_it), T(test_a_report_counts_once),
      T(test_what_was_said_is_stored_before_its_receipt_is_sent),
      T(test_a_snapshot_is_committed_and_rank_0_is_told),
      T(test_a_failed_snapshot_is_dropped_and_training_goes_on),
      T(test_the_job_ends_well_only_when_finished),
      T(test_a_stop_takes_a_snapshot_and_ends_with_interrupted),
      T(test_a_stop_that_takes_too_long_ends_all_the_same),
      T(test_a_stop_before_the_start_ends_at_once),
      T(test_a_stop_before_all_workers_joined_ends_at_once), T(test_snapshots_by_time),
      T(test_a_restarted_scheduler_takes_its_members_back))
