/* draft_ngram.c: per n-gram length one hash table (open addressing, linear probing, at most half full) from an n-gram
 * to the position of the last token of its latest occurrence, and one array that links each occurrence to the one
 * before. Tokens and links lie in rings: position p at p % cap. An n-gram whose first token leaves the window leaves
 * the table, so every entry's tokens can still be read. */
#include "decode/draft_ngram.h"

#include <assert.h>
#include <string.h>

#include "base/mem.h"

enum { N_LENGTHS = DRAFT_NGRAM_MAX_N, MIN_CAP = 1024 };

typedef struct gram_table {
    int n;            /* tokens of its n-grams */
    int32_t *latest;  /* [2 * cap] position of the latest occurrence's last token; -1 = free */
    int32_t *earlier; /* [cap] ring: position of the occurrence before, -1 = none */
} gram_table;

struct draft_ngram {
    draft_ngram_params p;
    int32_t first, n_tokens; /* positions first .. n_tokens - 1 are remembered */
    int32_t cap;             /* a power of two; grows until it holds the window */
    int32_t *token;          /* [cap] ring */
    int n_tables;
    gram_table tables[N_LENGTHS]; /* rising n */
};

draft_ngram_params draft_ngram_params_default(void)
{
    return (draft_ngram_params){.n_min = 2, .n_max = 4, .n_candidates = 16, .max_tokens = 262144};
}

static int32_t token_at(const draft_ngram *d, int32_t pos)
{
    return d->token[pos & (d->cap - 1)];
}

/* Home slot of the n-gram whose last token is at `end`. */
static uint32_t home_slot(const draft_ngram *d, const gram_table *t, int32_t end)
{
    uint64_t h = d->p.seed + 0x9e3779b97f4a7c15u;
    for (int32_t i = end - t->n + 1; i <= end; i++) {
        h ^= (uint32_t)token_at(d, i);
        h *= 0xbf58476d1ce4e5b9u;
        h ^= h >> 29;
    }
    h *= 0x94d049bb133111ebu;
    return (uint32_t)(h >> 32) & (2 * (uint32_t)d->cap - 1);
}

static bool is_same_gram(const draft_ngram *d, int n, int32_t a, int32_t b)
{
    for (int i = 0; i < n; i++)
        if (token_at(d, a - i) != token_at(d, b - i)) return false;
    return true;
}

/* Slot of the n-gram that ends at `end`, or the free one where it belongs. */
static uint32_t find_slot(const draft_ngram *d, const gram_table *t, int32_t end)
{
    const uint32_t mask = 2 * (uint32_t)d->cap - 1;
    uint32_t s = home_slot(d, t, end);
    while (t->latest[s] >= 0 && !is_same_gram(d, t->n, t->latest[s], end)) s = (s + 1) & mask;
    return s;
}

/* Empties a slot and moves later entries of its run back (Knuth, TAOCP 3, 6.4, Algorithm R). */
static void erase_slot(const draft_ngram *d, gram_table *t, uint32_t hole)
{
    const uint32_t mask = 2 * (uint32_t)d->cap - 1;
    for (uint32_t s = (hole + 1) & mask; t->latest[s] >= 0; s = (s + 1) & mask) {
        const uint32_t home = home_slot(d, t, t->latest[s]);
        if (((s - home) & mask) < ((s - hole) & mask)) continue; /* its home lies after the hole */
        t->latest[hole] = t->latest[s];
        hole = s;
    }
    t->latest[hole] = -1;
}

static bool holds_gram(const draft_ngram *d, const gram_table *t, int32_t end)
{
    return end - t->n + 1 >= d->first;
}

static void index_gram(draft_ngram *d, gram_table *t, int32_t end)
{
    if (!holds_gram(d, t, end)) return;
    const uint32_t s = find_slot(d, t, end);
    t->earlier[end & (d->cap - 1)] = t->latest[s];
    t->latest[s] = end;
}

/* Undoes index_gram for the newest position. */
static void unindex_gram(draft_ngram *d, gram_table *t, int32_t end)
{
    if (!holds_gram(d, t, end)) return;
    const uint32_t s = find_slot(d, t, end);
    const int32_t before = t->earlier[end & (d->cap - 1)];
    assert(t->latest[s] == end);
    if (before >= 0 && holds_gram(d, t, before))
        t->latest[s] = before;
    else
        erase_slot(d, t, s);
}

