#include "decode/draft_control.h"

#include <math.h>
#include <stddef.h>

enum { TRIAL_STEPS = 4, TRIAL_MISSES = 2, FIRST_INTERVAL = 4, MAX_SKIPS = 16, FIRST_COSTS = 3 };
enum { PROBE_STEPS = 2, PROBE_LEAST = 16, PROBE_MOST = 512, PROBE_GROWTH = 4, REST_DOUBLINGS = 1 };

#define PROBE_LOSS 0.003
#define PROBE_NEWS 0.9

#define COST_RATE 0.1 /* of the running means of draft and remaining time */
#define COST_OUTLIER 2.0
#define GUESS_OUTLIER 4.0
#define DOUBT 0.8
#define CUT_RATE 0.1
#define REQUEST_AGE 0.5
#define MOST_SAVED 2 /* grants */
#define MOST_DEBT 2  /* grants: what cost more than that took everybody by surprise */
#define RETRY_AGE 0.5
#define FEED_FREE 0.005  /* of a plain step: then nobody bothers to stop feeding */
#define CAUGHT_SHARE 0.5 /* first guess */
#define SCATTER_RATE 0.05
/* Costs are running means of weight 0.1, whose standard error is 0.23 standard deviations, each 1.25 mean deviations:
 * twice the error of a difference of two of them. */
#define SCATTER_MARGIN 0.8

draft_control_params draft_control_params_default(void)
{
    return (draft_control_params){
        .min_gain = 0.08, .hysteresis = 0.03, .rest_tokens = 64, .explore_steps = 32, .allowance = 0.01, .grant = 8};
}

void draft_control_init(draft_control *c, const draft_control_params *params, const draft_arm_desc *arms, int n_arms,
                        const int *widths, int n_widths)
{
    *c = (draft_control){.params = params ? *params : draft_control_params_default(),
                         .n_arms = n_arms < DRAFT_MAX_ARMS ? n_arms : DRAFT_MAX_ARMS,
                         .current = DRAFT_NO_ARM,
                         .trial = {.arm = DRAFT_NO_ARM},
                         .explore_interval = FIRST_INTERVAL,
                         .probe_interval = PROBE_LEAST,
                         .plan = {.arm = DRAFT_NO_ARM}};
    c->credit = c->params.grant;
    draft_cost_init(&c->cost, widths, n_widths);
    for (int i = 0; i < c->n_arms; i++) c->arm[i] = (draft_arm){.desc = arms[i]};
}

static draft_plan plain(draft_reason reason)
{
    return (draft_plan){.arm = DRAFT_NO_ARM, .reason = reason};
}

void draft_control_begin(draft_control *c)
{
    for (int i = 0; i < c->n_arms; i++) {
        draft_reach_age(&c->arm[i].reach, REQUEST_AGE);
        c->arm[i].rests_until = 0;
    }
    c->trial.arm = DRAFT_NO_ARM;
    c->plan = plain(DRAFT_PLAIN_BEST);
    c->explore_interval = FIRST_INTERVAL;
    c->n_failed_retries = 0;
}

static double guessed_ms(const draft_control *c, int64_t n_ctx, const draft_arm *a)
{
    return a->desc.draft_share * draft_cost_ms(&c->cost, n_ctx, 1);
}

/* Of one token, or of a draft. */
static double arm_ms(const draft_control *c, int64_t n_ctx, const draft_arm *a)
{
    return a->has_cost ? a->draft_ms : guessed_ms(c, n_ctx, a);
}

double draft_control_step_ms(const draft_control *c, int64_t n_ctx, int arm, int n_drafted, int n_verified)
{
    double ms = draft_cost_ms(&c->cost, n_ctx, 1 + n_verified) + c->other_ms;
    if (arm >= 0 && n_drafted > 0)
        ms += arm_ms(c, n_ctx, &c->arm[arm]) * (c->arm[arm].desc.is_cost_per_token ? n_drafted : 1);
    return ms;
}

/* Of one token at a step. */
static double feed_ms(const draft_control *c, int64_t n_ctx, const draft_arm *a)
{
    if (!a->desc.is_fed) return 0;
    return c->fed.n ? c->fed.ms : a->desc.feed_share * draft_cost_ms(&c->cost, n_ctx, 1);
}

