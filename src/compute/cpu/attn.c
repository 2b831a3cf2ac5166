/* attn.c: what all kernel sets share: splits, scratch, folding, choice of the set. */
#include "compute/cpu/attn.h"

#include <assert.h>

#include "base/cpu.h"
#include "compute/cpu/attn_fold.h"
#include "compute/cpu/attn_tile.h"

static int32_t first_visible(const attn_row *row, int window)
{
    return window > 0 && row->pos >= window ? row->pos - window + 1 : 0;
}

void attn_split_range(const attn_row *row, int window, int *begin, int *end)
{
    *begin = first_visible(row, window) / ATTN_SPLIT;
    *end = row->pos / ATTN_SPLIT + 1;
}

void attn_fold(const float *parts, int n, size_t stride, int head_dim, float *out)
{
    assert(n >= 1);
    attn_fold_state state = {0};
    attn_fold_begin(out, &state, parts, head_dim);
    for (int i = 1; i < n; i++) attn_fold_next(out, &state, parts + (size_t)i * stride, head_dim);
    attn_fold_end(out, &state, head_dim);
}

size_t attn_scratch_floats(int n_heads, int n_kv_heads, int head_dim)
{
    (void)n_heads;
    (void)n_kv_heads;
    return ATTN_SPLIT + 2 * (size_t)head_dim + 2;
}

attn_kernels attn_best(kv_type k, kv_type v)
{
    (void)k;
    (void)v;
    return attn_ref();
}
