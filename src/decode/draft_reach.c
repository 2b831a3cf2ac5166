#include "decode/draft_reach.h"

#include <math.h>

#define FADE 0.98
#define MEAN_RATE 0.1
enum { ANY_CONF = DRAFT_REACH_BINS };

/* Finer towards 1, where most confidences lie and where long chains are decided. */
static const float conf_edges[DRAFT_REACH_BINS - 1] = {0.1f, 0.3f, 0.5f, 0.7f, 0.85f, 0.95f, 0.99f};

static int conf_bin(float conf)
{
    if (!(conf >= 0)) return ANY_CONF;
    int b = 0;
    while (b < DRAFT_REACH_BINS - 1 && conf >= conf_edges[b]) b++;
    return b;
}

static int weight_bin(double w)
{
    int b = 0;
    while (b < DRAFT_REACH_WEIGHT_BINS - 1 && w <= 0.5) {
        w *= 2;
        b++;
    }
    return b;
}

static int depth_index(int depth)
{
    return (depth < DRAFT_REACH_DEPTHS ? depth : DRAFT_REACH_DEPTHS) - 1;
}

static double posterior(const draft_reach_count *c, double prior)
{
    return (c->hits + 2 * prior) / (c->n + 2);
}

double draft_reach_accept(const draft_reach *r, int depth, float conf)
{
    const int b = conf_bin(conf);
    const double prior = b == ANY_CONF ? 0.5 : (double)conf;
    return posterior(&r->at[depth_index(depth)][b], posterior(&r->any_depth[b], prior));
}

void draft_reach_of_chain(const draft_reach *r, const float *conf, int n, double *reach)
{
    double p = 1;
    for (int i = 0; i < n; i++) reach[i] = p *= draft_reach_accept(r, i + 1, conf ? conf[i] : -1);
}

void draft_reach_of_tree(const draft_reach *r, const float *weight, int n, double *reach)
{
    for (int i = 0; i < n; i++) {
        const draft_reach_count *c = &r->weight[weight_bin((double)weight[i])];
        reach[i] = fmin(1, (double)weight[i] * (c->hits + 1) / (c->n + 1));
    }
}

void draft_reach_expected(const draft_reach *r, int n, double *reach)
{
    if (r->n_mean == 0) {
        draft_reach_of_chain(r, 0, n, reach);
        return;
    }
    for (int i = 0; i < n; i++) reach[i] = i < r->n_mean ? r->mean[i] : 0.5 * reach[i - 1];
}

static void note(draft_reach *r, const double *reach, int n)
{
    for (int i = 0; i < n; i++) {
        if (i < r->n_mean)
            r->mean[i] += MEAN_RATE * (reach[i] - r->mean[i]);
        else
            r->mean[r->n_mean++] = reach[i];
    }
}

void draft_reach_note_chain(draft_reach *r, const float *conf, int n)
{
    double reach[DRAFT_REACH_MAX_ITEMS];
    draft_reach_of_chain(r, conf, n, reach);
    note(r, reach, n);
}

void draft_reach_note_tree(draft_reach *r, const float *weight, int n)
{
    double reach[DRAFT_REACH_MAX_ITEMS];
    draft_reach_of_tree(r, weight, n, reach);
    note(r, reach, n);
}

static void fade_and_add(draft_reach_count *c, draft_reach_count seen)
{
    if (!(seen.n > 0)) return;
    c->n = FADE * c->n + seen.n;
    c->hits = FADE * c->hits + seen.hits;
}

void draft_reach_observe_chain(draft_reach *r, const float *conf, int n_verified, int n_accepted)
{
    draft_reach_count at[DRAFT_REACH_DEPTHS][DRAFT_REACH_BINS + 1] = {0}, any_depth[DRAFT_REACH_BINS + 1] = {0};
    for (int i = 0; i < n_verified && i <= n_accepted; i++) {
        const int d = depth_index(i + 1), bins[2] = {ANY_CONF, conf_bin(conf ? conf[i] : -1)};
        for (int k = 0; k < 2 && (k == 0 || bins[k] != ANY_CONF); k++) {
            at[d][bins[k]].n++;
            any_depth[bins[k]].n++;
            at[d][bins[k]].hits += i < n_accepted;
            any_depth[bins[k]].hits += i < n_accepted;
        }
    }
    for (int b = 0; b <= DRAFT_REACH_BINS; b++) {
        fade_and_add(&r->any_depth[b], any_depth[b]);
        for (int d = 0; d < DRAFT_REACH_DEPTHS; d++) fade_and_add(&r->at[d][b], at[d][b]);
    }
}

void draft_reach_observe_tree(draft_reach *r, const float *weight, int n, const uint8_t *path, int n_path)
{
    draft_reach_count seen[DRAFT_REACH_WEIGHT_BINS] = {0};
    for (int i = 0; i < n; i++) seen[weight_bin((double)weight[i])].n += (double)weight[i];
    for (int i = 1; i < n_path; i++) seen[weight_bin((double)weight[path[i] - 1])].hits++;
    for (int b = 0; b < DRAFT_REACH_WEIGHT_BINS; b++) fade_and_add(&r->weight[b], seen[b]);
}

static void age(draft_reach_count *c, double factor)
{
    c->n *= factor;
    c->hits *= factor;
}

void draft_reach_age(draft_reach *r, double factor)
{
    for (int b = 0; b <= DRAFT_REACH_BINS; b++) {
        age(&r->any_depth[b], factor);
        for (int d = 0; d < DRAFT_REACH_DEPTHS; d++) age(&r->at[d][b], factor);
    }
    for (int b = 0; b < DRAFT_REACH_WEIGHT_BINS; b++) age(&r->weight[b], factor);
}