/* Of one of many tokens, which share the reading of weights. */
static double catch_up_ms(const draft_control *c, int64_t n_ctx, const draft_arm *a)
{
    return a->desc.is_fed && c->caught.n ? c->caught.ms : CAUGHT_SHARE * feed_ms(c, n_ctx, a);
}

double draft_control_plain_rate(const draft_control *c, int64_t n_ctx)
{
    return 1 / draft_control_step_ms(c, n_ctx, DRAFT_NO_ARM, 0, 0);
}

double draft_control_margin(const draft_control *c)
{
    return fmax(c->params.min_gain, SCATTER_MARGIN * c->scatter);
}

static bool is_fed(const draft_control *c, int arm)
{
    return arm >= 0 && c->arm[arm].desc.is_fed;
}

draft_feeding draft_control_feeding(const draft_control *c, int64_t n_ctx)
{
    if (is_fed(c, c->plan.arm)) return DRAFT_FEED_NOW;
    if (is_fed(c, c->current) && c->plan.reason != DRAFT_PLAIN_CREDIT) return DRAFT_FEED_LATE;
    for (int i = 0; i < c->n_arms; i++) {
        const double ms = feed_ms(c, n_ctx, &c->arm[i]);
        if (is_fed(c, i) && (c->n_steps == 0 || ms * draft_control_plain_rate(c, n_ctx) <= FEED_FREE))
            return DRAFT_FEED_LATE;
    }
    return DRAFT_FEED_REST;
}

/* ---- choosing ---- */

/* What an arm promises: k drafts, and the rate that should come of it. */
typedef struct promise {
    int arm, k;
    double rate;
} promise;

static int offered(const draft_offer *o)
{
    return o->k_max < DRAFT_REACH_MAX_ITEMS ? o->k_max : DRAFT_REACH_MAX_ITEMS;
}

/* reach [n] of a draft with these confidences, or of one that is still to be made (conf NULL). */
static void expected_reach(const draft_arm *a, const float *conf, int n, double *reach)
{
    if (conf && !a->desc.is_tree)
        draft_reach_of_chain(&a->reach, conf, n, reach);
    else if (conf)
        draft_reach_of_tree(&a->reach, conf, n, reach);
    else
        draft_reach_expected(&a->reach, n, reach);
}

/* A draft that costs the same at any length and says how sure it is of each part: made in full, cut afterwards. */
static bool is_cut_later(const draft_arm *a, const draft_offer *o)
{
    return a->desc.has_conf && !a->desc.is_cost_per_token && !o->conf;
}

/* The width of k >= 1 with the best rate, up to k_max; *kept gets the promise at width keep_k, if that is one of them.
 */
static promise best_width_of(const draft_control *c, int64_t n_ctx, int arm, const double *reach, int k_max, int keep_k,
                             promise *kept)
{
    promise best = {.arm = arm};
    double ms[DRAFT_REACH_MAX_ITEMS + 1], accepted = 0;
    ms[0] = INFINITY; /* no drafts are no draft */
    const double feed = feed_ms(c, n_ctx, &c->arm[arm]);
    for (int k = 1; k <= k_max; k++) {
        accepted += reach[k - 1];
        ms[k] = draft_control_step_ms(c, n_ctx, arm, k, k) + (1 + accepted) * feed;
    }
    best.k = draft_best_count(reach, k_max, ms, &best.rate);
    accepted = 0;
    for (int k = 0; k < keep_k && keep_k <= k_max; k++) accepted += reach[k];
    if (keep_k >= 1 && keep_k <= k_max) *kept = (promise){.arm = arm, .k = keep_k, .rate = (1 + accepted) / ms[keep_k]};
    return best;
}

/* Rate of the arm when each of its drafts is cut at the best width, as its last drafts would have been. */
static double cut_rate(const draft_control *c, int64_t n_ctx, int arm, int k)
{
    const draft_arm *a = &c->arm[arm];
    const double rest = draft_control_step_ms(c, n_ctx, arm, k, 0) - draft_cost_ms(&c->cost, n_ctx, 1);
    const double tokens = 1 + a->cut_accepted;
    return tokens / (rest + a->cut_ms + tokens * feed_ms(c, n_ctx, a));
}

