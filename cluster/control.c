/* The control messages, to and from bytes. A message is a map from short names to values; every
 * scalar field of a struct is a row of a table below, and fields that are zero are not written. So
 * a new field is one row, an older reader passes over it, and a newer one finds zero in an older
 * message.
 *
 * Everything read here came from a peer: each number is checked against its field's range, each
 * text against its buffer, each count against its array, before anything uses it.
 */
#include "cluster/control.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum field_kind { FIELD_INT, FIELD_I64, FIELD_U64, FIELD_BOOL, FIELD_TEXT };

struct field {
    const char *key;
    enum field_kind kind;
    size_t offset, size;
    int64_t min, max; /* of an int */
};

#define INT(type, key, member, lo, hi)                                                             \
    {                                                                                              \
        key, FIELD_INT, offsetof(struct type, member), 0, lo, hi                                   \
    }
#define I64(type, key, member)                                                                     \
    {                                                                                              \
        key, FIELD_I64, offsetof(struct type, member), 0, 0, 0                                     \
    }
#define U64(type, key, member)                                                                     \
    {                                                                                              \
        key, FIELD_U64, offsetof(struct type, member), 0, 0, 0                                     \
    }
#define BOOL(type, key, member)                                                                    \
    {                                                                                              \
        key, FIELD_BOOL, offsetof(struct type, member), 0, 0, 0                                    \
    }
#define TEXT(type, key, member)                                                                    \
    {                                                                                              \
        key, FIELD_TEXT, offsetof(struct type, member), sizeof(((struct type *)0)->member), 0, 0   \
    }
#define COUNT(array) (sizeof(array) / sizeof(array[0]))

enum { MAX_RANK = 65535, MIN_STATUS = -1000 };

static const struct field message_fields[] = {
    INT(clu_control_message, "op", op, CLU_CONTROL_JOIN, CLU_CONTROL_ANSWER),
    INT(clu_control_message, "role", role, 0, CLU_N_ROLES - 1),
    INT(clu_control_message, "rank", rank, 0, MAX_RANK),
    U64(clu_control_message, "inc", incarnation),
    U64(clu_control_message, "no", number),
    U64(clu_control_message, "mapv", map_version),
    INT(clu_control_message, "st", status, MIN_STATUS, 0),
    I64(clu_control_message, "pid", pid),
    TEXT(clu_control_message, "host", host),
    TEXT(clu_control_message, "text", text),
    TEXT(clu_control_message, "metrics", metrics_url),
};

static const struct field welcome_fields[] = {
    U64(clu_welcome, "job", job_id),
    U64(clu_welcome, "gen", generation),
    U64(clu_welcome, "inc", incarnation),
    INT(clu_welcome, "ps", n_servers, 0, CLU_MAX_SHARDS),
    INT(clu_welcome, "shards", n_shards, 0, CLU_MAX_SHARDS),
    INT(clu_welcome, "workers", n_workers, 0, MAX_RANK),
    TEXT(clu_welcome, "resume", resume),
    U64(clu_welcome, "step", resume_step),
    BOOL(clu_welcome, "stand", stand),
    U64(clu_welcome, "least", least_incarnation),
};

static const struct field order_fields[] = {
    INT(clu_order, "kind", kind, CLU_ORDER_SNAPSHOT, CLU_ORDER_RESTORE),
    U64(clu_order, "step", step),
    INT(clu_order, "st", status, MIN_STATUS, 0),
    BOOL(clu_order, "snap", snapshot),
    U64(clu_order, "gen", generation),
    U64(clu_order, "least", least_incarnation),
    TEXT(clu_order, "text", text),
};

static const struct field report_fields[] = {
    INT(clu_report, "kind", kind, CLU_REPORT_READY, CLU_REPORT_GONE_ON),
    U64(clu_report, "step", step),
    U64(clu_report, "steps", n_steps),
    U64(clu_report, "base", base_step),
    U64(clu_report, "gen", generation),
    INT(clu_report, "st", status, MIN_STATUS, 0),
    TEXT(clu_report, "text", text),
    U64(clu_report, "owners", owners),
};

