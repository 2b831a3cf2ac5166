/* kv_codes.h: ways to keep a head's K or V in 3 to 5 bits per value, built from parts: what is taken off beforehand,
 * what is rotated, how a block of values becomes codes. For bench_kv_types: each gives the values that a reader would
 * see. */
#ifndef FACET_BENCH_KV_CODES_H
#define FACET_BENCH_KV_CODES_H

#include <math.h>
#include <string.h>

#include "base/f16.h"
#include "base/rng.h"
#include "quant/rotate.h"
#include "quant/tq3.h"
#include "quant/type.h"

enum { CODE_MAX_DIM = 512, CODE_BLOCK = 32 };

/* How 32 or 128 neighbours become codes and scales. LM: the Lloyd-Max levels of a normal distribution times a scale,
 * which is f16. The scale of keys gives back their length, since shorter keys flatten the softmax, that of values the
 * least squared error; with S that of both. */
typedef enum block_code {
    CODE_NONE,
    CODE_Q8_0,
    CODE_Q4_0,     /* the encoder of the format: the largest value sets the scale */
    CODE_Q4_0_FIT, /* the same bytes, codes by search */
    CODE_IQ4_NL,
    CODE_TQ3_0, /* with its own rotation */
    CODE_LM4_32S,
    CODE_LM4_32,
    CODE_LM4_128,
    CODE_LM3_32S,
    CODE_LM3_32,
    CODE_LM3_128
} block_code;

typedef enum turn { TURN_NONE, TURN_128, TURN_HEAD } turn;

typedef struct scheme {
    const char *name;
    turn turn;
    block_code code, apart; /* apart: of the dimensions that RoPE turns, in layers where it turns not all */
    bool takes_mean;        /* the mean of each dimension that RoPE does not turn is kept once, not in every key */
    bool takes_channels;    /* each dimension is divided by its root mean square first */
    int n_recent;           /* so many positions are still exact */
} scheme;

/* What is known of one head of a layer. */
typedef struct head_facts {
    int head_dim, n_pairs; /* RoPE turns dimensions i and i + head_dim / 2 for i < n_pairs */
    float mean[CODE_MAX_DIM], rms[CODE_MAX_DIM];
} head_facts;

static inline double code_bits(block_code c)
{
    switch (c) {
    case CODE_Q8_0: return 8.5;
    case CODE_LM4_128: return 4.125;
    case CODE_TQ3_0:
    case CODE_LM3_32S:
    case CODE_LM3_32: return 3.5;
    case CODE_LM3_128: return 3.125;
    case CODE_NONE: return 32;
    default: return 4.5;
    }
}

/* Bits per value in a global layer. */
static inline double scheme_bits(const scheme *s)
{
    return s->apart ? 0.25 * code_bits(s->apart) + 0.75 * code_bits(s->code) : code_bits(s->code);
}

/* ---- Lloyd-Max ---- */

static inline double normal_density(double x)
{
    return exp(-x * x / 2) * 0.3989422804014327;
}

static inline double normal_below(double x)
{
    return 0.5 * erfc(-x * 0.7071067811865476);
}

/* Rising levels for a normal variable: each is the mean between its borders, each border the middle of two levels. */
static inline const float *normal_levels(int bits)
{
    static float levels[5][16];
    static bool is_made[5];
    const int n = 1 << bits;
    if (is_made[bits]) return levels[bits];
    double l[16];
    for (int i = 0; i < n; i++) l[i] = 4.0 * (i + 0.5) / n - 2.0;
    for (int round = 0; round < 2000; round++) {
        double low = -1e9;
        for (int i = 0; i < n; i++) {
            const double high = i + 1 < n ? (l[i] + l[i + 1]) / 2 : 1e9;
            l[i] = (normal_density(low) - normal_density(high)) / (normal_below(high) - normal_below(low));
            low = high;
        }
    }
    for (int i = 0; i < n; i++) levels[bits][i] = (float)l[i];
    is_made[bits] = true;
    return levels[bits];
}

static inline float nearest(const float *level, int n, float v)
{
    int best = 0;
    while (best + 1 < n && v > (level[best] + level[best + 1]) / 2) best++;
    return level[best];
}

/* In place. Where the scale need not give back the length, scale and codes are improved in turns. */
static inline void code_lloyd(float *x, int n, int bits, bool keeps_length)
{
    const float *level = normal_levels(bits);
    float c[128], power = 0;
    for (int i = 0; i < n; i++) power += x[i] * x[i];
    float scale = sqrtf(power / (float)n);
    if (!(scale > 1e-10f)) {
        memset(x, 0, (size_t)n * sizeof *x);
        return;
    }
    for (int round = 0; round < (keeps_length ? 1 : 4); round++) {
        float dot = 0, cc = 0;
        for (int i = 0; i < n; i++) {
            c[i] = nearest(level, 1 << bits, x[i] / scale);
            dot += x[i] * c[i];
            cc += c[i] * c[i];
        }
        scale = keeps_length ? sqrtf(power / cc) : dot / cc;
    }
    scale = f16_to_f32(f32_to_f16(scale));
    for (int i = 0; i < n; i++) x[i] = c[i] * scale;
}

/* ---- the formats ---- */

static inline void code_type(tensor_type t, float *x, int n)
{
    uint8_t bytes[CODE_MAX_DIM * 2];
    type_get(t)->encode(x, bytes, (size_t)n);
    type_get(t)->decode(bytes, x, (size_t)n);
}

