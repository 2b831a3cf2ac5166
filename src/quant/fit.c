#include "quant/fit.h"

#include <string.h>

enum { MAX_GROUP = 32 };

float fit_extreme(const float *x, int n)
{
    float extreme = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(extreme)) extreme = x[i];
    return extreme;
}

float fit_signed(const float *x, int n, int limit, uint8_t *q)
{
    float extreme = fit_extreme(x, n), best_scale = 0, best_gain = -1;
    for (int i = 0; i < n; i++) q[i] = (uint8_t)limit;
    if (fabsf(extreme) < FIT_TINY) return 0;
    for (int t = -9; t <= 9; t++) {
        float inv = -((float)limit + 0.1f * (float)t) / extreme, xq = 0, qq = 0;
        int8_t code[MAX_GROUP];
        for (int i = 0; i < n; i++) {
            code[i] = (int8_t)fit_round(inv * x[i], -limit, limit - 1);
            float w = x[i] * x[i], v = (float)code[i];
            xq += w * x[i] * v;
            qq += w * v * v;
        }
        if (qq <= 0 || xq * xq <= best_gain * qq) continue;
        best_gain = xq * xq / qq;
        best_scale = xq / qq;
        for (int i = 0; i < n; i++) q[i] = (uint8_t)(code[i] + limit);
    }
    return best_scale;
}

typedef struct line {
    float scale, base; /* x ~ scale * q + base, base <= 0 */
} line;

static void codes_for(const fit_range_rule *rule, const float *x, float inv, float base, uint8_t *q)
{
    for (int i = 0; i < rule->n; i++) q[i] = (uint8_t)fit_round(inv * (x[i] - base), 0, rule->limit);
}

static float error_of(const fit_range_rule *rule, const float *x, const float *weight, const uint8_t *q, line l)
{
    float sum = 0;
    for (int i = 0; i < rule->n; i++) {
        float diff = l.scale * (float)q[i] + l.base - x[i];
        sum += weight[i] * (rule->use_absolute ? fabsf(diff) : diff * diff);
    }
    return sum;
}

/* Weighted least squares of x ~ scale * q + base with base <= 0; false when the codes leave it undetermined. */
static bool regress(const fit_range_rule *rule, const float *x, const float *weight, const uint8_t *q, line *out)
{
    float sw = 0, sx = 0, sq = 0, sqq = 0, sqx = 0;
    for (int i = 0; i < rule->n; i++) {
        float w = weight[i], v = (float)q[i];
        sw += w;
        sx += w * x[i];
        sq += w * v;
        sqq += w * v * v;
        sqx += w * v * x[i];
    }
    float det = sw * sqq - sq * sq;
    if (!(det > 0)) return false;
    out->scale = (sw * sqx - sx * sq) / det;
    out->base = (sqq * sx - sq * sqx) / det;
    if (out->base > 0) *out = (line){sqx / sqq, 0};
    return true;
}

float fit_range(const fit_range_rule *rule, const float *x, const float *weight, uint8_t *q, float *minimum)
{
    float lo = 0, hi = x[0];
    for (int i = 0; i < rule->n; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    memset(q, 0, (size_t)rule->n);
    *minimum = -lo;
    float inv = fit_inverse((hi - lo) / (float)rule->limit);
    if (inv == 0) return 0;

    line best = {(hi - lo) / (float)rule->limit, lo};
    codes_for(rule, x, inv, lo, q);
    float best_error = error_of(rule, x, weight, q, best);
    for (int t = 0; t <= rule->steps; t++) {
        uint8_t trial[MAX_GROUP];
        line l;
        /* best.base moves with each step that is kept; that feedback gains about 1 % of squared error */
        codes_for(rule, x, ((float)rule->limit + rule->first + 0.1f * (float)t) / (hi - best.base), best.base, trial);
        if (!regress(rule, x, weight, trial, &l)) continue;
        float error = error_of(rule, x, weight, trial, l);
        if (!(error < best_error)) continue;
        best = l;
        best_error = error;
        memcpy(q, trial, (size_t)rule->n);
    }
    *minimum = -best.base;
    return best.scale;
}