/* The best promise of one arm; the width in use stays unless another is clearly better. */
static promise promise_of(const draft_control *c, int64_t n_ctx, int arm, const draft_offer *o)
{
    double reach[DRAFT_REACH_MAX_ITEMS];
    const draft_arm *a = &c->arm[arm];
    const int n = offered(o);
    if (n < 1) return (promise){.arm = DRAFT_NO_ARM};
    expected_reach(a, o->conf, n, reach);
    promise kept = {0}, p = best_width_of(c, n_ctx, arm, reach, n, a->k, &kept);
    if (o->conf) return p;
    if (is_cut_later(a, o))
        p.k = n;
    else if (p.rate <= (1 + c->params.hysteresis) * kept.rate)
        p = kept;
    if (a->n_cuts > 0) p.rate = fmax(p.rate, cut_rate(c, n_ctx, arm, p.k));
    return p;
}

/* Loss of a step with nothing accepted against a plain one, in plain steps. */
static double worst_loss(const draft_control *c, int64_t n_ctx, int arm, int n_drafted, int n_verified, int n_behind)
{
    const draft_arm *a = &c->arm[arm];
    const double ms = draft_control_step_ms(c, n_ctx, arm, n_drafted, n_verified) + feed_ms(c, n_ctx, a) +
                      n_behind * catch_up_ms(c, n_ctx, a);
    return ms * draft_control_plain_rate(c, n_ctx) - 1;
}

/* The promise, narrowed to what the credit covers when the context gets n_caught tokens first. */
static int affordable(const draft_control *c, int64_t n_ctx, promise p, const draft_offer *o, int n_caught)
{
    if (is_cut_later(&c->arm[p.arm], o)) return worst_loss(c, n_ctx, p.arm, p.k, 1, n_caught) > c->credit ? 0 : p.k;
    while (p.k > 0 && worst_loss(c, n_ctx, p.arm, p.k, p.k, n_caught) > c->credit) p.k--;
    return p.k;
}

/* The promise as a plan. Where the credit does not cover a draft with all of its context, one with little is made. */
static draft_plan afford(const draft_control *c, int64_t n_ctx, promise p, const draft_offer *o, draft_reason reason)
{
    int n_caught = o->n_behind, k = affordable(c, n_ctx, p, o, n_caught);
    if (k == 0 && o->n_least < o->n_behind) {
        n_caught = o->n_least;
        k = affordable(c, n_ctx, p, o, n_caught);
    }
    if (k == 0) return plain(DRAFT_PLAIN_CREDIT);
    return (draft_plan){.arm = p.arm, .k = k, .reason = reason, .rate = p.rate, .n_caught = n_caught};
}

/* The width that an arm about which nothing is known would get. */
static promise blank_promise(const draft_control *c, int64_t n_ctx, int arm, const draft_offer *o)
{
    static const draft_reach blank;
    double reach[DRAFT_REACH_MAX_ITEMS];
    draft_reach_of_chain(&blank, 0, offered(o), reach);
    return best_width_of(c, n_ctx, arm, reach, offered(o), 0, NULL);
}

/* An arm is tried at least as wide as one about which nothing is known, and as wide as the arm in use. */
static draft_plan plan_trial(const draft_control *c, int64_t n_ctx, const draft_offer *offers)
{
    const int arm = c->trial.arm;
    const draft_offer *o = &offers[arm];
    promise p = promise_of(c, n_ctx, arm, o);
    const int blank = blank_promise(c, n_ctx, arm, o).k, used = c->current >= 0 ? c->arm[c->current].k : 0;
    const int least = blank > used ? blank : used;
    if (p.k < least) p.k = least < offered(o) ? least : offered(o);
    return afford(c, n_ctx, p, o, c->trial.reason);
}

static draft_plan begin_trial(draft_control *c, int64_t n_ctx, const draft_offer *offers, int arm, draft_reason reason)
{
    c->trial = (draft_trial){.arm = arm, .n_left = TRIAL_STEPS, .reason = reason};
    c->arm[arm].rests_until = 0;
    c->arm[arm].used_at = c->n_tokens; /* its turn, even if the credit does not cover it */
    return plan_trial(c, n_ctx, offers);
}

/* The next step of a trial that goes on, or the first of an arm that never drafted. A trial that the credit does not
 * cover is given up. */
static bool plan_any_trial(draft_control *c, int64_t n_ctx, const draft_offer *offers, draft_plan *out)
{
    if (c->trial.arm >= 0 && offers[c->trial.arm].k_max > 0) {
        *out = plan_trial(c, n_ctx, offers);
        if (out->arm >= 0) return true;
        c->trial.arm = DRAFT_NO_ARM;
    }
    for (int i = 0; i < c->n_arms; i++) {
        if (offers[i].k_max < 1 || c->arm[i].n_steps > 0) continue;
        *out = begin_trial(c, n_ctx, offers, i, DRAFT_FIRST_TRIES);
        if (out->arm >= 0) return true;
        c->trial.arm = DRAFT_NO_ARM;
    }
    return false;
}

