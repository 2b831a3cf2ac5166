/* earley.h: random grammars, as GBNF and as plain productions; and a recogniser after Earley 1970, which shares nothing
 * with the library's: the productions spell repetitions out, and the charts are arrays that are searched from end to
 * end. */
#ifndef FACET_TESTS_EARLEY_H
#define FACET_TESTS_EARLEY_H

#include "base/buf.h"
#include "base/rng.h"

enum { MAX_NODES = 256, MAX_PRODUCTIONS = 4096, MAX_SYMBOLS = 8, MAX_ITEMS = 6000, MAX_TEXT = 96, FIRST_SYMBOL = 256 };

/* ---- expressions ---- */

typedef enum expr_kind { EXPR_TEXT, EXPR_SEQUENCE, EXPR_CHOICE, EXPR_REPEAT, EXPR_RULE } expr_kind;

typedef struct expr {
    expr_kind kind;
    const char *text; /* EXPR_TEXT */
    int child[3], n;  /* EXPR_SEQUENCE, EXPR_CHOICE, EXPR_REPEAT */
    int min, max;     /* EXPR_REPEAT; max -1 = infinite */
    int rule;         /* EXPR_RULE */
} expr;

typedef struct random_grammar {
    expr nodes[MAX_NODES];
    int n_nodes, n_rules, body[6];
    /* productions: left [n] -> right [n], symbols below FIRST_SYMBOL are bytes */
    int left[MAX_PRODUCTIONS], right[MAX_PRODUCTIONS][MAX_SYMBOLS], n_right[MAX_PRODUCTIONS], n_productions;
    int n_symbols;
    bool nullable[MAX_NODES], productive[MAX_PRODUCTIONS];
} random_grammar;

static const char *const alphabet[] = {"e", "t", "a", " ", "te", "\n", "\xc3\xa9", "\xe6\x97\xa5", "the", "\""};

static inline int random_expr(random_grammar *g, rng *r, int depth)
{
    const int i = g->n_nodes++;
    const uint32_t dice = rng_below(r, depth > 3 || g->n_nodes > MAX_NODES - 16 ? 5 : 12);
    expr e = {.kind = EXPR_TEXT, .text = alphabet[rng_below(r, sizeof alphabet / sizeof *alphabet)]};
    if (dice == 4) {
        e.kind = EXPR_RULE;
        e.rule = (int)rng_below(r, (uint32_t)g->n_rules);
    } else if (dice >= 10) {
        static const int counts[][2] = {{0, -1}, {1, -1}, {0, 1}, {2, 3}, {0, 4}, {3, 3}, {2, -1}, {1, 6}};
        const int *c = counts[rng_below(r, 8)];
        e.kind = EXPR_REPEAT;
        e.min = c[0];
        e.max = c[1];
        e.child[e.n++] = random_expr(g, r, depth + 1);
    } else if (dice >= 5) {
        e.kind = dice >= 8 ? EXPR_CHOICE : EXPR_SEQUENCE;
        for (int k = (int)rng_below(r, 4); k > 0; k--) e.child[e.n++] = random_expr(g, r, depth + 1);
    }
    g->nodes[i] = e;
    return i;
}

static inline void print_expr(const random_grammar *g, int i, buf *out)
{
    const expr *e = &g->nodes[i];
    switch (e->kind) {
    case EXPR_TEXT:
        buf_printf(out, *e->text == '"' ? "\"\\\"\"" : *e->text == '\n' ? "\"\\n\"" : "\"%s\"", e->text);
        break;
    case EXPR_RULE: buf_printf(out, e->rule ? "r%d" : "root", e->rule); break;
    case EXPR_REPEAT:
        buf_puts(out, "(");
        print_expr(g, e->child[0], out);
        buf_puts(out, ")");
        if (e->max < 0 && e->min < 2)
            buf_puts(out, e->min ? "+" : "*");
        else if (e->max < 0)
            buf_printf(out, "{%d,}", e->min);
        else
            buf_printf(out, "{%d,%d}", e->min, e->max);
        break;
    default:
        buf_puts(out, "(");
        for (int k = 0; k < e->n; k++) {
            if (k) buf_puts(out, e->kind == EXPR_CHOICE ? " | " : " ");
            print_expr(g, e->child[k], out);
        }
        buf_puts(out, ")");
    }
}

/* ---- productions ---- */

static inline void produce(random_grammar *g, int left, const int *right, int n)
{
    const int p = g->n_productions++;
    g->left[p] = left;
    g->n_right[p] = n;
    for (int i = 0; i < n; i++) g->right[p][i] = right[i];
}

