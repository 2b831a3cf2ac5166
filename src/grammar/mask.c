#include "grammar/mask.h"

#include <string.h>

#include "base/mem.h"

enum {
    MAX_CALLERS = 4, /* made part of what is kept */
    MAX_CONTEXTS = 64,
    HEAVY_NODES = 1 << 13,
    FEW_TOKENS = 512,
    MAX_WORK = 1 << 26 /* configurations looked at for a token: about a second */
};

static facet_status no_memory(size_t bytes, facet_error *err)
{
    return error_memory(err, "token masks", bytes);
}

facet_status masker_open(grammar *g, const token_trie *trie, size_t max_bytes, masker **out, facet_error *err)
{
    masker *k = mem_calloc(1, sizeof *k);
    if (!k) {
        grammar_close(g);
        return no_memory(sizeof *k, err);
    }
    k->g = g;
    k->trie = trie;
    k->max_bytes = max_bytes;
    k->heavy_nodes = HEAVY_NODES;
    k->max_contexts = MAX_CONTEXTS;
    k->path = mem_calloc((size_t)trie->max_bytes + 1, sizeof *k->path);
    k->scratch = mem_calloc(mask_words(trie), sizeof *k->scratch);
    facet_status status = k->path && k->scratch ? FACET_OK : no_memory(mask_words(trie) * 8, err);
    if (status == FACET_OK) status = machine_open(g, max_bytes, &k->m, err);
    if (status == FACET_OK)
        *out = k;
    else
        masker_close(k);
    return status;
}

static void free_walks(masker *k)
{
    for (int32_t i = 0; i < k->n_walks; i++) {
        mem_free(k->walks[i].bits);
        mem_free(k->walks[i].tokens);
        mem_free(k->walks[i].pops);
    }
    k->n_walks = 0;
    k->walk_bytes = 0;
}

void masker_close(masker *k)
{
    if (!k) return;
    free_walks(k);
    mem_free(k->walks);
    machine_close(k->m);
    grammar_close(k->g);
    mem_free(k->path);
    mem_free(k->pops);
    mem_free(k->scratch);
    mem_free(k);
}

/* ---- who holds states ---- */

void masker_hold(masker *k, state_holder *h, int32_t *states, size_t n)
{
    *h = (state_holder){.states = states, .n = n, .next = k->holders};
    if (h->next) h->next->previous = h;
    k->holders = h;
}

void masker_release(masker *k, state_holder *h)
{
    if (h->next) h->next->previous = h->previous;
    if (h->previous)
        h->previous->next = h->next;
    else
        k->holders = h->next;
}

facet_status masker_trim(masker *k, facet_error *err)
{
    if (machine_bytes(k->m) + k->walk_bytes < k->max_bytes / 2) return FACET_OK;
    size_t n = 0;
    for (const state_holder *h = k->holders; h; h = h->next) n += h->n;
    int32_t **kept = mem_resize_array(NULL, n, sizeof *kept);
    if (!kept) return no_memory(n * sizeof *kept, err);
    n = 0;
    for (const state_holder *h = k->holders; h; h = h->next)
        for (size_t i = 0; i < h->n; i++) kept[n++] = &h->states[i];
    const facet_status status = machine_compact(k->m, kept, n, err);
    if (status == FACET_OK) free_walks(k);
    mem_free(kept);
    return status;
}

/* ---- states ---- */

int32_t masker_start(const masker *k)
{
    return k->m->start;
}

bool masker_is_final(const masker *k, int32_t state)
{
    return k->m->states[state].is_final;
}

facet_status masker_advance(masker *k, int32_t state, int32_t token, int32_t *out, facet_error *err)
{
    size_t n = 0;
    const char *text = token >= 0 && token < k->trie->n_vocab ? trie_text(k->trie, token, &n) : "";
    k->m->work = MAX_WORK;
    if (n == 0) state = STATE_DEAD;
    for (size_t i = 0; i < n && state != STATE_DEAD; i++)
        FACET_TRY(machine_next(k->m, state, k->g->class_of[(uint8_t)text[i]], &state, err));
    *out = state;
    return FACET_OK;
}

/* ---- walks ---- */

static void set_bit(uint64_t *bits, int32_t token)
{
    bits[token >> 6] |= UINT64_C(1) << (token & 63);
}

