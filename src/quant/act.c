#include "quant/act.h"

#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "quant/codec.h"

/* Below this a group counts as zero: amax / 127 stays a normal number and 127 / amax finite. */
static const float smallest_amax = 0x1p-119f;

/* Largest bit pattern of |x|: unlike a comparison of floats it sees NaN, and order does not matter. */
static float largest_magnitude(const float x[32])
{
    uint32_t max = 0;
    for (int i = 0; i < 32; i++) {
        uint32_t u = f32_bits(x[i]) & 0x7fffffffu;
        max = u > max ? u : max;
    }
    return f32_from_bits(max);
}

static void quantize_group(const float x[32], int8_t q[32], float *scale)
{
    float amax = largest_magnitude(x);
    memset(q, 0, 32);
    *scale = 0;
    if (amax < smallest_amax) return;
    *scale = amax / 127.0f;
    if (!isfinite(amax)) { /* poisons the row's products instead of making up numbers */
        *scale = NAN;
        return;
    }
    float inv = 127.0f / amax;
    for (int i = 0; i < 32; i++) { /* adding 1.5 * 2^23 rounds to nearest even, the code is in the last bits */
        float shifted = x[i] * inv + 12582912.0f;
        q[i] = (int8_t)(int32_t)(f32_bits(shifted) - 0x4b400000u);
    }
}

static void quantize_block(const float *x, size_t n, act_block *out)
{
    memset(out, 0, sizeof *out);
    for (size_t g = 0; g < n / 32; g++) {
        int8_t *q = out->q + 32 * g;
        int32_t lo = 0, hi = 0;
        quantize_group(x + 32 * g, q, &out->scale[g]);
        for (int i = 0; i < 16; i++) {
            lo += q[i];
            hi += q[16 + i];
        }
        out->sum16[2 * g] = lo;
        out->sum16[2 * g + 1] = hi;
        out->scale_sum[g] = out->scale[g] * (float)(lo + hi);
    }
}

void act_quantize(const float *x, size_t n, act_block *out, size_t stride)
{
    for (size_t done = 0; done < n; done += 256, out += stride)
        quantize_block(x + done, n - done < 256 ? n - done : 256, out);
}

static inline int32_t integer_sum(const int8_t *a, const int8_t *b, int n)
{
    int32_t sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* The chains of act.h over up to 256 values. */
static void add_sub_blocks(const unpack_rule *rule, const unpacked *w, const act_block *x, size_t n, float *a, float *m)
{
    for (size_t b = 0; b < n / 32; b++) {
        const int8_t *q = w->q + 32 * b, *xq = x->q + 32 * b;
        if (rule->group == 32) {
            float sum = (float)integer_sum(q, xq, 32) * x->scale[b];
            *a = fmaf(sum, w->s[b], *a);
            if (rule->has_min) *m = fmaf(w->m[b], x->scale_sum[b], *m);
        } else {
            float s0 = (float)integer_sum(q, xq, 16), s1 = (float)integer_sum(q + 16, xq + 16, 16);
            *a = fmaf(fmaf(s1, w->s[2 * b + 1], s0 * w->s[2 * b]), x->scale[b], *a);
            if (rule->has_min) {
                *m = fmaf(w->m[2 * b], x->scale[b] * (float)x->sum16[2 * b], *m);
                *m = fmaf(w->m[2 * b + 1], x->scale[b] * (float)x->sum16[2 * b + 1], *m);
            }
        }
    }
}

float act_dot(tensor_type type, const void *w, const act_block *x, size_t stride, size_t n)
{
    const unpack_rule *rule = unpack_rule_get((uint32_t)type);
    const uint8_t *p = w;
    float a = 0, m = 0;
    unpacked u;
    for (size_t done = 0; done < n; done += 256, x += stride) {
        size_t part = n - done < 256 ? n - done : 256;
        rule->unpack(p, part, &u);
        add_sub_blocks(rule, &u, x, part, &a, &m);
        p += part / rule->block_len * rule->block_bytes;
    }
    return rule->has_min ? a - m : a;
}

bool type_is_float(tensor_type type)
{
    return type == TYPE_F32 || type == TYPE_F16 || type == TYPE_BF16;
}

static inline __attribute__((always_inline)) void add_chains(const float *w, const float *x, size_t n, float chain[4])
{
    for (size_t i = 0; i < n; i++) chain[i % 4] = fmaf(w[i], x[i], chain[i % 4]);
}

static void add_chains_any(const float *w, const float *x, size_t n, float chain[4])
{
    add_chains(w, x, n, chain);
}

#if defined(__x86_64__)
/* The same bits: without the instruction fmaf() is a call that computes the same value some ten times slower. */
__attribute__((target("fma"))) static void add_chains_fma(const float *w, const float *x, size_t n, float chain[4])
{
    add_chains(w, x, n, chain);
}
#endif

static void add_chains_best(const float *w, const float *x, size_t n, float chain[4])
{
#if defined(__x86_64__)
    if (cpu_features()->avx2) {
        add_chains_fma(w, x, n, chain);
        return;
    }
#endif
    add_chains_any(w, x, n, chain);
}

float float_dot(tensor_type type, const void *w, const float *x, size_t n)
{
    enum { CHUNK = 256 }; /* a multiple of 4, so that each chain goes on where it was */
    const type_info *info = type_get((uint32_t)type);
    const uint8_t *p = w;
    float value[CHUNK], chain[4] = {0, 0, 0, 0};
    for (size_t done = 0; done < n; done += CHUNK) {
        size_t part = n - done < CHUNK ? n - done : CHUNK;
        info->decode(p + type_bytes(info, done), value, part);
        add_chains_best(value, x + done, part, chain);
    }
    return (chain[0] + chain[1]) + (chain[2] + chain[3]);
}
