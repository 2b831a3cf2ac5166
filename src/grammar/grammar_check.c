/* grammar_check.c: from what a builder holds to a grammar that can be run: parts that no text matches are removed,
 * rules that match the empty text are found, rules that begin with themselves are refused, bytes are sorted into
 * classes. */
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "grammar/grammar.h"

/* A list of lists of edges: those of key k are list[first[k]] .. list[first[k + 1] - 1]. */
typedef struct edge_index {
    int32_t *first, *list;
} edge_index;

typedef struct checker {
    const grammar_builder *b;
    int32_t *from;           /* [n_edges] where an edge begins */
    edge_index into;         /* edges by the node they lead to */
    edge_index calls;        /* calls by their rule */
    edge_index starts;       /* rules by the node they start at */
    int32_t *queue;          /* [n_nodes + n_rules] */
    bool *node_is, *rule_is; /* the property that is being solved for */
    grammar *g;
} checker;

static void index_free(edge_index *x)
{
    mem_free(x->first);
    mem_free(x->list);
}

/* Counting sort of items 0 .. n - 1 by key(i); items with a negative key are left out. */
static bool index_make(edge_index *x, int32_t n_keys, int32_t n, int32_t (*key)(const checker *c, int32_t i),
                       const checker *c)
{
    x->first = mem_calloc((size_t)n_keys + 2, sizeof *x->first);
    x->list = mem_resize_array(NULL, (size_t)n, sizeof *x->list);
    if (!x->first || !x->list) return false;
    for (int32_t i = 0; i < n; i++)
        if (key(c, i) >= 0) x->first[key(c, i) + 2]++;
    for (int32_t k = 2; k <= n_keys + 1; k++) x->first[k] += x->first[k - 1];
    for (int32_t i = 0; i < n; i++)
        if (key(c, i) >= 0) x->list[x->first[key(c, i) + 1]++] = i;
    return true;
}

static int32_t edge_target(const checker *c, int32_t i)
{
    return c->g->edges[i].to;
}

static int32_t edge_rule(const checker *c, int32_t i)
{
    return c->g->edges[i].kind == EDGE_CALL ? c->g->edges[i].rule : -1;
}

static int32_t edge_origin(const checker *c, int32_t i)
{
    return c->b->edges[i].from;
}

static int32_t rule_start(const checker *c, int32_t i)
{
    return c->g->rules[i].start;
}

static facet_status copy(checker *c, facet_error *err)
{
    const grammar_builder *b = c->b;
    grammar *g = c->g = mem_calloc(1, sizeof *g);
    edge_index by_origin = {0};
    if (!g) return error_memory(err, "a grammar", sizeof *g);
    g->nodes = mem_calloc((size_t)b->n_nodes, sizeof *g->nodes);
    g->edges = mem_calloc((size_t)b->n_edges, sizeof *g->edges);
    g->rules = mem_calloc((size_t)b->n_rules, sizeof *g->rules);
    g->loops = mem_calloc((size_t)b->n_loops, sizeof *g->loops);
    c->from = mem_calloc((size_t)b->n_edges, sizeof *c->from);
    const bool ok = g->nodes && g->edges && g->rules && g->loops && c->from &&
                    index_make(&by_origin, b->n_nodes, b->n_edges, edge_origin, c);
    if (ok) {
        g->n_nodes = b->n_nodes;
        g->n_edges = b->n_edges;
        g->n_rules = b->n_rules;
        g->n_loops = b->n_loops;
        if (b->n_rules) memcpy(g->rules, b->rules, (size_t)b->n_rules * sizeof *g->rules);
        if (b->n_loops) memcpy(g->loops, b->loops, (size_t)b->n_loops * sizeof *g->loops);
        for (int32_t n = 0; n < g->n_nodes; n++)
            g->nodes[n] = (grammar_node){
                .first = by_origin.first[n], .n = by_origin.first[n + 1] - by_origin.first[n], .loop = GRAMMAR_NONE};
        for (int32_t i = 0; i < g->n_edges; i++) {
            g->edges[i] = b->edges[by_origin.list[i]].edge;
            c->from[i] = b->edges[by_origin.list[i]].from;
        }
        for (int32_t r = 0; r < g->n_rules; r++) g->nodes[g->rules[r].end].is_end = true;
        for (int32_t l = 0; l < g->n_loops; l++) g->nodes[g->loops[l].node].loop = l;
    }
    index_free(&by_origin);
    return ok ? FACET_OK : error_memory(err, "a grammar", (size_t)b->n_edges * sizeof *g->edges);
}

