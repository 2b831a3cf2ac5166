#include "grammar/state.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { UNKNOWN = -1, MAX_SPAN = 1 << 20, TABLE_SLOTS = 256 };

/* ---- memory ---- */

static facet_status no_memory(facet_error *err)
{
    return error_memory(err, "states of a grammar", MAX_SPAN);
}

/* Room for at least one more. */
static facet_status list_grow(config_list *l, facet_error *err)
{
    const uint32_t cap = 2 * l->cap + 64;
    config *p = mem_resize_array(l->items, cap, sizeof *p);
    if (!p) return no_memory(err);
    l->items = p;
    l->cap = cap;
    return FACET_OK;
}

static facet_status list_push(config_list *l, config c, facet_error *err)
{
    if (l->n == l->cap) FACET_TRY(list_grow(l, err));
    l->items[l->n++] = c;
    return FACET_OK;
}

static facet_status index_open(hash_index *x, size_t n_slots, facet_error *err)
{
    x->slots = mem_resize_array(NULL, n_slots, sizeof *x->slots);
    if (!x->slots) return no_memory(err);
    memset(x->slots, 0xff, n_slots * sizeof *x->slots);
    x->mask = n_slots - 1;
    return FACET_OK;
}

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static uint64_t hash_config(config c)
{
    return mix(mix((uint64_t)(uint32_t)c.node << 32 | (uint32_t)c.frame, (uint32_t)c.count), 0x5bd1e995);
}

static uint64_t hash_span(const config *c, uint32_t n, uint64_t h)
{
    for (uint32_t i = 0; i < n; i++) h = mix(h, hash_config(c[i]));
    return mix(h, n);
}

static bool same_config(config a, config b)
{
    return a.node == b.node && a.frame == b.frame && a.count == b.count;
}

/* By frame first, so that the configurations of a frame stand together. */
static int by_frame(const void *a, const void *b)
{
    const config *x = a, *y = b;
    if (x->frame != y->frame) return x->frame < y->frame ? -1 : 1;
    if (x->node != y->node) return x->node < y->node ? -1 : 1;
    return (x->count > y->count) - (x->count < y->count);
}

static void sort_unique(config_list *l)
{
    if (l->n < 2) return;
    qsort(l->items, l->n, sizeof *l->items, by_frame);
    uint32_t kept = 1;
    for (uint32_t i = 1; i < l->n; i++)
        if (!same_config(l->items[i], l->items[kept - 1])) l->items[kept++] = l->items[i];
    l->n = kept;
}

size_t machine_bytes(const machine *m)
{
    return m->pool.n * sizeof(config) + (size_t)m->n_frames * (sizeof(machine_frame) + 2 * sizeof(int32_t)) +
           (size_t)m->n_states *
               (sizeof(machine_state) + 2 * sizeof(int32_t) + (size_t)m->g->n_classes * sizeof(int32_t));
}

static facet_status spend(machine *m, uint64_t work, facet_error *err)
{
    if (machine_bytes(m) > m->max_bytes)
        return error_set(err, FACET_ERR_LIMIT, "the grammar is too ambiguous: its states take more than %zu MiB",
                         m->max_bytes >> 20);
    if (work > m->work)
        return error_set(err, FACET_ERR_LIMIT, "the grammar is too ambiguous: a token would take too many steps");
    m->work -= work;
    return FACET_OK;
}

/* ---- frames ---- */

static facet_status keep_span(machine *m, const config *c, uint32_t n, config_span *out, facet_error *err)
{
    if (n > MAX_SPAN || m->pool.n > UINT32_MAX - MAX_SPAN)
        return error_set(err, FACET_ERR_LIMIT, "the grammar is too ambiguous: a state of %u configurations", n);
    *out = (config_span){m->pool.n, n};
    for (uint32_t i = 0; i < n; i++) FACET_TRY(list_push(&m->pool, c[i], err));
    return FACET_OK;
}

