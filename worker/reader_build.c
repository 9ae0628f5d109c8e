/* The cost of a batch is its history references: samples x H. Each is one look at the pair's memo:
 * has this batch met the pair, and has nothing become known since? Then the reference is an index
 * and a compare. Only what is new touches tokens or the table of items. Samples of a user come in
 * time order, so the tokens known of a pair only grow, and one memo a pair is enough to keep
 * sequences distinct.
 *
 * Item rows are distinct by their whole tuple of values, not by id alone: a feature that the log
 * gives (a price, say) may differ from one pair to the next.
 */
#include "worker/reader_build.h"

#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct array {
    char *data;
    size_t n, capacity; /* in items */
    size_t item_bytes;
};

/* an id kept by offset while the text grows */
struct id_span {
    size_t offset;
    int size_bytes;
    bool is_integer;
};

struct slot {
    uint32_t stamp;
    int item;
};

enum {
    USER_VALUE,
    ITEM_VALUE,
    SAMPLE_USER,
    SAMPLE_ITEM,
    SEQ_ITEM,
    SEQ_OFFSET,
    SEQ_ACTION,
    SEQ_TIME,
    HIST_OFFSET,
    HIST_SEQ,
    TARGET_OFFSET,
    TARGET_ACTION,
    TARGET_TIME,
    SAMPLE_TIME,
    SAMPLE_GAP,
    TRUTH_P,
    TRUTH_T,
    USER_ID,
    ITEM_ID,
    TEXT,
    N_ARRAYS,
};

struct wrk_builder {
    const struct wrk_dataset_info *info;
    int history;
    bool with_ids, with_truth;
    struct array array[N_ARRAYS];
    uint32_t stamp;
    struct slot *slots;
    size_t n_slots;
    int n_users, n_items, n_seqs;
};

int wrk_builder_create(const struct wrk_dataset *dataset, const struct wrk_reader_options *options,
                       struct wrk_builder **builder_p)
{
    struct wrk_builder *builder = calloc(1, sizeof(*builder));
    if (!builder)
        return clu_fail(CLU_E_NO_MEMORY, "out of memory for the reader");
    builder->info = wrk_dataset_info(dataset);
    builder->history = options->history;
    builder->with_ids = options->with_ids;
    builder->with_truth = builder->info->has_truth && options->split == WRK_SPLIT_TEST;
    static const size_t item_bytes[N_ARRAYS] = {
        [USER_VALUE] = 8,
        [ITEM_VALUE] = 8,
        [SAMPLE_USER] = sizeof(int),
        [SAMPLE_ITEM] = sizeof(int),
        [SEQ_ITEM] = sizeof(int),
        [SEQ_OFFSET] = sizeof(int),
        [SEQ_ACTION] = 1,
        [SEQ_TIME] = sizeof(float),
        [HIST_OFFSET] = sizeof(int),
        [HIST_SEQ] = sizeof(int),
        [TARGET_OFFSET] = sizeof(int),
        [TARGET_ACTION] = 1,
        [TARGET_TIME] = sizeof(float),
        [SAMPLE_TIME] = 8,
        [SAMPLE_GAP] = sizeof(float),
        [TRUTH_P] = sizeof(float),
        [TRUTH_T] = sizeof(float),
        [USER_ID] = sizeof(struct id_span),
        [ITEM_ID] = sizeof(struct id_span),
        [TEXT] = 1,
    };
    for (int i = 0; i < N_ARRAYS; i++)
        builder->array[i].item_bytes = item_bytes[i];
    builder->n_slots = 1024;
    builder->slots = calloc(builder->n_slots, sizeof(*builder->slots));
    if (!builder->slots) {
        wrk_builder_free(builder);
        return clu_fail(CLU_E_NO_MEMORY, "out of memory for the reader");
    }
    *builder_p = builder;
    return CLU_OK;
}

void wrk_builder_free(struct wrk_builder *builder)
{
    if (!builder)
        return;
    for (int i = 0; i < N_ARRAYS; i++)
        free(builder->array[i].data);
    free(builder->slots);
    free(builder);
}

void wrk_builder_start(struct wrk_builder *builder)
{
    for (int i = 0; i < N_ARRAYS; i++)
        builder->array[i].n = 0;
    builder->n_users = builder->n_items = builder->n_seqs = 0;
    if (++builder->stamp == 0) { /* wrapped: old stamps could be taken for new ones */
        memset(builder->slots, 0, builder->n_slots * sizeof(*builder->slots));
        builder->stamp = 1;
    }
}

/* room for n more items; NULL when memory is out */
static void *extend(struct wrk_builder *builder, int which, size_t n)
{
    struct array *array = &builder->array[which];
    if (array->n + n > array->capacity) {
        size_t capacity = 2 * (array->n + n) + 64;
        char *data = realloc(array->data, capacity * array->item_bytes);
        if (!data)
            return NULL;
        array->data = data;
        array->capacity = capacity;
    }
    void *place = array->data + array->n * array->item_bytes;
    array->n += n;
    return place;
}

