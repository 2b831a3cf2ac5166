/* attn.c: what all kernel sets share: splits, scratch, folding, choice of the set. */
#include "compute/cpu/attn_simd.h"

#include <assert.h>

#include "base/cpu.h"
#include "compute/cpu/attn_fold.h"
#include "compute/cpu/attn_summary.h"

void attn_split_range(const attn_row *row, int window, int *begin, int *end)
{
    int32_t first, last;
    attn_visible(row, window, &first, &last);
    *begin = first / ATTN_SPLIT;
    *end = (last - 1) / ATTN_SPLIT + 1;
}

void attn_fold(const float *parts, int n, size_t stride, int head_dim, bool is_rotated, float *out)
{
    assert(n >= 1);
    attn_fold_state state = {0};
    for (int i = 0; i < n; i++, parts += stride) {
        attn_fold_state part = {.max = parts[head_dim], .sum = parts[head_dim + 1]};
        if (i == 0)
            attn_fold_begin(out, &state, parts, part, head_dim);
        else
            attn_fold_next(out, &state, parts, part, head_dim);
    }
    attn_fold_end(out, &state, head_dim, is_rotated);
}

size_t attn_scratch_floats(int n_heads, int n_kv_heads, int head_dim, bool rebuilds_k)
{
    size_t ref = ATTN_SPLIT + 3 * (size_t)head_dim + 2,
           drive = attn_drive_scratch_floats(n_heads / n_kv_heads, head_dim, rebuilds_k);
    const size_t summary = attn_summary_scratch_floats(head_dim), most = ref > drive ? ref : drive;
    return summary > most ? summary : most;
}

attn_kernels attn_best(kv_type k, kv_type v)
{
    (void)k; /* every set does every pair of types */
    (void)v;
#if defined(__x86_64__)
    if (cpu_features()->avx512) return attn_avx512();
    if (cpu_features()->avx2) return attn_avx2();
#endif
    return attn_ref();
}
