/* draft_world.h: drafters and targets in modelled time, for tests of the controller. Whether a draft is right depends
 * on a seed, the drafter and the position in the text alone, so that every policy meets the same luck. */
#ifndef FACET_TESTS_DRAFT_WORLD_H
#define FACET_TESTS_DRAFT_WORLD_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "decode/draft_control.h"
#include "base/rng.h"

enum { MAX_DEPTH = 16 };

typedef enum confidence { CONF_NONE, CONF_TRUE, CONF_ALWAYS_HIGH } confidence;

/* A drafter of chains. accept: by position, given that the ones before were accepted; positions beyond share the last.
 */
typedef struct drafter {
    const char *name;
    double accept[MAX_DEPTH];
    double flat_ms, token_ms;
    int k_max;
    confidence conf;
    int from, to;      /* tokens of the text in which it works; outside nothing is accepted. to 0 = to the end */
    int offered_every; /* it has something to offer in every n-th stretch of 50 tokens only; 0 = always */
    double feed_ms, caught_ms; /* its context: for each token at a step, or of many that waited; 0 = it has none */
} drafter;

typedef struct world {
    const char *name;
    double base_ms, row_ms, other_ms;
    int n_drafters;
    drafter d[4];
} world;

#define D(n, a, flat, token, max)                                                                                      \
    {                                                                                                                  \
        .name = n, .accept = a, .flat_ms = flat, .token_ms = token, .k_max = max                                       \
    }
#define D_WITH(n, a, flat, token, max, ...)                                                                            \
    {                                                                                                                  \
        .name = n, .accept = a, .flat_ms = flat, .token_ms = token, .k_max = max, __VA_ARGS__                          \
    }
#define SHORT_CHAIN                                                                                                    \
    {                                                                                                                  \
        .80, .75, .70, .65, .60, .55, .50, .45, .4                                                                     \
    }
#define LONG_CHAIN                                                                                                     \
    {                                                                                                                  \
        .95, .95, .95, .94, .94, .94, .93                                                                              \
    }
#define WEAK                                                                                                           \
    {                                                                                                                  \
        .3, .25, .2                                                                                                    \
    }
#define FAIR                                                                                                           \
    {                                                                                                                  \
        .6, .5, .45, .4                                                                                                \
    }
#define NEVER                                                                                                          \
    {                                                                                                                  \
        0                                                                                                              \
    }

static double verify_ms(const world *w, int n_rows)
{
    return w->base_ms + w->row_ms * (n_rows - 1);
}

static double plain_ms(const world *w)
{
    return verify_ms(w, 1) + w->other_ms;
}

static double last_or(const double *a, int i)
{
    while (i > 0 && (i >= MAX_DEPTH || a[i] == 0)) i--;
    return a[i];
}

/* Chance that draft i (from 0) of a chain that starts after `tokens` tokens is right. With CONF_TRUE it is above or
 * below the mean, and the drafter knows. */
static double chance(const drafter *d, uint64_t seed, int tokens, int i)
{
    if (tokens + i < d->from || (d->to && tokens + i >= d->to)) return 0;
    const double mean = last_or(d->accept, i);
    if (d->conf != CONF_TRUE) return mean;
    const double high = mean > 0.5 ? 1 - (1 - mean) * 0.2 : mean * 1.6;
    return rng_uniform_at(seed, tokens + i, 50) < 0.5 ? high : 2 * mean - high;
}

static bool is_right(const drafter *d, uint64_t seed, int tokens, int i)
{
    return rng_uniform_at(seed, tokens + i, (uint32_t)d->name[0]) < chance(d, seed, tokens, i);
}

static bool is_offered(const drafter *d, int tokens)
{
    return d->offered_every == 0 || tokens / 50 % d->offered_every == 0;
}

static int accepted(const drafter *d, uint64_t seed, int tokens, int k)
{
    int n = 0;
    while (n < k && is_right(d, seed, tokens, n)) n++;
    return n;
}

static double draft_ms(const drafter *d, int k)
{
    return k > 0 ? d->flat_ms + d->token_ms * k : 0;
}

/* Milliseconds for the text with one drafter and one width throughout. */
static double fixed_run(const world *w, const drafter *d, int k, uint64_t seed, int from, int to)
{
    double ms = 0;
    for (int tokens = from; tokens < to;) {
        const int drafts = is_offered(d, tokens) ? k : 0;
        const int n = 1 + accepted(d, seed, tokens, drafts);
        ms += verify_ms(w, 1 + drafts) + w->other_ms + draft_ms(d, drafts) + n * d->feed_ms;
        tokens += n;
    }
    return ms;
}

/* The best of plain decoding and every drafter at every fixed width, in hindsight. */
static double best_fixed(const world *w, uint64_t seed, int from, int to)
{
    double best = (to - from) * plain_ms(w);
    for (int i = 0; i < w->n_drafters; i++)
        for (int k = 1; k <= w->d[i].k_max; k++) best = fmin(best, fixed_run(w, &w->d[i], k, seed, from, to));
    return best;
}

typedef struct run {
    draft_control c;
    const world *w;
    uint64_t seed;
    int tokens;
    double ms;    /* without noise */
    double noise; /* of the measured times: standard deviation, relative; one in a hundred is twenty times as long */
    rng luck;     /* of the noise */
    int n_measured;
    uint64_t hiccups;    /* bit i: the i-th measured time is forty times as long */
    double worst_excess; /* highest ms / plain - 1.01 * tokens at the end of any step */
    uint64_t choices;    /* hash of every plan */
    int n_behind;        /* tokens that the context of fed drafters lacks */
    double feeding_ms;   /* of ms */
} run;

