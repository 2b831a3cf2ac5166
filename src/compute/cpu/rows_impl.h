/* rows_impl.h: the source of rows_scalar.c, rows_avx2.c and rows_avx512.c, each of which includes it once. */
#include <math.h>
#include <stdbool.h>

#include "base/f16.h"
#include "compute/cpu/rows.h"

enum { LANES = 16 };

/* Partial sums are added pairwise: 16 -> 8 -> 4 -> 2 -> 1. */
static float fold(float *s)
{
    for (int n = LANES / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++) s[i] += s[i + n];
    return s[0];
}

static float inverse_rms(const float *x, size_t n, float eps)
{
    float s[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t k = 0; k < LANES; k++) s[k] += x[i + k] * x[i + k];
    for (size_t k = 0; i < n; i++, k++) s[k] += x[i] * x[i];
    return 1.0f / sqrtf(fold(s) / (float)n + eps);
}

static void rms_norm(const float *x, const float *w, size_t n, float eps, float *out)
{
    const float r = inverse_rms(x, n, eps);
    if (w)
        for (size_t i = 0; i < n; i++) out[i] = x[i] * r * w[i];
    else
        for (size_t i = 0; i < n; i++) out[i] = x[i] * r;
}

static void rms_norm_add(const float *x, const float *w, const float *residual, size_t n, float eps, float scale,
                         float *out)
{
    const float r = inverse_rms(x, n, eps);
    for (size_t i = 0; i < n; i++) out[i] = (residual[i] + x[i] * r * w[i]) * scale;
}

static void add(const float *a, const float *b, size_t n, float scale, float *out)
{
    for (size_t i = 0; i < n; i++) out[i] = (a[i] + b[i]) * scale;
}

static void scale_row(float *x, size_t n, float scale)
{
    for (size_t i = 0; i < n; i++) x[i] *= scale;
}

/* c ? a : b without a branch, which compilers make of the operator and then do not vectorise. */
static inline float choose(bool c, float a, float b)
{
    const uint32_t mask = -(uint32_t)c;
    return f32_from_bits((f32_bits(a) & mask) | (f32_bits(b) & ~mask));
}

/* e^x for x <= 0, relative error below 2e-7 (Cody, Waite 1980: x = k ln2 + f, a polynomial in f, then the exponent k).
 * Results below 2^-126 become 0 through the clamp. Branch-free, so that loops over it vectorise. */
static inline float exp_negative(float x)
{
    x = choose(x < -87.0f, -87.0f, x);
    const float k = (float)(int)(x * 1.44269504f - 0.5f);
    float f = x - k * 0.693145752f;
    f = f - k * 1.42860677e-6f;
    float p = 1.98412698e-4f;
    p = p * f + 1.38888889e-3f;
    p = p * f + 8.33333333e-3f;
    p = p * f + 4.16666667e-2f;
    p = p * f + 1.66666667e-1f;
    p = p * f + 0.5f;
    p = p * f * f + f + 1.0f;
    return p * f32_from_bits((uint32_t)((int)k + 127) << 23);
}

/* tanh through e^(-2|x|); near 0 the series keeps the relative error small. */
static inline float tanh_fast(float x)
{
    const float a = fabsf(x);
    const float e = exp_negative(-2.0f * a);
    const float x2 = x * x;
    const float series = a * (1.0f + x2 * (-0.333333333f + x2 * (0.133333333f + x2 * -0.0539682540f)));
    const float big = (1.0f - e) / (1.0f + e);
    return copysignf(choose(a < 0.25f, series, big), x);
}

static void gelu_mul(const float *gate, const float *up, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        const float x = gate[i];
        out[i] = 0.5f * x * (1.0f + tanh_fast(0.7978845608f * (x + 0.044715f * x * x * x))) * up[i];
    }
}