/* The symbol of an expression; rules come first. */
static inline int symbol_of(random_grammar *g, int i)
{
    const expr *e = &g->nodes[i];
    if (e->kind == EXPR_RULE) return FIRST_SYMBOL + e->rule;
    const int symbol = FIRST_SYMBOL + g->n_symbols++;
    int right[MAX_SYMBOLS], n = 0;
    if (e->kind == EXPR_TEXT)
        for (const char *p = e->text; *p; p++) right[n++] = (unsigned char)*p;
    for (int k = 0; k < e->n; k++) {
        const int child = symbol_of(g, e->child[k]);
        if (e->kind == EXPR_CHOICE) produce(g, symbol, &child, 1);
        right[n++] = child;
    }
    if (e->kind == EXPR_TEXT || e->kind == EXPR_SEQUENCE || (e->kind == EXPR_CHOICE && e->n == 0))
        produce(g, symbol, right, n);
    if (e->kind != EXPR_REPEAT) return symbol;
    /* x{m,n}: m times x, then up to n - m times, or a tail t -> x t | nothing */
    const int x = right[0], tail = FIRST_SYMBOL + g->n_symbols++;
    for (n = 0; n < e->min; n++) right[n] = x;
    if (e->max < 0) {
        produce(g, tail, (int[]){x, tail}, 2);
        produce(g, tail, NULL, 0);
        right[n++] = tail;
    }
    produce(g, symbol, right, n);
    for (int k = e->min; k < e->max; k++) {
        right[n++] = x;
        produce(g, symbol, right, n);
    }
    return symbol;
}

static inline void find_productive(random_grammar *g)
{
    bool is_productive[FIRST_SYMBOL * 8] = {false}, changed = true;
    for (int s = 0; s < FIRST_SYMBOL; s++) is_productive[s] = true;
    while (changed) {
        changed = false;
        for (int p = 0; p < g->n_productions; p++) {
            bool all = true;
            for (int i = 0; i < g->n_right[p]; i++) all = all && is_productive[g->right[p][i]];
            g->productive[p] = all;
            if (all && !is_productive[g->left[p]]) changed = is_productive[g->left[p]] = true;
        }
    }
}

static inline void random_make(random_grammar *g, rng *r)
{
    *g = (random_grammar){0};
    g->n_rules = 1 + (int)rng_below(r, 4);
    for (int i = 0; i < g->n_rules; i++) g->body[i] = random_expr(g, r, 0);
    g->n_symbols = g->n_rules;
    for (int i = 0; i < g->n_rules; i++) {
        const int body = symbol_of(g, g->body[i]);
        produce(g, FIRST_SYMBOL + i, &body, 1);
    }
    find_productive(g);
}

static inline void random_print(const random_grammar *g, buf *out)
{
    buf_clear(out);
    for (int i = 0; i < g->n_rules; i++) {
        buf_printf(out, i ? "r%d ::= " : "root ::= ", i);
        print_expr(g, g->body[i], out);
        buf_puts(out, "\n");
    }
}

/* ---- recogniser ---- */

typedef struct item {
    short production, dot, origin;
} item;

/* sets[i]: items after i bytes. */
typedef struct chart {
    const random_grammar *g;
    item *items; /* of all sets */
    int first[MAX_TEXT + 2], n_bytes;
    bool is_full;
} chart;

static inline void chart_add(chart *c, int at, item it)
{
    for (int i = c->first[at]; i < c->first[at + 1]; i++)
        if (c->items[i].production == it.production && c->items[i].dot == it.dot && c->items[i].origin == it.origin)
            return;
    if (c->first[at + 1] == MAX_ITEMS) {
        c->is_full = true;
        return;
    }
    c->items[c->first[at + 1]++] = it;
}

static inline void chart_predict(chart *c, int at, int symbol)
{
    for (int p = 0; p < c->g->n_productions; p++)
        if (c->g->left[p] == symbol && c->g->productive[p]) chart_add(c, at, (item){(short)p, 0, (short)at});
}

/* Predictions and completions until nothing is new; passes over the whole set, so that empty matches need no care. */
static inline void chart_close(chart *c, int at)
{
    for (int before = -1; before != c->first[at + 1];) {
        before = c->first[at + 1];
        for (int i = c->first[at]; i < c->first[at + 1]; i++) {
            const item it = c->items[i];
            if (it.dot < c->g->n_right[it.production]) {
                if (c->g->right[it.production][it.dot] >= FIRST_SYMBOL)
                    chart_predict(c, at, c->g->right[it.production][it.dot]);
                continue;
            }
            for (int k = c->first[it.origin]; k < c->first[it.origin + 1]; k++) {
                const item up = c->items[k];
                if (up.dot < c->g->n_right[up.production] &&
                    c->g->right[up.production][up.dot] == c->g->left[it.production])
                    chart_add(c, at, (item){up.production, (short)(up.dot + 1), up.origin});
            }
        }
    }
}