static facet_status prepare(checker *c, facet_error *err)
{
    FACET_TRY(copy(c, err));
    const grammar *g = c->g;
    const size_t n = (size_t)g->n_nodes + (size_t)g->n_rules;
    c->queue = mem_calloc(n, sizeof *c->queue);
    c->node_is = mem_calloc((size_t)g->n_nodes, 1);
    c->rule_is = mem_calloc((size_t)g->n_rules, 1);
    if (!c->queue || !c->node_is || !c->rule_is || !index_make(&c->into, g->n_nodes, g->n_edges, edge_target, c) ||
        !index_make(&c->calls, g->n_rules, g->n_edges, edge_rule, c) ||
        !index_make(&c->starts, g->n_nodes, g->n_rules, rule_start, c))
        return error_memory(err, "a grammar", n * sizeof *c->queue);
    return FACET_OK;
}

/* ---- which nodes reach the end of their rule ---- */

typedef struct solver {
    checker *c;
    int32_t *nodes, *rules; /* queues of what has the property; each enters once */
    int32_t n_nodes, n_rules;
} solver;

static void mark_node(solver *s, int32_t node)
{
    if (s->c->node_is[node]) return;
    s->c->node_is[node] = true;
    s->nodes[s->n_nodes++] = node;
}

static void mark_rule(solver *s, int32_t rule)
{
    if (s->c->rule_is[rule]) return;
    s->c->rule_is[rule] = true;
    s->rules[s->n_rules++] = rule;
}

/* A loop is left after enough passes: its body must have the property, unless none is demanded. */
static bool may_leave(const checker *c, int32_t node)
{
    const int32_t loop = c->g->nodes[node].loop;
    return loop < 0 || c->g->loops[loop].min == 0 || c->rule_is[c->g->loops[loop].body];
}

/* The rule has the property: so have the nodes that call it, when what follows the call has it, and loops over it, when
 * their exit has it. */
static void spread_rule(solver *s, int32_t rule)
{
    const checker *c = s->c;
    for (int32_t i = c->calls.first[rule]; i < c->calls.first[rule + 1]; i++) {
        const int32_t e = c->calls.list[i], loop = c->g->nodes[c->from[e]].loop;
        const int32_t to = loop >= 0 ? c->g->loops[loop].exit : c->g->edges[e].to;
        if (c->g->edges[e].kind == EDGE_CALL && c->node_is[to]) mark_node(s, c->from[e]);
    }
}

static void spread_node(solver *s, int32_t node, bool may_read)
{
    const checker *c = s->c;
    for (int32_t i = c->starts.first[node]; i < c->starts.first[node + 1]; i++) mark_rule(s, c->starts.list[i]);
    for (int32_t i = c->into.first[node]; i < c->into.first[node + 1]; i++) {
        const int32_t e = c->into.list[i];
        const grammar_edge *edge = &c->g->edges[e];
        if ((edge->kind == EDGE_EMPTY && may_leave(c, c->from[e])) || (edge->kind == EDGE_BYTE && may_read) ||
            (edge->kind == EDGE_CALL && c->rule_is[edge->rule]))
            mark_node(s, c->from[e]);
    }
}

/* Marks the nodes from which some text (may_read) or no text at all leads to their rule's end, and the rules whose
 * start is such a node. Linear: each edge is looked at twice. */
static void solve(checker *c, bool may_read)
{
    const grammar *g = c->g;
    solver s = {.c = c, .nodes = c->queue, .rules = c->queue + g->n_nodes};
    memset(c->node_is, 0, (size_t)g->n_nodes);
    memset(c->rule_is, 0, (size_t)g->n_rules);
    for (int32_t r = 0; r < g->n_rules; r++) mark_node(&s, g->rules[r].end);
    for (int32_t node = 0, rule = 0; node < s.n_nodes || rule < s.n_rules;) {
        if (rule < s.n_rules)
            spread_rule(&s, s.rules[rule++]);
        else
            spread_node(&s, s.nodes[node++], may_read);
    }
}

/* Removes edges that lead to no end, and calls of rules that match nothing. */
static void reduce(checker *c)
{
    grammar *g = c->g;
    for (int32_t i = 0; i < g->n_edges; i++) {
        grammar_edge *e = &g->edges[i];
        if (!c->node_is[e->to] || (e->kind == EDGE_CALL && !c->rule_is[e->rule])) e->kind = EDGE_GONE;
    }
}