static int no_memory(void)
{
    return clu_fail(CLU_E_NO_MEMORY, "out of memory for a batch");
}

static int put_int(struct wrk_builder *builder, int which, int value)
{
    int *place = extend(builder, which, 1);
    if (!place)
        return no_memory();
    *place = value;
    return CLU_OK;
}

static int put_id(struct wrk_builder *builder, int which, const struct wrk_stored_id *id)
{
    char number[24];
    const char *text = id->text;
    size_t size = id->size_bytes;
    if (!text) {
        text = number;
        size = (size_t)(id->is_unsigned
                            ? snprintf(number, sizeof(number), "%" PRIu64, id->key)
                            : snprintf(number, sizeof(number), "%" PRId64, (int64_t)id->key));
    }
    struct id_span span = {builder->array[TEXT].n, (int)size, id->text == NULL};
    struct id_span *place = extend(builder, which, 1);
    char *out = extend(builder, TEXT, size);
    if (!place || !out)
        return no_memory();
    *place = span;
    memcpy(out, text, size);
    return CLU_OK;
}

static int grow_slots(struct wrk_builder *builder)
{
    size_t n_slots = 4 * builder->n_slots;
    struct slot *slots = calloc(n_slots, sizeof(*slots));
    if (!slots)
        return no_memory();
    int n_columns = builder->info->n_item_columns;
    const uint64_t *values = (const uint64_t *)builder->array[ITEM_VALUE].data;
    for (int item = 0; item < builder->n_items; item++) {
        size_t slot =
            clu_hash_bytes(values + (size_t)item * (size_t)n_columns, (size_t)n_columns * 8) &
            (n_slots - 1);
        while (slots[slot].stamp == builder->stamp)
            slot = (slot + 1) & (n_slots - 1);
        slots[slot] = (struct slot){builder->stamp, item};
    }
    free(builder->slots);
    builder->slots = slots;
    builder->n_slots = n_slots;
    return CLU_OK;
}

/* the batch's row of a pair's item */
static int item_row(struct wrk_builder *builder, struct wrk_reader_frame *frame, uint32_t pair,
                    int *row_p)
{
    struct wrk_memo *memo = &frame->memo[pair];
    if (memo->item_stamp == builder->stamp) {
        *row_p = memo->item;
        return CLU_OK;
    }
    if (2 * (size_t)builder->n_items >= builder->n_slots) {
        int status = grow_slots(builder);
        if (status != CLU_OK)
            return status;
    }
    size_t n_columns = (size_t)builder->info->n_item_columns;
    const uint64_t *value = frame->block.item_value + (size_t)pair * n_columns;
    size_t slot = clu_hash_bytes(value, n_columns * 8) & (builder->n_slots - 1);
    while (builder->slots[slot].stamp == builder->stamp) {
        const uint64_t *other = (const uint64_t *)builder->array[ITEM_VALUE].data +
                                (size_t)builder->slots[slot].item * n_columns;
        if (memcmp(other, value, n_columns * 8) == 0)
            break;
        slot = (slot + 1) & (builder->n_slots - 1);
    }
    if (builder->slots[slot].stamp != builder->stamp) {
        uint64_t *place = extend(builder, ITEM_VALUE, n_columns);
        if (!place)
            return no_memory();
        memcpy(place, value, n_columns * 8);
        if (builder->with_ids) {
            int status = put_id(builder, ITEM_ID, &frame->block.pair[pair].item);
            if (status != CLU_OK)
                return status;
        }
        builder->slots[slot] = (struct slot){builder->stamp, builder->n_items++};
    }
    memo->item_stamp = builder->stamp;
    memo->item = builder->slots[slot].item;
    *row_p = memo->item;
    return CLU_OK;
}

static int user_row(struct wrk_builder *builder, struct wrk_reader_frame *frame, uint32_t user,
                    int *row_p)
{
    if (frame->user_stamp[user] != builder->stamp) {
        size_t n_columns = (size_t)builder->info->n_user_columns;
        uint64_t *place = extend(builder, USER_VALUE, n_columns);
        if (!place)
            return no_memory();
        memcpy(place, frame->block.user_value + (size_t)user * n_columns, n_columns * 8);
        if (builder->with_ids) {
            int status = put_id(builder, USER_ID, &frame->block.user[user].id);
            if (status != CLU_OK)
                return status;
        }
        frame->user_stamp[user] = builder->stamp;
        frame->user_row[user] = builder->n_users++;
    }
    *row_p = frame->user_row[user];
    return CLU_OK;
}

