/* spec_scripted.h: strategies that draft from the known text instead of a model: right, wrong, or now and then wrong,
 * as chains and as trees of random shape. */
#ifndef FACET_TESTS_SPEC_SCRIPTED_H
#define FACET_TESTS_SPEC_SCRIPTED_H

#include "spec_world.h"

typedef enum script_kind {
    SCRIPT_ORACLE,    /* every draft is right; in a tree: the right path goes as deep as there are nodes left for it */
    SCRIPT_ADVERSARY, /* none is */
    SCRIPT_HALF,      /* each with probability 1/2 */
    SCRIPT_LAST       /* trees: wrong siblings first, the right path behind them, so that all of it has to move */
} script_kind;

typedef struct script {
    strategy_ops ops; /* first: this is what a strategy knows of its script */
    script_kind kind;
    bool is_tree;
    int k;                /* drafts a step at most; 0 = as many as asked for */
    const int32_t *truth; /* [n_truth] the plain text by position, prompt included */
    int n_truth;
    int32_t n_vocab;
    rng r;
    int n_proposed, n_right; /* drafts made; those on the right path */
} script;

static inline int32_t script_wrong(script *c, int pos)
{
    int32_t t;
    do t = (int32_t)rng_below(&c->r, (uint32_t)c->n_vocab);
    while (t == c->truth[pos]);
    return t;
}

static inline void script_chain(script *c, int at, int k, proposal *out)
{
    bool holds = true;
    out->is_tree = false;
    out->n = k;
    for (int j = 0; j < k; j++) {
        const bool is_right = c->kind == SCRIPT_ORACLE || (c->kind == SCRIPT_HALF && rng_below(&c->r, 2));
        out->token[j] = is_right ? c->truth[at + j] : script_wrong(c, at + j);
        out->conf[j] = 0.5f;
        holds = holds && is_right;
        c->n_right += holds;
    }
}

/* A node behind `parent`; its place in the tree is what draft_tree.h says. */
static inline int script_add_node(draft_tree *t, int parent, int32_t token)
{
    const int i = t->n_rows++, depth = t->depth[parent] + 1;
    t->token[i] = token;
    t->parent[i] = (int8_t)parent;
    t->depth[i] = (uint8_t)depth;
    t->weight[i] = t->weight[parent] * 0.7f;
    t->ancestors[i] = t->ancestors[parent] | UINT64_C(1) << i;
    memcpy(t->path[i], t->path[parent], (size_t)depth);
    t->path[i][depth] = (uint8_t)i;
    return i;
}

static inline void script_plant(draft_tree *t, int32_t root)
{
    *t = (draft_tree){.n_rows = 1, .token = {root}, .parent = {-1}, .weight = {1}, .ancestors = {1}};
}

/* A token that no sibling has, and that is not the right one. */
static inline int32_t script_new_token(script *c, const draft_tree *t, int parent, int pos)
{
    int32_t token;
    do token = script_wrong(c, pos);
    while (draft_tree_child(t, parent, token) >= 0);
    return token;
}

/* The right path goes on at slot `tip` when the dice or the kind say so; else somewhere a wrong node grows. */
static inline void script_tree(script *c, int at, int k, int32_t pending, proposal *out)
{
    draft_tree *t = &out->tree;
    int tip = 0;
    script_plant(t, pending);
    for (int i = 0; i < k; i++) {
        const bool is_right = c->kind == SCRIPT_ORACLE ? rng_below(&c->r, 3) > 0
                              : c->kind == SCRIPT_HALF ? rng_below(&c->r, 3) == 0
                              : c->kind == SCRIPT_LAST ? i >= k / 2
                                                       : false;
        const int parent = is_right ? tip : (int)rng_below(&c->r, (uint32_t)t->n_rows);
        const int pos = at + t->depth[parent];
        if (!is_right) {
            script_add_node(t, parent, script_new_token(c, t, parent, pos));
            continue;
        }
        tip = script_add_node(t, tip, c->truth[pos]);
        c->n_right++;
    }
    out->is_tree = true;
    out->n = k;
    for (int i = 0; i < k; i++) out->conf[i] = t->weight[i + 1];
}

static inline facet_status script_offer(strategy *st, facet_session *s, int32_t pending, int k_max, int *k,
                                        float *known, bool *has_known, facet_error *err)
{
    const script *c = (const script *)(const void *)st->ops;
    (void)s, (void)pending, (void)known, (void)err;
    *has_known = false;
    *k = c->k && c->k < k_max ? c->k : k_max;
    return FACET_OK;
}

static inline facet_status script_propose(strategy *st, facet_session *s, int32_t pending, int k, proposal *out,
                                          facet_error *err)
{
    script *c = (script *)(uintptr_t)st->ops;
    const int at = s->n_tokens + 1;
    (void)err;
    assert_in_range(k, 1, DRAFT_TREE_MAX_NODES);
    assert_in_range(at + k, 0, c->n_truth);
    assert_int_equal(c->truth[at - 1], pending); /* what a drafter is told has always been the plain text */
    if (c->is_tree)
        script_tree(c, at, k, pending, out);
    else
        script_chain(c, at, k, out);
    out->has_conf = true;
    c->n_proposed += k;
    return FACET_OK;
}

static inline script script_open(script_kind kind, bool is_tree, int k, uint64_t seed)
{
    script c = {.ops = {.method = FACET_SPEC_NGRAM,
                        .desc = {.name = is_tree ? "scripted tree" : "scripted", .is_tree = is_tree, .has_conf = true},
                        .offer = script_offer,
                        .propose = script_propose},
                .kind = kind,
                .is_tree = is_tree,
                .k = k,
                .n_vocab = 2048};
    rng_seed(&c.r, seed);
    return c;
}

/* The plain text after a prompt: n_prompt + n tokens, going on after end tokens; owned by the caller. */
static inline int32_t *script_truth(facet_session *s, const int32_t *prompt, size_t n_prompt, int n)
{
    spec_said *said = malloc(sizeof *said);
    int32_t *truth = malloc((n_prompt + (size_t)n) * sizeof *truth);
    assert_non_null(said);
    assert_non_null(truth);
    const spec_request q = {.prompt = prompt, .n_prompt = n_prompt, .n_predict = n, .ignore_eos = true};
    spec_say(s, &q, NULL, NULL, said);
    assert_int_equal(said->n, n);
    memcpy(truth, prompt, n_prompt * sizeof *truth);
    memcpy(truth + n_prompt, said->ids, (size_t)n * sizeof *truth);
    free(said);
    return truth;
}

#endif