static facet_status grow_frames(machine *m, facet_error *err)
{
    if (m->n_frames < m->cap_frames) return FACET_OK;
    const size_t cap = (size_t)m->cap_frames * 2 + 64;
    machine_frame *p = mem_resize_array(m->frames, cap, sizeof *p);
    if (!p) return no_memory(err);
    m->frames = p;
    m->cap_frames = (int32_t)cap;
    return FACET_OK;
}

static facet_status rehash_frames(machine *m, facet_error *err)
{
    if ((size_t)m->n_frames * 2 <= m->by_links.mask) return FACET_OK;
    hash_index x;
    FACET_TRY(index_open(&x, (m->by_links.mask + 1) * 2, err));
    for (int32_t f = 0; f < m->n_frames; f++) {
        size_t i = (size_t)m->frames[f].hash & x.mask;
        while (x.slots[i] >= 0) i = (i + 1) & x.mask;
        x.slots[i] = f;
    }
    mem_free(m->by_links.slots);
    m->by_links = x;
    return FACET_OK;
}

/* The frame with these links (sorted, each once). */
static facet_status intern_frame(machine *m, const config_list *links, int32_t *out, facet_error *err)
{
    const uint64_t hash = hash_span(links->items, links->n, 1);
    size_t i = (size_t)hash & m->by_links.mask;
    for (; m->by_links.slots[i] >= 0; i = (i + 1) & m->by_links.mask) {
        const machine_frame *f = &m->frames[m->by_links.slots[i]];
        if (f->hash == hash && f->links.n == links->n &&
            (!links->n || memcmp(m->pool.items + f->links.first, links->items, links->n * sizeof(config)) == 0)) {
            *out = m->by_links.slots[i];
            return FACET_OK;
        }
    }
    machine_frame f = {.hash = hash, .pop = UNKNOWN};
    FACET_TRY(grow_frames(m, err));
    FACET_TRY(keep_span(m, links->items, links->n, &f.links, err));
    m->by_links.slots[i] = m->n_frames;
    m->frames[m->n_frames] = f;
    *out = m->n_frames++;
    return rehash_frames(m, err);
}

/* ---- the set of configurations that a state is made of ---- */

static facet_status grow_seen(machine *m, facet_error *err)
{
    if (m->set.n * 2 <= m->seen.mask) return FACET_OK;
    hash_index x;
    FACET_TRY(index_open(&x, (m->seen.mask + 1) * 4, err));
    for (uint32_t k = 0; k < m->set.n; k++) {
        size_t i = (size_t)hash_config(m->set.items[k]) & x.mask;
        while (x.slots[i] >= 0) i = (i + 1) & x.mask;
        x.slots[i] = (int32_t)k;
    }
    mem_free(m->seen.slots);
    m->seen = x;
    return FACET_OK;
}

static void clear_set(machine *m)
{
    if (m->set.n * 8 > m->seen.mask) {
        memset(m->seen.slots, 0xff, (m->seen.mask + 1) * sizeof *m->seen.slots);
    } else {
        for (uint32_t k = 0; k < m->set.n; k++) { /* the chain behind a configuration's place holds only such ones */
            size_t i = (size_t)hash_config(m->set.items[k]) & m->seen.mask;
            for (; m->seen.slots[i] >= 0; i = (i + 1) & m->seen.mask) m->seen.slots[i] = UNKNOWN;
        }
    }
    m->set.n = 0;
}

static facet_status add(machine *m, config c, facet_error *err)
{
    size_t i = (size_t)hash_config(c) & m->seen.mask;
    for (; m->seen.slots[i] >= 0; i = (i + 1) & m->seen.mask)
        if (same_config(m->set.items[m->seen.slots[i]], c)) return FACET_OK;
    FACET_TRY(list_push(&m->set, c, err));
    m->seen.slots[i] = (int32_t)m->set.n - 1;
    return grow_seen(m, err);
}

/* The edge may be followed without reading from c. */
static bool is_free(const machine *m, config c, const grammar_edge *e)
{
    const grammar_node *node = &m->g->nodes[c.node];
    if (node->loop < 0) return grammar_is_free(m->g, node, e);
    return e->kind == EDGE_EMPTY && c.count >= m->g->loops[node->loop].min;
}