static void silu_mul(const float *gate, const float *up, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        const float x = gate[i], e = exp_negative(-fabsf(x));
        out[i] = x * choose(x < 0, e, 1.0f) / (1.0f + e) * up[i];
    }
}

static void softcap(float *x, size_t n, float cap)
{
    for (size_t i = 0; i < n; i++) x[i] = cap * tanh_fast(x[i] / cap);
}

static float max_value(const float *v, size_t n)
{
    float m[LANES];
    uint32_t bad[LANES] = {0};
    for (size_t k = 0; k < LANES; k++) m[k] = -INFINITY;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t k = 0; k < LANES; k++) {
            m[k] = v[i + k] > m[k] ? v[i + k] : m[k];
            bad[k] |= !(v[i + k] < INFINITY);
        }
    for (; i < n; i++) {
        m[0] = v[i] > m[0] ? v[i] : m[0];
        bad[0] |= !(v[i] < INFINITY);
    }
    for (size_t k = 1; k < LANES; k++) {
        m[0] = m[k] > m[0] ? m[k] : m[0];
        bad[0] |= bad[k];
    }
    return bad[0] ? NAN : m[0];
}

static float sum_exp(const float *x, size_t n, float top, float factor)
{
    float s[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t k = 0; k < LANES; k++) s[k] += exp_negative((x[i + k] - top) * factor);
    for (size_t k = 0; i < n; i++, k++) s[k] += exp_negative((x[i] - top) * factor);
    return fold(s);
}

/* Puts a value behind those that are not smaller; the last one of a full list falls out. */
static int insert(float v, int32_t id_of_v, int k, float *value, int32_t *id, int n_held)
{
    int at = n_held < k ? n_held : k - 1;
    for (; at > 0 && value[at - 1] < v; at--) {
        value[at] = value[at - 1];
        id[at] = id[at - 1];
    }
    value[at] = v;
    id[at] = id_of_v;
    return n_held < k ? n_held + 1 : k;
}

static int top_k(const float *x, size_t n, int32_t first, int k, float *value, int32_t *id, int n_held)
{
    for (size_t i = 0; i < n; i += LANES) {
        const size_t end = n - i < LANES ? n : i + LANES;
        float least = n_held < k ? -INFINITY : value[k - 1];
        int is_any = 0;
        for (size_t j = i; j < end; j++) is_any |= x[j] > least;
        for (size_t j = i; is_any && j < end; j++) {
            if (!(x[j] > least)) continue;
            n_held = insert(x[j], first + (int32_t)j, k, value, id, n_held);
            least = n_held < k ? -INFINITY : value[k - 1];
        }
    }
    return n_held;
}

static void rotate(float *x, int head_dim, int n_rot, const float *cs)
{
    float *y = x + head_dim / 2;
    for (int i = 0; i < n_rot; i++) {
        const float a = x[i], b = y[i], c = cs[2 * i], s = cs[2 * i + 1];
        x[i] = a * c - b * s;
        y[i] = b * c + a * s;
    }
}

/* Where the first value equal to max is. */
static int32_t find(const float *v, size_t n, float max)
{
    size_t i = 0;
    for (uint32_t hits = 0; i + LANES <= n; i += LANES) {
        for (size_t k = 0; k < LANES; k++) hits += v[i + k] == max;
        if (hits) break;
    }
    while (i < n && v[i] != max) i++;
    return i < n ? (int32_t)i : 0;
}

static int32_t argmax(const float *v, size_t n)
{
    const float max = max_value(v, n);
    return isnan(max) ? -1 : find(v, n, max);
}

static const row_kernels kernels = {
    .rms_norm = rms_norm,
    .rms_norm_add = rms_norm_add,
    .add = add,
    .scale = scale_row,
    .gelu_mul = gelu_mul,
    .silu_mul = silu_mul,
    .softcap = softcap,
    .max = max_value,
    .sum_exp = sum_exp,
    .top_k = top_k,
    .rotate = rotate,
    .argmax = argmax,
};
