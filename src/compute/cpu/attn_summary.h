/* attn_summary.h: what is known of a page of keys without reading it (compute/sparse.h).
 *
 * The keys of a page and KV head lie in a few balls: one around the mean of most of them, the others around keys that
 * are far from it, so that a single key which stands out keeps a centre of its own (greedy k-centre, Gonzalez 1985,
 * from the mean on). A summary is made from the keys as they are decoded from the cache (rotated where the type is), so
 * that quantisation adds nothing to what is derived from it. It is made when a row first wants it and the page is full
 * of finished positions; whatever writes to a page makes it forgotten. So it follows the page through forks, shared
 * prefixes and snapshots, and a draft that is rejected leaves no trace. */
#ifndef FACET_COMPUTE_CPU_ATTN_SUMMARY_H
#define FACET_COMPUTE_CPU_ATTN_SUMMARY_H

#include "compute/cpu/attn.h"

/* Some keys of a page; c = scale * codes is the stored centre, near their mean. */
typedef struct key_ball {
    float scale;
    float norm;   /* |c| */
    float radius; /* at least max |k - c| */
    float spread; /* rms of |k - c| */
    float n;      /* keys; 0 = an empty ball, the other fields are 0 */
} key_ball;

typedef struct block_figures {
    key_ball ball[KV_SUMMARY_BALLS];
    float v_max; /* at least the largest |v| */
} block_figures;

static inline const block_figures *attn_figures(const attn_layer *l, int32_t page, int kv_head)
{
    return &l->figures[(size_t)page * (size_t)l->desc.n_kv_heads + (size_t)kv_head];
}
/* [ball][head_dim] */
static inline const int8_t *attn_centres(const attn_layer *l, int32_t page, int kv_head)
{
    return l->centres +
           ((size_t)page * (size_t)l->desc.n_kv_heads + (size_t)kv_head) * KV_SUMMARY_BALLS * (size_t)l->desc.head_dim;
}

/* Points the layer's summaries into memory of n_pages * kv_layer_summary_bytes, zeroes at first. */
void attn_summary_place(attn_layer *l, uint8_t *memory, int32_t n_pages);
size_t attn_summary_scratch_floats(int head_dim);
/* Makes the summary of block b of a sequence, in this page, unless it is there. All its slots must hold keys and
 * values. rebuild: how its keys are made, as attn_work has it; they are not rotated then. One thread at a time for a
 * page. */
void attn_summary_make(const attn_layer *l, const attn_rebuild *rebuild, int32_t page, int32_t b, float *scratch);
/* The page was written to. From any thread. */
static inline void attn_summary_forget(const attn_layer *l, int32_t page)
{
    if (l->is_summarised) atomic_store_explicit(&l->is_summarised[page], 0, memory_order_relaxed);
}

#endif