/* Where a call from c along e returns to. A loop counts the pass, is left after the last one, and stops counting where
 * min and max tell nothing apart any more. */
static config link_of(const machine *m, config c, const grammar_edge *e)
{
    const int32_t loop = m->g->nodes[c.node].loop;
    if (loop < 0) return (config){e->to, c.frame, 0};
    const grammar_loop *l = &m->g->loops[loop];
    if (c.count + 1 == l->max) return (config){l->exit, c.frame, 0};
    return (config){c.node, c.frame, l->max == GRAMMAR_INFINITE && c.count >= l->min ? l->min : c.count + 1};
}

/* Adds what the set leads to without reading: along empty edges and calls that may read nothing, and back to callers.
 */
static facet_status close_set(machine *m, bool *is_final, facet_error *err)
{
    *is_final = false;
    for (uint32_t k = 0; k < m->set.n; k++) {
        const config c = m->set.items[k];
        const grammar_node *node = &m->g->nodes[c.node];
        for (int32_t i = 0; i < node->n; i++) {
            const grammar_edge *e = &m->g->edges[node->first + i];
            if (is_free(m, c, e)) FACET_TRY(add(m, (config){e->to, c.frame, 0}, err));
        }
        if (!node->is_end) continue;
        if (c.frame == 0) *is_final = true;
        const config_span links = m->frames[c.frame].links;
        FACET_TRY(spend(m, links.n + 1, err));
        for (uint32_t i = 0; i < links.n; i++) FACET_TRY(add(m, m->pool.items[links.first + i], err));
    }
    return spend(m, m->set.n, err);
}

/* ---- calls ---- */

static facet_status push_call(machine *m, pending_call call, facet_error *err)
{
    if (m->n_calls == m->cap_calls) {
        const uint32_t cap = 2 * m->cap_calls + 64;
        pending_call *p = mem_resize_array(m->calls, cap, sizeof *p);
        if (!p) return no_memory(err);
        m->calls = p;
        m->cap_calls = cap;
    }
    uint32_t i = m->n_calls++; /* a heap, the lowest rank on top */
    for (; i && m->calls[(i - 1) / 2].rank > call.rank; i = (i - 1) / 2) m->calls[i] = m->calls[(i - 1) / 2];
    m->calls[i] = call;
    return FACET_OK;
}

static pending_call pop_call(machine *m)
{
    const pending_call top = m->calls[0], last = m->calls[--m->n_calls];
    uint32_t i = 0;
    for (uint32_t child; (child = 2 * i + 1) < m->n_calls; i = child) {
        if (child + 1 < m->n_calls && m->calls[child + 1].rank < m->calls[child].rank) child++;
        if (m->calls[child].rank >= last.rank) break;
        m->calls[i] = m->calls[child];
    }
    m->calls[i] = last;
    return top;
}

/* A link to a rule's end is replaced by where that rule returns to. */
static facet_status call_from(machine *m, config c, const grammar_edge *e, facet_error *err)
{
    const config link = link_of(m, c, e);
    pending_call call = {.rank = m->g->rules[e->rule].rank, .rule = e->rule, .link = link};
    if (!m->g->nodes[link.node].is_tail || c.frame == 0) return push_call(m, call, err);
    const config_span links = m->frames[c.frame].links;
    FACET_TRY(spend(m, links.n, err));
    for (uint32_t i = 0; i < links.n; i++) {
        call.link = m->pool.items[links.first + i];
        FACET_TRY(push_call(m, call, err));
    }
    return FACET_OK;
}

static facet_status call_all(machine *m, config c, facet_error *err)
{
    const grammar_node *node = &m->g->nodes[c.node];
    for (int32_t i = 0; i < node->n; i++)
        if (m->g->edges[node->first + i].kind == EDGE_CALL)
            FACET_TRY(call_from(m, c, &m->g->edges[node->first + i], err));
    return FACET_OK;
}

static void meet(machine *m, int32_t node, uint32_t *n)
{
    if (m->node_at[node] == m->search) return;
    m->node_at[node] = m->search;
    m->stack[(*n)++] = node;
}