static bool is_resting(const draft_control *c, int arm)
{
    return c->n_tokens < c->arm[arm].rests_until;
}

static promise best_promise(const draft_control *c, int64_t n_ctx, const draft_offer *offers)
{
    promise best = {.arm = DRAFT_NO_ARM}, kept = best;
    for (int i = 0; i < c->n_arms; i++) {
        if (is_resting(c, i)) continue;
        const promise p = promise_of(c, n_ctx, i, &offers[i]);
        if (i == c->current) kept = p;
        if (p.rate > best.rate) best = p;
    }
    return best.rate > (1 + c->params.hysteresis) * kept.rate ? best : kept;
}

/* The offered arm, other than `except`, that has waited longest. */
static int waiting_arm(const draft_control *c, const draft_offer *offers, int except, bool skips_count)
{
    int best = DRAFT_NO_ARM;
    for (int i = 0; i < c->n_arms; i++) {
        if (i == except || offers[i].k_max < 1 || (skips_count && c->arm[i].skips_left > 0)) continue;
        if (best < 0 || c->arm[i].used_at < c->arm[best].used_at) best = i;
    }
    return best;
}

/* What seemed too dear to try may have been measured at a bad time: a little less of it is believed at every turn, down
 * to the guess. */
static void doubt_cost(const draft_control *c, int64_t n_ctx, draft_arm *a)
{
    const double guess = guessed_ms(c, n_ctx, a);
    if (a->has_cost && guess > 0 && a->draft_ms > guess) a->draft_ms = fmax(guess, DOUBT * a->draft_ms);
}

/* Nothing promises to pay: plain steps, and after a rest, longer with each failure, the arm that waited longest is
 * tried again, passing over those that the credit does not cover. */
static draft_plan plan_without_promise(draft_control *c, int64_t n_ctx, const draft_offer *offers)
{
    for (int i = 0; i < c->n_arms; i++)
        if (offers[i].k_max > 0 && !offers[i].conf && !is_resting(c, i))
            c->arm[i].rests_until = c->n_tokens + c->params.rest_tokens;
    if (c->current >= 0) {
        c->retried_at = c->n_tokens;
        c->n_failed_retries = 0;
    }
    c->current = DRAFT_NO_ARM;
    if (c->n_tokens - c->retried_at < c->params.rest_tokens << c->n_failed_retries) return plain(DRAFT_PLAIN_BEST);
    c->retried_at = c->n_tokens;
    c->n_failed_retries += c->n_failed_retries < REST_DOUBLINGS;
    draft_plan p = plain(DRAFT_PLAIN_BEST);
    for (int i = 0; i < c->n_arms && p.arm < 0; i++) {
        const int arm = waiting_arm(c, offers, DRAFT_NO_ARM, false);
        if (arm < 0) break;
        p = begin_trial(c, n_ctx, offers, arm, DRAFT_RETRY);
        c->arm[arm].n_costs = 0;
        if (p.arm >= 0) {
            draft_reach_age(&c->arm[arm].reach, RETRY_AGE);
        } else {
            doubt_cost(c, n_ctx, &c->arm[arm]);
            c->trial.arm = DRAFT_NO_ARM;
        }
    }
    return p;
}

static int wider(int k)
{
    return k > 0 ? k + (k + 2) / 3 : 1;
}

/* The turn of a wider draft, or of another arm. */
static draft_plan plan_exploration(draft_control *c, int64_t n_ctx, const draft_offer *offers, promise p)
{
    c->n_since_explore = 0;
    c->explore_interval *= 2;
    if (c->explore_interval > c->params.explore_steps) c->explore_interval = c->params.explore_steps;
    for (int i = 0; i < c->n_arms; i++) c->arm[i].skips_left -= c->arm[i].skips_left > 0;
    const int other = c->n_explored++ % 2 ? DRAFT_NO_ARM : waiting_arm(c, offers, p.arm, true);
    if (other >= 0) return begin_trial(c, n_ctx, offers, other, DRAFT_EXPLORE);
    const draft_offer *o = &offers[p.arm];
    p.k = wider(p.k) < offered(o) ? wider(p.k) : offered(o);
    return afford(c, n_ctx, p, o, DRAFT_EXPLORE);
}

