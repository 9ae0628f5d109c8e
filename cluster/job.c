/* One table says everything about the scalar keys; the list of tables is read beside it with a
 * small table of its own. A job file is a YAML map of those keys:
 *
 *     data: sluice-run/data
 *     servers: 2
 *     batch: 256
 *     tables:
 *       - {name: item, dim: 32, optimizer: rowwise_adagrad}
 */
#include "cluster/job.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "cluster/yaml.h"

#include <stdlib.h>
#include <string.h>

#define AT(field) offsetof(struct clu_job, field), sizeof(((struct clu_job *)0)->field)
#define TEXT(field, default_text, help)                                                            \
    {                                                                                              \
#field, CLU_SETTING_TEXT, AT(field), default_text, 0, 0, NULL, help                        \
    }
#define CHOICE(field, default_text, choices, help)                                                 \
    {                                                                                              \
#field, CLU_SETTING_CHOICE, AT(field), default_text, 0, 0, choices, help                   \
    }
#define INT(field, default_text, min, max, help)                                                   \
    {                                                                                              \
#field, CLU_SETTING_INT, AT(field), default_text, min, max, NULL, help                     \
    }
#define REAL(field, default_text, min, max, help)                                                  \
    {                                                                                              \
#field, CLU_SETTING_REAL, AT(field), default_text, min, max, NULL, help                    \
    }
#define SIZE(field, default_text, min, max, help)                                                  \
    {                                                                                              \
#field, CLU_SETTING_SIZE, AT(field), default_text, min, max, NULL, help                    \
    }
#define BOOL(field, default_text, help)                                                            \
    {                                                                                              \
#field, CLU_SETTING_BOOL, AT(field), default_text, 0, 0, NULL, help                        \
    }

