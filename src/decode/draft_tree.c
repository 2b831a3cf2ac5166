#include "decode/draft_tree.h"

#include <assert.h>
#include <math.h>

/* A path that could be taken next. */
typedef struct candidate {
    double logp;
    int32_t order; /* of arrival; settles ties */
    int8_t parent;
    uint8_t depth, rank;
} candidate;

/* Each node taken adds at most two candidates, and one is there at the start. */
enum { MAX_CANDIDATES = 2 * DRAFT_TREE_MAX_NODES + 1 };

typedef struct grower {
    const draft_marginals *m;
    int n_ranks, budget;
    draft_tree *t;
    double logp[DRAFT_TREE_MAX_ROWS]; /* of the path to each slot */
    candidate heap[MAX_CANDIDATES];
    int n_heap;
    int32_t n_pushed;
} grower;

static bool is_before(const candidate *a, const candidate *b)
{
    return a->logp != b->logp ? a->logp > b->logp : a->order < b->order;
}

static void swap(candidate *a, candidate *b)
{
    const candidate c = *a;
    *a = *b;
    *b = c;
}

static candidate pop(grower *g)
{
    const candidate top = g->heap[0];
    g->heap[0] = g->heap[--g->n_heap];
    for (int i = 0, child; (child = 2 * i + 1) < g->n_heap; i = child) {
        if (child + 1 < g->n_heap && is_before(&g->heap[child + 1], &g->heap[child])) child++;
        if (!is_before(&g->heap[child], &g->heap[i])) break;
        swap(&g->heap[i], &g->heap[child]);
    }
    return top;
}

static double marginal(const grower *g, int depth, int rank)
{
    return (double)g->m->logp[(depth - 1) * g->m->n_ranks + rank];
}

/* Offers the path that goes on from slot `parent` with the token of the given rank, if it exists. */
static void push(grower *g, int parent, int rank)
{
    const int depth = g->t->depth[parent] + 1;
    if (depth > g->m->n_depths || rank >= g->n_ranks) return;
    const double logp = g->logp[parent] + marginal(g, depth, rank);
    if (!isfinite(logp)) return;
    assert(g->n_heap < MAX_CANDIDATES);
    int i = g->n_heap++;
    g->heap[i] = (candidate){logp, g->n_pushed++, (int8_t)parent, (uint8_t)depth, (uint8_t)rank};
    for (; i > 0 && is_before(&g->heap[i], &g->heap[(i - 1) / 2]); i = (i - 1) / 2)
        swap(&g->heap[i], &g->heap[(i - 1) / 2]);
}

static int add_node(grower *g, int parent, int rank)
{
    draft_tree *t = g->t;
    const int i = t->n_rows++, depth = t->depth[parent] + 1;
    g->logp[i] = g->logp[parent] + marginal(g, depth, rank);
    t->token[i] = g->m->token[(depth - 1) * g->m->n_ranks + rank];
    t->parent[i] = (int8_t)parent;
    t->depth[i] = (uint8_t)depth;
    t->weight[i] = (float)exp(g->logp[i]);
    t->ancestors[i] = t->ancestors[parent] | UINT64_C(1) << i;
    for (int d = 0; d < depth; d++) t->path[i][d] = t->path[parent][d];
    t->path[i][depth] = (uint8_t)i;
    return i;
}

/* The chain of the best tokens; its siblings become candidates. */
static void seed_chain(grower *g)
{
    int prev = 0;
    for (int d = 1; d <= g->m->n_depths && g->t->n_rows <= g->budget; d++) {
        if (!isfinite(g->logp[prev] + marginal(g, d, 0))) return;
        const int i = add_node(g, prev, 0);
        push(g, prev, 1);
        prev = i;
    }
}

draft_tree_rule draft_tree_rule_default(void)
{
    return (draft_tree_rule){.n_ranks = DRAFT_TREE_RANKS, .is_chain_seeded = false};
}