/* While drafting pays, nobody would notice that plain steps got faster, or were measured at a bad time: now and then
 * there are some, oftener at first, then so often that they give up PROBE_LOSS of the time at most. Little gain is
 * checked often. */
static bool is_probe_due(const draft_control *c, int64_t n_ctx, promise p)
{
    const double plain_rate = draft_control_plain_rate(c, n_ctx);
    const double loss = PROBE_STEPS * (1 - plain_rate / p.rate);
    const double step = draft_control_step_ms(c, n_ctx, p.arm, p.k, p.k) * plain_rate;
    return c->n_since_probe >= fmin(fmax(loss / (PROBE_LOSS * step), PROBE_LEAST), c->probe_interval);
}

static draft_plan plan_probe(draft_control *c, int64_t n_ctx, promise p)
{
    if (c->n_probes_left == 0 && is_probe_due(c, n_ctx, p)) {
        c->n_probes_left = PROBE_STEPS;
        if (c->probe_interval < PROBE_MOST) c->probe_interval *= PROBE_GROWTH;
    }
    if (c->n_probes_left == 0) return plain(DRAFT_PLAIN_BEST);
    c->n_probes_left--;
    return plain(DRAFT_PLAIN_PROBE);
}

/* The best promise, which is doubted now and then while the credit does not cover it. */
static draft_plan plan_best(draft_control *c, int64_t n_ctx, promise best, const draft_offer *offers)
{
    const draft_plan p = afford(c, n_ctx, best, &offers[best.arm], DRAFT_BEST);
    if (p.arm >= 0 || c->n_tokens - c->retried_at < c->params.rest_tokens) return p;
    c->retried_at = c->n_tokens;
    doubt_cost(c, n_ctx, &c->arm[best.arm]);
    c->arm[best.arm].n_costs = 0;
    return p;
}

static draft_plan choose(draft_control *c, int64_t n_ctx, const draft_offer *offers)
{
    if (!draft_cost_is_known(&c->cost)) return plain(DRAFT_PLAIN_UNMEASURED);
    const promise best = best_promise(c, n_ctx, offers);
    c->best_rate = best.rate;
    draft_plan p = plain(DRAFT_PLAIN_BEST);
    if (plan_any_trial(c, n_ctx, offers, &p)) return p;
    if (best.rate < (1 + draft_control_margin(c)) * draft_control_plain_rate(c, n_ctx)) {
        const bool is_refused = p.reason == DRAFT_PLAIN_CREDIT;
        p = plan_without_promise(c, n_ctx, offers);
        if (p.reason == DRAFT_PLAIN_BEST && is_refused) p.reason = DRAFT_PLAIN_CREDIT;
        return p;
    }
    p = plan_probe(c, n_ctx, best);
    if (p.reason == DRAFT_PLAIN_PROBE) return p;
    if (c->n_since_explore >= c->explore_interval) {
        p = plan_exploration(c, n_ctx, offers, best);
        if (p.arm >= 0) return p;
        c->trial.arm = DRAFT_NO_ARM;
    }
    return plan_best(c, n_ctx, best, offers);
}

draft_plan draft_control_plan(draft_control *c, int64_t n_ctx, const draft_offer *offers)
{
    const draft_plan p = choose(c, n_ctx, offers);
    if (p.reason == DRAFT_BEST) {
        c->n_switches += p.arm != c->current || (p.k != c->arm[p.arm].k && !offers[p.arm].conf);
        c->current = p.arm;
        c->arm[p.arm].k = p.k;
    }
    return c->plan = p;
}

/* The best cut of a draft by its confidences. */
static int best_cut(const draft_control *c, int64_t n_ctx, int arm, const float *conf, int n, double *accepted,
                    double *verify_ms)
{
    double reach[DRAFT_REACH_MAX_ITEMS], ms[DRAFT_REACH_MAX_ITEMS + 1];
    expected_reach(&c->arm[arm], conf, n, reach);
    for (int k = 0; k <= n; k++) ms[k] = draft_cost_ms(&c->cost, n_ctx, 1 + k);
    const int best = draft_best_width(reach, n, ms, fmax(c->best_rate, draft_control_plain_rate(c, n_ctx)));
    *accepted = 0;
    for (int i = 0; i < best; i++) *accepted += reach[i];
    *verify_ms = draft_cost_ms(&c->cost, n_ctx, 1 + best);
    return best;
}

