/* The world that generate draws from: short videos, watched by users, with every probability known.
 *
 *     user, video --hash(seed, id)--> hidden vectors, leanings --> hazards of like, follow,
 *     forward, collect and leave in each bin of the video --> one viewing drawn, or the exact
 *     probability of every action
 *
 * A video has 3 to 6 segments of WRK_SEGMENT_BINS bins each. In a bin at most one thing happens; it
 * is an action not done yet, or the end of the viewing (leave); a viewing that reaches the end of
 * the video has no leave. Hazards are per length of video watched:
 *
 *     like, forward, collect   exp(base + user's leaning + video's appeal + slope match), match =
 *     user . segment follow                   the same with the author in the segment's place
 *     leave                    exp(base + user's impatience - slope match)
 *
 * and around a segment's highlight (two bins; two segments in three have one) like, follow, forward
 * and collect are multiplied by constants. A follow before any like multiplies the hazard of like
 * and divides that of leave for the rest of the viewing; a follow after a like multiplies that of
 * leave (content, they go on to the next). Nothing else remembers anything, so a viewing is a
 * Markov chain over 20 states and its probabilities are sums, not estimates.
 *
 * Nothing is stored: a billion users cost nothing to name. Pure functions; threads: any.
 */
#ifndef WORKER_WORLD_H
#define WORKER_WORLD_H

#include <stdbool.h>
#include <stdint.h>

enum {
    WRK_HIDDEN = 4, /* lanes of a hidden vector */
    WRK_MAX_SEGMENTS = 6,
    WRK_SEGMENT_BINS = 6,
    WRK_MAX_BINS = WRK_MAX_SEGMENTS * WRK_SEGMENT_BINS,
    WRK_N_COHORTS = 8,
};

/* Action ids of the generated log, as its schema lists them. */
enum wrk_world_action {
    WRK_START = 1,
    WRK_LIKE,
    WRK_FOLLOW,
    WRK_FORWARD,
    WRK_COLLECT,
    WRK_LEAVE,
    WRK_WORLD_ACTIONS = WRK_LEAVE,
};

struct wrk_viewer {
    double hidden[WRK_HIDDEN];
    double leaning[WRK_WORLD_ACTIONS + 1];
    int cohort;      /* 0..WRK_N_COHORTS-1: known, and correlated with hidden */
    double activity; /* relative number of viewings, mean 1 */
};

struct wrk_video {
    uint64_t author;
    double author_hidden[WRK_HIDDEN], author_appeal;
    double duration_s;
    double appeal[WRK_WORLD_ACTIONS + 1];
    int n_segments, n_bins;
    double bin_end[WRK_MAX_BINS]; /* as a share of the video, the last is 1 */
    bool is_near[WRK_MAX_BINS];   /* a highlight is here */
    double segment[WRK_MAX_SEGMENTS][WRK_HIDDEN];
};

/* One viewing: what happened and when, in order of time. */
struct wrk_viewing {
    int n;
    struct {
        int action;
        double t; /* share of the video */
    } event[WRK_WORLD_ACTIONS];
    double watched; /* share of the video */
};

struct wrk_odds {
    double p[WRK_WORLD_ACTIONS + 1]; /* P(the action occurs); [1] = 1 */
    double t[WRK_WORLD_ACTIONS + 1]; /* expected T given that it occurs; 0 where p = 0 */
};

void wrk_world_viewer(uint64_t seed, uint64_t user, struct wrk_viewer *viewer);
void wrk_world_video(uint64_t seed, uint64_t video, uint64_t n_authors, struct wrk_video *out);

/* Draws a viewing; state is the generator's, see wrk_world_uniform. */
void wrk_world_watch(const struct wrk_viewer *viewer, const struct wrk_video *video,
                     uint64_t *state_p, struct wrk_viewing *viewing);

/* The exact odds of the same process, given everything hidden. */
void wrk_world_odds(const struct wrk_viewer *viewer, const struct wrk_video *video,
                    struct wrk_odds *odds);

/* splitmix64, and a number in [0, 1) of it. */
uint64_t wrk_world_next(uint64_t *state_p);
double wrk_world_uniform(uint64_t *state_p);

#endif
