/* Figures and the registry of metrics. */
#include "cluster/metrics.h"
#include "cluster/status.h"
#include "tests/suite.h"

#include <math.h>
#include <pthread.h>
#include <unistd.h>

static void test_a_figure_is_replaced_by_one_of_its_name(void)
{
    static struct clu_figures f;
    clu_figures_put(&f, "loss", 1.5);
    clu_figures_put(&f, "auc", 0.7);
    clu_figures_put(&f, "loss", 1.25);
    CU_ASSERT_EQUAL(f.n, 2);
    CU_ASSERT_EQUAL(clu_figures_get(&f, "loss", 0), 1.25);
    CU_ASSERT_EQUAL(clu_figures_get(&f, "none", -1), -1);
}

static void test_too_many_figures_are_dropped_not_written(void)
{
    static struct clu_figures f;
    char name[32], longer[CLU_FIGURE_NAME_BYTES + 1];
    for (int i = 0; i < CLU_MAX_FIGURES + 3; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        clu_figures_put(&f, name, i);
    }
    CU_ASSERT_EQUAL(f.n, CLU_MAX_FIGURES);
    f.n = 0;
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    clu_figures_put(&f, longer, 1);
    CU_ASSERT_EQUAL(f.n, 0);
}

static void test_packed_figures_come_back(void)
{
    static struct clu_figures f, g;
    struct clu_packer packer;
    struct clu_unpacker u;
    clu_figures_put(&f, "loss", -0.125);
    clu_figures_put(&f, "nan", NAN);
    clu_packer_init(&packer);
    clu_figures_pack(&f, &packer);
    clu_unpacker_init(&u, packer.data, packer.size_bytes);
    CU_ASSERT_EQUAL(clu_figures_unpack(&u, &g), CLU_OK);
    CU_ASSERT_EQUAL(g.n, 2);
    CU_ASSERT_EQUAL(clu_figures_get(&g, "loss", 0), -0.125);
    CU_ASSERT(isnan(clu_figures_get(&g, "nan", 0)));
    for (size_t cut = 0; cut < packer.size_bytes; cut++) {
        clu_unpacker_init(&u, packer.data, cut);
        CU_ASSERT_EQUAL(clu_figures_unpack(&u, &g), CLU_E_PROTOCOL);
    }
    clu_packer_fini(&packer);
}

static void test_figures_print_as_json(void)
{
    static struct clu_figures f;
    char *text;
    size_t size;
    clu_figures_put(&f, "loss", 0.5);
    clu_figures_put(&f, "bad\"name", INFINITY);
    FILE *stream = open_memstream(&text, &size);
    clu_figures_print_json(&f, stream);
    fclose(stream);
    CU_ASSERT_STRING_EQUAL(text, "\"loss\":0.5,\"bad_name\":null");
    free(text);
}

static void *add_many(void *metric)
{
    for (int i = 0; i < 20000; i++)
        clu_metric_add(metric, 1);
    return NULL;
}

static void test_counters_lose_nothing_between_threads(void)
{
    struct clu_metrics *m = clu_metrics_create();
    struct clu_metric *c = clu_metrics_add(m, CLU_METRIC_COUNTER, "rows_total", "", "rows");
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, add_many, c);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CU_ASSERT_EQUAL(clu_metric_value(c), 80000);
    CU_ASSERT_PTR_EQUAL(clu_metrics_add(m, CLU_METRIC_COUNTER, "rows_total", "", "rows"), c);
    clu_metrics_free(m);
}

static void test_prometheus_text(void)
{
    struct clu_metrics *m = clu_metrics_create();
    char *text;
    size_t size;
    clu_metric_set(clu_metrics_add(m, CLU_METRIC_GAUGE, "rows", "table=\"user\"", "rows held"), 7);
    struct clu_metric *h = clu_metrics_add(m, CLU_METRIC_HISTOGRAM, "wait_seconds", "", "waits");
    for (int i = 0; i < 99; i++)
        clu_metric_observe(h, 0.001);
    clu_metric_observe(h, 1e9);
    /* a family stands together, whenever its members were added */
    clu_metric_set(clu_metrics_add(m, CLU_METRIC_GAUGE, "rows", "table=\"item\"", "rows held"), 8);
    FILE *stream = open_memstream(&text, &size);
    clu_metrics_print(m, "role=\"ps\"", stream);
    fclose(stream);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "# TYPE sluice_rows gauge\n"
                                        "sluice_rows{role=\"ps\",table=\"user\"} 7\n"
                                        "sluice_rows{role=\"ps\",table=\"item\"} 8\n"));
    CU_ASSERT_PTR_NOT_NULL(
        strstr(text, "sluice_wait_seconds_bucket{role=\"ps\",le=\"+Inf\"} 100\n"));
    CU_ASSERT_PTR_NOT_NULL(
        strstr(text, "sluice_wait_seconds_bucket{role=\"ps\",le=\"0.001024\"} 99\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "sluice_wait_seconds_count{role=\"ps\"} 100\n"));
    free(text);
    clu_metrics_free(m);
}

/* What a call writes to stderr. */
static void capture(const struct clu_metrics *metrics, char *text_p, size_t size)
{
    FILE *file = tmpfile();
    int saved = dup(STDERR_FILENO);
    CU_ASSERT_FATAL(file && saved >= 0 && dup2(fileno(file), STDERR_FILENO) >= 0);
    clu_metrics_log(metrics);
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(file);
    size_t n = fread(text_p, 1, size - 1, file);
    text_p[n] = '\0';
    fclose(file);
}

static void test_a_dump_has_a_line_for_each_set_of_labels_and_nothing_of_zero(void)
{
    struct clu_metrics *m = clu_metrics_create();
    char text[4096];
    clu_metric_set(clu_metrics_add(m, CLU_METRIC_GAUGE, "step", "shard=\"0\"", "steps"), 12);
    clu_metric_set(clu_metrics_add(m, CLU_METRIC_GAUGE, "step", "shard=\"1\"", "steps"), 13);
    clu_metrics_add(m, CLU_METRIC_COUNTER, "refused_total", "shard=\"0\"", "refused");
    struct clu_metric *h = clu_metrics_add(m, CLU_METRIC_HISTOGRAM, "wait_seconds", "", "waits");
    for (int i = 0; i < 4; i++)
        clu_metric_observe(h, 0.5);
    capture(m, text, sizeof(text));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "state of shard=\"0\": step 12\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "state of shard=\"1\": step 13\n"));
    CU_ASSERT_PTR_NOT_NULL(
        strstr(text, "state: wait_seconds 4 times, mean 0.5, 99 % below 0.524\n"));
    CU_ASSERT_PTR_NULL(strstr(text, "refused"));
    clu_metrics_free(m);
}

SUITE("cluster.metrics", T(test_a_figure_is_replaced_by_one_of_its_name),
      T(test_too_many_figures_are_dropped_not_written), T(test_packed_figures_come_back),
      T(test_figures_print_as_json), T(test_counters_lose_nothing_between_threads),
      T(test_prometheus_text), T(test_a_dump_has_a_line_for_each_set_of_labels_and_nothing_of_zero))