/* a sequence this batch has not met: the tokens of a pair known before now_ms */
static int new_seq(struct wrk_builder *builder, struct wrk_reader_frame *frame, uint32_t pair,
                   int64_t now_ms)
{
    struct wrk_memo *memo = &frame->memo[pair];
    const struct wrk_pair *source = &frame->block.pair[pair];
    const struct wrk_token *tokens = &frame->block.token[source->first_token];
    uint32_t n = 1; /* start is known: the pair began in an earlier second */
    while (n < source->n_tokens && tokens[n].time_ms < now_ms)
        n++;
    int item, status = item_row(builder, frame, pair, &item);
    if (status == CLU_OK)
        status = put_int(builder, SEQ_ITEM, item);
    if (status == CLU_OK)
        status = put_int(builder, SEQ_OFFSET, (int)builder->array[SEQ_ACTION].n);
    uint8_t *actions = extend(builder, SEQ_ACTION, n);
    float *times = extend(builder, SEQ_TIME, n);
    if (status != CLU_OK || !actions || !times)
        return status != CLU_OK ? status : no_memory();
    for (uint32_t i = 0; i < n; i++) {
        actions[i] = tokens[i].action;
        times[i] = tokens[i].t;
    }
    memo->seq_stamp = builder->stamp;
    memo->seq = builder->n_seqs++;
    memo->n_known = n;
    memo->next_ms = n < source->n_tokens ? tokens[n].time_ms : INT64_MAX;
    return CLU_OK;
}

/* the user's last H pairs that began in an earlier second */
static int add_history(struct wrk_builder *builder, struct wrk_reader_frame *frame, uint32_t pair,
                       const struct wrk_block_user *user)
{
    int64_t now_ms = frame->block.pair[pair].start_ms, second = wrk_second_of(now_ms);
    uint32_t end = pair;
    while (end > user->first_pair && wrk_second_of(frame->block.pair[end - 1].start_ms) == second)
        end--;
    uint32_t available = end - user->first_pair;
    uint32_t n = available < (uint32_t)builder->history ? available : (uint32_t)builder->history;
    float *gap = extend(builder, SAMPLE_GAP, 1);
    if (!gap)
        return no_memory();
    *gap = n > 0 ? (float)(now_ms - frame->block.pair[end - 1].start_ms) / 1000 : 0;
    int *place = extend(builder, HIST_SEQ, n);
    if (!place && n > 0)
        return no_memory();
    for (uint32_t p = end - n; p < end; p++) {
        const struct wrk_memo *memo = &frame->memo[p];
        if (memo->seq_stamp != builder->stamp || memo->next_ms < now_ms) {
            int status = new_seq(builder, frame, p, now_ms);
            if (status != CLU_OK)
                return status;
        }
        *place++ = memo->seq;
    }
    return put_int(builder, HIST_OFFSET, (int)builder->array[HIST_SEQ].n);
}

static int add_target(struct wrk_builder *builder, const struct wrk_reader_frame *frame,
                      const struct wrk_pair *pair)
{
    const struct wrk_token *tokens = &frame->block.token[pair->first_token];
    int64_t window = builder->info->label_window_ms;
    uint32_t n = 0;
    while (n < pair->n_tokens && (window == 0 || tokens[n].time_ms - pair->start_ms <= window))
        n++;
    uint8_t *actions = extend(builder, TARGET_ACTION, n);
    float *times = extend(builder, TARGET_TIME, n);
    int64_t *time = extend(builder, SAMPLE_TIME, 1);
    if (!actions || !times || !time)
        return no_memory();
    for (uint32_t i = 0; i < n; i++) {
        actions[i] = tokens[i].action;
        times[i] = tokens[i].t;
    }
    *time = builder->info->time_unit_ms == 1 ? pair->start_ms : wrk_second_of(pair->start_ms);
    return put_int(builder, TARGET_OFFSET, (int)builder->array[TARGET_ACTION].n);
}

static int add_truth(struct wrk_builder *builder, const struct wrk_pair *pair)
{
    size_t m = (size_t)builder->info->n_actions;
    float *p = extend(builder, TRUTH_P, m + 1), *t = extend(builder, TRUTH_T, m + 1);
    if (!p || !t)
        return no_memory();
    memset(p, 0, (m + 1) * sizeof(*p));
    memset(t, 0, (m + 1) * sizeof(*t));
    if (pair->truth) {
        memcpy(p + 1, pair->truth, m * sizeof(*p));
        memcpy(t + 1, pair->truth + m, m * sizeof(*t));
    }
    return CLU_OK;
}