static inline void chart_begin(chart *c, const random_grammar *g, item *items)
{
    *c = (chart){.g = g, .items = items};
    chart_predict(c, 0, FIRST_SYMBOL);
    chart_close(c, 0);
}

/* False: no text begins so. */
static inline bool chart_read(chart *c, unsigned char byte)
{
    const int at = ++c->n_bytes;
    c->first[at + 1] = c->first[at];
    for (int i = c->first[at - 1]; i < c->first[at]; i++) {
        const item it = c->items[i];
        if (it.dot < c->g->n_right[it.production] && c->g->right[it.production][it.dot] == byte)
            chart_add(c, at, (item){it.production, (short)(it.dot + 1), it.origin});
    }
    chart_close(c, at);
    return c->first[at + 1] > c->first[at];
}

static inline void chart_back(chart *c, int n_bytes)
{
    c->n_bytes = n_bytes;
}

static inline bool chart_may_end(const chart *c)
{
    for (int i = c->first[c->n_bytes]; i < c->first[c->n_bytes + 1]; i++) {
        const item it = c->items[i];
        if (c->g->left[it.production] == FIRST_SYMBOL && it.origin == 0 && it.dot == c->g->n_right[it.production])
            return true;
    }
    return false;
}

/* ---- rules that begin with themselves, by the definition ---- */

static inline bool expr_nullable(const random_grammar *g, const bool *rule_nullable, int i)
{
    const expr *e = &g->nodes[i];
    bool any = false, all = true;
    if (e->kind == EXPR_TEXT) return false;
    if (e->kind == EXPR_RULE) return rule_nullable[e->rule];
    for (int k = 0; k < e->n; k++) {
        const bool is = expr_nullable(g, rule_nullable, e->child[k]);
        any = any || is;
        all = all && is;
    }
    if (e->kind == EXPR_REPEAT) return e->min == 0 || all;
    return e->kind == EXPR_SEQUENCE || e->n == 0 ? all : any;
}

/* Some text is in it: what cannot be completed is no part of the grammar. */
static inline bool expr_productive(const random_grammar *g, const bool *rule_productive, int i)
{
    const expr *e = &g->nodes[i];
    bool any = false, all = true;
    if (e->kind == EXPR_TEXT) return true;
    if (e->kind == EXPR_RULE) return rule_productive[e->rule];
    for (int k = 0; k < e->n; k++) {
        const bool is = expr_productive(g, rule_productive, e->child[k]);
        any = any || is;
        all = all && is;
    }
    if (e->kind == EXPR_REPEAT) return e->min == 0 || all;
    return e->kind == EXPR_SEQUENCE || e->n == 0 ? all : any;
}

static inline void expr_begins(const random_grammar *g, const bool *nullable, const bool *productive, int i, bool *out)
{
    const expr *e = &g->nodes[i];
    if (e->kind == EXPR_RULE && productive[e->rule]) out[e->rule] = true;
    if (!expr_productive(g, productive, i)) return;
    for (int k = 0; k < e->n; k++) {
        expr_begins(g, nullable, productive, e->child[k], out);
        if (e->kind == EXPR_SEQUENCE && !expr_nullable(g, nullable, e->child[k])) break;
    }
}

static inline bool begins_with_itself(const random_grammar *g)
{
    bool nullable[6] = {false}, productive[6] = {false}, begins[6][6] = {{false}};
    for (int pass = 0; pass <= g->n_rules; pass++)
        for (int i = 0; i < g->n_rules; i++) {
            nullable[i] = expr_nullable(g, nullable, g->body[i]);
            productive[i] = expr_productive(g, productive, g->body[i]);
        }
    for (int i = 0; i < g->n_rules; i++) expr_begins(g, nullable, productive, g->body[i], begins[i]);
    for (int k = 0; k < g->n_rules; k++)
        for (int i = 0; i < g->n_rules; i++)
            for (int j = 0; j < g->n_rules; j++) begins[i][j] = begins[i][j] || (begins[i][k] && begins[k][j]);
    for (int i = 0; i < g->n_rules; i++)
        if (begins[i][i]) return true;
    return false;
}

#endif