/* Forgets the oldest token. */
static void expire_first(draft_ngram *d)
{
    for (int i = 0; i < d->n_tables; i++) {
        gram_table *t = &d->tables[i];
        const int32_t end = d->first + t->n - 1;
        if (end >= d->n_tokens) continue;
        const uint32_t s = find_slot(d, t, end);
        if (t->latest[s] == end) erase_slot(d, t, s);
    }
    d->first++;
}

static void free_arrays(draft_ngram *d)
{
    mem_free(d->token);
    for (int i = 0; i < d->n_tables; i++) {
        mem_free(d->tables[i].latest);
        mem_free(d->tables[i].earlier);
    }
}

/* Gives d (whose pointers are garbage) arrays of its own for cap positions, the tables empty. */
static facet_status make_arrays(draft_ngram *d, int32_t cap, facet_error *err)
{
    const size_t n = (size_t)cap;
    bool is_short = !(d->token = mem_calloc(n, sizeof *d->token));
    d->cap = cap;
    for (int i = 0; i < d->n_tables; i++) {
        gram_table *t = &d->tables[i];
        t->latest = mem_calloc(2 * n, sizeof *t->latest);
        t->earlier = mem_calloc(n, sizeof *t->earlier);
        is_short |= !t->latest || !t->earlier;
        if (t->latest) memset(t->latest, 0xff, 2 * n * sizeof *t->latest);
    }
    if (!is_short) return FACET_OK;
    free_arrays(d);
    return error_memory(err, "the n-gram index", draft_ngram_bytes(d));
}

/* Doubles the rings until they hold n_tokens, or the whole window. */
static facet_status grow(draft_ngram *d, int32_t n_tokens, facet_error *err)
{
    int32_t cap = d->cap;
    while (cap < n_tokens && cap < d->p.max_tokens) cap *= 2;
    if (cap == d->cap) return FACET_OK;
    draft_ngram bigger = *d;
    FACET_TRY(make_arrays(&bigger, cap, err));
    bigger.n_tokens = bigger.first;
    for (int32_t p = d->first; p < d->n_tokens; p++) bigger.token[p & (cap - 1)] = token_at(d, p);
    for (; bigger.n_tokens < d->n_tokens; bigger.n_tokens++)
        for (int i = 0; i < d->n_tables; i++) index_gram(&bigger, &bigger.tables[i], bigger.n_tokens);
    free_arrays(d);
    *d = bigger;
    return FACET_OK;
}

static facet_status check(const draft_ngram_params *p, facet_error *err)
{
    if (p->n_min < 1 || p->n_max < p->n_min || p->n_max > DRAFT_NGRAM_MAX_N)
        return error_set(err, FACET_ERR_ARG, "n-gram lengths %d to %d: wanted 1 <= shortest <= longest <= %d", p->n_min,
                         p->n_max, DRAFT_NGRAM_MAX_N);
    if (p->n_candidates < 1 || p->n_candidates > DRAFT_NGRAM_MAX_CANDIDATES)
        return error_set(err, FACET_ERR_ARG, "n-gram candidates %d: wanted 1 to %d", p->n_candidates,
                         DRAFT_NGRAM_MAX_CANDIDATES);
    if (p->max_tokens < DRAFT_NGRAM_MIN_WINDOW || p->max_tokens > DRAFT_NGRAM_MAX_WINDOW)
        return error_set(err, FACET_ERR_ARG, "n-gram window of %d tokens: wanted %d to %d", p->max_tokens,
                         DRAFT_NGRAM_MIN_WINDOW, DRAFT_NGRAM_MAX_WINDOW);
    return FACET_OK;
}

facet_status draft_ngram_open(const draft_ngram_params *p, draft_ngram **out, facet_error *err)
{
    FACET_TRY(check(p, err));
    draft_ngram *d = mem_calloc(1, sizeof *d);
    if (!d) return error_memory(err, "the n-gram index", sizeof *d);
    d->p = *p;
    d->n_tables = p->n_max - p->n_min + 1;
    for (int i = 0; i < d->n_tables; i++) d->tables[i].n = p->n_min + i;
    const facet_status status = make_arrays(d, MIN_CAP, err);
    if (status != FACET_OK) {
        mem_free(d);
        return status;
    }
    *out = d;
    return FACET_OK;
}