/* The rule begins here, called from `frame`: what it reads first, what it calls first. That it may read nothing is
 * seen to by its callers (close_set). */
static facet_status begin_rule(machine *m, int32_t rule, int32_t frame, facet_error *err)
{
    const grammar *g = m->g;
    uint32_t n = 0;
    m->search++;
    meet(m, g->rules[rule].start, &n);
    while (n) {
        const config c = {m->stack[--n], frame, 0};
        const grammar_node *node = &g->nodes[c.node];
        if (node->has_bytes) FACET_TRY(list_push(&m->active, c, err));
        if (node->has_calls) FACET_TRY(call_all(m, c, err));
        for (int32_t i = 0; i < node->n; i++) {
            const grammar_edge *e = &g->edges[node->first + i];
            if (is_free(m, c, e)) meet(m, e->to, &n);
        }
    }
    return spend(m, 1, err);
}

/* Rules are begun in the order of their ranks, so that each has all its callers by then and gets one frame. */
static facet_status begin_rules(machine *m, facet_error *err)
{
    while (m->n_calls) {
        const int32_t rule = m->calls[0].rule, rank = m->calls[0].rank;
        int32_t frame;
        m->links.n = 0;
        while (m->n_calls && m->calls[0].rank == rank) FACET_TRY(list_push(&m->links, pop_call(m).link, err));
        FACET_TRY(spend(m, m->links.n, err));
        sort_unique(&m->links);
        FACET_TRY(intern_frame(m, &m->links, &frame, err));
        FACET_TRY(begin_rule(m, rule, frame, err));
    }
    return FACET_OK;
}

/* ---- states ---- */

static facet_status grow_states(machine *m, facet_error *err)
{
    if (m->n_states < m->cap_states) return FACET_OK;
    const size_t cap = (size_t)m->cap_states * 2 + 64, n_classes = (size_t)m->g->n_classes;
    machine_state *p = mem_resize_array(m->states, cap, sizeof *p);
    if (!p) return no_memory(err);
    m->states = p;
    int32_t *next = mem_resize_array(m->next, cap * n_classes, sizeof *next);
    if (!next) return no_memory(err);
    m->next = next;
    m->cap_states = (int32_t)cap;
    return FACET_OK;
}

static facet_status rehash_states(machine *m, facet_error *err)
{
    if ((size_t)m->n_states * 2 <= m->by_core.mask) return FACET_OK;
    hash_index x;
    FACET_TRY(index_open(&x, (m->by_core.mask + 1) * 2, err));
    for (int32_t s = 0; s < m->n_states; s++) {
        size_t i = (size_t)m->states[s].hash & x.mask;
        while (x.slots[i] >= 0) i = (i + 1) & x.mask;
        x.slots[i] = s;
    }
    mem_free(m->by_core.slots);
    m->by_core = x;
    return FACET_OK;
}

/* Adds a state whose spans lie in the pool already. */
static facet_status add_state(machine *m, machine_state s, size_t slot, int32_t *out, facet_error *err)
{
    const size_t n_classes = (size_t)m->g->n_classes;
    FACET_TRY(grow_states(m, err));
    m->states[m->n_states] = s;
    memset(m->next + (size_t)m->n_states * n_classes, 0xff, n_classes * sizeof *m->next);
    m->by_core.slots[slot] = m->n_states;
    *out = m->n_states++;
    return rehash_states(m, err);
}

static bool is_useful(const machine *m, config c)
{
    return m->g->nodes[c.node].has_bytes || m->g->nodes[c.node].has_calls;
}

