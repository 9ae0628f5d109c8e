/* How the coordinator lets a job go on after a loss: who stands, who goes back, who is started. */
#include "tests/sched/coordinator_rig.h"

/* A process that was killed had asked to join, and its word comes after its successor was started.
 * */
static void test_the_late_word_of_a_dead_process_does_not_keep_its_successor_out(void)
{
    begin(true);
    m.pid = 7; /* dead by now */
    m.n_endpoints = 2;
    hear(CLU_ROLE_PS, 0, CLU_CONTROL_JOIN);
    for (int i = 0; i < 14; i++) {
        join(CLU_ROLE_PS, 0);
        join(CLU_ROLE_PS, 1);
        tick(100);
    }
    CU_ASSERT_EQUAL(sent(CLU_CONTROL_REFUSE), 0);
    CU_ASSERT_EQUAL(member(CLU_ROLE_PS, 0).pid, 100 * (CLU_ROLE_PS + 1));
    CU_ASSERT_EQUAL(phase(), SCHD_RESTORING);
    end();
}

static void begin_standing(bool workers)
{
    struct schd_shape s = shape;
    struct schd_life life = {.job_id = 1, .generation = 1};
    s.supervised = s.servers_stand = true;
    s.workers_stand = workers;
    now = 1000;
    n_reports = 0;
    c = schd_coordinator_create(&s, &life, now);
    CU_ASSERT_PTR_NOT_NULL_FATAL(c);
    collect();
}

static void test_a_dead_server_whose_rows_stand_comes_back_and_nobody_goes_back(void)
{
    begin_standing(false);
    run();
    clear();
    schd_coordinator_gone(c, now, CLU_ROLE_PS, 1, CLU_E_LOST, "was killed by signal 9");
    collect();
    CU_ASSERT_EQUAL(phase(), SCHD_BROKEN);
    CU_ASSERT_EQUAL(sent(CLU_CONTROL_ORDER), 0); /* nobody is told to stop */
    CU_ASSERT_EQUAL(schd_coordinator_plan(c), SCHD_WAY_STAND);
    CU_ASSERT(schd_coordinator_starts(c, SCHD_WAY_STAND, CLU_ROLE_PS, 1));
    CU_ASSERT(!schd_coordinator_starts(c, SCHD_WAY_STAND, CLU_ROLE_PS, 0));
    CU_ASSERT(!schd_coordinator_starts(c, SCHD_WAY_STAND, CLU_ROLE_WORKER, 0));
    join(CLU_ROLE_PS, 1); /* (C7): not yet */
    CU_ASSERT_EQUAL(sent(CLU_CONTROL_WELCOME), 0);
    schd_coordinator_recover(c, now, SCHD_WAY_STAND, "", 0);
    collect();
    CU_ASSERT_EQUAL(phase(), SCHD_MENDING);
    CU_ASSERT_EQUAL(schd_coordinator_map(c)->endpoint[2][0], '\0'); /* who asks there waits */
    CU_ASSERT_NOT_EQUAL(schd_coordinator_map(c)->endpoint[0][0], '\0');
    report(CLU_ROLE_WORKER, 0, CLU_REPORT_PROGRESS, 30); /* they train on meanwhile */
    uint64_t away = schd_coordinator_map(c)->version;    /* as workers may have it by now */
    clear();
    join(CLU_ROLE_PS, 1);
    CU_ASSERT(schd_coordinator_map(c)->version > away);
    struct clu_welcome *w = &last(SCHD_SEND, CLU_CONTROL_WELCOME)->welcome;
    CU_ASSERT(w->stand && w->generation == 1);
    clear();
    report(CLU_ROLE_PS, 1, CLU_REPORT_READY, 0);
    CU_ASSERT_EQUAL(phase(), SCHD_RUNNING);
    CU_ASSERT_EQUAL(sent(CLU_CONTROL_BEAT), 2); /* the workers hear where it listens */
    CU_ASSERT(last(SCHD_SEND, CLU_CONTROL_BEAT)->with_map);
    end();
}

static void test_a_server_that_cannot_stand_takes_the_job_back(void)
{
    begin_standing(true);
    run();
    schd_coordinator_gone(c, now, CLU_ROLE_PS, 1, CLU_E_LOST, "was killed by signal 9");
    schd_coordinator_plan(c);
    schd_coordinator_recover(c, now, SCHD_WAY_STAND, "", 0);
    join(CLU_ROLE_PS, 1);
    leave(CLU_ROLE_PS, 1, CLU_E_LOST); /* its disk is gone */
    CU_ASSERT_EQUAL(phase(), SCHD_BROKEN);
    CU_ASSERT_EQUAL(schd_coordinator_plan(c), SCHD_WAY_BACK);
    end();
}