int wrk_builder_add(struct wrk_builder *builder, struct wrk_reader_frame *frame, uint32_t pair)
{
    uint32_t user = frame->user_of[pair];
    int row = 0, status = CLU_OK;
    if (builder->array[SAMPLE_USER].n == 0) { /* the offsets' leading zeros */
        status = put_int(builder, HIST_OFFSET, 0);
        if (status == CLU_OK)
            status = put_int(builder, TARGET_OFFSET, 0);
    }
    if (status == CLU_OK)
        status = user_row(builder, frame, user, &row);
    if (status == CLU_OK)
        status = put_int(builder, SAMPLE_USER, row);
    if (status == CLU_OK)
        status = item_row(builder, frame, pair, &row);
    if (status == CLU_OK)
        status = put_int(builder, SAMPLE_ITEM, row);
    if (status == CLU_OK)
        status = add_history(builder, frame, pair, &frame->block.user[user]);
    if (status == CLU_OK)
        status = add_target(builder, frame, &frame->block.pair[pair]);
    if (status == CLU_OK && builder->with_truth)
        status = add_truth(builder, &frame->block.pair[pair]);
    return status;
}

/* an array's place in the one allocation */
static size_t place_of(const struct wrk_builder *builder, size_t offset[N_ARRAYS])
{
    size_t at = (sizeof(struct wrk_samples) + 63) & ~(size_t)63;
    for (int i = 0; i < N_ARRAYS; i++) {
        offset[i] = at;
        size_t bytes = builder->array[i].n * builder->array[i].item_bytes;
        if (i == USER_ID || i == ITEM_ID)
            bytes = builder->array[i].n * sizeof(struct wrk_id);
        at = (at + bytes + 63) & ~(size_t)63;
    }
    return at;
}

static void place_ids(const struct wrk_builder *builder, int which, char *base, size_t offset,
                      const char *text)
{
    const struct id_span *spans = (const struct id_span *)builder->array[which].data;
    struct wrk_id *ids = (struct wrk_id *)(base + offset);
    for (size_t i = 0; i < builder->array[which].n; i++)
        ids[i] = (struct wrk_id){text + spans[i].offset, spans[i].size_bytes, spans[i].is_integer};
}

int wrk_builder_take(struct wrk_builder *builder, struct wrk_position position, int n_global,
                     struct wrk_samples **samples_p)
{
    int status = put_int(builder, SEQ_OFFSET, (int)builder->array[SEQ_ACTION].n);
    if (status == CLU_OK && builder->array[HIST_OFFSET].n == 0) {
        status = put_int(builder, HIST_OFFSET, 0);
        if (status == CLU_OK)
            status = put_int(builder, TARGET_OFFSET, 0);
    }
    if (status != CLU_OK)
        return status;
    size_t offset[N_ARRAYS];
    char *base = malloc(place_of(builder, offset));
    if (!base)
        return no_memory();
    for (int i = 0; i < N_ARRAYS; i++)
        if (i != USER_ID && i != ITEM_ID && builder->array[i].n > 0)
            memcpy(base + offset[i], builder->array[i].data,
                   builder->array[i].n * builder->array[i].item_bytes);
    place_ids(builder, USER_ID, base, offset[USER_ID], base + offset[TEXT]);
    place_ids(builder, ITEM_ID, base, offset[ITEM_ID], base + offset[TEXT]);
#define AT(which) ((void *)(base + offset[which]))
    struct wrk_samples *samples = (struct wrk_samples *)base;
    *samples = (struct wrk_samples){
        .position = position,
        .n_samples = (int)builder->array[SAMPLE_USER].n,
        .n_global = n_global,
        .n_users = builder->n_users,
        .n_items = builder->n_items,
        .n_seqs = builder->n_seqs,
        .user_value = AT(USER_VALUE),
        .item_value = AT(ITEM_VALUE),
        .user_id = builder->with_ids ? AT(USER_ID) : NULL,
        .item_id = builder->with_ids ? AT(ITEM_ID) : NULL,
        .sample_user = AT(SAMPLE_USER),
        .sample_item = AT(SAMPLE_ITEM),
        .seq_item = AT(SEQ_ITEM),
        .seq_offset = AT(SEQ_OFFSET),
        .seq_action = AT(SEQ_ACTION),
        .seq_time = AT(SEQ_TIME),
        .hist_offset = AT(HIST_OFFSET),
        .hist_seq = AT(HIST_SEQ),
        .target_offset = AT(TARGET_OFFSET),
        .target_action = AT(TARGET_ACTION),
        .target_time = AT(TARGET_TIME),
        .sample_time = AT(SAMPLE_TIME),
        .sample_gap = AT(SAMPLE_GAP),
        .truth_probability = builder->with_truth ? AT(TRUTH_P) : NULL,
        .truth_time = builder->with_truth ? AT(TRUTH_T) : NULL,
    };
#undef AT
    *samples_p = samples;
    return CLU_OK;
}

void wrk_samples_free(struct wrk_samples *samples)
{
    free(samples); /* header and arrays are one allocation */
}
