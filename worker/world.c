/* The constants below were chosen once so that what is reported of real short video holds in what
 * comes out, and tests/worker/test_world.c holds them to it: likes come in several peaks a video;
 * near a peak a follow is 3.3 times and a collect 1.52 times as likely; a viewing with follow
 * before like lasts 1.28 times as long as one with like before follow.
 *
 * The factors of the peak and of a follow are a little above what they produce, because in a bin
 * only one thing happens: where likes crowd, they take room from the others.
 */
#include "worker/world.h"

#include "cluster/hash.h"

#include <math.h>
#include <string.h>

/* rows of the hidden state, one a hash domain */
enum domain { USER = 1, VIDEO, AUTHOR, COHORT };

static const double two_pi = 6.283185307179586;

/* hazards per video length, in logarithms, at leaning, appeal and match 0 */
static const double base[] = {[WRK_LIKE] = -2.8,
                              [WRK_FOLLOW] = -4.2,
                              [WRK_FORWARD] = -4.1,
                              [WRK_COLLECT] = -3.8,
                              [WRK_LEAVE] = 0.1};
static const double slope[] = {[WRK_LIKE] = 0.6,
                               [WRK_FOLLOW] = 0.5,
                               [WRK_FORWARD] = 0.4,
                               [WRK_COLLECT] = 0.45,
                               [WRK_LEAVE] = -0.4};
static const double leaning_spread[] = {[WRK_LIKE] = 1.5,
                                        [WRK_FOLLOW] = 1.6,
                                        [WRK_FORWARD] = 1.6,
                                        [WRK_COLLECT] = 1.6,
                                        [WRK_LEAVE] = 1.0};
static const double appeal_spread[] = {[WRK_LIKE] = 0.5,
                                       [WRK_FOLLOW] = 0.3,
                                       [WRK_FORWARD] = 0.5,
                                       [WRK_COLLECT] = 0.5,
                                       [WRK_LEAVE] = 0.3};
static const double peak[] = {
    [WRK_LIKE] = 8, [WRK_FOLLOW] = 3.6, [WRK_FORWARD] = 2, [WRK_COLLECT] = 1.59, [WRK_LEAVE] = 1};
static const double like_after_follow = 2.5, leave_after_follow = 0.25;
static const double leave_after_like_follow = 5.3;

uint64_t wrk_world_next(uint64_t *state_p)
{
    *state_p += 0x9e3779b97f4a7c15u;
    return clu_mix(*state_p);
}

double wrk_world_uniform(uint64_t *state_p)
{
    return (double)(wrk_world_next(state_p) >> 11) * 0x1p-53;
}

static double normal(uint64_t *state_p)
{
    double u = 1 - wrk_world_uniform(state_p), v = wrk_world_uniform(state_p);
    return sqrt(-2 * log(u)) * cos(two_pi * v);
}

static uint64_t state_of(uint64_t seed, enum domain domain, uint64_t id)
{
    return clu_mix(clu_mix(seed + (uint64_t)domain * 0x9e3779b97f4a7c15u) + id);
}

void wrk_world_viewer(uint64_t seed, uint64_t user, struct wrk_viewer *viewer)
{
    uint64_t state = state_of(seed, USER, user);
    memset(viewer, 0, sizeof(*viewer));
    viewer->cohort = (int)(wrk_world_next(&state) % WRK_N_COHORTS);
    uint64_t cohort = state_of(seed, COHORT, (uint64_t)viewer->cohort);
    for (int i = 0; i < WRK_HIDDEN; i++)
        viewer->hidden[i] = 0.6 * normal(&cohort) + 0.8 * normal(&state);
    for (int a = WRK_LIKE; a <= WRK_LEAVE; a++)
        viewer->leaning[a] = leaning_spread[a] * normal(&state);
    viewer->activity = exp(0.5 * normal(&state) - 0.125);
}

