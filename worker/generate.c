/* Two passes over the same hash-made world: the first only to know when samples start, so that the
 * split, and with it the test samples whose odds are worth computing, are known; the second writes.
 * A viewer's history is a list of sessions; within one, each video begins a moment after the one
 * before ended.
 *
 * A data set wants its users in the order of mix(key). Sorting all users would cost memory by their
 * number, so they are taken in slices of the hash's range, each found by a walk over all ids, and
 * sorted there.
 */
#include "worker/generate.h"

#include "cluster/hash.h"
#include "cluster/log.h"
#include "cluster/status.h"
#include "worker/preset.h"
#include "worker/schema.h"
#include "worker/select.h"
#include "worker/timeline.h"
#include "worker/world.h"
#include "worker/writer.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ID_BYTES = 24, SLICE_USERS = 1 << 20, VALUES = 2, SESSION = 8 };

static const int64_t first_day_ms = (int64_t)1735689600 * 1000; /* 2025-01-01 */
static const int64_t span_ms = (int64_t)30 * 86400 * 1000;

static const char schema_text[] =
    "name: generated\n" WRK_PRESET_VIDEO_COLUMNS "user_features: [cohort]\n";

struct user {
    uint64_t hash, id, n_samples;
};

struct work {
    const struct wrk_generate_options *options;
    struct wrk_schema schema;
    uint64_t n_authors;
    double total_activity;
    int64_t split_time;
    struct wrk_numbers *starts; /* the first pass */
    struct wrk_writer *writer;  /* the second */
    FILE *log;
    struct wrk_timeline timeline;
    struct user *users;
    /* of the user in work, one a viewing */
    uint64_t *items;
    char *texts;      /* [n, ID_BYTES] */
    uint64_t *values; /* [n, VALUES] */
    float *truths;    /* [n, 2 M] */
    int64_t *sessions;
    uint64_t capacity, user_value[1];
};

static int no_memory(void)
{
    return clu_fail(CLU_E_NO_MEMORY, "out of memory for generating");
}

static bool resize(void *array_p, size_t bytes)
{
    void *array = realloc(*(void **)array_p, bytes);
    if (array)
        *(void **)array_p = array;
    return array != NULL;
}

static int reserve(struct work *work, uint64_t n)
{
    if (n <= work->capacity)
        return CLU_OK;
    uint64_t capacity = 2 * n + 16;
    if (!resize(&work->items, capacity * sizeof(*work->items)) ||
        !resize(&work->texts, capacity * ID_BYTES) ||
        !resize(&work->values, capacity * VALUES * sizeof(*work->values)) ||
        !resize(&work->truths, capacity * 2 * WRK_WORLD_ACTIONS * sizeof(*work->truths)) ||
        !resize(&work->sessions, capacity * sizeof(*work->sessions)))
        return no_memory();
    work->capacity = capacity;
    return CLU_OK;
}

/* a video not watched before: popular ones come more often */
static uint64_t next_item(const struct work *work, uint64_t n_before, uint64_t *state_p)
{
    for (int tries = 0;; tries++) {
        double u = wrk_world_uniform(state_p);
        uint64_t item = 1 + (uint64_t)((tries < 64 ? u * u : u) * (double)work->options->n_items);
        item = item > work->options->n_items ? work->options->n_items : item;
        bool watched = false;
        for (uint64_t i = 0; i < n_before && !watched; i++)
            watched = work->items[i] == item;
        if (!watched)
            return item;
    }
}

