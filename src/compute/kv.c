/* kv.c: types of the KV cache, the page pool and the page tables of sequences. */
#include "compute/kv.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"

static const kv_type_info types[KV_TYPE_COUNT] = {
    [KV_F16] = {.name = "f16", .block_len = 1, .block_bytes = 2, .group_len = 32, .layout = KV_F16},
    [KV_Q8_0] = {.name = "q8_0", .block_len = 32, .block_bytes = 34, .group_len = 32, .layout = KV_Q8_0},
    [KV_F32] = {.name = "f32", .block_len = 1, .block_bytes = 4, .group_len = 32, .layout = KV_F32},
    [KV_Q4_0] = {.name = "q4_0", .block_len = 32, .block_bytes = 18, .group_len = 32, .layout = KV_Q4_0},
    [KV_TQ3_0] = {.name = "tq3_0", .block_len = 32, .block_bytes = 14, .group_len = 128, .layout = KV_TQ3_0, true},
    [KV_ROT_Q8_0] = {.name = "rot_q8_0", .block_len = 32, .block_bytes = 34, .group_len = 128, .layout = KV_Q8_0, true},
    [KV_ROT_Q4_0] = {.name = "rot_q4_0", .block_len = 32, .block_bytes = 18, .group_len = 128, .layout = KV_Q4_0, true},
};

const kv_type_info *kv_type_get(kv_type t)
{
    return &types[t];
}

bool kv_type_by_name(const char *name, kv_type *out)
{
    for (int t = 0; t < KV_TYPE_COUNT; t++) {
        if (strcasecmp(name, types[t].name) != 0) continue;
        *out = (kv_type)t;
        return true;
    }
    return false;
}

bool kv_type_is_as_fine(const kv_type_info *a, const kv_type_info *b)
{
    return a->block_bytes * b->block_len >= b->block_bytes * a->block_len;
}

kv_type kv_type_at_least(kv_type t, kv_type floor)
{
    return kv_type_is_as_fine(&types[t], &types[floor]) ? t : floor;
}

void kv_layer_rebuild_k(kv_layer_desc *l)
{
    l->k_type = l->v_type = kv_type_at_least(l->v_type, l->k_type);
    l->rebuilds_k = true;
}

const char *kv_type_list(void)
{
    return "f16, q8_0, q4_0, tq3_0, rot_q8_0, rot_q4_0, f32";
}

static facet_status check_axis(const kv_layer_desc *l, int layer, kv_type t, char axis, facet_error *err)
{
    if ((uint32_t)l->head_dim % types[t].group_len == 0) return FACET_OK;
    return error_set(err, FACET_ERR_UNSUPPORTED,
                     "cache layer %d: type %s of %c takes heads of a multiple of %u values, and they have %d: use f16, "
                     "q8_0 or q4_0",
                     layer, types[t].name, axis, types[t].group_len, l->head_dim);
}

facet_status kv_desc_check(const kv_desc *d, facet_error *err)
{
    for (int i = 0; i < d->n_layers; i++) {
        FACET_TRY(check_axis(&d->layers[i], i, d->layers[i].k_type, 'K', err));
        FACET_TRY(check_axis(&d->layers[i], i, d->layers[i].v_type, 'V', err));
    }
    return FACET_OK;
}

static size_t row_bytes(kv_type t, int head_dim)
{
    return (size_t)head_dim / types[t].block_len * types[t].block_bytes;
}

size_t kv_layer_page_bytes(const kv_layer_desc *l)
{
    const size_t k = l->rebuilds_k ? 0 : row_bytes(l->k_type, l->head_dim);
    const size_t slot = k + row_bytes(l->v_type, l->head_dim);
    return (size_t)l->n_kv_heads * KV_PAGE_LEN * slot;
}

/* For each head the centres of balls of keys, a byte a dimension, and figures about them; and a mark. */
size_t kv_layer_summary_bytes(const kv_layer_desc *l)
{
    if (!l->has_summaries) return 0;
    return (size_t)l->n_kv_heads * ((size_t)l->head_dim * KV_SUMMARY_BALLS + KV_SUMMARY_FIGURES * sizeof(float)) + 1;
}