static void drop_gone(grammar *g)
{
    for (int32_t n = 0; n < g->n_nodes; n++) {
        grammar_node *node = &g->nodes[n];
        int32_t kept = 0;
        for (int32_t i = 0; i < node->n; i++)
            if (g->edges[node->first + i].kind != EDGE_GONE) g->edges[node->first + kept++] = g->edges[node->first + i];
        node->n = kept;
    }
}

static void note_nullable(checker *c)
{
    grammar *g = c->g;
    for (int32_t r = 0; r < g->n_rules; r++) g->rules[r].is_nullable = c->rule_is[r];
    for (int32_t l = 0; l < g->n_loops; l++)
        if (c->rule_is[g->loops[l].body]) g->loops[l].min = 0; /* passes that read nothing count */
}

static void note_nodes(checker *c)
{
    grammar *g = c->g;
    solver s = {.c = c, .nodes = c->queue};
    memset(c->node_is, 0, (size_t)g->n_nodes);
    for (int32_t n = 0; n < g->n_nodes; n++) {
        grammar_node *node = &g->nodes[n];
        for (int32_t i = 0; i < node->n; i++) {
            node->has_calls |= g->edges[node->first + i].kind == EDGE_CALL;
            node->has_bytes |= g->edges[node->first + i].kind == EDGE_BYTE;
        }
        if (node->has_calls || node->has_bytes) mark_node(&s, n);
    }
    for (int32_t at = 0; at < s.n_nodes; at++)
        for (int32_t i = c->into.first[s.nodes[at]]; i < c->into.first[s.nodes[at] + 1]; i++)
            if (g->edges[c->into.list[i]].kind == EDGE_EMPTY) mark_node(&s, c->from[c->into.list[i]]);
    for (int32_t n = 0; n < g->n_nodes; n++) g->nodes[n].is_tail = !c->node_is[n];
}

/* ---- the order of rules ---- */

/* Depth-first search over "may begin with"; one entry per rule on the way down. */
typedef struct visit {
    int32_t rule, first, n, at; /* the rules it begins with: begins[first .. first + n); the next one to look at */
} visit;

typedef struct ranker {
    checker *c;
    int32_t *begins, n_begins, cap_begins;
    visit *path;
    int32_t n_path, n_ranked;
    uint8_t *colour; /* [n_rules] 0 = not seen, 1 = on the path, 2 = done */
    int32_t *seen;   /* [n_nodes] the last rule (+ 1) in whose search the node was met */
    int32_t *stack;  /* [n_nodes] */
} ranker;

static bool add_begin(ranker *k, int32_t rule)
{
    if (k->n_begins == k->cap_begins) {
        const int32_t cap = 2 * k->cap_begins + 64;
        int32_t *p = mem_resize_array(k->begins, (size_t)cap, sizeof *p);
        if (!p) return false;
        k->begins = p;
        k->cap_begins = cap;
    }
    k->begins[k->n_begins++] = rule;
    return true;
}

static void meet(ranker *k, int32_t rule, int32_t node, int32_t *n)
{
    if (k->seen[node] == rule + 1) return;
    k->seen[node] = rule + 1;
    k->stack[(*n)++] = node;
}

/* The rules that are called before anything is read. */
static bool find_begins(ranker *k, int32_t rule)
{
    const grammar *g = k->c->g;
    int32_t n = 0;
    meet(k, rule, g->rules[rule].start, &n);
    while (n) {
        const grammar_node *node = &g->nodes[k->stack[--n]];
        for (int32_t i = 0; i < node->n; i++) {
            const grammar_edge *e = &g->edges[node->first + i];
            if (e->kind == EDGE_CALL && !add_begin(k, e->rule)) return false;
            if (grammar_is_free(g, node, e)) meet(k, rule, e->to, &n);
        }
    }
    return true;
}

static bool enter(ranker *k, int32_t rule)
{
    const int32_t first = k->n_begins;
    k->colour[rule] = 1;
    if (!find_begins(k, rule)) return false;
    k->path[k->n_path++] = (visit){.rule = rule, .first = first, .n = k->n_begins - first};
    return true;
}