static void test_dead_workers_are_followed_by_others_where_rows_stand_for_them(void)
{
    begin_standing(true);
    run();
    schd_coordinator_gone(c, now, CLU_ROLE_WORKER, 1, CLU_E_LOST, "was killed by signal 9");
    CU_ASSERT_EQUAL(schd_coordinator_plan(c), SCHD_WAY_WORKERS);
    uint64_t old = member(CLU_ROLE_WORKER, 0).incarnation;
    collect();
    clear();
    schd_coordinator_recover(c, now, SCHD_WAY_WORKERS, "/snap/step-000000000010", 10);
    CU_ASSERT_EQUAL(phase(), SCHD_RUNNING);
    CU_ASSERT_EQUAL(member(CLU_ROLE_PS, 0).state, SCHD_READY);
    join(CLU_ROLE_WORKER, 0);
    struct clu_welcome *w = &last(SCHD_SEND, CLU_CONTROL_WELCOME)->welcome;
    CU_ASSERT(w->stand && w->generation == 1 && w->resume_step == 10);
    CU_ASSERT_STRING_EQUAL(w->resume, "/snap/step-000000000010");
    CU_ASSERT(w->incarnation > old);
    join(CLU_ROLE_WORKER, 1);
    clear();
    clu_figures_put(&m.report.figures, "dense_step", 20);
    clu_figures_put(&m.report.figures, "lost_steps", 7);
    clu_figures_put(&m.report.figures, "lost_samples", 448);
    report(CLU_ROLE_WORKER, 0, CLU_REPORT_GONE_ON, 27);
    struct schd_view view;
    schd_coordinator_view(c, &view);
    CU_ASSERT(view.n_gone_on == 1 && view.lost_steps == 7 && view.lost_samples == 448);
    CU_ASSERT_PTR_NOT_NULL(strstr(last(SCHD_TELL, 0)->text, "they miss 7 steps, 448 samples"));
    end();
    begin_standing(false); /* staleness 0: rows and weights must be of one step */
    run();
    schd_coordinator_gone(c, now, CLU_ROLE_WORKER, 1, CLU_E_LOST, "was killed by signal 9");
    CU_ASSERT_EQUAL(schd_coordinator_plan(c), SCHD_WAY_BACK);
    end();
}

static void test_servers_that_died_before_all_were_ready_have_nothing_to_stand_on(void)
{
    begin_standing(true);
    join(CLU_ROLE_PS, 0);
    join(CLU_ROLE_PS, 1);
    schd_coordinator_gone(c, now, CLU_ROLE_PS, 1, CLU_E_LOST, "was killed by signal 9");
    CU_ASSERT_EQUAL(schd_coordinator_plan(c), SCHD_WAY_BACK);
    end();
}

/* Two recoveries in a row: the server that lived through both has heard of both. */
static void test_a_kept_server_hears_of_every_life(void)
{
    begin(true);
    run();
    for (uint64_t life = 2; life <= 3; life++) {
        schd_coordinator_gone(c, now, CLU_ROLE_WORKER, 0, CLU_E_LOST, "was killed by signal 9");
        schd_coordinator_plan(c);
        collect();
        clear();
        schd_coordinator_recover(c, now, SCHD_WAY_BACK, "", 0);
        collect();
        CU_ASSERT_EQUAL(sent(CLU_CONTROL_ORDER), 2);
        CU_ASSERT_EQUAL(last(SCHD_SEND, CLU_CONTROL_ORDER)->order.generation, life);
        CU_ASSERT_EQUAL(last(SCHD_SEND, CLU_CONTROL_ORDER)->number, life - 1);
        m.report.generation = life - 1; /* ready for the life before: counts for nothing (C6) */
        m.incarnation = member(CLU_ROLE_PS, 0).incarnation;
        m.number = ++n_reports;
        m.report.kind = CLU_REPORT_READY;
        hear(CLU_ROLE_PS, 0, CLU_CONTROL_REPORT);
        CU_ASSERT_EQUAL(member(CLU_ROLE_PS, 0).state, SCHD_IN);
        for (int i = 0; i < 2; i++) {
            beat(CLU_ROLE_PS, i);
            report(CLU_ROLE_PS, i, CLU_REPORT_READY, 0);
        }
        CU_ASSERT_EQUAL(phase(), SCHD_RUNNING);
        join(CLU_ROLE_WORKER, 0);
        join(CLU_ROLE_WORKER, 1);
    }
    end();
}