/* The state whose core is what the set holds of use: what reads or calls. */
static facet_status intern_state(machine *m, bool is_final, int32_t *out, facet_error *err)
{
    config_list *core = &m->links;
    core->n = 0;
    for (uint32_t k = 0; k < m->set.n; k++)
        if (is_useful(m, m->set.items[k])) FACET_TRY(list_push(core, m->set.items[k], err));
    if (core->n) qsort(core->items, core->n, sizeof *core->items, by_frame);
    machine_state s = {.hash = hash_span(core->items, core->n, is_final), .local = -1, .is_final = is_final};
    size_t i = (size_t)s.hash & m->by_core.mask;
    for (; m->by_core.slots[i] >= 0; i = (i + 1) & m->by_core.mask) {
        const machine_state *o = &m->states[m->by_core.slots[i]];
        if (o->hash == s.hash && o->is_final == is_final && o->core.n == core->n &&
            (!core->n || memcmp(m->pool.items + o->core.first, core->items, core->n * sizeof(config)) == 0)) {
            *out = m->by_core.slots[i];
            return FACET_OK;
        }
    }
    FACET_TRY(keep_span(m, core->items, core->n, &s.core, err));
    m->active.n = m->n_calls = 0;
    for (uint32_t k = 0; k < s.core.n; k++) {
        const config c = m->pool.items[s.core.first + k];
        if (m->g->nodes[c.node].has_bytes) FACET_TRY(list_push(&m->active, c, err));
        if (m->g->nodes[c.node].has_calls) FACET_TRY(call_all(m, c, err));
    }
    FACET_TRY(begin_rules(m, err));
    FACET_TRY(keep_span(m, m->active.items, m->active.n, &s.active, err));
    return add_state(m, s, i, out, err);
}

/* From the set to the state. */
static facet_status settle(machine *m, int32_t *out, facet_error *err)
{
    bool is_final;
    FACET_TRY(close_set(m, &is_final, err));
    return intern_state(m, is_final, out, err);
}

facet_status machine_find_next(machine *m, int32_t state, int byte_class, int32_t *out, facet_error *err)
{
    const config_span active = m->states[state].active;
    const uint8_t byte = m->g->byte_of[byte_class];
    clear_set(m);
    for (uint32_t k = 0; k < active.n; k++) {
        const config c = m->pool.items[active.first + k];
        const grammar_node *node = &m->g->nodes[c.node];
        for (int32_t i = 0; i < node->n; i++) {
            const grammar_edge *e = &m->g->edges[node->first + i];
            if (e->kind == EDGE_BYTE && byte >= e->lo && byte <= e->hi)
                FACET_TRY(add(m, (config){e->to, c.frame, 0}, err));
        }
    }
    int32_t next;
    FACET_TRY(spend(m, active.n, err));
    FACET_TRY(settle(m, &next, err));
    *out = m->next[(size_t)state * (size_t)m->g->n_classes + (size_t)byte_class] = next;
    return FACET_OK;
}

facet_status machine_pop(machine *m, int32_t frame, int32_t *out, facet_error *err)
{
    if (m->frames[frame].pop >= 0) {
        *out = m->frames[frame].pop;
        return FACET_OK;
    }
    clear_set(m);
    for (uint32_t i = 0; i < m->frames[frame].links.n; i++)
        FACET_TRY(add(m, m->pool.items[m->frames[frame].links.first + i], err));
    int32_t state;
    FACET_TRY(settle(m, &state, err));
    *out = m->frames[frame].pop = state;
    return FACET_OK;
}

/* The least count from which a text of max_bytes bytes, each of which is a pass at most, meets min and max as from
 * this one. */
static int32_t least_count(const machine *m, config c, int32_t max_bytes)
{
    const int32_t loop = m->g->nodes[c.node].loop;
    if (loop < 0) return 0;
    const grammar_loop *l = &m->g->loops[loop];
    if (c.count < l->min) return l->min - c.count > max_bytes ? l->min - max_bytes - 1 : c.count;
    return l->max == GRAMMAR_INFINITE || l->max - c.count > max_bytes ? l->min : c.count;
}

facet_status machine_localise(machine *m, config_span span, const config *callers, int n_callers, int32_t max_bytes,
                              int32_t *out, facet_error *err)
{
    int32_t frame = 0;
    for (int i = n_callers - 1; i >= 0; i--) {
        m->links.n = 0;
        const config link = {callers[i].node, frame, least_count(m, callers[i], max_bytes)};
        FACET_TRY(list_push(&m->links, link, err));
        FACET_TRY(intern_frame(m, &m->links, &frame, err));
    }
    clear_set(m);
    for (uint32_t i = 0; i < span.n; i++) {
        const config c = m->pool.items[span.first + i];
        FACET_TRY(add(m, (config){c.node, frame, least_count(m, c, max_bytes)}, err));
    }
    return settle(m, out, err);
}