static const struct clu_setting rows[] = {
    TEXT(data, "", "folder of the data set (sluice prepare or generate)"),
    TEXT(out, "sluice-run", "folder that everything of the job is written to"),
    INT(servers, "1", 1, 1024, "parameter server processes"),
    INT(shards, "1", 1, 64, "shard threads in each server"),
    INT(workers, "1", 1, 4096, "MPI worker ranks"),
    CHOICE(model, "a2gen", "a2gen", "model to train"),
    INT(width, "64", 4, 1024, "d, the width of the model"),
    INT(heads, "4", 1, 16, "h, attention heads; divides width"),
    INT(history, "100", 1, 1000, "H, past items that a sample sees"),
    REAL(alpha, "1", 0, 1000, "weight of the class loss"),
    REAL(beta, "1", 0, 1000, "weight of the time loss"),
    REAL(gamma, "0.1", 0, 1000, "weight of the order loss"),
    CHOICE(read, "exact", "greedy|exact", "how predictions are read off the generator"),
    INT(user_dim, "32", 1, 512, "floats of a user id's embedding"),
    INT(item_dim, "32", 1, 512, "floats of an item id's embedding"),
    INT(feature_dim, "16", 1, 512, "floats of every other sparse column's embedding"),
    INT(seed, "1", 0, 9e15, "seed of the rows, the dense parameters and the order of samples"),
    INT(epochs, "5", 1, 1000, "passes over the training samples"),
    INT(max_steps, "0", 0, 9e15, "stop after this many steps; 0: when the epochs end"),
    INT(batch, "128", 1, 1048576, "samples of a step over all workers"),
    INT(samples_per_user, "8", 1, 1024, "most samples of one user that stand together in a batch"),
    INT(threads, "1", 1, 64, "threads of a worker, sharing a rank's batch; no bit depends on them"),
    REAL(dense_learning_rate, "0.001", 0, 10, "Adam's step for the dense parameters"),
    REAL(history_dropout, "0", 0, 0.99, "share of history items that a training step hides"),
    BOOL(history_counts, "true",
         "give the model counts of the history's actions, and the time since its latest item"),
    INT(warmup_steps, "200", 0, 1e9, "steps over which the dense step rises to its full length"),
    REAL(final_learning_rate, "1", 0, 1,
         "share of the dense step left at the job's last step; it falls evenly from 1"),
    REAL(weight_decay, "0.2", 0, 10,
         "decoupled decay of the dense parameters, a step's share of lr"),
    REAL(id_dropout, "0.9", 0, 0.99, "share of user and item ids that a training step hides"),
    REAL(average_decay, "0.999", 0, 0.999999,
         "decay of the moving average of the weights; 0: none"),
    CHOICE(sparse_optimizer, "adam", "adam|rowwise_adagrad|adagrad|sgd|ftrl",
           "optimiser of the rows, unless a table names its own"),
    REAL(sparse_learning_rate, "0.001", 0, 10, "its step"),
    REAL(init_range, "0.05", 0, 10, "a new row's values are uniform in plus and minus this"),
    CHOICE(row_dtype, "fp32", "fp32|bf16", "storage of the embedding floats"),
    INT(min_count, "1", 1, 1e9, "pushes of a key before its row exists"),
    INT(expire_steps, "0", 0, 9e15, "rows untouched for this many steps go; 0: never"),
    SIZE(memory_bytes, "2GiB", 1048576, 0x1p50, "memory of one server for rows"),
    CHOICE(durability, "snapshot", "snapshot|log", "what a server's disk holds between snapshots"),
    {"staleness", CLU_SETTING_INT, AT(staleness), "0", 0, 64, "async=-1",
     "steps that a pull may miss"},
    INT(dense_every, "1", 1, 1e6, "steps between dense all-reduces when staleness is async"),
    BOOL(deal, "true",
         "at staleness async with dense_every above 3, ranks ask for parts of batches as they get "
         "done, so that a slow one takes less; false: each has its own"),
    CHOICE(wire_dtype, "fp32", "fp32|bf16|bf16_feedback",
           "rows and gradients on the wire; feedback: what rounding left over is sent later"),
    CHOICE(wire_keys, "plain", "plain|delta",
           "keys on the wire; delta: sorted and coded, for slow networks and small integer ids"),
    INT(log_every, "20", 1, 1e9, "steps between progress reports"),
    INT(eval_every, "0", 0, 1e9, "steps between evaluations; 0: at the end only"),
    INT(valid_percent, "0", 0, 20,
        "last part of the training samples to keep out and evaluate on; 0: evaluate on the test"),
    INT(patience, "0", 0, 1000,
        "stop after this many epochs without a better loss on the slice that valid_percent keeps "
        "out, and keep the best epoch; 0: train every epoch"),
    REAL(snapshot_minutes, "0", 0, 100000, "minutes between snapshots; 0: by steps only"),
    INT(snapshot_every, "0", 0, 1e9, "steps between snapshots; 0: at the end only"),
    INT(snapshot_full_every, "10", 1, 1000,
        "every so many-th snapshot is full, the others hold what changed since the one before"),
    REAL(snapshot_spread, "0.25", 0, 1,
         "a snapshot is written over this share of the time since the one before, but a fifth of "
         "ten request timeouts at most, and at once when training stands still; 0: as fast as it "
         "can be"),
    INT(keep, "2", 1, 1000, "snapshots kept, and what they were made upon"),
    INT(dense_checkpoint_steps, "50", 0, 1e9,
        "steps between copies of the dense weights, for workers started again while rows stand "
        "(durability log, staleness > 0); 0: none"),
    TEXT(host, "127.0.0.1", "address that the job's sockets bind to"),
    INT(port, "0", 0, 65535, "port of the scheduler; 0: any free one"),
    INT(page_port, "0", -1, 65535,
        "port of the status page and metrics; 0: any free one, -1: none"),
    INT(metrics_port, "0", -1, 65535,
        "first port of the other processes' metrics: worker r has this + r, server r this + "
        "workers + r; 0: any free ones, -1: none"),
    TEXT(metrics_host, "",
         "address or interface of the page and metrics; empty: loopback, or `host` if insecure"),
    TEXT(hostfile, "", "Open MPI hostfile; empty: everything on this machine"),
    TEXT(keys, "", "folder of CURVE keys (sluice keys); empty: no encryption, loopback only"),
    BOOL(insecure, "false", "allow sockets beyond loopback without keys"),
    INT(move_ms, "20", 1, 60000,
        "longest that a step is to wait for buckets on their way to another server"),
    INT(request_timeout_ms, "30000", 100, 3600000, "longest wait for a server's answer"),
    INT(heartbeat_ms, "500", 50, 60000, "interval of heartbeats to the scheduler"),
    INT(dead_after_ms, "5000", 500, 3600000, "silence after which a member counts as dead"),
    INT(start_timeout_ms, "60000", 1000, 3600000, "longest wait for all members to join"),
    INT(max_restarts, "0", 0, 1000, "times that lost roles are started again"),
    CHOICE(log_level, "info", "error|warn|info|debug|trace", "lines written to the log"),
    BOOL(log_json, "false", "log lines as JSON objects"),
};

#undef AT
#define AT(field) offsetof(struct clu_job_table, field), sizeof(((struct clu_job_table *)0)->field)