static void start(run *r, const world *w, uint64_t seed)
{
    draft_arm_desc arms[4];
    for (int i = 0; i < w->n_drafters; i++)
        arms[i] =
            (draft_arm_desc){.name = w->d[i].name,
                             .has_conf = w->d[i].conf != CONF_NONE,
                             .is_cost_per_token = w->d[i].token_ms > 0,
                             .is_fed = w->d[i].feed_ms > 0,
                             .feed_share = w->d[i].feed_ms / w->base_ms,
                             .draft_share = (w->d[i].token_ms > 0 ? w->d[i].token_ms : w->d[i].flat_ms) / w->base_ms};
    memset(r, 0, sizeof *r);
    r->w = w;
    r->seed = seed;
    draft_control_init(&r->c, NULL, arms, w->n_drafters, NULL, 0);
    for (int n = 1; n <= 64; n *= 2) draft_cost_set(&r->c.cost, 0, n, verify_ms(w, n));
    r->c.other_ms = w->other_ms;
}

static void confidences(const run *r, const drafter *d, int k, float *conf)
{
    for (int i = 0; i < k; i++) conf[i] = d->conf == CONF_ALWAYS_HIGH ? 0.99f : (float)chance(d, r->seed, r->tokens, i);
}

static double measured(run *r, double ms)
{
    const int i = r->n_measured++;
    if (i < 64 && r->hiccups >> i & 1) return 40 * ms;
    if (r->noise == 0) return ms;
    return ms * exp(r->noise * rng_normal(&r->luck)) * (rng_below(&r->luck, 100) ? 1 : 20);
}

/* What waits is fed before a draft, or when feeding goes on. */
static void catch_up(run *r, const drafter *d, int n, draft_outcome *o)
{
    o->n_caught = n;
    o->caught_ms = n * d->caught_ms;
    r->n_behind = 0;
}

static const drafter *fed_drafter(const world *w)
{
    for (int i = 0; i < w->n_drafters; i++)
        if (w->d[i].feed_ms > 0) return &w->d[i];
    return NULL;
}

/* After the plan: as a session does (draft_feed.h). */
static void feed(run *r, const drafter *d, draft_outcome *o)
{
    const draft_plan *p = &r->c.plan;
    const draft_feeding feeding = draft_control_feeding(&r->c, 0);
    const int n = 1 + o->n_accepted;
    const bool drafts = p->arm >= 0 && r->c.arm[p->arm].desc.is_fed, is_full = r->n_behind + n > DRAFT_TAIL;
    if (drafts)
        catch_up(r, d, p->n_caught, o);
    else if (is_full && feeding == DRAFT_FEED_LATE)
        catch_up(r, d, r->n_behind, o);
    if (feeding == DRAFT_FEED_NOW || (is_full && feeding == DRAFT_FEED_LATE)) {
        o->n_fed = n;
        o->fed_ms = n * d->feed_ms;
    } else {
        r->n_behind = is_full ? DRAFT_TAIL : r->n_behind + n;
    }
    r->feeding_ms += o->caught_ms + o->fed_ms;
    r->ms += o->caught_ms + o->fed_ms;
}

static void advance(run *r)
{
    const world *w = r->w;
    draft_offer offers[DRAFT_MAX_ARMS] = {0};
    float conf[64];
    const drafter *fed = fed_drafter(w);
    for (int i = 0; i < w->n_drafters; i++) {
        offers[i].k_max = is_offered(&w->d[i], r->tokens) ? w->d[i].k_max : 0;
        offers[i].n_behind = w->d[i].feed_ms > 0 ? r->n_behind : 0;
        offers[i].n_least = offers[i].n_behind < DRAFT_LEAST_CONTEXT ? offers[i].n_behind : DRAFT_LEAST_CONTEXT;
    }
    const draft_plan p = draft_control_plan(&r->c, 0, offers);
    draft_outcome o = {.verify_ms = verify_ms(w, 1), .other_ms = w->other_ms, .draft_ms = -1};
    if (p.arm >= 0) {
        const drafter *d = &w->d[p.arm];
        confidences(r, d, p.k, conf);
        o.conf = d->conf == CONF_NONE ? NULL : conf;
        o.n_drafted = p.k;
        o.n_verified = draft_control_width(&r->c, 0, o.conf, p.k);
        o.n_accepted = accepted(d, r->seed, r->tokens, o.n_verified);
        o.verify_ms = verify_ms(w, 1 + o.n_verified);
        o.draft_ms = draft_ms(d, p.k);
    }
    r->ms += o.verify_ms + o.other_ms + fmax(o.draft_ms, 0);
    if (fed) feed(r, fed, &o);
    o.verify_ms = measured(r, o.verify_ms);
    o.draft_ms = measured(r, o.draft_ms);
    draft_control_observe(&r->c, &o);
    r->tokens += 1 + o.n_accepted;
    r->worst_excess = fmax(r->worst_excess, r->ms / plain_ms(w) - 1.01 * r->tokens);
    r->choices = (r->choices ^ (uint64_t)(p.arm * 64 + p.k * 8 + o.n_verified)) * 0x9e3779b97f4a7c15u;
}

/* Milliseconds from where the run stands to `to` tokens. */
static double advance_to(run *r, int to)
{
    const double before = r->ms;
    while (r->tokens < to) advance(r);
    return r->ms - before;
}

#endif