/* ---- opening, closing ---- */

/* Tables without entries, which have room for the first ones. */
static facet_status open_tables(machine *m, facet_error *err)
{
    FACET_TRY(index_open(&m->by_core, TABLE_SLOTS, err));
    FACET_TRY(index_open(&m->by_links, TABLE_SLOTS, err));
    FACET_TRY(list_grow(&m->pool, err));
    FACET_TRY(grow_frames(m, err));
    return grow_states(m, err);
}

static facet_status make_tables(machine *m, facet_error *err)
{
    FACET_TRY(open_tables(m, err));
    m->links.n = 0;
    int32_t bottom, dead;
    FACET_TRY(intern_frame(m, &m->links, &bottom, err));
    clear_set(m);
    FACET_TRY(settle(m, &dead, err)); /* frame 0 and state 0 */
    for (int k = 0; k < m->g->n_classes; k++) m->next[k] = STATE_DEAD;
    return FACET_OK;
}

static facet_status find_start(machine *m, facet_error *err)
{
    clear_set(m);
    FACET_TRY(add(m, (config){m->g->rules[m->g->root].start, 0, 0}, err));
    return settle(m, &m->start, err);
}

facet_status machine_open(const grammar *g, size_t max_bytes, machine **out, facet_error *err)
{
    machine *m = mem_calloc(1, sizeof *m);
    if (!m) return no_memory(err);
    m->g = g;
    m->max_bytes = max_bytes;
    m->work = UINT64_MAX;
    m->stack = mem_calloc((size_t)g->n_nodes, sizeof *m->stack);
    m->node_at = mem_calloc((size_t)g->n_nodes, sizeof *m->node_at);
    facet_status status = m->stack && m->node_at ? index_open(&m->seen, TABLE_SLOTS, err) : no_memory(err);
    if (status == FACET_OK) status = make_tables(m, err);
    if (status == FACET_OK) status = find_start(m, err);
    if (status != FACET_OK) {
        machine_close(m);
        return status;
    }
    *out = m;
    return FACET_OK;
}

static void free_tables(machine *m)
{
    mem_free(m->pool.items);
    mem_free(m->states);
    mem_free(m->frames);
    mem_free(m->next);
    mem_free(m->by_core.slots);
    mem_free(m->by_links.slots);
}

void machine_close(machine *m)
{
    if (!m) return;
    free_tables(m);
    mem_free(m->set.items);
    mem_free(m->active.items);
    mem_free(m->links.items);
    mem_free(m->seen.slots);
    mem_free(m->calls);
    mem_free(m->stack);
    mem_free(m->node_at);
    mem_free(m);
}

/* ---- forgetting ---- */

typedef struct compaction {
    machine *m, fresh;              /* fresh: its tables alone */
    int32_t *new_frame, *new_state; /* -1 = not kept */
} compaction;

enum { KEPT = 0 };

static void keep_frames(const compaction *c, config_span span)
{
    for (uint32_t i = 0; i < span.n; i++) c->new_frame[c->m->pool.items[span.first + i].frame] = KEPT;
}

/* A frame's links lead to older frames, so one pass from the youngest finds all that is needed. */
static void mark(const compaction *c, int32_t *const *kept, size_t n)
{
    const machine *m = c->m;
    memset(c->new_frame, 0xff, (size_t)m->n_frames * sizeof *c->new_frame);
    memset(c->new_state, 0xff, (size_t)m->n_states * sizeof *c->new_state);
    c->new_frame[0] = c->new_state[STATE_DEAD] = c->new_state[m->start] = KEPT;
    for (size_t i = 0; i < n; i++) c->new_state[*kept[i]] = KEPT;
    for (int32_t s = 0; s < m->n_states; s++) {
        if (c->new_state[s] != KEPT) continue;
        keep_frames(c, m->states[s].core);
        keep_frames(c, m->states[s].active);
    }
    for (int32_t f = m->n_frames - 1; f > 0; f--)
        if (c->new_frame[f] == KEPT) keep_frames(c, m->frames[f].links);
}