static void plant(draft_tree *t, int32_t root)
{
    t->n_rows = 1;
    t->token[0] = root;
    t->parent[0] = -1;
    t->depth[0] = 0;
    t->weight[0] = 1;
    t->ancestors[0] = 1;
    t->path[0][0] = 0;
}

facet_status draft_tree_build(const draft_marginals *m, int32_t root, int budget, draft_tree_rule rule, draft_tree *out,
                              facet_error *err)
{
    if (budget > DRAFT_TREE_MAX_NODES)
        return error_set(err, FACET_ERR_LIMIT, "draft tree budget %d: wanted at most %d nodes", budget,
                         DRAFT_TREE_MAX_NODES);
    plant(out, root);
    if (budget <= 0 || m->n_depths <= 0) return FACET_OK;
    if (m->n_ranks < 1 || rule.n_ranks < 1)
        return error_set(err, FACET_ERR_ARG, "draft tree: %d ranks of %d per depth: wanted at least 1", rule.n_ranks,
                         m->n_ranks);
    grower g = {.m = m, .n_ranks = rule.n_ranks < m->n_ranks ? rule.n_ranks : m->n_ranks, .budget = budget, .t = out};
    if (rule.is_chain_seeded)
        seed_chain(&g);
    else
        push(&g, 0, 0);
    while (g.n_heap > 0 && out->n_rows <= budget) {
        const candidate c = pop(&g);
        const int i = add_node(&g, c.parent, c.rank);
        push(&g, c.parent, c.rank + 1);
        push(&g, i, 0);
    }
    return FACET_OK;
}

void draft_tree_shrink(draft_tree *t, int n_rows)
{
    if (n_rows < t->n_rows) t->n_rows = n_rows < 1 ? 1 : n_rows;
}

void draft_tree_prune(draft_tree *t, uint64_t kept)
{
    int to[DRAFT_TREE_MAX_ROWS] = {0}, n = 1; /* the new slot of each kept row */
    for (int i = 1; i < t->n_rows; i++) {
        if (!(kept >> i & 1)) continue;
        const int parent = to[t->parent[i]], slot = to[i] = n++;
        t->token[slot] = t->token[i];
        t->parent[slot] = (int8_t)parent;
        t->depth[slot] = t->depth[i];
        t->weight[slot] = t->weight[i];
        t->ancestors[slot] = t->ancestors[parent] | UINT64_C(1) << slot;
        for (int d = 0; d < t->depth[slot]; d++) t->path[slot][d] = t->path[parent][d];
        t->path[slot][t->depth[slot]] = (uint8_t)slot;
    }
    t->n_rows = n;
}

int draft_tree_max_depth(const draft_tree *t)
{
    int max = 0;
    for (int i = 1; i < t->n_rows; i++)
        if (t->depth[i] > max) max = t->depth[i];
    return max;
}

int draft_tree_child(const draft_tree *t, int slot, int32_t token)
{
    for (int i = slot + 1; i < t->n_rows; i++)
        if (t->parent[i] == slot && t->token[i] == token) return i;
    return -1;
}

void draft_tree_rows(const draft_tree *t, int32_t base, int n_rows, draft_padding padding, int32_t *token, int32_t *pos,
                     int32_t *slot, uint8_t (*path)[DRAFT_TREE_MAX_ROWS])
{
    assert(n_rows >= t->n_rows && n_rows <= DRAFT_TREE_MAX_ROWS);
    for (int i = 0; i < n_rows; i++) {
        const bool is_node = i < t->n_rows;
        const int depth = is_node ? t->depth[i] : 0;
        token[i] = is_node ? t->token[i] : padding == DRAFT_PAD_ROOT ? t->token[0] : 0;
        pos[i] = base + depth;
        slot[i] = base + i;
        for (int d = 0; d < depth; d++) path[i][d] = t->path[i][d];
        path[i][depth] = (uint8_t)i;
    }
}

int draft_tree_moves(const uint8_t *path, int m, int32_t base, draft_move *moves)
{
    int n = 0;
    for (int i = 1; i < m; i++)
        if (path[i] != i) moves[n++] = (draft_move){.src = base + path[i], .dst = base + i};
    return n;
}
