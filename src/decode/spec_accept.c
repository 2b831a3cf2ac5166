#include "decode/spec_accept.h"

#include <math.h>
#include <stddef.h>

int spec_accept_chain(const int32_t *token, const int32_t *verdict, int n_rows)
{
    int n = 1;
    while (n < n_rows && token[n] == verdict[n - 1]) n++;
    return n;
}

spec_commit spec_truncate(const int32_t *token, const int32_t *verdict, const uint8_t *path, int n_path, int64_t n_left,
                          spec_stop_fn is_stop, void *ud)
{
    spec_commit c = {.last_row = -1, .pending = token[0]};
    for (; c.n < n_path && c.n < n_left && !c.is_stopped; c.n++) {
        c.last_row = path ? path[c.n] : c.n;
        c.pending = verdict[c.last_row];
        c.is_stopped = is_stop && is_stop(ud, token[c.last_row]);
    }
    return c;
}

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Two rounds of splitmix64's finaliser (Steele, Lea, Flood 2014) over a Weyl step per input. */
double spec_uniform(uint64_t seed, int64_t pos, uint32_t lane)
{
    const uint64_t weyl = 0x9e3779b97f4a7c15u;
    uint64_t z = mix(seed + weyl);
    z = mix(z ^ (uint64_t)pos * weyl);
    z = mix(z + ((uint64_t)lane + 1) * weyl);
    return (double)(z >> 11) * 0x1p-53;
}

int32_t spec_draw(const float *w, int32_t n, double u)
{
    double sum = 0;
    for (int32_t i = 0; i < n; i++) sum += (double)w[i];
    if (!(sum > 0) || !isfinite(sum)) return -1;
    double rest = u * sum;
    int32_t last = -1;
    for (int32_t i = 0; i < n; i++) {
        if (!(w[i] > 0)) continue;
        last = i;
        if (rest < (double)w[i]) break;
        rest -= (double)w[i];
    }
    return last;
}

enum { LANE_DRAW, LANE_ACCEPT };

/* A draw from max(p - q, 0); from p where rounding leaves nothing of the difference. */
static int32_t draw_residual(const float *p, const float *q, int32_t n_vocab, double u, float *scratch)
{
    for (int32_t i = 0; i < n_vocab; i++) scratch[i] = p[i] > q[i] ? p[i] - q[i] : 0;
    const int32_t t = spec_draw(scratch, n_vocab, u);
    return t >= 0 ? t : spec_draw(p, n_vocab, u);
}

int spec_accept_sampled(const float *p, const float *q, const int32_t *draft, int k, int32_t n_vocab, uint64_t seed,
                        int64_t pos, float *scratch, int32_t *pending)
{
    for (int j = 0; j < k; j++) {
        const float *pj = p + (size_t)j * (size_t)n_vocab, *qj = q + (size_t)j * (size_t)n_vocab;
        const int32_t t = draft[j];
        /* "<", so that u = 0 never accepts a token that the target excludes */
        if (spec_uniform(seed, pos + j, LANE_ACCEPT) * (double)qj[t] < (double)pj[t]) continue;
        *pending = draw_residual(pj, qj, n_vocab, spec_uniform(seed, pos + j, LANE_DRAW), scratch);
        return j;
    }
    *pending = spec_draw(p + (size_t)k * (size_t)n_vocab, n_vocab, spec_uniform(seed, pos + k, LANE_DRAW));
    return k;
}
