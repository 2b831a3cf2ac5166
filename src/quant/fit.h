/* fit.h: searches for the scale of a group of values, shared by the encoders. Inside src/quant. */
#ifndef FACET_QUANT_FIT_H
#define FACET_QUANT_FIT_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

/* Groups whose largest magnitude is below this count as zero, as in the public reference. */
#define FIT_TINY 1e-15f

/* (int)v, limited to [lo, hi]; NaN gives lo. The cast alone would be undefined for large v. */
static inline int fit_trunc(float v, int lo, int hi)
{
    return v > (float)lo ? (v < (float)hi ? (int)v : hi) : lo;
}

/* v rounded to the nearest integer, ties to even, limited to [lo, hi]; NaN gives lo. */
static inline int fit_round(float v, int lo, int hi)
{
    float limited = v > (float)lo ? (v < (float)hi ? v : (float)hi) : (float)lo;
    return (int)(limited + 12582912.0f - 12582912.0f); /* 1.5 * 2^23: its last place is 1 */
}

/* 1 / d, or 0 where d is so small that no 16-bit scale shows it (1 / d might overflow). */
static inline float fit_inverse(float d)
{
    return fabsf(d) < 0x1p-100f ? 0 : 1.0f / d;
}

/* The value of largest magnitude, with its sign; the first one on ties. */
float fit_extreme(const float *x, int n);

/* Signed scale for codes -limit..limit-1 (n <= 32): tries 19 inverse scales around limit / extreme and keeps the codes
 * with the least squared error under the weights x^2, each with its own least-squares scale. q gets the code + limit.
 * Returns that scale, 0 for a group that counts as zero (codes: limit). */
float fit_signed(const float *x, int n, int limit, uint8_t *q);

/* Scale and minimum for x ~ scale * q - minimum, q in 0..limit, minimum >= 0. */
typedef struct fit_range_rule {
    int n, limit; /* values per group (<= 32), largest code */
    int steps;    /* inverse scales tried: (limit + first + 0.1 * t) / (max - min), t = 0..steps */
    float first;
    bool use_absolute; /* compare by the weighted absolute error, not the squared one */
} fit_range_rule;

float fit_range(const fit_range_rule *rule, const float *x, const float *weight, uint8_t *q, float *minimum);

#endif