int draft_control_width(const draft_control *c, int64_t n_ctx, const float *conf, int n)
{
    double accepted, verify_ms;
    const int arm = c->plan.arm, n_drafted = n;
    if (arm < 0) return 0;
    if (n > DRAFT_REACH_MAX_ITEMS) n = DRAFT_REACH_MAX_ITEMS;
    int k = n;
    if (conf) {
        k = best_cut(c, n_ctx, arm, conf, n, &accepted, &verify_ms);
        if (c->plan.reason != DRAFT_BEST) k = wider(k) < n ? wider(k) : n;
    }
    while (k > 0 && worst_loss(c, n_ctx, arm, n_drafted, k, c->plan.n_caught) > c->credit) k--;
    return k;
}

/* ---- learning ---- */

/* The running mean, in which what is far off counts as twice or half as much. */
static void follow(double *mean, double ms)
{
    const double seen = *mean > 0 ? fmin(fmax(ms, *mean / COST_OUTLIER), *mean * COST_OUTLIER) : ms;
    *mean += COST_RATE * (seen - *mean);
}

static void learn_other_ms(draft_control *c, double ms)
{
    if (!(ms >= 0) || !isfinite(ms)) return;
    if (c->n_others >= FIRST_COSTS) {
        follow(&c->other_ms, ms);
        return;
    }
    c->other_ms = c->n_others == 0 ? ms : fmin(c->other_ms, ms);
    c->n_others++;
}

static void learn_draft_ms(draft_control *c, int64_t n_ctx, draft_arm *a, double ms)
{
    if (!(ms >= 0) || !isfinite(ms)) return;
    const double believed = arm_ms(c, n_ctx, a), most = (a->has_cost ? COST_OUTLIER : GUESS_OUTLIER) * believed;
    a->has_cost = true;
    if (a->n_costs >= FIRST_COSTS) {
        follow(&a->draft_ms, ms);
        return;
    }
    a->least_ms = a->n_costs == 0 ? ms : fmin(a->least_ms, ms);
    a->draft_ms = a->n_costs == 0 && believed > 0 ? fmin(ms, most) : a->least_ms;
    a->n_costs++;
}

/* Right after a draft a plain step finds the drafter's data in the caches instead of its own: it does not count. What
 * the next one says weighs much, and is soon asked again when it is news. */
static void learn_probe(draft_control *c, const draft_outcome *o)
{
    if (c->n_since_probe > 0) return;
    if (o->verify_ms >= 0 && o->verify_ms < PROBE_NEWS * draft_cost_ms(&c->cost, o->n_ctx, 1))
        c->probe_interval = PROBE_LEAST;
    draft_cost_doubt(&c->cost, o->n_ctx, 1);
    draft_cost_observe(&c->cost, o->n_ctx, 1, o->verify_ms);
}

static void learn_feed(draft_feed_rate *r, int n, double ms)
{
    if (n < 1 || !(ms >= 0) || !isfinite(ms)) return;
    if (r->n == 0) r->ms = ms / n;
    follow(&r->ms, ms / n);
    r->n += r->n < FIRST_COSTS;
}

/* Of steps whose width is known. */
static void learn_scatter(draft_control *c, const draft_outcome *o)
{
    const double expected = draft_cost_ms(&c->cost, o->n_ctx, 1 + o->n_verified);
    if (!draft_cost_is_known(&c->cost) || !(o->verify_ms > 0) || !(expected > 0)) return;
    c->scatter += SCATTER_RATE * (fmin(fabs(o->verify_ms / expected - 1), 1) - c->scatter);
}

static void learn_costs(draft_control *c, const draft_outcome *o)
{
    if (c->plan.arm < 0) learn_scatter(c, o);
    learn_feed(&c->fed, o->n_fed, o->fed_ms);
    learn_feed(&c->caught, o->n_caught, o->caught_ms);
    if (c->plan.reason == DRAFT_PLAIN_PROBE)
        learn_probe(c, o);
    else
        draft_cost_observe(&c->cost, o->n_ctx, 1 + o->n_verified, o->verify_ms);
    learn_other_ms(c, o->other_ms);
    if (c->plan.arm < 0 || o->n_drafted < 1) return;
    draft_arm *a = &c->arm[c->plan.arm];
    learn_draft_ms(c, o->n_ctx, a, a->desc.is_cost_per_token ? o->draft_ms / o->n_drafted : o->draft_ms);
}

