#include "text/bpe.h"

#include "base/mem.h"

#define NONE UINT32_MAX
#define JUNCTION_BITS 22 /* the full vocabulary has some 10^5 junctions: 512 KB keep accidents at a few per cent */

static uint64_t mix(uint32_t a, uint32_t b)
{
    uint64_t h = ((uint64_t)a << 32 | b) * 0x9e3779b97f4a7c15u;
    return (h ^ h >> 32) * 0xd6e8feb86659fd93u;
}

facet_status bpe_table_init(bpe_table *t, uint32_t n_merges, facet_error *err)
{
    size_t n_slots = 16;
    while (n_slots < 2 * (size_t)n_merges) n_slots *= 2;
    *t = (bpe_table){.slot_mask = n_slots - 1, .n_merges = n_merges};
    t->slots = mem_resize_array(NULL, n_slots, sizeof *t->slots);
    t->merged = mem_resize_array(NULL, n_merges, sizeof *t->merged);
    t->junctions = mem_calloc((size_t)1 << (JUNCTION_BITS - 6), sizeof *t->junctions);
    if (!t->slots || !t->merged || !t->junctions) {
        bpe_table_free(t);
        return error_memory(err, "the merge table", n_slots * sizeof(bpe_slot));
    }
    for (size_t i = 0; i < n_slots; i++) t->slots[i].left = -1;
    return FACET_OK;
}

void bpe_table_free(bpe_table *t)
{
    mem_free(t->slots);
    mem_free(t->merged);
    mem_free(t->junctions);
    *t = (bpe_table){0};
}

/* The slot of the pair, or the free one where it would go. */
static bpe_slot *find_slot(const bpe_table *t, int32_t left, int32_t right)
{
    size_t i = (size_t)(mix((uint32_t)left, (uint32_t)right) >> 20) & t->slot_mask;
    while (t->slots[i].left >= 0 && (t->slots[i].left != left || t->slots[i].right != right))
        i = (i + 1) & t->slot_mask;
    return &t->slots[i];
}

void bpe_table_add(bpe_table *t, uint32_t rank, int32_t left, int32_t right, int32_t merged)
{
    t->merged[rank] = merged;
    bpe_slot *slot = find_slot(t, left, right);
    if (slot->left < 0) *slot = (bpe_slot){.left = left, .right = right, .rank = rank};
}

uint32_t bpe_rank(const bpe_table *t, int32_t left, int32_t right)
{
    if (left < 0 || right < 0) return BPE_NO_RANK;
    const bpe_slot *slot = find_slot(t, left, right);
    return slot->left < 0 ? BPE_NO_RANK : slot->rank;
}

void bpe_add_junction(bpe_table *t, uint32_t a, uint32_t b)
{
    uint64_t bit = mix(a, b) >> (64 - JUNCTION_BITS);
    t->junctions[bit >> 6] |= (uint64_t)1 << (bit & 63);
}

bool bpe_may_join(const bpe_table *t, uint32_t a, uint32_t b)
{
    uint64_t bit = mix(a, b) >> (64 - JUNCTION_BITS);
    return t->junctions[bit >> 6] >> (bit & 63) & 1;
}

void bpe_scratch_free(bpe_scratch *s)
{
    mem_free(s->symbols);
    mem_free(s->heap);
    *s = (bpe_scratch){0};
}

facet_status bpe_push_symbol(bpe_scratch *s, int32_t id, facet_error *err)
{
    if (s->n == s->cap) {
        if (s->n >= NONE / 2) return error_set(err, FACET_ERR_LIMIT, "text of more than %u characters", NONE / 2);
        size_t cap = s->cap ? 2 * s->cap : 256;
        bpe_symbol *symbols = mem_resize_array(s->symbols, cap, sizeof *symbols);
        if (!symbols) return error_memory(err, "tokenising", cap * sizeof *symbols);
        s->symbols = symbols;
        s->cap = cap;
    }
    s->symbols[s->n++].id = id;
    return FACET_OK;
}

static void sift_up(bpe_scratch *s, size_t i, uint64_t key)
{
    for (; i > 0; s->n_heap_steps++) {
        size_t parent = (i - 1) / 2;
        if (s->heap[parent] <= key) break;
        s->heap[i] = s->heap[parent];
        i = parent;
    }
    s->heap[i] = key;
}

static void sift_down(bpe_scratch *s, size_t i, uint64_t key)
{
    for (;; s->n_heap_steps++) {
        size_t child = 2 * i + 1;
        if (child >= s->n_heap) break;
        if (child + 1 < s->n_heap && s->heap[child + 1] < s->heap[child]) child++;
        if (s->heap[child] >= key) break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = key;
}

static uint64_t pop(bpe_scratch *s)
{
    uint64_t top = s->heap[0], last = s->heap[--s->n_heap];
    if (s->n_heap) sift_down(s, 0, last);
    return top;
}

/* Looks up the rule of (i, its successor) and queues it. */
static void queue_pair(bpe_scratch *s, const bpe_table *t, uint32_t i)
{
    bpe_symbol *left = &s->symbols[i];
    left->rank = left->next == NONE ? BPE_NO_RANK : bpe_rank(t, left->id, s->symbols[left->next].id);
    if (left->rank != BPE_NO_RANK) sift_up(s, s->n_heap++, (uint64_t)left->rank << 32 | i);
}

/* Each merge takes one entry out and puts at most two in: fewer than 2 n entries at any time. */
static facet_status reserve_heap(bpe_scratch *s, facet_error *err)
{
    if (s->heap_cap >= 2 * s->n) return FACET_OK;
    size_t cap = 2 * s->cap;
    uint64_t *heap = mem_resize_array(s->heap, cap, sizeof *heap);
    if (!heap) return error_memory(err, "tokenising", cap * sizeof *heap);
    s->heap = heap;
    s->heap_cap = cap;
    return FACET_OK;
}

static void fill_heap(bpe_scratch *s, const bpe_table *t)
{
    s->n_heap = 0;
    for (size_t i = 0; i < s->n; i++) {
        bpe_symbol *sym = &s->symbols[i];
        sym->prev = i ? (uint32_t)(i - 1) : NONE;
        sym->next = i + 1 < s->n ? (uint32_t)(i + 1) : NONE;
        sym->rank = sym->next == NONE ? BPE_NO_RANK : bpe_rank(t, sym->id, s->symbols[i + 1].id);
        if (sym->rank != BPE_NO_RANK) s->heap[s->n_heap++] = (uint64_t)sym->rank << 32 | i;
    }
    for (size_t i = s->n_heap / 2; i-- > 0;) sift_down(s, i, s->heap[i]);
}

static void merge_with_next(bpe_scratch *s, const bpe_table *t, uint32_t i)
{
    bpe_symbol *left = &s->symbols[i], *right = &s->symbols[left->next];
    left->id = t->merged[left->rank];
    left->next = right->next;
    right->rank = BPE_NO_RANK;
    if (left->next != NONE) s->symbols[left->next].prev = i;
    queue_pair(s, t, i);
    if (left->prev != NONE) queue_pair(s, t, left->prev);
}

facet_status bpe_merge(bpe_scratch *s, const bpe_table *t, facet_error *err)
{
    FACET_TRY(reserve_heap(s, err));
    fill_heap(s, t);
    while (s->n_heap) {
        uint64_t key = pop(s);
        uint32_t i = (uint32_t)key, rank = (uint32_t)(key >> 32);
        /* A symbol only grows, so a pair that has changed or died never gets its old rank back. */
        if (s->symbols[i].rank == rank) merge_with_next(s, t, i);
    }
    return FACET_OK;
}
