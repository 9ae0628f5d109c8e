/* Greedy generation, section 5.2: the most probable class is fed back with its time; after the
 * first padding the model is still asked to the end, as P(a) is the maximum over all positions.
 */
#include "model/greedy.h"

#include <string.h>

void mdl_greedy_start(struct mdl_greedy *greedy, int n_actions)
{
    memset(greedy, 0, sizeof(*greedy));
    greedy->n_actions = n_actions;
    greedy->length = 1;
    greedy->action = 1;
    greedy->p_sequence = 1;
    greedy->sequence_action[0] = 1;
}

void mdl_greedy_take_answer(struct mdl_greedy *greedy, const mdl_real *P, mdl_real That)
{
    int best = 0;
    for (int a = 0; a <= greedy->n_actions; a++) {
        double p = (double)P[a];
        if (P[a] > P[best])
            best = a;
        if (p > greedy->p_max[a])
            greedy->p_max[a] = p;
        greedy->p_sum[a] += p;
        greedy->p_time[a] += p * (double)That;
    }
    greedy->action = (uint8_t)best;
    greedy->time = best ? That : 0;
    if (greedy->ended)
        return;
    greedy->p_sequence *= (double)P[best];
    if (best == 0) {
        greedy->ended = 1;
        return;
    }
    greedy->sequence_action[greedy->length] = (uint8_t)best;
    greedy->sequence_time[greedy->length++] = That;
}

void mdl_greedy_result(const struct mdl_greedy *greedy, int i, struct mdl_reading *reading_p)
{
    int M = greedy->n_actions, C = M + 1;
    for (int a = 0; a < C; a++) {
        size_t at = (size_t)i * C + a;
        int counts = a > 1;
        if (reading_p->p)
            reading_p->p[at] = (mdl_real)(a == 1 ? 1 : counts * greedy->p_max[a]);
        if (reading_p->time)
            reading_p->time[at] =
                (mdl_real)(counts && greedy->p_sum[a] > 0 ? greedy->p_time[a] / greedy->p_sum[a]
                                                          : 0);
        if (reading_p->time_literal)
            reading_p->time_literal[at] = (mdl_real)(counts * greedy->p_time[a]);
    }
    if (reading_p->sequence_p)
        reading_p->sequence_p[i] = (mdl_real)greedy->p_sequence;
    if (reading_p->sequence_length)
        reading_p->sequence_length[i] = greedy->length;
    for (int k = 0; k < M; k++) {
        if (reading_p->sequence_action)
            reading_p->sequence_action[(size_t)i * M + k] = greedy->sequence_action[k];
        if (reading_p->sequence_time)
            reading_p->sequence_time[(size_t)i * M + k] = greedy->sequence_time[k];
    }
}
