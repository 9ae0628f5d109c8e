/* The tree is walked twice: down, a level at a time, while the model answers; up at the end, when
 * every node gets the probability of the kept sequences below it. Without a beam that is the node's
 * own probability up to rounding; with one, what the beam dropped is missing everywhere alike, and
 * the root's mass is what P is normalised by.
 */
#include "model/tree.h"

#include <stdlib.h>
#include <string.h>

int mdl_tree_max_level_nodes(int n_actions)
{
    if (n_actions > MDL_TREE_EXACT)
        return MDL_READ_BEAM;
    int max = 1, nodes = 1;
    for (int k = n_actions - 1; k > 0; k--) {
        nodes *= k;
        max = nodes > max ? nodes : max;
    }
    return max;
}

void mdl_tree_take(struct mdl_tree *tree, struct mdl_arena *arena, int n_actions)
{
    tree->n_actions = n_actions;
    tree->max_level_nodes = mdl_tree_max_level_nodes(n_actions);
    /* with a beam a level is first made whole, at most M children a node, then cut */
    size_t wide = n_actions > MDL_TREE_EXACT ? (size_t)n_actions : 1;
    size_t n = (size_t)tree->max_level_nodes * ((size_t)n_actions + wide);
    tree->parent = MDL_TAKE(arena, n, int);
    tree->action = MDL_TAKE(arena, n, uint8_t);
    tree->time = MDL_TAKE(arena, n, mdl_real);
    tree->used = MDL_TAKE(arena, n, uint64_t);
    tree->p = MDL_TAKE(arena, n, double);
    tree->end = MDL_TAKE(arena, n, double);
    tree->mass = MDL_TAKE(arena, n, double);
}

void mdl_tree_start(struct mdl_tree *tree)
{
    tree->n_levels = 1;
    tree->level[0] = 0;
    tree->level[1] = 1;
    tree->parent[0] = -1;
    tree->action[0] = 1;
    tree->time[0] = 0;
    tree->used[0] = 1u << 1;
    tree->p[0] = 1;
    tree->end[0] = 0;
}

static int descending(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a < b) - (a > b);
}

/* Leaves the beam's worth of most probable nodes of the last level, in their order. */
static void cut(struct mdl_tree *tree)
{
    int first = tree->level[tree->n_levels - 1], n = tree->level[tree->n_levels] - first;
    if (n <= tree->max_level_nodes)
        return;
    memcpy(tree->mass, tree->p + first, (size_t)n * sizeof(double));
    qsort(tree->mass, (size_t)n, sizeof(double), descending);
    double least = tree->mass[tree->max_level_nodes - 1];
    int above = 0;
    for (int v = first; v < first + n; v++)
        above += tree->p[v] > least;
    int ties = tree->max_level_nodes - above, kept = first;
    for (int v = first; v < first + n; v++) {
        if (tree->p[v] < least || (tree->p[v] == least && ties-- <= 0))
            continue;
        tree->parent[kept] = tree->parent[v];
        tree->action[kept] = tree->action[v];
        tree->time[kept] = tree->time[v];
        tree->used[kept] = tree->used[v];
        tree->p[kept] = tree->p[v];
        tree->end[kept++] = tree->end[v];
    }
    tree->level[tree->n_levels] = kept;
}

/* The children of node v, from at on; returns the place after them. */
static int add_children(struct mdl_tree *tree, int v, const mdl_real *P, mdl_real That, int at)
{
    int M = tree->n_actions, last_level = tree->n_levels == M - 1;
    double sum = (double)P[0];
    for (int a = 1; a <= M; a++)
        if (!(tree->used[v] >> a & 1))
            sum += (double)P[a];
    /* all that may follow has underflowed: the sequence ends here */
    tree->end[v] = sum > 0 ? tree->p[v] * ((double)P[0] / sum) : tree->p[v];
    for (int a = 1; a <= M; a++) {
        if (tree->used[v] >> a & 1)
            continue;
        tree->parent[at] = v;
        tree->action[at] = (uint8_t)a;
        tree->time[at] = That;
        tree->used[at] = tree->used[v] | (uint64_t)1 << a;
        tree->p[at] = sum > 0 ? tree->p[v] * ((double)P[a] / sum) : 0;
        tree->end[at] = last_level ? tree->p[at] : 0;
        at++;
    }
    return at;
}

void mdl_tree_expand(struct mdl_tree *tree, const mdl_real *P, const mdl_real *That)
{
    int first = tree->level[tree->n_levels - 1], end = tree->level[tree->n_levels];
    int C = tree->n_actions + 1, at = end;
    for (int v = first; v < end; v++)
        at = add_children(tree, v, P + (size_t)(v - first) * C, That[v - first], at);
    tree->level[++tree->n_levels] = at;
    cut(tree);
}

/* the sequence that ends at node v */
static void report(const struct mdl_tree *tree, int v, int i, struct mdl_reading *out)
{
    int M = tree->n_actions, length = 0;
    for (int u = v; u >= 0; u = tree->parent[u])
        length++;
    if (out->sequence_length)
        out->sequence_length[i] = length;
    for (int k = length; k < M; k++) {
        if (out->sequence_action)
            out->sequence_action[(size_t)i * M + k] = 0;
        if (out->sequence_time)
            out->sequence_time[(size_t)i * M + k] = 0;
    }
    for (int u = v, k = length - 1; u >= 0; u = tree->parent[u], k--) {
        if (out->sequence_action)
            out->sequence_action[(size_t)i * M + k] = tree->action[u];
        if (out->sequence_time)
            out->sequence_time[(size_t)i * M + k] = tree->time[u];
    }
}

void mdl_tree_result(struct mdl_tree *tree, int i, struct mdl_reading *reading_p)
{
    int n = tree->level[tree->n_levels], C = tree->n_actions + 1, best = 0;
    double p[MDL_MAX_ACTIONS + 1] = {0}, t[MDL_MAX_ACTIONS + 1] = {0};
    memcpy(tree->mass, tree->end, (size_t)n * sizeof(double));
    for (int v = n - 1; v > 0; v--) {
        tree->mass[tree->parent[v]] += tree->mass[v];
        p[tree->action[v]] += tree->mass[v];
        t[tree->action[v]] += tree->mass[v] * (double)tree->time[v];
    }
    /* the first of equals: the order of nodes does not depend on rounding elsewhere */
    for (int v = 1; v < n; v++)
        if (tree->end[v] > tree->end[best])
            best = v;
    for (int a = 0; a < C; a++) {
        size_t at = (size_t)i * C + a;
        if (reading_p->p)
            reading_p->p[at] = (mdl_real)(a == 1 ? 1 : p[a] / tree->mass[0]);
        if (reading_p->time)
            reading_p->time[at] = (mdl_real)(p[a] > 0 ? t[a] / p[a] : 0);
        if (reading_p->time_literal)
            reading_p->time_literal[at] = (mdl_real)(t[a] / tree->mass[0]);
    }
    if (reading_p->sequence_p)
        reading_p->sequence_p[i] = (mdl_real)(tree->end[best] / tree->mass[0]);
    report(tree, best, i, reading_p);
}