/* Buckets may have moved since it last had the map: it goes back by the owners of the new life. */
static void test_a_kept_server_has_the_newest_map_before_it_is_told_to_go_back(void)
{
    begin(true);
    run();
    schd_coordinator_gone(c, now, CLU_ROLE_WORKER, 0, CLU_E_LOST, "was killed by signal 9");
    schd_coordinator_plan(c);
    collect();
    clear();
    schd_coordinator_recover(c, now, SCHD_WAY_BACK, "", 0);
    collect();
    int n_told = 0, n_maps[2] = {0};
    for (int i = 0; i < n_actions; i++) {
        int rank = actions[i].kind == SCHD_SEND ? actions[i].peer.bytes[1] : 0;
        if (actions[i].kind == SCHD_SEND && actions[i].op == CLU_CONTROL_BEAT)
            n_maps[rank] += actions[i].with_map;
        if (actions[i].kind != SCHD_SEND || actions[i].op != CLU_CONTROL_ORDER)
            continue;
        CU_ASSERT_EQUAL(actions[i].order.kind, CLU_ORDER_RESTORE);
        CU_ASSERT_EQUAL(n_maps[rank], 1);
        n_told++;
    }
    CU_ASSERT_EQUAL(n_told, 2);
    end();
}

static void test_what_recoveries_need_outlives_the_scheduler(void)
{
    struct clu_packer packer;
    clu_packer_init(&packer);
    begin_standing(true);
    run();
    schd_coordinator_gone(c, now, CLU_ROLE_WORKER, 1, CLU_E_LOST, "was killed by signal 9");
    schd_coordinator_plan(c);
    schd_coordinator_recover(c, now, SCHD_WAY_WORKERS, "/snap/step-000000000010", 10);
    schd_coordinator_save(c, &packer);
    end();
    begin_standing(true);
    CU_ASSERT_EQUAL(schd_coordinator_load(c, now, packer.data, packer.size_bytes), 0);
    join(CLU_ROLE_WORKER, 0);
    struct clu_welcome *w = &last(SCHD_SEND, CLU_CONTROL_WELCOME)->welcome;
    CU_ASSERT(w->stand && w->resume_step == 10 && w->least_incarnation > (uint64_t)1 << 32);
    end();
    clu_packer_fini(&packer);
}

/* A member that lost its connection joins again: what it was told meanwhile is told again. */
static void test_an_order_that_waits_is_given_again_to_one_who_rejoins(void)
{
    begin(true);
    run();
    schd_coordinator_committed(c, now, 10, CLU_OK);
    collect();
    clear();
    m.incarnation = member(CLU_ROLE_WORKER, 0).incarnation;
    join(CLU_ROLE_WORKER, 0);
    CU_ASSERT_EQUAL(sent(CLU_CONTROL_WELCOME), 1);
    CU_ASSERT_EQUAL_FATAL(sent(CLU_CONTROL_ORDER), 1);
    CU_ASSERT_EQUAL(last(SCHD_SEND, CLU_CONTROL_ORDER)->order.kind, CLU_ORDER_COMMITTED);
    CU_ASSERT_EQUAL(last(SCHD_SEND, CLU_CONTROL_ORDER)->number, 1); /* it counts afresh */
    end();
}

/* Numbers begin anew with a welcome; what an old connection still brings is of before it. */
static void test_orders_are_counted_afresh_after_a_rejoin_whatever_comes_late(void)
{
    struct clu_peer other = {.size_bytes = 2, .bytes = {9, 9}};
    begin(true);
    run();
    schd_coordinator_dump(c);
    beat(CLU_ROLE_WORKER, 0); /* it has that one */
    schd_coordinator_committed(c, now, 10, CLU_OK);
    collect();
    clear();
    m = (struct clu_control_message){.op = CLU_CONTROL_JOIN,
                                     .role = CLU_ROLE_WORKER,
                                     .incarnation = member(CLU_ROLE_WORKER, 0).incarnation,
                                     .pid = 100 * (CLU_ROLE_WORKER + 1)};
    schd_coordinator_hear(c, now, &other, &m);
    collect();
    CU_ASSERT_EQUAL_FATAL(sent(CLU_CONTROL_ORDER), 1);
    CU_ASSERT_EQUAL(last(SCHD_SEND, CLU_CONTROL_ORDER)->number, 1);
    clear();
    beat(CLU_ROLE_WORKER, 0); /* from before: of numbers that mean nothing now */
    m.incarnation = member(CLU_ROLE_WORKER, 0).incarnation;
    m.op = CLU_CONTROL_BEAT;
    m.role = CLU_ROLE_WORKER;
    schd_coordinator_hear(c, now, &other, &m);
    memset(&m, 0, sizeof(m));
    clear();
    collect();
    CU_ASSERT_EQUAL_FATAL(sent(CLU_CONTROL_ORDER), 1);
    CU_ASSERT_EQUAL(last(SCHD_SEND, CLU_CONTROL_ORDER)->order.kind, CLU_ORDER_COMMITTED);
    end();
}