/* The path from `rule` on leads back to it. Names what has a name. */
static facet_status refuse_cycle(const ranker *k, int32_t rule, facet_error *err)
{
    char *const *labels = k->c->b->labels;
    buf names = {0};
    const char *first = NULL;
    int32_t at = 0;
    while (k->path[at].rule != rule) at++;
    for (; at < k->n_path; at++) {
        const char *label = labels[k->path[at].rule];
        if (!label) continue;
        if (!first) first = label;
        if (names.len < 300) buf_printf(&names, "%s -> ", label);
    }
    error_set(err, FACET_ERR_ARG, "%s begins with itself (%s%s): write it so that something is read before it",
              first ? first : "a rule", names.data ? names.data : "", first ? first : "");
    buf_free(&names);
    return FACET_ERR_ARG;
}

static facet_status rank_from(ranker *k, int32_t root, facet_error *err)
{
    grammar *g = k->c->g;
    if (!enter(k, root)) return error_memory(err, "a grammar", (size_t)k->cap_begins);
    while (k->n_path) {
        visit *v = &k->path[k->n_path - 1];
        if (v->at == v->n) { /* callers get lower ranks than what they call: numbers fall as rules are left */
            k->colour[v->rule] = 2;
            g->rules[v->rule].rank = g->n_rules - ++k->n_ranked;
            k->n_begins = v->first;
            k->n_path--;
            continue;
        }
        const int32_t next = k->begins[v->first + v->at++];
        if (k->colour[next] == 1) return refuse_cycle(k, next, err);
        if (k->colour[next] == 0 && !enter(k, next)) return error_memory(err, "a grammar", (size_t)k->cap_begins);
    }
    return FACET_OK;
}

static facet_status rank(checker *c, facet_error *err)
{
    const grammar *g = c->g;
    ranker k = {.c = c,
                .path = mem_calloc((size_t)g->n_rules, sizeof *k.path),
                .colour = mem_calloc((size_t)g->n_rules, 1),
                .seen = mem_calloc((size_t)g->n_nodes, sizeof *k.seen),
                .stack = mem_calloc((size_t)g->n_nodes, sizeof *k.stack)};
    facet_status status = FACET_OK;
    if (!k.path || !k.colour || !k.seen || !k.stack)
        status = error_memory(err, "a grammar", (size_t)g->n_nodes * sizeof *k.seen);
    for (int32_t r = 0; r < g->n_rules && status == FACET_OK; r++)
        if (!k.colour[r]) status = rank_from(&k, r, err);
    mem_free(k.begins);
    mem_free(k.path);
    mem_free(k.colour);
    mem_free(k.seen);
    mem_free(k.stack);
    return status;
}

/* ---- classes of bytes ---- */

static void classify(grammar *g)
{
    bool is_first[257] = {true}; /* a class begins here */
    for (int32_t n = 0; n < g->n_nodes; n++)
        for (int32_t i = 0; i < g->nodes[n].n; i++) {
            const grammar_edge *e = &g->edges[g->nodes[n].first + i];
            if (e->kind != EDGE_BYTE) continue;
            is_first[e->lo] = true;
            is_first[e->hi + 1] = true;
        }
    for (int b = 0; b < 256; b++) {
        if (is_first[b]) g->byte_of[g->n_classes++] = (uint8_t)b;
        g->class_of[b] = (uint8_t)(g->n_classes - 1);
    }
}

static facet_status check(checker *c, int32_t root, facet_error *err)
{
    FACET_TRY(prepare(c, err));
    solve(c, true);
    if (!c->rule_is[root])
        return error_set(err, FACET_ERR_ARG,
                         "%s matches no text: every way through it needs itself again, or an empty set",
                         c->b->labels[root] ? c->b->labels[root] : "the grammar");
    reduce(c);
    solve(c, false);
    note_nullable(c);
    note_nodes(c);
    FACET_TRY(rank(c, err));
    drop_gone(c->g);
    classify(c->g);
    c->g->root = root;
    return FACET_OK;
}

facet_status grammar_finish(const grammar_builder *b, int32_t root, grammar **out, facet_error *err)
{
    FACET_TRY(builder_check(b, err));
    checker c = {.b = b};
    const facet_status status = check(&c, root, err);
    index_free(&c.into);
    index_free(&c.calls);
    index_free(&c.starts);
    mem_free(c.from);
    mem_free(c.queue);
    mem_free(c.node_is);
    mem_free(c.rule_is);
    if (status == FACET_OK)
        *out = c.g;
    else
        grammar_close(c.g);
    return status;
}