static const struct clu_setting table_rows[] = {
    TEXT(name, "", "the table"),
    INT(dim, "0", 0, 512, "floats of a row's embedding"),
    CHOICE(optimizer, "", "adam|rowwise_adagrad|adagrad|sgd|ftrl", "optimiser of the rows"),
    REAL(learning_rate, "0", 0, 10, "its step"),
    REAL(init_range, "0", 0, 10, "a new row's values are uniform in plus and minus this"),
    CHOICE(dtype, "", "fp32|bf16", "storage of the embedding floats"),
    INT(min_count, "0", 0, 1e9, "pushes of a key before its row exists"),
    INT(expire_steps, "0", 0, 9e15, "rows untouched for this many steps go"),
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct clu_binding clu_job_settings(struct clu_job *job)
{
    return (struct clu_binding){rows, COUNT(rows), job};
}

static struct clu_binding table_settings(struct clu_job_table *table)
{
    return (struct clu_binding){table_rows, COUNT(table_rows), table};
}

/* Assigns the pairs of a map to the rows of a binding; `skip` names a key that is handled
 * elsewhere. */
static int read_map(const struct clu_yaml *file, const struct clu_yaml_node *map,
                    struct clu_binding binding, const char *skip)
{
    for (size_t i = 0; i < clu_yaml_size(map); i++) {
        const char *key = clu_yaml_key(file, map, i);
        const struct clu_yaml_node *value = clu_yaml_item(file, map, i);
        if (skip && strcmp(key, skip) == 0)
            continue;
        char place[CLU_PATH_BYTES + 64];
        snprintf(place, sizeof(place), "%s, line %d", clu_yaml_name(file), clu_yaml_line(value));
        const struct clu_setting *row = clu_settings_find(binding, key);
        if (!row) {
            const char *near = clu_settings_nearest(&binding, 1, key);
            return near ? clu_fail(CLU_E_CONFIG, "%s: unknown key '%s', did you mean '%s'?", place,
                                   key, near)
                        : clu_fail(CLU_E_CONFIG, "%s: unknown key '%s'", place, key);
        }
        if (clu_yaml_kind(value) != CLU_YAML_TEXT)
            return clu_fail(CLU_E_CONFIG, "%s: '%s' takes one value", place, key);
        if (clu_yaml_text(value)[0] == '\0' && row->kind != CLU_SETTING_TEXT)
            continue; /* a key without a value leaves the default */
        int status = clu_setting_assign(row, binding.object, clu_yaml_text(value), place);
        if (status != CLU_OK)
            return status;
    }
    return CLU_OK;
}

static int read_tables(const struct clu_yaml *file, const struct clu_yaml_node *list,
                       struct clu_job *job)
{
    if (clu_yaml_kind(list) != CLU_YAML_LIST || clu_yaml_size(list) > CLU_MAX_TABLES)
        return clu_fail(CLU_E_CONFIG, "%s, line %d: 'tables' takes a list of at most %d maps",
                        clu_yaml_name(file), clu_yaml_line(list), CLU_MAX_TABLES);
    for (size_t i = 0; i < clu_yaml_size(list); i++) {
        const struct clu_yaml_node *entry = clu_yaml_item(file, list, i);
        struct clu_job_table table;
        memset(&table, 0, sizeof(table));
        clu_settings_defaults(table_settings(&table));
        if (clu_yaml_kind(entry) != CLU_YAML_MAP)
            return clu_fail(CLU_E_CONFIG, "%s, line %d: a table is a map with a name",
                            clu_yaml_name(file), clu_yaml_line(entry));
        int status = read_map(file, entry, table_settings(&table), NULL);
        if (status != CLU_OK)
            return status;
        if (table.name[0] == '\0' || clu_job_find_table(job, table.name))
            return clu_fail(CLU_E_CONFIG, "%s, line %d: a table needs a name of its own",
                            clu_yaml_name(file), clu_yaml_line(entry));
        job->tables[job->n_tables++] = table;
    }
    return CLU_OK;
}

int clu_job_load(const char *path, struct clu_job *job_p)
{
    struct clu_yaml *file;
    int status = clu_yaml_load(path, &file);
    if (status != CLU_OK)
        return status;
    struct clu_job job;
    memset(&job, 0, sizeof(job));
    clu_settings_defaults(clu_job_settings(&job));
    const struct clu_yaml_node *root = clu_yaml_root(file);
    const struct clu_yaml_node *tables = clu_yaml_find(file, root, "tables");
    if (clu_yaml_kind(root) != CLU_YAML_MAP)
        status = clu_fail(CLU_E_CONFIG, "%s: a job file is a map of keys", path);
    if (status == CLU_OK)
        status = read_map(file, root, clu_job_settings(&job), "tables");
    if (status == CLU_OK && tables)
        status = read_tables(file, tables, &job);
    if (status == CLU_OK)
        *job_p = job;
    clu_yaml_free(file);
    return status;
}

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "localhost") == 0 ||
           strcmp(host, "::1") == 0 || strcmp(host, "[::1]") == 0;
}