/* One who is to be replaced may have asked to join a moment before its end. */
static void test_nobody_joins_between_a_plan_and_its_recovery(void)
{
    begin(true);
    join(CLU_ROLE_PS, 0);
    schd_coordinator_gone(c, now, CLU_ROLE_PS, 0, CLU_E_LOST, "was killed by signal 9");
    CU_ASSERT_EQUAL(schd_coordinator_plan(c), SCHD_WAY_BACK);
    CU_ASSERT(schd_coordinator_starts(c, SCHD_WAY_BACK, CLU_ROLE_PS, 1));
    join(CLU_ROLE_PS, 1);
    CU_ASSERT_EQUAL(member(CLU_ROLE_PS, 1).state, SCHD_ABSENT);
    CU_ASSERT_EQUAL(sent(CLU_CONTROL_REFUSE), 0); /* who comes next may ask like this */
    end();
}

/* Rank 0 had said that all is done; it died, and so did its life of the job. */
static void test_a_job_that_goes_back_has_not_finished(void)
{
    begin(true);
    run();
    report(CLU_ROLE_WORKER, 0, CLU_REPORT_FINISHED, 10);
    schd_coordinator_gone(c, now, CLU_ROLE_WORKER, 1, CLU_E_LOST, "was killed by signal 9");
    CU_ASSERT_EQUAL(schd_coordinator_plan(c), SCHD_WAY_BACK);
    schd_coordinator_recover(c, now, SCHD_WAY_BACK, "", 0);
    collect();
    for (int i = 0; i < 2; i++)
        beat(CLU_ROLE_PS, i);
    for (int i = 0; i < 2; i++)
        report(CLU_ROLE_PS, i, CLU_REPORT_READY, 0);
    join(CLU_ROLE_WORKER, 0);
    join(CLU_ROLE_WORKER, 1);
    CU_ASSERT_EQUAL(phase(), SCHD_RUNNING);
    CU_ASSERT_EQUAL(schd_coordinator_snapshot(c, now), CLU_OK);
    leave(CLU_ROLE_WORKER, 0, CLU_OK);
    leave(CLU_ROLE_WORKER, 1, CLU_OK);
    CU_ASSERT_EQUAL(phase(), SCHD_BROKEN); /* before it said so in this life */
    end();
}

/* The order to stop may have died with the scheduler that gave it. */
static void test_a_restarted_scheduler_orders_the_stop_again(void)
{
    struct clu_packer packer;
    clu_packer_init(&packer);
    begin(true);
    run();
    schd_coordinator_stop(c, now, "stopped on request");
    schd_coordinator_save(c, &packer);
    end();
    begin(true);
    CU_ASSERT_EQUAL(schd_coordinator_load(c, now, packer.data, packer.size_bytes), 0);
    clear();
    for (int i = 0; i < 2; i++) {
        m.incarnation = member(CLU_ROLE_WORKER, i).incarnation;
        join(CLU_ROLE_WORKER, i);
        CU_ASSERT_EQUAL_FATAL(sent(CLU_CONTROL_ORDER), i + 1);
        const struct clu_order *order = &last(SCHD_SEND, CLU_CONTROL_ORDER)->order;
        CU_ASSERT(order->kind == CLU_ORDER_STOP && order->snapshot);
    }
    end();
    clu_packer_fini(&packer);
}

SUITE("sched.coordinator_recover", T(test_an_order_that_waits_is_given_again_to_one_who_rejoins),
      T(test_the_late_word_of_a_dead_process_does_not_keep_its_successor_out),
      T(test_a_dead_server_whose_rows_stand_comes_back_and_nobody_goes_back),
      T(test_a_server_that_cannot_stand_takes_the_job_back),
      T(test_dead_workers_are_followed_by_others_where_rows_stand_for_them),
      T(test_servers_that_died_before_all_were_ready_have_nothing_to_stand_on),
      T(test_a_kept_server_hears_of_every_life),
      T(test_a_kept_server_has_the_newest_map_before_it_is_told_to_go_back),
      T(test_orders_are_counted_afresh_after_a_rejoin_whatever_comes_late),
      T(test_nobody_joins_between_a_plan_and_its_recovery),
      T(test_a_job_that_goes_back_has_not_finished),
      T(test_a_restarted_scheduler_orders_the_stop_again),
      T(test_what_recoveries_need_outlives_the_scheduler))
