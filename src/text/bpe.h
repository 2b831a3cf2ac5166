/* bpe.h: merge rules by token pair, and byte-pair merging in O(n log n). Private to src/text. */
#ifndef FACET_TEXT_BPE_H
#define FACET_TEXT_BPE_H

#include "base/error.h"

#define BPE_NO_RANK UINT32_MAX

typedef struct bpe_slot {
    int32_t left, right; /* left < 0: free */
    uint32_t rank;
} bpe_slot;

/* The merge rules: (left id, right id) -> rank, rank -> merged id. */
typedef struct bpe_table {
    bpe_slot *slots; /* open addressing, at most half full */
    size_t slot_mask;
    int32_t *merged; /* [n_merges] */
    uint32_t n_merges;
    uint64_t *junctions; /* bit set over hashes of (last character of left, first character of right) */
} bpe_table;

facet_status bpe_table_init(bpe_table *t, uint32_t n_merges, facet_error *err);
void bpe_table_free(bpe_table *t);

/* Adds the rule of `rank` (each rank once). Of two rules for one pair the first stays. */
void bpe_table_add(bpe_table *t, uint32_t rank, int32_t left, int32_t right, int32_t merged);
uint32_t bpe_rank(const bpe_table *t, int32_t left, int32_t right);

/* Some rule joins a text that ends in character a with one that begins with b. Merging never crosses a border between
 * characters that no rule joins, so a text may be cut there without a change in the result. May be true by accident. */
void bpe_add_junction(bpe_table *t, uint32_t a, uint32_t b);
bool bpe_may_join(const bpe_table *t, uint32_t a, uint32_t b);

/* A symbol of the piece being merged: a token, or (id < 0) the character -1 - id that is no token. */
typedef struct bpe_symbol {
    int32_t id;
    uint32_t prev, next; /* linked list of the living symbols; UINT32_MAX at the ends */
    uint32_t rank;       /* of the rule for (this, next), BPE_NO_RANK when none or dead */
} bpe_symbol;

/* Memory for one piece after another. Zero-initialise. */
typedef struct bpe_scratch {
    bpe_symbol *symbols;
    size_t n, cap;
    uint64_t *heap; /* min-heap of rank << 32 | index of the left symbol */
    size_t n_heap, heap_cap;
    uint64_t n_heap_steps; /* levels walked by all pushes and pops so far */
} bpe_scratch;

void bpe_scratch_free(bpe_scratch *s);
facet_status bpe_push_symbol(bpe_scratch *s, int32_t id, facet_error *err);

/* Merges the pushed symbols: always the pair of lowest rank, the leftmost among equals. What is left is the list from
 * symbol 0 on; the caller sets n = 0 before the next piece. */
facet_status bpe_merge(bpe_scratch *s, const bpe_table *t, facet_error *err);

#endif