static void learn_reach(draft_arm *a, const draft_outcome *o)
{
    if (a->desc.is_tree && o->conf) {
        draft_reach_observe_tree(&a->reach, o->conf, o->n_verified, o->path, o->n_accepted + 1);
        draft_reach_note_tree(&a->reach, o->conf, o->n_drafted);
    } else if (!a->desc.is_tree) {
        draft_reach_observe_chain(&a->reach, o->conf, o->n_verified, o->n_accepted);
        if (o->conf) draft_reach_note_chain(&a->reach, o->conf, o->n_drafted);
    }
}

/* What the best cut of this draft promised, for judging the arm before its next draft exists. */
static void learn_cut(draft_control *c, draft_arm *a, const draft_outcome *o)
{
    double accepted, verify_ms;
    best_cut(c, o->n_ctx, c->plan.arm, o->conf, o->n_drafted, &accepted, &verify_ms);
    const double rate = fmax(CUT_RATE, 1.0 / ++a->n_cuts);
    a->cut_accepted += rate * (accepted - a->cut_accepted);
    a->cut_ms += rate * (verify_ms - a->cut_ms);
}

/* A trial ends after TRIAL_STEPS; sooner when it fails: a new or rested arm by accepting nothing twice, another arm
 * than the one in use by a step that is no better than that one's promise. The latter makes its next trial rarer. */
static void follow_trial(draft_control *c, draft_arm *a, const draft_outcome *o)
{
    draft_trial *t = &c->trial;
    t->n_misses += o->n_verified > 0 && o->n_accepted == 0;
    bool is_over = --t->n_left == 0;
    if (t->reason == DRAFT_EXPLORE) {
        const double ms = draft_control_step_ms(c, o->n_ctx, t->arm, o->n_drafted, o->n_verified) +
                          (1 + o->n_accepted) * feed_ms(c, o->n_ctx, a);
        const bool is_promising = (1 + o->n_accepted) / ms > c->best_rate;
        a->n_skips = is_promising ? 0 : a->n_skips < MAX_SKIPS / 2 ? 2 * a->n_skips + 1 : MAX_SKIPS;
        a->skips_left = a->n_skips;
        is_over |= !is_promising;
    } else {
        is_over |= t->n_misses >= TRIAL_MISSES;
    }
    if (is_over) t->arm = DRAFT_NO_ARM;
}

static void learn_arm(draft_control *c, const draft_outcome *o)
{
    draft_arm *a = &c->arm[c->plan.arm];
    a->n_steps++;
    a->used_at = c->n_tokens;
    c->n_drafting++;
    c->n_since_explore++;
    c->n_exploring += c->plan.reason == DRAFT_EXPLORE;
    c->sum_k += (uint64_t)o->n_verified;
    learn_reach(a, o);
    if (a->desc.has_conf && o->conf && o->n_drafted > 0) learn_cut(c, a, o);
    if (c->plan.arm == c->trial.arm) follow_trial(c, a, o);
}

void draft_control_observe(draft_control *c, const draft_outcome *outcome)
{
    draft_outcome o = *outcome;
    if (o.n_drafted > DRAFT_REACH_MAX_ITEMS) o.n_drafted = DRAFT_REACH_MAX_ITEMS;
    if (o.n_verified > o.n_drafted) o.n_verified = o.n_drafted;
    const int tokens = 1 + o.n_accepted;
    c->n_steps++;
    c->n_tokens += tokens;
    learn_costs(c, &o);
    if (!draft_cost_is_known(&c->cost)) return;
    c->n_since_probe = c->plan.arm >= 0 ? c->n_since_probe + 1 : 0;
    if (c->plan.arm >= 0) learn_arm(c, &o);
    const double ms = draft_control_step_ms(c, o.n_ctx, c->plan.arm, o.n_drafted, o.n_verified) + o.n_fed * c->fed.ms +
                      o.n_caught * c->caught.ms;
    const double grant = c->params.grant, most = MOST_SAVED * grant, least = -MOST_DEBT * grant;
    c->credit += tokens - ms * draft_control_plain_rate(c, o.n_ctx);
    c->credit += fmin(tokens * c->params.allowance, fmax(0, grant - c->credit));
    c->credit = fmin(most, fmax(c->credit, least));
}