/* Q4_0's codes -8..7 of the least squared error among some scales around the format's own. */
static inline void code_q4_fit(float *x, bool keeps_length)
{
    float extreme = 0, best[CODE_BLOCK] = {0}, least = INFINITY;
    for (int i = 0; i < CODE_BLOCK; i++)
        if (fabsf(x[i]) > fabsf(extreme)) extreme = x[i];
    for (int t = -8; t <= 8 && extreme != 0; t++) {
        const float inverse = -(8.0f + 0.25f * (float)t) / extreme;
        float y[CODE_BLOCK], dot = 0, qq = 0, xx = 0;
        for (int i = 0; i < CODE_BLOCK; i++) {
            y[i] = fminf(fmaxf(rintf(x[i] * inverse), -8), 7);
            dot += x[i] * y[i];
            qq += y[i] * y[i];
            xx += x[i] * x[i];
        }
        const float error = xx - dot * dot / qq; /* of the best scale for these codes */
        const float d = f16_to_f32(f32_to_f16(keeps_length ? copysignf(sqrtf(xx / qq), dot) : dot / qq));
        if (error >= least) continue;
        least = error;
        for (int i = 0; i < CODE_BLOCK; i++) best[i] = y[i] * d;
    }
    memcpy(x, best, sizeof best);
}

static inline void code_values(block_code c, bool is_v, float *x, int n)
{
    uint8_t bytes[CODE_MAX_DIM];
    switch (c) {
    case CODE_NONE: return;
    case CODE_Q8_0: code_type(TYPE_Q8_0, x, n); return;
    case CODE_Q4_0: code_type(TYPE_Q4_0, x, n); return;
    case CODE_IQ4_NL: code_type(TYPE_IQ4_NL, x, n); return;
    case CODE_TQ3_0:
        encode_tq3_0(x, bytes, (size_t)n);
        decode_tq3_0(bytes, x, (size_t)n);
        unrotate_values(x, (size_t)n);
        return;
    default: break;
    }
    const bool is_wide = c == CODE_LM4_128 || c == CODE_LM3_128;
    const int step = is_wide ? 128 : CODE_BLOCK, bits = c >= CODE_LM3_32S ? 3 : 4;
    const bool keeps_length = !is_v && c != CODE_LM4_32S && c != CODE_LM3_32S;
    for (int i = 0; i < n; i += step) {
        if (c == CODE_Q4_0_FIT)
            code_q4_fit(x + i, keeps_length);
        else
            code_lloyd(x + i, step, bits, keeps_length);
    }
}

/* ---- rotations ---- */

/* A random sign each, then Walsh-Hadamard over n = 2^k values, or the way back. */
static inline void turn_head(float *x, int n, bool is_back)
{
    const float factor = 1.0f / sqrtf((float)n);
    for (int i = 0; i < n && !is_back; i++) x[i] *= rng_mix((uint64_t)i + 1) & 1 ? -1.0f : 1.0f;
    for (int h = 1; h < n; h *= 2)
        for (int i = 0; i < n; i++) {
            if (i & h) continue;
            const float a = x[i], b = x[i + h];
            x[i] = a + b;
            x[i + h] = a - b;
        }
    for (int i = 0; i < n; i++) x[i] *= factor * (is_back && rng_mix((uint64_t)i + 1) & 1 ? -1.0f : 1.0f);
}

static inline void code_turned(turn t, block_code c, bool is_v, float *x, int n)
{
    if (t == TURN_HEAD && (n & (n - 1)) != 0) t = TURN_128;
    if (t == TURN_128) rotate_values(x, (size_t)n);
    if (t == TURN_HEAD) turn_head(x, n, false);
    code_values(c, is_v, x, n);
    if (t == TURN_128) unrotate_values(x, (size_t)n);
    if (t == TURN_HEAD) turn_head(x, n, true);
}

/* ---- a row ---- */

static inline bool is_turned_by_rope(const head_facts *f, int i)
{
    return i % (f->head_dim / 2) < f->n_pairs;
}

/* Dimensions that RoPE turns, or the others, from row to part or back; returns how many. */
static inline int move_part(const head_facts *f, bool is_rope, float *row, float *part, bool is_back)
{
    int n = 0;
    for (int i = 0; i < f->head_dim; i++) {
        if (is_turned_by_rope(f, i) != is_rope) continue;
        if (is_back)
            row[i] = part[n];
        else
            part[n] = row[i];
        n++;
    }
    return n;
}

/* x as a reader of the cache would see it. */
static inline void code_row(const scheme *s, const head_facts *f, bool is_v, const float *x, float *y)
{
    float part[CODE_MAX_DIM];
    const int n = f->head_dim;
    const bool splits = s->apart && !is_v && 2 * f->n_pairs < n;
    memcpy(y, x, (size_t)n * sizeof *y);
    for (int i = 0; i < n; i++) {
        if (s->takes_mean && (is_v || !is_turned_by_rope(f, i))) y[i] -= f->mean[i];
        if (s->takes_channels) y[i] /= f->rms[i];
    }
    for (int is_rope = 0; is_rope < 2 && splits; is_rope++) {
        const int m = move_part(f, is_rope, y, part, false);
        code_turned(s->turn, is_rope ? s->apart : s->code, is_v, part, m);
        move_part(f, is_rope, y, part, true);
    }
    if (!splits) code_turned(s->turn, s->code, is_v, y, n);
    for (int i = 0; i < n; i++) {
        if (s->takes_channels) y[i] *= f->rms[i];
        if (s->takes_mean && (is_v || !is_turned_by_rope(f, i))) y[i] += f->mean[i];
    }
}

#endif