static facet_status add_pop(masker *k, int32_t node, facet_error *err)
{
    if (k->n_pops == k->cap_pops) {
        const size_t cap = 2 * (size_t)k->cap_pops + 256;
        int32_t *p = mem_resize_array(k->pops, cap, sizeof *p);
        if (!p) return no_memory(cap * sizeof *p, err);
        k->pops = p;
        k->cap_pops = (int32_t)cap;
    }
    k->pops[k->n_pops++] = node;
    return FACET_OK;
}

/* Nodes begin .. end - 1 of the tree, which are below a node at which the text has this state: the allowed ones' tokens
 * are set in bits. n_below (may be NULL): pops are noted while what lies below them is at most heavy_nodes. */
static facet_status walk(masker *k, int32_t begin, int32_t end, int32_t state, uint64_t *bits, int64_t *n_below,
                         facet_error *err)
{
    const token_trie *t = k->trie;
    if (begin == end) return FACET_OK;
    k->path[t->depth[begin] - 1] = state;
    for (int32_t i = begin; i < end;) {
        const int depth = t->depth[i];
        FACET_TRY(machine_next(k->m, k->path[depth - 1], k->g->class_of[t->byte[i]], &state, err));
        if (state == STATE_DEAD) {
            i = t->end[i];
            continue;
        }
        k->path[depth] = state;
        for (int32_t j = t->first[i]; j < t->first[i + 1]; j++) set_bit(bits, t->tokens[j]);
        if (n_below && t->end[i] > i + 1 && k->m->states[state].is_final) {
            *n_below += t->end[i] - i - 1;
            if (*n_below <= k->heavy_nodes) FACET_TRY(add_pop(k, i, err));
        }
        i++;
    }
    return FACET_OK;
}

static int32_t count_bits(const uint64_t *bits, size_t n_words)
{
    int32_t n = 0;
    for (size_t i = 0; i < n_words; i++) n += __builtin_popcountll(bits[i]);
    return n;
}

static void list_bits(const uint64_t *bits, size_t n_words, int32_t *tokens)
{
    for (size_t i = 0; i < n_words; i++)
        for (uint64_t w = bits[i]; w; w &= w - 1) *tokens++ = (int32_t)(i * 64) + __builtin_ctzll(w);
}

/* Copies of what the scratch buffers hold. */
static bool copy_walk(const masker *k, kept_walk *w)
{
    const size_t n_words = mask_words(k->trie);
    const int32_t n = count_bits(k->scratch, n_words);
    if (!w->is_heavy && k->n_pops) {
        w->pops = mem_alloc((size_t)k->n_pops * sizeof *w->pops);
        if (!w->pops) return false;
        memcpy(w->pops, k->pops, (size_t)k->n_pops * sizeof *w->pops);
        w->n_pops = k->n_pops;
    }
    if (n <= FEW_TOKENS) {
        w->n_tokens = n;
        w->tokens = mem_alloc((size_t)n * sizeof *w->tokens);
        if (w->tokens) list_bits(k->scratch, n_words, w->tokens);
        return w->tokens;
    }
    w->bits = mem_alloc(n_words * sizeof *w->bits);
    if (w->bits) memcpy(w->bits, k->scratch, n_words * sizeof *w->bits);
    return w->bits;
}

static facet_status keep_walk(masker *k, kept_walk w, int32_t *out, facet_error *err)
{
    const size_t bytes = mask_words(k->trie) * 8;
    if (k->n_walks == k->cap_walks) {
        const size_t cap = 2 * (size_t)k->cap_walks + 64;
        kept_walk *p = mem_resize_array(k->walks, cap, sizeof *p);
        if (!p) return no_memory(cap * sizeof *p, err);
        k->walks = p;
        k->cap_walks = (int32_t)cap;
    }
    if (!copy_walk(k, &w)) {
        mem_free(w.pops);
        return no_memory(bytes, err);
    }
    k->walk_bytes += sizeof w + (w.bits ? bytes : (size_t)w.n_tokens * 4) + (size_t)w.n_pops * 4;
    k->walks[k->n_walks] = w;
    *out = k->n_walks++;
    return FACET_OK;
}