/* The configurations with their frames' new numbers, whose order is that of the old ones. */
static facet_status renumber(compaction *c, config_span span, config_list *out, facet_error *err)
{
    out->n = 0;
    for (uint32_t i = 0; i < span.n; i++) {
        config k = c->m->pool.items[span.first + i];
        k.frame = c->new_frame[k.frame];
        FACET_TRY(list_push(out, k, err));
    }
    return FACET_OK;
}

static facet_status move_frames(compaction *c, facet_error *err)
{
    for (int32_t f = 0; f < c->m->n_frames; f++) {
        if (c->new_frame[f] != KEPT) continue;
        FACET_TRY(renumber(c, c->m->frames[f].links, &c->fresh.links, err));
        FACET_TRY(intern_frame(&c->fresh, &c->fresh.links, &c->new_frame[f], err));
    }
    return FACET_OK;
}

static facet_status move_states(compaction *c, facet_error *err)
{
    machine *fresh = &c->fresh;
    for (int32_t k = 0; k < c->m->n_states; k++) {
        if (c->new_state[k] != KEPT) continue;
        const machine_state *old = &c->m->states[k];
        machine_state s = {.local = -1, .is_final = old->is_final};
        FACET_TRY(renumber(c, old->core, &fresh->links, err));
        s.hash = hash_span(fresh->links.items, fresh->links.n, s.is_final);
        FACET_TRY(keep_span(fresh, fresh->links.items, fresh->links.n, &s.core, err));
        FACET_TRY(renumber(c, old->active, &fresh->links, err));
        FACET_TRY(keep_span(fresh, fresh->links.items, fresh->links.n, &s.active, err));
        size_t slot = (size_t)s.hash & fresh->by_core.mask;
        while (fresh->by_core.slots[slot] >= 0) slot = (slot + 1) & fresh->by_core.mask;
        FACET_TRY(add_state(fresh, s, slot, &c->new_state[k], err));
    }
    for (int k = 0; k < c->m->g->n_classes; k++) fresh->next[k] = STATE_DEAD;
    return FACET_OK;
}

static void take_over(compaction *c, int32_t *const *kept, size_t n)
{
    machine *m = c->m, *fresh = &c->fresh;
    free_tables(m);
    m->pool = fresh->pool;
    m->states = fresh->states;
    m->frames = fresh->frames;
    m->next = fresh->next;
    m->n_states = fresh->n_states;
    m->cap_states = fresh->cap_states;
    m->n_frames = fresh->n_frames;
    m->cap_frames = fresh->cap_frames;
    m->by_core = fresh->by_core;
    m->by_links = fresh->by_links;
    m->start = c->new_state[m->start];
    for (size_t i = 0; i < n; i++) *kept[i] = c->new_state[*kept[i]];
}

static facet_status build(compaction *c, int32_t *const *kept, size_t n, facet_error *err)
{
    if (!c->new_frame || !c->new_state) return no_memory(err);
    mark(c, kept, n);
    FACET_TRY(open_tables(&c->fresh, err));
    FACET_TRY(move_frames(c, err));
    return move_states(c, err);
}

facet_status machine_compact(machine *m, int32_t *const *kept, size_t n, facet_error *err)
{
    compaction c = {.m = m,
                    .fresh = {.g = m->g},
                    .new_frame = mem_calloc((size_t)m->n_frames, sizeof *c.new_frame),
                    .new_state = mem_calloc((size_t)m->n_states, sizeof *c.new_state)};
    const facet_status status = build(&c, kept, n, err);
    if (status == FACET_OK)
        take_over(&c, kept, n);
    else
        free_tables(&c.fresh);
    mem_free(c.fresh.links.items);
    mem_free(c.new_frame);
    mem_free(c.new_state);
    return status;
}