uint64_t kv_total_bytes(const kv_desc *d)
{
    uint64_t sum = 0;
    for (int i = 0; i < d->n_layers; i++)
        sum += (uint64_t)(kv_layer_page_bytes(&d->layers[i]) + kv_layer_summary_bytes(&d->layers[i])) *
               (uint64_t)d->groups[d->layers[i].group].n_pages;
    return sum;
}

size_t kv_group_page_bytes(const kv_desc *d, int group)
{
    size_t sum = 0;
    for (int i = 0; i < d->n_layers; i++)
        if (d->layers[i].group == group) sum += kv_layer_page_bytes(&d->layers[i]);
    return sum;
}

size_t kv_group_summary_bytes(const kv_desc *d, int group)
{
    size_t sum = 0;
    for (int i = 0; i < d->n_layers; i++)
        if (d->layers[i].group == group) sum += kv_layer_summary_bytes(&d->layers[i]);
    return sum;
}

static int64_t pages_of(int64_t n_slots)
{
    return (n_slots + KV_PAGE_LEN - 1) / KV_PAGE_LEN;
}

int32_t kv_pages_needed(int window, int64_t n_ctx, int max_rows)
{
    /* One spare: while a shared tail page is copied before it is written, both copies are held. */
    int64_t need = pages_of(n_ctx) + 1;
    if (window > 0) {
        /* A step at base sees base - window + 1 .. base + max_rows - 1; the run may begin at the end of a page. */
        int64_t local = pages_of((int64_t)window + max_rows) + 2;
        if (local < need) need = local;
    }
    return need > INT32_MAX ? INT32_MAX : (int32_t)need;
}

/* ---- pool ---- */

typedef struct page_group {
    int window;
    int32_t n_pages, n_free;
    int32_t *free_list; /* stack: [n_free - 1] goes out next */
    int32_t *refs;      /* tables that point at the page; 0 = it is in free_list */
} page_group;

struct kv_pool {
    int n_groups;
    page_group groups[KV_MAX_GROUPS];
};

static facet_status open_group(const kv_group_desc *d, page_group *g, facet_error *err)
{
    size_t n = (size_t)d->n_pages;
    g->window = d->window;
    g->free_list = mem_calloc(n, sizeof *g->free_list);
    g->refs = mem_calloc(n, sizeof *g->refs);
    if (!g->free_list || !g->refs) return error_memory(err, "page lists of the KV cache", n * 2 * sizeof(int32_t));
    g->n_pages = g->n_free = d->n_pages;
    for (int32_t i = 0; i < d->n_pages; i++) g->free_list[i] = d->n_pages - 1 - i; /* page 0 goes out first */
    return FACET_OK;
}

facet_status kv_pool_open(const kv_desc *desc, kv_pool **out, facet_error *err)
{
    kv_pool *p = mem_calloc(1, sizeof *p);
    if (!p) return error_memory(err, "KV pool", sizeof *p);
    p->n_groups = desc->n_groups;
    for (int g = 0; g < desc->n_groups; g++) {
        facet_status s = open_group(&desc->groups[g], &p->groups[g], err);
        if (s != FACET_OK) {
            kv_pool_close(p);
            return s;
        }
    }
    *out = p;
    return FACET_OK;
}

void kv_pool_close(kv_pool *p)
{
    if (!p) return;
    for (int g = 0; g < p->n_groups; g++) {
        mem_free(p->groups[g].free_list);
        mem_free(p->groups[g].refs);
    }
    mem_free(p);
}

int32_t kv_pool_free_pages(const kv_pool *p, int group)
{
    return p->groups[group].n_free;
}

int32_t kv_pool_refs(const kv_pool *p, int group, int32_t page)
{
    return p->groups[group].refs[page];
}