static const struct field file_fields[] = {
    TEXT(clu_manifest_file, "path", path),
    U64(clu_manifest_file, "size", size_bytes),
    U64(clu_manifest_file, "sum", checksum),
};

const char *clu_role_name(enum clu_role role)
{
    static const char *const names[CLU_N_ROLES] = {"sched", "ps", "worker", "launcher", "tool"};
    return (unsigned)role < CLU_N_ROLES ? names[role] : "unknown";
}

/* ---- writing ---- */

/* The field's value as an integer; for a text, whether it is there. */
static int64_t field_number(const struct field *field, const void *object)
{
    const char *at = (const char *)object + field->offset;
    int number;
    int64_t wide;
    switch (field->kind) {
    case FIELD_INT:
        memcpy(&number, at, sizeof(number));
        return number;
    case FIELD_BOOL:
        return *(const bool *)at;
    case FIELD_TEXT:
        return at[0] != '\0';
    case FIELD_I64:
    case FIELD_U64:
        break;
    }
    memcpy(&wide, at, sizeof(wide));
    return wide;
}

static size_t count_fields(const struct field *fields, size_t n, const void *object)
{
    size_t present = 0;
    for (size_t i = 0; i < n; i++)
        present += field_number(&fields[i], object) != 0;
    return present;
}

static void pack_fields(struct clu_packer *packer, const struct field *fields, size_t n,
                        const void *object)
{
    for (size_t i = 0; i < n; i++) {
        int64_t number = field_number(&fields[i], object);
        if (number == 0)
            continue;
        clu_pack_text(packer, fields[i].key);
        if (fields[i].kind == FIELD_TEXT)
            clu_pack_text(packer, (const char *)object + fields[i].offset);
        else if (fields[i].kind == FIELD_U64)
            clu_pack_uint(packer, (uint64_t)number);
        else
            clu_pack_int(packer, number);
    }
}

static void pack_files(struct clu_packer *packer, const struct clu_manifest_file *files, int n)
{
    clu_pack_array(packer, (size_t)n);
    for (int i = 0; i < n; i++) {
        clu_pack_map(packer, count_fields(file_fields, COUNT(file_fields), &files[i]));
        pack_fields(packer, file_fields, COUNT(file_fields), &files[i]);
    }
}

/* every bucket's shard, little-endian */
static void pack_owners(struct clu_packer *packer, const uint16_t *shard_of)
{
    uint8_t bytes[2 * CLU_N_BUCKETS];
    for (int b = 0; b < CLU_N_BUCKETS; b++) {
        bytes[2 * b] = (uint8_t)shard_of[b];
        bytes[2 * b + 1] = (uint8_t)(shard_of[b] >> 8);
    }
    clu_pack_bin(packer, bytes, sizeof(bytes));
}

static void pack_report(struct clu_packer *packer, const struct clu_report *report)
{
    size_t n = count_fields(report_fields, COUNT(report_fields), report);
    clu_pack_map(packer,
                 n + (report->figures.n > 0) + (report->n_files > 0) + (report->owners > 0));
    pack_fields(packer, report_fields, COUNT(report_fields), report);
    if (report->figures.n > 0) {
        clu_pack_text(packer, "figures");
        clu_figures_pack(&report->figures, packer);
    }
    if (report->n_files > 0) {
        clu_pack_text(packer, "files");
        pack_files(packer, report->files, report->n_files);
    }
    if (report->owners > 0) {
        clu_pack_text(packer, "shard_of");
        pack_owners(packer, report->shard_of);
    }
}

