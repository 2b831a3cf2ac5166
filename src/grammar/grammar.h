/* grammar.h: a context-free grammar over bytes, as a network: each rule is a small automaton whose edges read a byte,
 * read nothing, or call another rule. GBNF (gbnf.h) and JSON schemas (schema.h) are translated into it; state.h runs
 * it.
 *
 * Counted repetition x{m,n} is a loop, a node whose passes are counted at run time and never unrolled:
 *
 *        --> (L) --call x--> (L)        at most n passes
 *            (L) --empty---> exit       after m of them
 *
 * so that "at most 10,000 characters" costs one node. */
#ifndef FACET_GRAMMAR_GRAMMAR_H
#define FACET_GRAMMAR_GRAMMAR_H

#include "base/error.h"

enum {
    GRAMMAR_MAX_NODES = 1 << 20,
    GRAMMAR_MAX_EDGES = 1 << 21,
    GRAMMAR_MAX_RULES = 1 << 18, /* and loops */
    GRAMMAR_MAX_DEPTH = 64,      /* nested groups of a GBNF rule or a pattern */
    GRAMMAR_MAX_COUNT = 1 << 24, /* m and n of x{m,n} */
    GRAMMAR_NONE = -1,
    GRAMMAR_INFINITE = GRAMMAR_MAX_COUNT + 1 /* n of x{m,} */
};

typedef enum edge_kind {
    EDGE_BYTE,
    EDGE_EMPTY,
    EDGE_CALL,
    EDGE_GONE /* while a grammar is checked: removed */
} edge_kind;

typedef struct grammar_edge {
    int32_t to;
    int32_t rule;   /* EDGE_CALL: what is read before `to` */
    uint8_t kind;   /* edge_kind */
    uint8_t lo, hi; /* EDGE_BYTE: the bytes lo .. hi */
} grammar_edge;

typedef struct grammar_node {
    int32_t first, n; /* its edges */
    int32_t loop;     /* index of the loop whose node it is, or GRAMMAR_NONE */
    bool is_end;      /* of its rule */
    bool is_tail;     /* nothing but the rule's end follows */
    bool has_calls, has_bytes;
} grammar_node;

/* max >= 1, or GRAMMAR_INFINITE. */
typedef struct grammar_loop {
    int32_t node, body, min, max, exit;
} grammar_loop;

typedef struct grammar_rule {
    int32_t start, end;
    int32_t rank;     /* a rule's rank is lower than that of every rule it may begin with */
    bool is_nullable; /* matches the empty text */
} grammar_rule;

/* Immutable. Reduced: from every node some text leads to its rule's end. No rule begins with itself. */
typedef struct grammar {
    int32_t n_nodes, n_edges, n_rules, n_loops, root;
    grammar_node *nodes;
    grammar_edge *edges;
    grammar_rule *rules;
    grammar_loop *loops;
    int n_classes; /* bytes of a class are never told apart */
    uint8_t class_of[256], byte_of[256];
} grammar;

void grammar_close(grammar *g);

/* True when the edge may be followed without reading, in a loop without a pass. */
static inline bool grammar_is_free(const grammar *g, const grammar_node *node, const grammar_edge *e)
{
    if (e->kind == EDGE_EMPTY) return node->loop < 0 || g->loops[node->loop].min == 0;
    return e->kind == EDGE_CALL && g->rules[e->rule].is_nullable;
}

/* ---- building ---- */

typedef struct built_edge {
    grammar_edge edge;
    int32_t from;
} built_edge;

/* Zero-initialise. The first failure (memory, a limit) stays in `status`: calls after it do nothing and give 0, so that
 * a caller may look once, at the end. */
typedef struct grammar_builder {
    int32_t n_nodes, n_edges, n_rules, n_loops, cap_edges, cap_rules, cap_loops;
    built_edge *edges;
    grammar_rule *rules;
    grammar_loop *loops;
    char **labels; /* [n_rules] how messages call a rule; NULL = not at all */
    facet_status status;
} grammar_builder;

void builder_free(grammar_builder *b);

int32_t builder_node(grammar_builder *b);
void builder_byte(grammar_builder *b, int32_t from, uint8_t lo, uint8_t hi, int32_t to);
void builder_text(grammar_builder *b, int32_t from, const char *s, size_t n, int32_t to); /* these bytes */
void builder_empty(grammar_builder *b, int32_t from, int32_t to);
void builder_call(grammar_builder *b, int32_t from, int32_t rule, int32_t to);
/* A rule with fresh start and end, to be filled in; label (copied) may be NULL. */
int32_t builder_rule(grammar_builder *b, const char *label);
/* The finished piece start .. end, into which nothing else leads, as a rule. */
int32_t builder_rule_of(grammar_builder *b, int32_t start, int32_t end);
/* Reads the rule body min to max times between two nodes; max may be GRAMMAR_INFINITE. */
void builder_loop(grammar_builder *b, int32_t from, int32_t body, int32_t min, int32_t max, int32_t to);
/* The piece *first .. *last, into which nothing else leads, becomes min to max times itself. */
void builder_repeat(grammar_builder *b, int32_t *first, int32_t *last, int32_t min, int32_t max);

/* FACET_OK, or what went wrong so far. */
facet_status builder_check(const grammar_builder *b, facet_error *err);
/* Checks and reduces; the builder stays the caller's. FACET_ERR_LIMIT: too large. FACET_ERR_ARG: a rule begins with
 * itself (its label is named), or root matches no text. */
facet_status grammar_finish(const grammar_builder *b, int32_t root, grammar **out, facet_error *err);

#endif
