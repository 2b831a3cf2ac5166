/* prefix.c: prompts that are kept for later ones, and the search for the longest beginning. */
#include "decode/prefix.h"

#include <string.h>

#include "base/mem.h"
#include "decode/kept.h"
#include "decode/snapshot.h"

enum {
    MIN_TOKENS = KV_PAGE_LEN, /* shorter texts are not kept: they are evaluated in a step anyway */
    MIN_GAIN = 16             /* a step has room for as many rows at nearly no cost; a shared page must be copied */
};

typedef struct entry {
    kept_text text;
    uint64_t used_at;
} entry;

struct prefix_cache {
    entry *list; /* [n] in no order */
    int n, cap;
    uint64_t clock, bytes, budget;
    int32_t *held[KV_MAX_GROUPS]; /* [pages of the group] entries that hold the page */
    size_t page_bytes[KV_MAX_GROUPS];
    uint64_t n_lookups, n_hits, n_reused, n_evictions;
};
typedef struct prefix_cache prefix_cache;

facet_status prefix_open(facet_engine *e, uint64_t budget, facet_error *err)
{
    prefix_cache *c = e->prefix = mem_calloc(1, sizeof *c);
    if (!c) return error_memory(err, "the cache of prompts", sizeof *c);
    c->budget = budget;
    for (int g = 0; g < e->kv.n_groups; g++) {
        const size_t n = (size_t)e->kv.groups[g].n_pages;
        c->page_bytes[g] = kv_group_page_bytes(&e->kv, g);
        c->held[g] = mem_calloc(n, sizeof *c->held[g]);
        if (!c->held[g]) return error_memory(err, "the cache of prompts", n * sizeof *c->held[g]);
    }
    return FACET_OK;
}

void prefix_close(facet_engine *e)
{
    if (!e->prefix) return;
    prefix_clear(e);
    for (int g = 0; g < KV_MAX_GROUPS; g++) mem_free(e->prefix->held[g]);
    mem_free(e->prefix->list);
    mem_free(e->prefix);
    e->prefix = NULL;
}

void prefix_describe(const facet_engine *e, prefix_stats *out)
{
    const prefix_cache *c = e->prefix;
    *out = (prefix_stats){0};
    if (!c) return;
    *out = (prefix_stats){.n_entries = c->n,
                          .bytes = c->bytes,
                          .budget = c->budget,
                          .n_lookups = c->n_lookups,
                          .n_hits = c->n_hits,
                          .n_reused = c->n_reused,
                          .n_evictions = c->n_evictions};
}

/* ---- entries ---- */

/* Enters (by = 1) or strikes (by = -1) an entry's pages in the account. */
static void count_pages(prefix_cache *c, const kv_seq *s, int by)
{
    for (int g = 0; g < KV_MAX_GROUPS; g++)
        for (int32_t i = 0; i < s->n_table[g]; i++) {
            const int32_t page = s->table[g][i];
            if (page < 0) continue;
            if (by > 0 && c->held[g][page]++ == 0) c->bytes += c->page_bytes[g];
            if (by < 0 && --c->held[g][page] == 0) c->bytes -= c->page_bytes[g];
        }
}

static void drop(facet_engine *e, int i)
{
    prefix_cache *c = e->prefix;
    count_pages(c, &c->list[i].text.kv, -1);
    kept_free(e, &c->list[i].text);
    c->list[i] = c->list[--c->n];
}

/* True when a copy of the step in the making reads a page that nobody but this entry holds. */
static bool is_copied_from(const facet_engine *e, const kv_seq *s)
{
    for (int k = 0; k < e->step.n_copies; k++) {
        const kv_copy *copy = &e->copies[k];
        if (kv_pool_refs(e->pool, copy->group, copy->src) > 1) continue;
        for (int32_t i = 0; i < s->n_table[copy->group]; i++)
            if (s->table[copy->group][i] == copy->src) return true;
    }
    return false;
}

static int least_used(const facet_engine *e)
{
    const prefix_cache *c = e->prefix;
    int least = -1;
    for (int i = 0; i < c->n; i++)
        if ((least < 0 || c->list[i].used_at < c->list[least].used_at) && !is_copied_from(e, &c->list[i].text.kv))
            least = i;
    return least;
}

bool prefix_evict(facet_engine *e)
{
    const int i = e->prefix ? least_used(e) : -1;
    if (i < 0) return false;
    drop(e, i);
    e->prefix->n_evictions++;
    return true;
}

void prefix_set_budget(facet_engine *e, uint64_t bytes)
{
    if (!e->prefix) return;
    e->prefix->budget = bytes;
    while (e->prefix->bytes > bytes && prefix_evict(e)) continue;
}

void prefix_clear(facet_engine *e)
{
    while (e->prefix && e->prefix->n) drop(e, e->prefix->n - 1);
}

/* ---- keeping ---- */