/* What a walk from this state finds, from memory or anew. */
static facet_status find_walk(masker *k, int32_t state, const kept_walk **out, facet_error *err)
{
    int32_t index = k->m->states[state].local;
    if (index < 0) {
        int64_t n_below = 0;
        memset(k->scratch, 0, mask_words(k->trie) * sizeof *k->scratch);
        k->n_pops = 0;
        FACET_TRY(walk(k, 1, k->trie->n_nodes, state, k->scratch, &n_below, err));
        FACET_TRY(keep_walk(k, (kept_walk){.state = state, .is_heavy = n_below > k->heavy_nodes}, &index, err));
        k->m->states[state].local = index;
    }
    *out = &k->walks[index];
    return FACET_OK;
}

static void add_walk(const masker *k, const kept_walk *w, uint64_t *bits)
{
    const size_t n = w->bits ? mask_words(k->trie) : 0;
    for (size_t i = 0; i < n; i++) bits[i] |= w->bits[i];
    for (int32_t i = 0; i < w->n_tokens; i++) set_bit(bits, w->tokens[i]);
}

/* ---- masks ---- */

/* One way to read on: the configurations of a group under some of its callers; the rest of them is `frame`. */
typedef struct context {
    config_span span;
    config callers[MAX_CALLERS];
    int n_callers;
    int32_t frame;
} context;

typedef struct mask_job {
    masker *k;
    uint64_t *bits;
    int n_contexts;
    bool is_too_wide; /* there are more contexts than pay */
} mask_job;

/* The tokens that leave the rule of the outermost caller that is part of the walk. */
static facet_status add_pops(masker *k, const kept_walk *w, int32_t frame, uint64_t *bits, facet_error *err)
{
    int32_t after;
    if (frame == 0 || w->n_pops == 0) return FACET_OK;
    FACET_TRY(machine_pop(k->m, frame, &after, err));
    for (int32_t i = 0; i < w->n_pops; i++)
        FACET_TRY(walk(k, w->pops[i] + 1, k->trie->end[w->pops[i]], after, bits, NULL, err));
    return FACET_OK;
}

/* Depth is at most MAX_CALLERS. */
static facet_status add_context(mask_job *j, const context *c, facet_error *err)
{
    masker *k = j->k;
    int32_t local;
    const kept_walk *w;
    if (j->is_too_wide || ++j->n_contexts > k->max_contexts) {
        j->is_too_wide = true;
        return FACET_OK;
    }
    FACET_TRY(machine_localise(k->m, c->span, c->callers, c->n_callers, k->trie->max_bytes, &local, err));
    FACET_TRY(find_walk(k, local, &w, err));
    if (!w->is_heavy || c->frame == 0) {
        add_walk(k, w, j->bits);
        return add_pops(k, w, c->frame, j->bits, err);
    }
    if (c->n_callers == MAX_CALLERS) {
        j->is_too_wide = true;
        return FACET_OK;
    }
    for (uint32_t i = 0; i < k->m->frames[c->frame].links.n; i++) {
        context wider = *c;
        const config link = k->m->pool.items[k->m->frames[c->frame].links.first + i];
        wider.callers[wider.n_callers++] = link;
        wider.frame = link.frame;
        FACET_TRY(add_context(j, &wider, err));
    }
    return FACET_OK;
}

static facet_status add_groups(mask_job *j, int32_t state, facet_error *err)
{
    const machine *m = j->k->m;
    const config_span core = m->states[state].core;
    for (uint32_t i = 0, n; i < core.n && !j->is_too_wide; i += n) {
        const int32_t frame = m->pool.items[core.first + i].frame;
        for (n = 1; i + n < core.n && m->pool.items[core.first + i + n].frame == frame;) n++;
        const context c = {.span = {core.first + i, n}, .frame = frame};
        FACET_TRY(add_context(j, &c, err));
    }
    return FACET_OK;
}

facet_status masker_mask(masker *k, int32_t state, uint64_t *bits, facet_error *err)
{
    mask_job j = {.k = k, .bits = bits};
    const kept_walk *w;
    memset(bits, 0, mask_words(k->trie) * sizeof *bits);
    k->m->work = MAX_WORK;
    if (k->m->states[state].local < 0) {
        FACET_TRY(add_groups(&j, state, err));
        if (!j.is_too_wide) return FACET_OK;
    }
    FACET_TRY(find_walk(k, state, &w, err));
    add_walk(k, w, bits);
    return FACET_OK;
}
