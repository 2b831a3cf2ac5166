#include "compute/cpu/attn_rebuild.h"

#include <math.h>
#include <string.h>

int attn_rebuild_turns(int head_dim, int n_rot, kv_type t)
{
    const int half = head_dim / 2, unit = kv_type_get(t)->is_rotated ? ROTATE_GROUP : ATTN_TILE;
    const int n = (n_rot + unit - 1) / unit * unit;
    return half % unit || n > half ? half : n;
}

size_t attn_rebuild_bytes(int n_turn)
{
    return (size_t)n_turn * (2 * sizeof(double) + 2 * ATTN_TILE * sizeof(float)) + 2 * ROTATE_GROUP * sizeof(float);
}

/* Pairs that do not turn have the angle 0. */
static double frequency(const attn_rebuild *r, int pair)
{
    return pair < r->n_rot ? r->inv_freq[pair] : 0;
}

void attn_rebuild_init(attn_rebuild *r, void *memory)
{
    const size_t n = (size_t)r->n_turn;
    double *step = memory;
    float *key = (float *)(step + 2 * n), *sign = key + 2 * ATTN_TILE * n;
    for (int i = 0; i < r->n_turn; i++) {
        const double f = frequency(r, i);
        step[2 * i] = cos(ATTN_TILE * f);
        step[2 * i + 1] = sin(ATTN_TILE * f);
        for (size_t k = 0; k < ATTN_TILE; k++) {
            key[2 * k * n + (size_t)i] = (float)cos((double)k * f);
            key[(2 * k + 1) * n + (size_t)i] = (float)sin((double)k * f);
        }
    }
    unrotate_signs(sign, sign + ROTATE_GROUP);
    r->step = step;
    r->key = key;
    r->unsign = sign;
}

void attn_rebuild_bases(const attn_rebuild *r, int32_t pos, float *base)
{
    const size_t n = (size_t)r->n_turn;
    for (size_t i = 0; i < n; i++) {
        const double angle = (double)pos * frequency(r, (int)i); /* f64: positions reach 262143 at frequency 1 */
        double c = cos(angle), s = sin(angle);
        for (size_t t = 0; t < ATTN_SPLIT / ATTN_TILE; t++) {
            base[2 * t * n + i] = (float)c;
            base[(2 * t + 1) * n + i] = (float)s;
            const double next = c * r->step[2 * i] - s * r->step[2 * i + 1];
            s = s * r->step[2 * i] + c * r->step[2 * i + 1];
            c = next;
        }
    }
}

void attn_rebuild_query(const attn_rebuild *r, bool is_rotated, float *q)
{
    const int step = is_rotated ? ROTATE_GROUP / ATTN_TILE : 1; /* blocks of a group */
    for (int half = 0; half < 2; half++) {
        const attn_blocks raw = attn_rebuild_blocks(r, false, half);
        for (int i = raw.begin * ATTN_TILE; i < raw.end * ATTN_TILE; i++) q[i] *= r->norm[i];
        for (int b = raw.begin; b < raw.end && is_rotated; b += step) rotate_values(q + b * ATTN_TILE, ROTATE_GROUP);
    }
}

void attn_rebuild_key(const attn_rebuild *r, int32_t pos, float *x)
{
    float *y = x + r->head_dim / 2;
    for (int i = 0; i < r->head_dim; i++) x[i] *= r->norm[i];
    for (int i = 0; i < r->n_rot; i++) {
        const double angle = (double)pos * r->inv_freq[i];
        const float a = x[i], b = y[i], c = (float)cos(angle), s = (float)sin(angle);
        x[i] = a * c - b * s;
        y[i] = b * c + a * s;
    }
}