void wrk_world_video(uint64_t seed, uint64_t video, uint64_t n_authors, struct wrk_video *out)
{
    uint64_t state = state_of(seed, VIDEO, video);
    memset(out, 0, sizeof(*out));
    out->author = wrk_world_next(&state) % n_authors;
    uint64_t author = state_of(seed, AUTHOR, out->author);
    double scale = 1 / sqrt((double)WRK_HIDDEN);
    for (int i = 0; i < WRK_HIDDEN; i++)
        out->author_hidden[i] = scale * normal(&author);
    out->author_appeal = 0.7 * normal(&author);
    /* whole tenths of a second, as a log would have it */
    out->duration_s = round(10 * (8 + exp(3.2 + 0.6 * normal(&state)))) / 10;
    for (int a = WRK_LIKE; a <= WRK_LEAVE; a++)
        out->appeal[a] = appeal_spread[a] * normal(&state);
    double theme[WRK_HIDDEN], length[WRK_MAX_SEGMENTS], total = 0;
    for (int i = 0; i < WRK_HIDDEN; i++)
        theme[i] = normal(&state);
    out->n_segments = 3 + (int)(wrk_world_next(&state) % 4);
    out->n_bins = out->n_segments * WRK_SEGMENT_BINS;
    for (int s = 0; s < out->n_segments; s++) {
        total += length[s] = 0.5 + wrk_world_uniform(&state);
        for (int i = 0; i < WRK_HIDDEN; i++)
            out->segment[s][i] = scale * (0.8 * theme[i] + 0.6 * normal(&state));
    }
    double end = 0;
    for (int s = 0; s < out->n_segments; s++) {
        bool has_highlight = wrk_world_next(&state) % 3 != 0;
        int highlight = (int)(wrk_world_next(&state) % (WRK_SEGMENT_BINS - 1));
        for (int b = 0; b < WRK_SEGMENT_BINS; b++) {
            int bin = s * WRK_SEGMENT_BINS + b;
            out->bin_end[bin] = end + length[s] / total * (b + 1) / WRK_SEGMENT_BINS;
            out->is_near[bin] = has_highlight && (b == highlight || b == highlight + 1);
        }
        end = out->bin_end[s * WRK_SEGMENT_BINS + WRK_SEGMENT_BINS - 1];
    }
    out->bin_end[out->n_bins - 1] = 1;
}

static double dot(const double *a, const double *b)
{
    double sum = 0;
    for (int i = 0; i < WRK_HIDDEN; i++)
        sum += a[i] * b[i];
    return sum;
}

/* hazards of a whole bin, before anything that remembers: [bin][action] */
typedef double hazards[WRK_MAX_BINS][WRK_WORLD_ACTIONS + 1];

static void fill_hazards(const struct wrk_viewer *viewer, const struct wrk_video *video,
                         hazards out)
{
    double author_match = dot(viewer->hidden, video->author_hidden) + video->author_appeal;
    double from = 0;
    for (int s = 0; s < video->n_segments; s++) {
        double match = dot(viewer->hidden, video->segment[s]), rate[WRK_WORLD_ACTIONS + 1];
        for (int a = WRK_LIKE; a <= WRK_LEAVE; a++)
            rate[a] = exp(base[a] + viewer->leaning[a] + video->appeal[a] +
                          slope[a] * (a == WRK_FOLLOW ? author_match : match));
        for (int b = 0; b < WRK_SEGMENT_BINS; b++) {
            int bin = s * WRK_SEGMENT_BINS + b;
            double length = video->bin_end[bin] - from;
            from = video->bin_end[bin];
            for (int a = WRK_LIKE; a <= WRK_LEAVE; a++)
                out[bin][a] = rate[a] * length * (video->is_near[bin] ? peak[a] : 1);
        }
    }
}

/* the state of a viewing: which of the four are done, and whether a follow came before any like */
enum { DONE_LIKE = 1, DONE_FOLLOW = 2, DONE_FORWARD = 4, DONE_COLLECT = 8, FOLLOW_FIRST = 16 };
enum { N_STATES = 32 };