static int32_t take_page(page_group *g)
{
    assert(g->n_free > 0);
    int32_t page = g->free_list[--g->n_free];
    assert(g->refs[page] == 0);
    g->refs[page] = 1;
    return page;
}

static void drop_page(page_group *g, int32_t *entry)
{
    if (*entry < 0) return;
    assert(g->refs[*entry] > 0);
    if (--g->refs[*entry] == 0) g->free_list[g->n_free++] = *entry;
    *entry = -1;
}

/* ---- sequences ---- */

static facet_status grow_table(kv_seq *s, int group, int32_t n, facet_error *err)
{
    if (n <= s->cap_table[group]) return FACET_OK;
    int64_t want = (int64_t)s->cap_table[group] * 2;
    if (want < n) want = n;
    if (want < 16) want = 16;
    if (want > INT32_MAX) want = INT32_MAX;
    int32_t *t = mem_resize_array(s->table[group], (size_t)want, sizeof *t);
    if (!t) return error_memory(err, "page table of a sequence", (size_t)want * sizeof *t);
    s->table[group] = t;
    s->cap_table[group] = (int32_t)want;
    return FACET_OK;
}

/* The page that must be made or copied for table entry i: -1 none is held, otherwise a shared one; -2 nothing to do. */
static int32_t unwritable(const page_group *g, const kv_seq *s, int group, int32_t i)
{
    int32_t page = i < s->n_table[group] ? s->table[group][i] : -1;
    return page >= 0 && g->refs[page] == 1 ? -2 : page;
}

static facet_status check_room(const kv_pool *p, const kv_seq *s, int group, int32_t first, int32_t last,
                               facet_error *err)
{
    const page_group *g = &p->groups[group];
    int32_t want = 0;
    for (int32_t i = first; i < last; i++) want += unwritable(g, s, group, i) != -2;
    if (want <= g->n_free) return FACET_OK;
    return error_set(err, FACET_ERR_LIMIT, "KV cache: group %d (%s, window %d): %d pages wanted, %d of %d free", group,
                     g->window ? "local" : "global", g->window, want, g->n_free, g->n_pages);
}

/* The table gets n entries at least; new ones hold no page. There is room for them. */
static void extend_table(kv_seq *s, int group, int32_t n)
{
    while (s->n_table[group] < n) s->table[group][s->n_table[group]++] = -1;
}

static void reserve_group(kv_pool *p, kv_seq *s, int group, int32_t first, int32_t last, kv_copy *copies, int *n_copies)
{
    page_group *g = &p->groups[group];
    int32_t *table = s->table[group];
    extend_table(s, group, last);
    for (int32_t i = first; i < last; i++) {
        int32_t src = unwritable(g, s, group, i);
        if (src == -2) continue;
        drop_page(g, &table[i]);
        table[i] = take_page(g);
        if (src >= 0) copies[(*n_copies)++] = (kv_copy){.group = group, .src = src, .dst = table[i]};
    }
}

facet_status kv_seq_reserve(kv_pool *p, kv_seq *s, int32_t begin, int32_t end, kv_copy *copies, int *n_copies,
                            facet_error *err)
{
    assert(begin >= 0 && begin <= end);
    if (begin == end) return FACET_OK;
    int32_t first = begin / KV_PAGE_LEN, last = (int32_t)pages_of(end);
    for (int g = 0; g < p->n_groups; g++) {
        FACET_TRY(check_room(p, s, g, first, last, err));
        FACET_TRY(grow_table(s, g, last, err));
    }
    for (int g = 0; g < p->n_groups; g++) reserve_group(p, s, g, first, last, copies, n_copies);
    return FACET_OK;
}

void kv_seq_undo_copies(kv_pool *p, kv_seq *s, const kv_copy *copies, int n)
{
    for (int k = 0; k < n; k++) {
        page_group *g = &p->groups[copies[k].group];
        int32_t *table = s->table[copies[k].group], i = 0;
        while (table[i] != copies[k].dst) i++;
        drop_page(g, &table[i]);
        table[i] = copies[k].src;
        assert(g->refs[table[i]] > 0);
        g->refs[table[i]]++;
    }
}