static int32_t n_common(const int32_t *a, int32_t n_a, const int32_t *b, int32_t n_b)
{
    const int32_t n = n_a < n_b ? n_a : n_b;
    int32_t i = 0;
    while (i < n && a[i] == b[i]) i++;
    return i;
}

/* True when everything that a can be used for, b can be used for as well. */
static bool is_covered(const facet_engine *e, const kept_text *a, const kept_text *b)
{
    return a->n_tokens <= b->n_tokens && n_common(a->tokens, a->n_tokens, b->tokens, b->n_tokens) == a->n_tokens &&
           kv_seq_can_resume(e->pool, &b->kv, a->n_tokens);
}

static bool touch_covering(facet_engine *e, const kept_text *k)
{
    prefix_cache *c = e->prefix;
    for (int i = 0; i < c->n; i++) {
        if (!is_covered(e, k, &c->list[i].text)) continue;
        c->list[i].used_at = ++c->clock;
        return true;
    }
    return false;
}

static bool grow(prefix_cache *c)
{
    if (c->n < c->cap) return true;
    const int cap = 2 * c->cap + 16;
    entry *list = mem_resize_array(c->list, (size_t)cap, sizeof *list);
    if (!list) return false;
    c->list = list;
    c->cap = cap;
    return true;
}

void prefix_keep(const facet_session *s)
{
    facet_engine *e = s->engine;
    prefix_cache *c = e->prefix;
    kept_text k;
    if (!c || c->budget == 0 || s->n_tokens < MIN_TOKENS || !grow(c)) return;
    if (kept_take(s, s->n_tokens, &k, NULL) != FACET_OK) return;
    if (touch_covering(e, &k)) {
        kept_free(e, &k);
        return;
    }
    for (int i = c->n - 1; i >= 0; i--)
        if (is_covered(e, &c->list[i].text, &k)) drop(e, i);
    c->list[c->n++] = (entry){.text = k, .used_at = ++c->clock};
    count_pages(c, &k.kv, 1);
    while (c->bytes > c->budget && prefix_evict(e)) continue;
}

void prefix_forget_drafts(facet_engine *e)
{
    for (int i = 0; e->prefix && i < e->prefix->n; i++)
        e->prefix->list[i].text.gap = (draft_gap){0, e->prefix->list[i].text.n_tokens};
}

/* ---- finding ---- */

typedef struct search {
    const facet_engine *engine;
    const int32_t *tokens;
    int32_t n, least; /* least: a shorter beginning is not worth it */
    int32_t longest;  /* the longest common beginning, whether it can be used or not */
    prefix_match *best;
} search;

/* True when it is the best so far. */
static bool look_at(search *f, session_state state)
{
    const int32_t n = n_common(state.tokens, state.n_tokens, f->tokens, f->n);
    if (n > f->longest) f->longest = n;
    if (n < f->least || n <= f->best->n_usable || !kv_seq_can_resume(f->engine->pool, state.kv, n)) return false;
    f->best->from = state;
    f->best->n_usable = n;
    return true;
}

static void look_at_sessions(search *f, const facet_session *asking)
{
    for (facet_session *s = f->engine->sessions; s; s = s->next) {
        session_state live = {
            .kv = &s->kv, .tokens = s->tokens, .n_tokens = s->n_tokens, .gap = draft_feed_gap(&s->feed)};
        if (s == asking) {
            const int32_t n = n_common(s->tokens, s->n_tokens, f->tokens, f->n);
            if (n > f->longest) f->longest = n;
            continue;
        }
        look_at(f, live);
        live.kv = &s->mark;
        live.n_tokens = s->n_mark;
        live.gap = s->mark_gap;
        look_at(f, live);
    }
}

static void look_at_snapshots(search *f)
{
    for (int slot = 0; slot < SNAPSHOT_SLOTS; slot++) {
        session_state state;
        if (snapshot_state(f->engine, slot, &state)) look_at(f, state);
    }
}

static void look_at_entries(search *f, prefix_cache *c)
{
    entry *found = NULL;
    for (int i = 0; i < c->n; i++)
        if (look_at(f, kept_state(&c->list[i].text))) found = &c->list[i];
    if (found) found->used_at = ++c->clock;
}

void prefix_find(facet_session *s, const int32_t *tokens, int32_t n, int32_t own, prefix_match *out)
{
    prefix_cache *c = s->engine->prefix;
    *out = (prefix_match){.n_usable = own};
    if (n < own + MIN_GAIN) return;
    search f = {.engine = s->engine, .tokens = tokens, .n = n, .least = own + MIN_GAIN, .best = out};
    look_at_sessions(&f, s);
    look_at_snapshots(&f);
    look_at_entries(&f, c);
    c->n_lookups++;
    if (out->n_usable > own) {
        c->n_hits++;
        c->n_reused += (uint64_t)(out->n_usable - own);
    }
    if (c->budget > 0 && f.longest >= out->n_usable + MIN_TOKENS) out->branch = f.longest;
}
