/* attn_fold.cuh: parts of attention (attn.h) folded in order. */
#ifndef FACET_COMPUTE_CUDA_ATTN_FOLD_CUH
#define FACET_COMPUTE_CUDA_ATTN_FOLD_CUH

#include "compute/cuda/attn.h"
#include "compute/cuda/pages.cuh"
#include "compute/cuda/state.h"

/* A folded state; o of four dims. */
typedef struct attn_fold {
    float max, sum;
    float4 o;
} attn_fold;

/* What row r of the batch sees. */
static __device__ inline attn_range attn_row_range(const attn_class &k, const dev_batch &in, int r)
{
    return attn_range_of(k.sight, k.window, in.pos[r], in.committed[r], in.end[r]);
}

/* The groups of a row. */
typedef struct attn_groups {
    int first, n;
} attn_groups;

static __device__ inline attn_groups attn_groups_of(const attn_class &k, const attn_range &sees)
{
    attn_groups g = {0, 0};
    if (sees.begin >= sees.end) return g;
    g.first = attn_group_of(k.cut, sees.begin);
    g.n = min(attn_group_of(k.cut, sees.end - 1) - g.first + 1, k.max_groups);
    return g;
}

/* 2^(max - all) for whole numbers max <= all; 0 for what has no key, and for what is too small to count. */
static __device__ inline float fold_weight(float max, float all)
{
    const float x = max - all; /* NaN when both are -infinity */
    return x >= -126 ? __int_as_float((127 + (int)x) << 23) : 0.0f;
}

/* One more part. */
static __device__ inline void fold_part(attn_fold *all, float weight, float sum, const float4 &o)
{
    all->sum = __fmaf_rn(sum, weight, all->sum);
    all->o.x = __fmaf_rn(o.x, weight, all->o.x);
    all->o.y = __fmaf_rn(o.y, weight, all->o.y);
    all->o.z = __fmaf_rn(o.z, weight, all->o.z);
    all->o.w = __fmaf_rn(o.w, weight, all->o.w);
}

/* The part of a row's group. parts: of the row and a head. */
static __device__ inline const float *part_at(const attn_class &k, const float *parts, int group)
{
    return parts + (size_t)(group % k.max_groups) * (ATTN_PART_HEAD + k.head_dim);
}

/* All parts of a row and a head by one thread. */
static __device__ inline attn_fold fold_parts(const attn_class &k, const float *parts, const attn_groups &g, int dim)
{
    attn_fold all = {-CUDART_INF_F, 0, make_float4(0, 0, 0, 0)};
#pragma unroll 8
    for (int i = 0; i < g.n; i++) all.max = fmaxf(all.max, __ldcg(part_at(k, parts, g.first + i)));
#pragma unroll 4
    for (int i = 0; i < g.n; i++) {
        const float *part = part_at(k, parts, g.first + i);
        const float2 head = __ldcg((const float2 *)part);
        const float4 o = __ldcg((const float4 *)(part + ATTN_PART_HEAD + dim));
        fold_part(&all, fold_weight(head.x, all.max), head.y, o);
    }
    return all;
}

/* o / sum; zeros when there was no key, and NaN stays. */
static __device__ inline float fold_inverse(float sum)
{
    return sum > 0 ? 1.0f / sum : sum == 0 ? 0.0f : sum;
}

/* By a whole warp, which has 128 neighbouring values of one head. */
static __device__ inline void put_folded(const attn_fold &f, kv_type v_type, float *out)
{
    const float inverse = fold_inverse(f.sum);
    const float4 o = make_float4(f.o.x * inverse, f.o.y * inverse, f.o.z * inverse, f.o.w * inverse);
    *(float4 *)out = kv_is_rotated(v_type) ? rotate_quad(o, ROTATE_BACK) : o;
}

#endif
