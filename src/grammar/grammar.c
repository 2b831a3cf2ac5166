#include "grammar/grammar.h"

#include "base/mem.h"

void builder_free(grammar_builder *b)
{
    for (int32_t i = 0; i < b->n_rules; i++) mem_free(b->labels[i]);
    mem_free(b->labels);
    mem_free(b->rules);
    mem_free(b->loops);
    mem_free(b->edges);
    *b = (grammar_builder){0};
}

/* Room for one more entry in an array of n. */
static bool grow(grammar_builder *b, void **array, int32_t n, int32_t cap, int32_t max, size_t bytes)
{
    if (b->status == FACET_OK && n >= max) b->status = FACET_ERR_LIMIT;
    if (b->status != FACET_OK) return false;
    if (n < cap) return true;
    void *p = mem_resize_array(*array, 2 * (size_t)n + 64, bytes);
    if (!p) {
        b->status = FACET_ERR_MEMORY;
        return false;
    }
    *array = p;
    return true;
}

facet_status builder_check(const grammar_builder *b, facet_error *err)
{
    if (b->status == FACET_ERR_LIMIT)
        return error_set(err, FACET_ERR_LIMIT, "the grammar is too large: more than %d nodes, %d edges or %d rules",
                         GRAMMAR_MAX_NODES, GRAMMAR_MAX_EDGES, GRAMMAR_MAX_RULES);
    return b->status == FACET_OK ? FACET_OK : error_memory(err, "a grammar", (size_t)b->n_edges * sizeof *b->edges);
}

int32_t builder_node(grammar_builder *b)
{
    if (b->status == FACET_OK && b->n_nodes == GRAMMAR_MAX_NODES) b->status = FACET_ERR_LIMIT;
    return b->status == FACET_OK ? b->n_nodes++ : 0;
}

static void add_edge(grammar_builder *b, int32_t from, grammar_edge edge)
{
    if (!grow(b, (void **)&b->edges, b->n_edges, b->cap_edges, GRAMMAR_MAX_EDGES, sizeof *b->edges)) return;
    if (b->n_edges == b->cap_edges) b->cap_edges = 2 * b->n_edges + 64;
    b->edges[b->n_edges++] = (built_edge){.edge = edge, .from = from};
}

void builder_byte(grammar_builder *b, int32_t from, uint8_t lo, uint8_t hi, int32_t to)
{
    add_edge(b, from, (grammar_edge){.kind = EDGE_BYTE, .lo = lo, .hi = hi, .to = to, .rule = GRAMMAR_NONE});
}

void builder_empty(grammar_builder *b, int32_t from, int32_t to)
{
    add_edge(b, from, (grammar_edge){.kind = EDGE_EMPTY, .to = to, .rule = GRAMMAR_NONE});
}

void builder_call(grammar_builder *b, int32_t from, int32_t rule, int32_t to)
{
    add_edge(b, from, (grammar_edge){.kind = EDGE_CALL, .rule = rule, .to = to});
}

void builder_text(grammar_builder *b, int32_t from, const char *s, size_t n, int32_t to)
{
    if (n == 0) builder_empty(b, from, to);
    for (size_t i = 0; i < n; i++) {
        const int32_t next = i + 1 < n ? builder_node(b) : to;
        builder_byte(b, from, (uint8_t)s[i], (uint8_t)s[i], next);
        from = next;
    }
}

static int32_t add_rule(grammar_builder *b, int32_t start, int32_t end, const char *label)
{
    if (!grow(b, (void **)&b->rules, b->n_rules, b->cap_rules, GRAMMAR_MAX_RULES, sizeof *b->rules)) return 0;
    if (!grow(b, (void **)&b->labels, b->n_rules, b->cap_rules, GRAMMAR_MAX_RULES, sizeof *b->labels)) return 0;
    if (b->n_rules == b->cap_rules) b->cap_rules = 2 * b->n_rules + 64;
    char *copy = label ? mem_strdup(label) : NULL;
    if (label && !copy) {
        b->status = FACET_ERR_MEMORY;
        return 0;
    }
    b->labels[b->n_rules] = copy;
    b->rules[b->n_rules] = (grammar_rule){.start = start, .end = end};
    return b->n_rules++;
}

int32_t builder_rule(grammar_builder *b, const char *label)
{
    const int32_t start = builder_node(b), end = builder_node(b);
    return add_rule(b, start, end, label);
}

int32_t builder_rule_of(grammar_builder *b, int32_t start, int32_t end)
{
    return add_rule(b, start, end, NULL);
}

void builder_loop(grammar_builder *b, int32_t from, int32_t body, int32_t min, int32_t max, int32_t to)
{
    if (max == 0) {
        builder_empty(b, from, to);
        return;
    }
    if (!grow(b, (void **)&b->loops, b->n_loops, b->cap_loops, GRAMMAR_MAX_RULES, sizeof *b->loops)) return;
    if (b->n_loops == b->cap_loops) b->cap_loops = 2 * b->n_loops + 64;
    const int32_t node = builder_node(b);
    b->loops[b->n_loops++] = (grammar_loop){.node = node, .body = body, .min = min, .max = max, .exit = to};
    builder_empty(b, from, node);
    builder_call(b, node, body, node);
    builder_empty(b, node, to);
}

void builder_repeat(grammar_builder *b, int32_t *first, int32_t *last, int32_t min, int32_t max)
{
    if (min == 1 && max == 1) return;
    const int32_t from = builder_node(b), to = builder_node(b);
    if (min > 1 || (max > 1 && max != GRAMMAR_INFINITE) || max == 0) {
        builder_loop(b, from, builder_rule_of(b, *first, *last), min, max, to);
    } else {
        builder_empty(b, from, *first);
        builder_empty(b, *last, to);
        if (min == 0) builder_empty(b, from, to);
        if (max == GRAMMAR_INFINITE) builder_empty(b, *last, *first);
    }
    *first = from;
    *last = to;
}

void grammar_close(grammar *g)
{
    if (!g) return;
    mem_free(g->nodes);
    mem_free(g->edges);
    mem_free(g->rules);
    mem_free(g->loops);
    mem_free(g);
}