static int compare_times(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void log_event(const struct work *work, uint64_t user, const struct wrk_viewer *viewer,
                      const struct wrk_pair *pair, const struct wrk_video *video,
                      const struct wrk_token *token)
{
    if (work->log)
        fprintf(work->log, "%" PRIu64 ",%s,%s,%" PRId64 ",%.9g,%.9g,%" PRIu64 ",%d\n", user,
                pair->item.text, work->schema.action[token->action], token->time_ms,
                (double)token->t * video->duration_s, video->duration_s, video->author,
                viewer->cohort);
}

static void add_viewing(struct work *work, uint64_t user, const struct wrk_viewer *viewer,
                        uint64_t k, const struct wrk_video *video, int64_t start_ms,
                        const struct wrk_viewing *viewing)
{
    struct wrk_timeline *timeline = &work->timeline;
    struct wrk_pair *pair = &timeline->pair[timeline->n_pairs++];
    char *text = work->texts + k * ID_BYTES;
    int size = snprintf(text, ID_BYTES, "v%" PRIu64, work->items[k]);
    work->values[k * VALUES] = video->author;
    work->values[k * VALUES + 1] = wrk_float_value((float)log1p(video->duration_s));
    *pair = (struct wrk_pair){.item = wrk_id_of_text(text, (size_t)size),
                              .value = work->values + k * VALUES,
                              .start_ms = start_ms,
                              .first_token = (uint32_t)timeline->n_tokens};
    timeline->token[timeline->n_tokens++] = (struct wrk_token){start_ms, 0, WRK_START};
    log_event(work, user, viewer, pair, video, &timeline->token[pair->first_token]);
    for (int e = 0; e < viewing->n; e++) {
        double t = viewing->event[e].t;
        struct wrk_token *token = &timeline->token[timeline->n_tokens++];
        *token = (struct wrk_token){start_ms + (int64_t)(t * video->duration_s * 1000), (float)t,
                                    (uint8_t)viewing->event[e].action};
        log_event(work, user, viewer, pair, video, token);
    }
    pair->n_tokens = (uint32_t)timeline->n_tokens - pair->first_token;
    timeline->n_events += pair->n_tokens;
    if (start_ms < work->split_time)
        return;
    struct wrk_odds odds;
    float *truth = work->truths + k * 2 * WRK_WORLD_ACTIONS;
    wrk_world_odds(viewer, video, &odds);
    for (int a = 1; a <= WRK_WORLD_ACTIONS; a++) {
        truth[a - 1] = (float)odds.p[a];
        truth[WRK_WORLD_ACTIONS + a - 1] = (float)odds.t[a];
    }
    pair->truth = truth;
}

static int make_user(struct work *work, const struct user *user)
{
    const struct wrk_generate_options *options = work->options;
    uint64_t n = user->n_samples;
    uint64_t state = clu_mix(clu_mix(options->seed ^ 0x5eed) + user->id);
    int status = reserve(work, n);
    work->timeline.n_pairs = work->timeline.n_tokens = work->timeline.n_events = 0;
    if (status == CLU_OK)
        status = wrk_timeline_reserve(&work->timeline, n, n * (WRK_WORLD_ACTIONS + 1));
    if (status != CLU_OK)
        return status;
    struct wrk_viewer viewer;
    wrk_world_viewer(options->seed, user->id, &viewer);
    work->user_value[0] = (uint64_t)viewer.cohort;
    work->timeline.user = (struct wrk_stored_id){.key = user->id};
    work->timeline.value = work->user_value;
    uint64_t n_sessions = (n + SESSION - 1) / SESSION;
    for (uint64_t i = 0; i < n_sessions; i++)
        work->sessions[i] = first_day_ms + (int64_t)(wrk_world_uniform(&state) * (double)span_ms);
    qsort(work->sessions, n_sessions, sizeof(*work->sessions), compare_times);
    int64_t now = 0;
    for (uint64_t k = 0; k < n && status == CLU_OK; k++) {
        if (k % SESSION == 0 && work->sessions[k / SESSION] > now)
            now = work->sessions[k / SESSION];
        work->items[k] = next_item(work, k, &state);
        struct wrk_video video;
        struct wrk_viewing viewing;
        wrk_world_video(options->seed, work->items[k], work->n_authors, &video);
        wrk_world_watch(&viewer, &video, &state, &viewing);
        if (work->writer)
            add_viewing(work, user->id, &viewer, k, &video, now, &viewing);
        else
            status = wrk_numbers_add(work->starts, (uint64_t)now);
        now += (int64_t)(viewing.watched * video.duration_s * 1000) + 1000 +
               (int64_t)(4000 * wrk_world_uniform(&state));
    }
    if (status != CLU_OK || !work->writer)
        return status;
    wrk_timeline_sort(&work->timeline);
    return wrk_writer_add(work->writer, &work->timeline);
}

static int compare_users(const void *a, const void *b)
{
    const struct user *x = a, *y = b;
    return x->hash < y->hash ? -1 : x->hash > y->hash;
}

/* users whose hash lies in slice s of n, with the samples that are theirs */
static uint64_t list_slice(struct work *work, uint64_t slice, uint64_t n_slices)
{
    const struct wrk_generate_options *options = work->options;
    double before = 0;
    uint64_t n = 0, given = 0;
    for (uint64_t id = 1; id <= options->n_users; id++) {
        struct wrk_viewer viewer;
        wrk_world_viewer(options->seed, id, &viewer);
        before += viewer.activity;
        /* shares of the total, rounded so that they add up */
        uint64_t until =
            id == options->n_users
                ? options->n_samples
                : (uint64_t)(before / work->total_activity * (double)options->n_samples);
        uint64_t own = until - given, hash = clu_mix(id);
        given = until;
        if (own > 0 && (hash >> 1) / ((UINT64_MAX >> 1) / n_slices + 1) == slice)
            work->users[n++] = (struct user){hash, id, own};
    }
    qsort(work->users, n, sizeof(*work->users), compare_users);
    return n;
}

static int make_users(struct work *work)
{
    uint64_t n_slices = work->options->n_users / (SLICE_USERS / 2) + 1;
    int status = CLU_OK;
    for (uint64_t slice = 0; slice < n_slices && status == CLU_OK; slice++) {
        uint64_t n = list_slice(work, slice, n_slices);
        for (uint64_t i = 0; i < n && status == CLU_OK; i++) {
            if (4 * work->users[i].n_samples > 3 * work->options->n_items)
                status =
                    clu_fail(CLU_E_USAGE,
                             "user %" PRIu64 " would watch %" PRIu64 " of %" PRIu64
                             " videos: give more --items or fewer --samples",
                             work->users[i].id, work->users[i].n_samples, work->options->n_items);
            else
                status = make_user(work, &work->users[i]);
        }
    }
    return status;
}

static int find_split(struct work *work, const char *dir)
{
    struct wrk_numbers starts;
    int status = wrk_numbers_init(&starts, dir);
    work->starts = &starts;
    work->split_time = INT64_MAX;
    if (status == CLU_OK)
        status = make_users(work);
    uint64_t rank = (uint64_t)floor(work->options->split * (double)starts.n);
    if (status == CLU_OK && rank < starts.n)
        status = wrk_numbers_select(&starts, &rank, 1, &work->split_time);
    wrk_numbers_fini(&starts);
    work->starts = NULL;
    return status;
}

static int check(const struct wrk_generate_options *options)
{
    if (options->n_users < 1 || options->n_items < 2 || options->n_samples < 1)
        return clu_fail(CLU_E_USAGE, "generate: expected at least 1 user, 2 items and 1 sample");
    if (!(options->split > 0 && options->split <= 1))
        return clu_fail(CLU_E_USAGE, "split: expected a number above 0 and at most 1");
    if ((double)options->n_samples > 0.25 * (double)options->n_users * (double)options->n_items)
        return clu_fail(CLU_E_USAGE,
                        "%" PRIu64 " samples are more than a quarter of %" PRIu64
                        " users x %" PRIu64 " items",
                        options->n_samples, options->n_users, options->n_items);
    return CLU_OK;
}

static int open_log(struct work *work)
{
    const char *path = work->options->log;
    if (!path || !path[0])
        return CLU_OK;
    work->log = fopen(path, "we");
    if (!work->log)
        return clu_fail(clu_status_from_errno(errno), "%s: %s", path, strerror(errno));
    fprintf(work->log, "user_id,video_id,action,time_ms,position,duration,author_id,cohort\n");
    return CLU_OK;
}

static int close_log(struct work *work, int status)
{
    if (!work->log)
        return status;
    bool failed = ferror(work->log) != 0;
    failed |= fclose(work->log) != 0;
    work->log = NULL;
    return failed && status == CLU_OK ? clu_fail(CLU_E_IO, "%s: writing failed", work->options->log)
                                      : status;
}

int wrk_generate(const struct wrk_generate_options *options, struct wrk_dataset_info *info_p)
{
    int status = check(options);
    if (status != CLU_OK)
        return status;
    struct work *work = calloc(1, sizeof(*work));
    if (!work)
        return no_memory();
    work->options = options;
    work->n_authors = options->n_items / 8 + 1;
    wrk_timeline_init(&work->timeline);
    work->users = malloc(SLICE_USERS * sizeof(*work->users));
    if (!work->users)
        status = no_memory();
    if (status == CLU_OK)
        status = wrk_schema_parse("generated", schema_text, sizeof(schema_text) - 1, &work->schema);
    for (uint64_t id = 1; id <= options->n_users && status == CLU_OK; id++) {
        struct wrk_viewer viewer;
        wrk_world_viewer(options->seed, id, &viewer);
        work->total_activity += viewer.activity;
    }
    struct wrk_writer *writer = NULL;
    struct wrk_writer_options writing = {.dir = options->dir,
                                         .schema = &work->schema,
                                         .split = options->split,
                                         .memory_bytes = (uint64_t)1 << 30,
                                         .has_truth = true};
    if (status == CLU_OK)
        status = wrk_writer_open(&writing, &writer);
    if (status == CLU_OK)
        status = find_split(work, wrk_writer_part_dir(writer));
    work->writer = writer;
    if (status == CLU_OK)
        status = open_log(work);
    if (status == CLU_OK)
        status = make_users(work);
    status = close_log(work, status);
    if (status == CLU_OK)
        status = wrk_writer_commit(writer, 0, info_p);
    else
        wrk_writer_abandon(writer);
    wrk_timeline_fini(&work->timeline);
    free(work->users);
    free(work->items);
    free(work->texts);
    free(work->values);
    free(work->truths);
    free(work->sessions);
    free(work);
    return status;
}