void kv_seq_release_window(kv_pool *p, kv_seq *s, int32_t pos)
{
    for (int g = 0; g < p->n_groups; g++) {
        int window = p->groups[g].window;
        if (window <= 0 || pos < window) continue;
        int32_t n = (pos - window + 1) / KV_PAGE_LEN; /* pages that end at or before the oldest visible slot */
        if (n > s->n_table[g]) n = s->n_table[g];
        for (int32_t i = 0; i < n; i++) drop_page(&p->groups[g], &s->table[g][i]);
    }
}

void kv_seq_truncate(kv_pool *p, kv_seq *s, int32_t n)
{
    int32_t keep = (int32_t)pages_of(n);
    for (int g = 0; g < p->n_groups; g++)
        while (s->n_table[g] > keep) drop_page(&p->groups[g], &s->table[g][--s->n_table[g]]);
}

void kv_seq_drop_before(kv_pool *p, kv_seq *s, int32_t n)
{
    for (int g = 0; g < p->n_groups; g++)
        for (int32_t i = 0; i < n / KV_PAGE_LEN && i < s->n_table[g]; i++) drop_page(&p->groups[g], &s->table[g][i]);
}

facet_status kv_seq_take(kv_pool *p, kv_seq *s, int group, int32_t first, int32_t end, facet_error *err)
{
    assert(s->n_table[group] <= first);
    if (first >= end) return FACET_OK;
    FACET_TRY(check_room(p, s, group, first, end, err));
    FACET_TRY(grow_table(s, group, end, err));
    extend_table(s, group, first);
    while (s->n_table[group] < end) s->table[group][s->n_table[group]++] = take_page(&p->groups[group]);
    return FACET_OK;
}

facet_status kv_seq_join(kv_pool *p, kv_seq *s, const kv_seq *top, int32_t n, facet_error *err)
{
    for (int g = 0; g < p->n_groups; g++) FACET_TRY(grow_table(s, g, top->n_table[g], err));
    kv_seq_truncate(p, s, n / KV_PAGE_LEN * KV_PAGE_LEN);
    for (int g = 0; g < p->n_groups; g++)
        for (int32_t i = n / KV_PAGE_LEN; i < top->n_table[g]; i++) {
            extend_table(s, g, i);
            const int32_t page = s->table[g][s->n_table[g]++] = top->table[g][i];
            if (page >= 0) p->groups[g].refs[page]++;
        }
    return FACET_OK;
}

facet_status kv_seq_fork(kv_pool *p, const kv_seq *src, kv_seq *dst, facet_error *err)
{
    for (int g = 0; g < p->n_groups; g++) {
        facet_status s = grow_table(dst, g, src->n_table[g], err);
        if (s != FACET_OK) {
            kv_seq_free(p, dst);
            return s;
        }
    }
    for (int g = 0; g < p->n_groups; g++) {
        dst->n_table[g] = src->n_table[g];
        for (int32_t i = 0; i < src->n_table[g]; i++) {
            int32_t page = dst->table[g][i] = src->table[g][i];
            if (page >= 0) p->groups[g].refs[page]++;
        }
    }
    return FACET_OK;
}

void kv_seq_free(kv_pool *p, kv_seq *s)
{
    kv_seq_truncate(p, s, 0);
    for (int g = 0; g < KV_MAX_GROUPS; g++) mem_free(s->table[g]);
    memset(s, 0, sizeof *s);
}

bool kv_seq_can_resume(const kv_pool *p, const kv_seq *s, int32_t pos)
{
    for (int g = 0; g < p->n_groups; g++) {
        int window = p->groups[g].window;
        int32_t begin = window > 0 && pos >= window ? pos - window + 1 : 0;
        if (begin >= pos) continue;
        if (pages_of(pos) > s->n_table[g]) return false;
        for (int32_t i = begin / KV_PAGE_LEN; i < (int32_t)pages_of(pos); i++)
            if (s->table[g][i] < 0) return false;
    }
    return true;
}