int clu_job_check(const struct clu_job *job)
{
    if (job->width % job->heads != 0)
        return clu_fail(CLU_E_CONFIG, "heads is %lld, expected a divisor of width (%lld)",
                        (long long)job->heads, (long long)job->width);
    if (job->data[0] == '\0')
        return clu_fail(CLU_E_CONFIG, "data is not set: name the data set's folder in the job file "
                                      "or with --data");
    if (job->out[0] == '\0')
        return clu_fail(CLU_E_CONFIG, "out is empty: name a folder for the results");
    if (!is_loopback(job->host) && job->keys[0] == '\0' && !job->insecure)
        return clu_fail(CLU_E_CONFIG,
                        "host is %s, beyond loopback, without keys: make a key folder with "
                        "`sluice keys` and set 'keys', or write 'insecure: true'",
                        job->host);
    if (job->metrics_host[0] && !is_loopback(job->metrics_host) && job->keys[0] == '\0' &&
        !job->insecure)
        return clu_fail(CLU_E_CONFIG,
                        "metrics_host is %s, beyond loopback, in a job without keys: set 'keys', "
                        "or write 'insecure: true'",
                        job->metrics_host);
    if (job->metrics_port + job->workers + job->servers - 1 > 65535)
        return clu_fail(CLU_E_CONFIG,
                        "metrics_port is %lld: expected room up to 65535 for %lld workers and "
                        "%lld servers",
                        (long long)job->metrics_port, (long long)job->workers,
                        (long long)job->servers);
    if (job->dead_after_ms < 2 * job->heartbeat_ms)
        return clu_fail(CLU_E_CONFIG, "dead_after_ms is %lld, expected at least 2 x heartbeat_ms",
                        (long long)job->dead_after_ms);
    if (job->patience > 0 && job->valid_percent == 0)
        return clu_fail(CLU_E_CONFIG,
                        "patience is %lld, but valid_percent keeps nothing out to judge epochs by: "
                        "set it (10, say), or patience to 0",
                        (long long)job->patience);
    if (job->batch < job->workers)
        return clu_fail(CLU_E_CONFIG, "batch is %lld, expected at least one sample a worker (%lld)",
                        (long long)job->batch, (long long)job->workers);
    return CLU_OK;
}

const char *clu_job_metrics_host(const struct clu_job *job)
{
    if (job->metrics_host[0])
        return job->metrics_host;
    return job->insecure ? job->host : "127.0.0.1";
}

/* A YAML double-quoted text. */
static void write_quoted(FILE *out, const char *text)
{
    fputc('"', out);
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == '"' || *p == '\\')
            fprintf(out, "\\%c", *p);
        else if (*p < ' ')
            fprintf(out, "\\x%02x", *p);
        else
            fputc(*p, out);
    }
    fputc('"', out);
}

static void write_value(FILE *out, const struct clu_setting *row, const void *object)
{
    char text[CLU_PATH_BYTES];
    clu_setting_format(row, object, text, sizeof(text));
    if (row->kind == CLU_SETTING_TEXT)
        write_quoted(out, text);
    else
        fputs(text, out);
}

static void write_tables(FILE *out, const struct clu_job *job)
{
    if (job->n_tables > 0)
        fputs("tables:\n", out);
    for (int64_t t = 0; t < job->n_tables; t++) {
        const char *separator = "  - {";
        for (size_t i = 0; i < COUNT(table_rows); i++) {
            char text[CLU_PATH_BYTES];
            clu_setting_format(&table_rows[i], &job->tables[t], text, sizeof(text));
            if (text[0] == '\0')
                continue;
            fprintf(out, "%s%s: ", separator, table_rows[i].name);
            write_value(out, &table_rows[i], &job->tables[t]);
            separator = ", ";
        }
        fputs("}\n", out);
    }
}

int clu_job_save(const struct clu_job *job, const char *path)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return clu_fail(CLU_E_NO_MEMORY, "no memory to write %s", path);
    for (size_t i = 0; i < COUNT(rows); i++) {
        fprintf(out, "%s: ", rows[i].name);
        write_value(out, &rows[i], job);
        fprintf(out, "  # %s\n", rows[i].help);
    }
    write_tables(out, job);
    int failed = ferror(out);
    if (fclose(out) != 0 || failed) {
        free(text);
        return clu_fail(CLU_E_NO_MEMORY, "no memory to write %s", path);
    }
    int status = clu_file_write_atomic(path, text, size);
    free(text);
    return status;
}

const struct clu_job_table *clu_job_find_table(const struct clu_job *job, const char *name)
{
    for (int64_t i = 0; i < job->n_tables; i++)
        if (strcmp(job->tables[i].name, name) == 0)
            return &job->tables[i];
    return NULL;
}