static int bit_of(int action)
{
    return 1 << (action - WRK_LIKE);
}

static int after(int state, int action)
{
    if (action == WRK_FOLLOW && !(state & DONE_LIKE))
        state |= FOLLOW_FIRST;
    return state | bit_of(action);
}

/* chances of each thing in a bin from a state; returns the chance that nothing happens */
static double bin_chances(const double *hazard, int state, double chance[WRK_WORLD_ACTIONS + 1])
{
    double sum = 0;
    for (int a = WRK_LIKE; a <= WRK_LEAVE; a++) {
        double h = a != WRK_LEAVE && state & bit_of(a) ? 0 : hazard[a];
        if (a == WRK_LEAVE &&
            (state & (DONE_LIKE | DONE_FOLLOW | FOLLOW_FIRST)) == (DONE_LIKE | DONE_FOLLOW))
            h *= leave_after_like_follow;
        if (state & FOLLOW_FIRST)
            h *= a == WRK_LIKE ? like_after_follow : a == WRK_LEAVE ? leave_after_follow : 1;
        chance[a] = h;
        sum += h;
    }
    double none = exp(-sum);
    for (int a = WRK_LIKE; a <= WRK_LEAVE; a++)
        chance[a] *= (1 - none) / sum; /* sum > 0: leave is always possible */
    return none;
}

void wrk_world_watch(const struct wrk_viewer *viewer, const struct wrk_video *video,
                     uint64_t *state_p, struct wrk_viewing *viewing)
{
    hazards table;
    fill_hazards(viewer, video, table);
    memset(viewing, 0, sizeof(*viewing));
    viewing->watched = 1;
    int state = 0;
    double from = 0;
    for (int bin = 0; bin < video->n_bins; bin++) {
        double chance[WRK_WORLD_ACTIONS + 1], end = video->bin_end[bin];
        double left = wrk_world_uniform(state_p) - bin_chances(table[bin], state, chance);
        for (int a = WRK_LIKE; left >= 0 && a <= WRK_LEAVE; a++) {
            left -= chance[a];
            if (left >= 0 && a < WRK_LEAVE)
                continue;
            double t = from + (end - from) * wrk_world_uniform(state_p);
            viewing->event[viewing->n].action = a;
            viewing->event[viewing->n++].t = t;
            if (a == WRK_LEAVE) {
                viewing->watched = t;
                return;
            }
            state = after(state, a);
            break;
        }
        from = end;
    }
}

void wrk_world_odds(const struct wrk_viewer *viewer, const struct wrk_video *video,
                    struct wrk_odds *odds)
{
    hazards table;
    fill_hazards(viewer, video, table);
    double in[N_STATES] = {[0] = 1}, next[N_STATES];
    double from = 0;
    memset(odds, 0, sizeof(*odds));
    odds->p[WRK_START] = 1;
    for (int bin = 0; bin < video->n_bins; bin++) {
        double middle = 0.5 * (from + video->bin_end[bin]);
        memset(next, 0, sizeof(next));
        for (int state = 0; state < N_STATES; state++) {
            if (in[state] == 0)
                continue;
            double chance[WRK_WORLD_ACTIONS + 1];
            next[state] += in[state] * bin_chances(table[bin], state, chance);
            for (int a = WRK_LIKE; a <= WRK_LEAVE; a++) {
                double p = in[state] * chance[a];
                odds->p[a] += p;
                odds->t[a] += p * middle;
                if (a != WRK_LEAVE)
                    next[after(state, a)] += p;
            }
        }
        memcpy(in, next, sizeof(in));
        from = video->bin_end[bin];
    }
    for (int a = WRK_LIKE; a <= WRK_LEAVE; a++)
        odds->t[a] = odds->p[a] > 0 ? odds->t[a] / odds->p[a] : 0;
}
