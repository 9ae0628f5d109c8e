/* The prefix tree of exact reading: bookkeeping only, no model inside.
 *
 *     level 0: start     level 1: start a     level 2: start a b   ...   level M - 1: all M types
 *
 * A node is a prefix in which no action repeats; its children append each unused action, and
 * padding ends it. The model is asked, level by level, what follows every node of the level;
 * expand() masks the used classes out, renormalises and makes the next level, in the order of
 * parents, then actions. Up to MDL_TREE_EXACT actions no node is left out; above, only the
 * MDL_READ_BEAM most probable of a level go on. Threads: owner. Memory: an arena's.
 */
#ifndef MODEL_TREE_H
#define MODEL_TREE_H

#include <stdint.h>

#include "model/arena.h"
#include "model/config.h"
#include "model/read.h"

enum { MDL_TREE_EXACT = 6 };

struct mdl_tree {
    int n_actions, max_level_nodes;
    int n_levels;                   /* levels made so far */
    int level[MDL_MAX_ACTIONS + 2]; /* first node of each level; [n_levels] = nodes in all */
    /* per node */
    int *parent;
    uint8_t *action;
    mdl_real *time;
    uint64_t *used; /* bit a: action a is in the prefix */
    double *p;      /* probability of the prefix */
    double *end;    /* of the prefix and then padding (or nothing left to add) */
    double *mass;   /* scratch of the result: kept probability below */
};

/* The most nodes a level can have. */
int mdl_tree_max_level_nodes(int n_actions);

/* Takes the arrays of a tree. */
void mdl_tree_take(struct mdl_tree *tree, struct mdl_arena *arena, int n_actions);

/* Makes level 0: the start token at time 0. */
void mdl_tree_start(struct mdl_tree *tree);

/* Makes the next level from the model's answers for the last one: P [nodes, C], That [nodes]. To be
 * called M - 1 times in all. */
void mdl_tree_expand(struct mdl_tree *tree, const mdl_real *P, const mdl_real *That);

/* Writes sample i of the reading from a finished tree. */
void mdl_tree_result(struct mdl_tree *tree, int i, struct mdl_reading *reading_p);

#endif