static void pack_body(const struct clu_control_message *message, struct clu_packer *packer)
{
    switch (message->op) {
    case CLU_CONTROL_WELCOME:
        clu_pack_text(packer, "welcome");
        clu_pack_map(packer,
                     count_fields(welcome_fields, COUNT(welcome_fields), &message->welcome));
        pack_fields(packer, welcome_fields, COUNT(welcome_fields), &message->welcome);
        break;
    case CLU_CONTROL_ORDER:
        clu_pack_text(packer, "order");
        clu_pack_map(packer, count_fields(order_fields, COUNT(order_fields), &message->order));
        pack_fields(packer, order_fields, COUNT(order_fields), &message->order);
        break;
    case CLU_CONTROL_REPORT:
        clu_pack_text(packer, "report");
        pack_report(packer, &message->report);
        break;
    case CLU_CONTROL_JOIN:
        clu_pack_text(packer, "shards");
        clu_pack_array(packer, (size_t)message->n_endpoints);
        for (int i = 0; i < message->n_endpoints; i++)
            clu_pack_text(packer, message->endpoints[i]);
        break;
    case CLU_CONTROL_ANSWER:
        clu_pack_text(packer, "body");
        clu_pack_text_n(packer, message->body ? message->body : "", message->body_bytes);
        break;
    default:
        clu_pack_text(packer, "v");
        clu_pack_uint(packer, CLU_CONTROL_VERSION);
        break;
    }
}

void clu_control_pack(const struct clu_control_message *message, struct clu_packer *packer)
{
    clu_packer_clear(packer);
    size_t n = count_fields(message_fields, COUNT(message_fields), message);
    bool map = message->has_map && message->map;
    clu_pack_map(packer, n + 1 + map);
    pack_fields(packer, message_fields, COUNT(message_fields), message);
    pack_body(message, packer);
    if (map) {
        clu_pack_text(packer, "map");
        clu_map_pack(message->map, packer);
    }
}

/* ---- reading ---- */

static int unpack_text(struct clu_unpacker *unpacker, char *out, size_t out_bytes)
{
    const char *text;
    size_t size;
    int status = clu_unpack_text(unpacker, &text, &size);
    if (status)
        return status;
    if (size >= out_bytes || memchr(text, '\0', size))
        return CLU_E_PROTOCOL;
    memcpy(out, text, size);
    out[size] = '\0';
    return CLU_OK;
}

static int unpack_field(struct clu_unpacker *unpacker, const struct field *field, void *object)
{
    char *at = (char *)object + field->offset;
    int64_t number = 0;
    uint64_t bits = 0;
    if (field->kind == FIELD_TEXT)
        return unpack_text(unpacker, at, field->size);
    int status = field->kind == FIELD_U64 ? clu_unpack_uint(unpacker, &bits)
                                          : clu_unpack_int(unpacker, &number);
    if (status)
        return status;
    if (field->kind == FIELD_U64) {
        memcpy(at, &bits, sizeof(bits));
    } else if (field->kind == FIELD_I64) {
        memcpy(at, &number, sizeof(number));
    } else if (field->kind == FIELD_BOOL) {
        *(bool *)at = number != 0;
    } else {
        if (number < field->min || number > field->max)
            return CLU_E_PROTOCOL;
        int narrow = (int)number;
        memcpy(at, &narrow, sizeof(narrow));
    }
    return CLU_OK;
}

static const struct field *find_field(const struct field *fields, size_t n, const char *key,
                                      size_t size)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(fields[i].key) == size && memcmp(fields[i].key, key, size) == 0)
            return &fields[i];
    return NULL;
}

static bool is(const char *key, size_t size, const char *name)
{
    return strlen(name) == size && memcmp(key, name, size) == 0;
}

/* Reads a map; a key that is in no table goes to other(), which may pass over it. */
static int unpack_object(struct clu_unpacker *unpacker, const struct field *fields, size_t n_fields,
                         void *object,
                         int (*other)(struct clu_unpacker *, const char *, size_t, void *))
{
    size_t n, size;
    const char *key;
    int status = clu_unpack_map(unpacker, &n);
    for (size_t i = 0; i < n && !status; i++) {
        status = clu_unpack_text(unpacker, &key, &size);
        if (status)
            break;
        const struct field *field = find_field(fields, n_fields, key, size);
        if (field)
            status = unpack_field(unpacker, field, object);
        else
            status = other ? other(unpacker, key, size, object) : clu_unpack_skip(unpacker);
    }
    return status;
}