void draft_ngram_close(draft_ngram *d)
{
    if (!d) return;
    free_arrays(d);
    mem_free(d);
}

facet_status draft_ngram_fork(const draft_ngram *d, draft_ngram **out, facet_error *err)
{
    draft_ngram *copy = mem_alloc(sizeof *copy);
    if (!copy) return error_memory(err, "the n-gram index", sizeof *copy);
    *copy = *d;
    const facet_status status = make_arrays(copy, d->cap, err);
    if (status != FACET_OK) {
        mem_free(copy);
        return status;
    }
    const size_t n = (size_t)d->cap;
    memcpy(copy->token, d->token, n * sizeof *d->token);
    for (int i = 0; i < d->n_tables; i++) {
        memcpy(copy->tables[i].latest, d->tables[i].latest, 2 * n * sizeof *d->tables[i].latest);
        memcpy(copy->tables[i].earlier, d->tables[i].earlier, n * sizeof *d->tables[i].earlier);
    }
    *out = copy;
    return FACET_OK;
}

facet_status draft_ngram_append(draft_ngram *d, const int32_t *tokens, size_t n, facet_error *err)
{
    if (n > (size_t)(INT32_MAX - d->n_tokens))
        return error_set(err, FACET_ERR_LIMIT, "n-gram index: %d tokens and %zu more: wanted at most %d", d->n_tokens,
                         n, INT32_MAX);
    FACET_TRY(grow(d, d->n_tokens - d->first + (int32_t)n, err));
    for (size_t i = 0; i < n; i++) {
        if (d->n_tokens - d->first == d->p.max_tokens) expire_first(d);
        const int32_t pos = d->n_tokens++;
        d->token[pos & (d->cap - 1)] = tokens[i];
        for (int j = 0; j < d->n_tables; j++) index_gram(d, &d->tables[j], pos);
    }
    return FACET_OK;
}

void draft_ngram_truncate(draft_ngram *d, int32_t n_tokens)
{
    if (n_tokens < 0) n_tokens = 0;
    while (d->n_tokens > n_tokens && d->n_tokens > d->first) {
        d->n_tokens--;
        for (int i = 0; i < d->n_tables; i++) unindex_gram(d, &d->tables[i], d->n_tokens);
    }
    if (d->n_tokens > n_tokens) d->first = d->n_tokens = n_tokens; /* the tokens before it are forgotten */
}

int32_t draft_ngram_n_tokens(const draft_ngram *d)
{
    return d->n_tokens;
}

/* Tokens before positions a > b (inclusive) that agree, at most DRAFT_NGRAM_MAX_MATCH. */
static int match_length(const draft_ngram *d, int32_t a, int32_t b)
{
    int n = 0;
    while (n < DRAFT_NGRAM_MAX_MATCH && b - n >= d->first && token_at(d, a - n) == token_at(d, b - n)) n++;
    return n;
}

/* The best earlier occurrence of the table's n-gram at the end of the session: its last position, or -1. */
static int32_t best_occurrence(const draft_ngram *d, const gram_table *t, int *n_match)
{
    const int32_t end = d->n_tokens - 1;
    int32_t best = -1;
    *n_match = 0;
    if (!holds_gram(d, t, end)) return -1;
    int32_t at = t->earlier[end & (d->cap - 1)];
    for (int i = 0; i < d->p.n_candidates && at >= 0 && holds_gram(d, t, at); i++) {
        const int n = match_length(d, end, at);
        if (n > *n_match) {
            *n_match = n;
            best = at;
        }
        at = t->earlier[at & (d->cap - 1)];
    }
    return best;
}

int draft_ngram_propose(const draft_ngram *d, int k, int32_t *out, int *n_match)
{
    int32_t at = -1;
    int n = 0;
    for (int i = d->n_tables - 1; i >= 0 && at < 0; i--) at = best_occurrence(d, &d->tables[i], &n);
    if (n_match) *n_match = n;
    if (at < 0 || k <= 0) return 0;
    for (int i = 0; i < k; i++) {
        const int32_t from = at + 1 + i;
        out[i] = from < d->n_tokens ? token_at(d, from) : out[from - d->n_tokens];
    }
    return k;
}

size_t draft_ngram_bytes(const draft_ngram *d)
{
    const size_t words = (size_t)d->cap * (1 + 3 * (size_t)d->n_tables);
    return sizeof *d + words * sizeof(int32_t);
}
