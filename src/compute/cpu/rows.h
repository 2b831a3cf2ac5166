/* rows.h: the small row-wise functions. One portable source (rows_impl.h) is compiled for each instruction set; its
 * loops keep sixteen partial sums, so that every set gives the same bits. */
#ifndef FACET_COMPUTE_CPU_ROWS_H
#define FACET_COMPUTE_CPU_ROWS_H

#include <stddef.h>
#include <stdint.h>

typedef struct row_kernels {
    /* out = x * (1 / sqrt(mean(x^2) + eps)) * w; w NULL = 1 */
    void (*rms_norm)(const float *x, const float *w, size_t n, float eps, float *out);
    /* out = (residual + rms(x; w)) * scale */
    void (*rms_norm_add)(const float *x, const float *w, const float *residual, size_t n, float eps, float scale,
                         float *out);
    void (*add)(const float *a, const float *b, size_t n, float scale, float *out);
    void (*scale)(float *x, size_t n, float scale);
    /* out = gelu(gate) * up, gelu in its tanh form */
    void (*gelu_mul)(const float *gate, const float *up, size_t n, float *out);
    void (*silu_mul)(const float *gate, const float *up, size_t n, float *out);
    /* x = cap * tanh(x / cap) */
    void (*softcap)(float *x, size_t n, float cap);
    /* The largest value; NaN when one is NaN or +inf. */
    float (*max)(const float *x, size_t n);
    /* Sum of e^((x - top) * factor); top is no less than any x, factor > 0. */
    float (*sum_exp)(const float *x, size_t n, float top, float factor);
    /* Merges the finite values of x, whose ids are first, first + 1, ..., into a list of at most k, falling: value and
     * id [k] hold n_held entries with lower ids. The lowest id comes first on ties. Returns how many it holds. */
    int (*top_k)(const float *x, size_t n, int32_t first, int k, float *value, int32_t *id, int n_held);
    /* x[0 .. head_dim): pairs (i, i + head_dim / 2), i < n_rot, turned by cs[2 i] = cos, cs[2 i + 1] = sin */
    void (*rotate)(float *x, int head_dim, int n_rot, const float *cs);
    /* Lowest index of the largest value; -1 when one is NaN or +inf. */
    int32_t (*argmax)(const float *v, size_t n);
} row_kernels;

const row_kernels *rows_scalar(void);
const row_kernels *rows_avx2(void); /* NULL where this build has none */
const row_kernels *rows_avx512(void);
const row_kernels *rows_best(void);

#endif