static int unpack_owners(struct clu_unpacker *unpacker, uint16_t *shard_of)
{
    const void *data;
    size_t size;
    int status = clu_unpack_bin(unpacker, &data, &size);
    if (status || size != 2 * CLU_N_BUCKETS)
        return status ? status : CLU_E_PROTOCOL;
    const uint8_t *bytes = data;
    for (int b = 0; b < CLU_N_BUCKETS; b++) {
        shard_of[b] = (uint16_t)(bytes[2 * b] | bytes[2 * b + 1] << 8);
        if (shard_of[b] >= CLU_MAX_SHARDS)
            return CLU_E_PROTOCOL;
    }
    return CLU_OK;
}

static int unpack_report_part(struct clu_unpacker *unpacker, const char *key, size_t size,
                              void *object)
{
    struct clu_report *report = object;
    if (is(key, size, "figures"))
        return clu_figures_unpack(unpacker, &report->figures);
    if (is(key, size, "shard_of"))
        return unpack_owners(unpacker, report->shard_of);
    if (!is(key, size, "files"))
        return clu_unpack_skip(unpacker);
    size_t n;
    int status = clu_unpack_array(unpacker, &n);
    if (!status && n > CLU_MAX_PART_FILES)
        status = CLU_E_PROTOCOL;
    for (size_t i = 0; i < n && !status; i++)
        status = unpack_object(unpacker, file_fields, COUNT(file_fields), &report->files[i], NULL);
    if (!status)
        report->n_files = (int)n;
    return status;
}

static int unpack_endpoints(struct clu_unpacker *unpacker, struct clu_control_message *message)
{
    size_t n;
    int status = clu_unpack_array(unpacker, &n);
    if (!status && n > COUNT(message->endpoints))
        status = CLU_E_PROTOCOL;
    for (size_t i = 0; i < n && !status; i++)
        status = unpack_text(unpacker, message->endpoints[i], CLU_ENDPOINT_BYTES);
    if (!status)
        message->n_endpoints = (int)n;
    return status;
}

static int unpack_map(struct clu_unpacker *unpacker, struct clu_control_message *message)
{
    if (!message->map)
        return clu_unpack_skip(unpacker);
    message->has_map = true;
    return clu_map_unpack(unpacker, message->map);
}

static int unpack_message_part(struct clu_unpacker *unpacker, const char *key, size_t size,
                               void *object)
{
    struct clu_control_message *message = object;
    if (is(key, size, "welcome"))
        return unpack_object(unpacker, welcome_fields, COUNT(welcome_fields), &message->welcome,
                             NULL);
    if (is(key, size, "order"))
        return unpack_object(unpacker, order_fields, COUNT(order_fields), &message->order, NULL);
    if (is(key, size, "report"))
        return unpack_object(unpacker, report_fields, COUNT(report_fields), &message->report,
                             unpack_report_part);
    if (is(key, size, "shards"))
        return unpack_endpoints(unpacker, message);
    if (is(key, size, "map"))
        return unpack_map(unpacker, message);
    if (is(key, size, "body"))
        return clu_unpack_text(unpacker, &message->body, &message->body_bytes);
    return clu_unpack_skip(unpacker);
}

int clu_control_unpack(const void *data, size_t size_bytes, struct clu_control_message *message_p)
{
    struct clu_bucket_map *map = message_p->map;
    memset(message_p, 0, sizeof(*message_p));
    message_p->map = map;
    struct clu_unpacker unpacker;
    clu_unpacker_init(&unpacker, data, size_bytes);
    int status = unpack_object(&unpacker, message_fields, COUNT(message_fields), message_p,
                               unpack_message_part);
    if (!status && (!clu_unpack_at_end(&unpacker) || message_p->op == 0))
        status = CLU_E_PROTOCOL;
    if (!status && message_p->op == CLU_CONTROL_ORDER && message_p->order.kind == 0)
        status = CLU_E_PROTOCOL;
    if (!status && message_p->op == CLU_CONTROL_REPORT && message_p->report.kind == 0)
        status = CLU_E_PROTOCOL;
    return status;
}
