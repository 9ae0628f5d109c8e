/* The bookkeeping of greedy reading: what the model says at each position becomes P, T and a
 * sequence.
 *
 * Used by the reference and by the fast reading alike; no model inside. Threads: owner.
 */
#ifndef MODEL_GREEDY_H
#define MODEL_GREEDY_H

#include <stdint.h>

#include "model/config.h"
#include "model/read.h"

struct mdl_greedy {
    int n_actions, length; /* tokens so far, up to the first padding */
    int ended;
    uint8_t action; /* the token to feed next */
    mdl_real time;
    double p_sequence;
    double p_max[MDL_MAX_ACTIONS + 1], p_sum[MDL_MAX_ACTIONS + 1], p_time[MDL_MAX_ACTIONS + 1];
    uint8_t sequence_action[MDL_MAX_ACTIONS];
    mdl_real sequence_time[MDL_MAX_ACTIONS];
};

/* The start token stands ready to be fed. */
void mdl_greedy_start(struct mdl_greedy *greedy, int n_actions);

/* Takes the model's answer for the next position, P [C] and That. Padding is fed with time 0. */
void mdl_greedy_take_answer(struct mdl_greedy *greedy, const mdl_real *P, mdl_real That);

/* Writes sample i of the reading after M - 1 answers. */
void mdl_greedy_result(const struct mdl_greedy *greedy, int i, struct mdl_reading *reading_p);

#endif
