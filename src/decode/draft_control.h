/* draft_control.h: decides, step by step, which drafter to ask (an "arm"), for how much, and how many of its drafts to
 * verify, by expected tokens per millisecond: from what steps of each width cost (draft_cost.h) and how likely drafts
 * are to be accepted (draft_reach.h). No drafting at all is always one of the choices.
 *
 * One step: draft_control_plan -> the arm drafts -> draft_control_width -> verification -> draft_control_observe.
 *
 * What it promises, in modelled time (by the table of costs), whatever the drafters do:
 *     time of n tokens <= (1 + allowance) * n * plain + grant * plain
 * where `plain` is the time of a one-row step. Every step that drafts is paid from a credit, counted in plain steps: it
 * starts at `grant`, up to which every token adds `allowance`; a step adds what it saved, up to twice that, and takes
 * what it lost against plain steps; and a step is only begun when the credit covers its loss with nothing accepted.
 * With the defaults that is at most 1 % + 8 plain steps. Feeding the context of a drafter counts as its loss. Only what
 * a step cost more than anybody expected goes beyond; above twice the grant such a debt is forgiven.
 *
 * Deterministic: counters instead of random numbers, times only as arguments. Choices may depend on times; the tokens
 * never do, since verification is exact. */
#ifndef FACET_DECODE_DRAFT_CONTROL_H
#define FACET_DECODE_DRAFT_CONTROL_H

#include "decode/draft_cost.h"
#include "decode/draft_feed.h"
#include "decode/draft_reach.h"

enum { DRAFT_MAX_ARMS = 6, DRAFT_NO_ARM = -1 };

/* ---- the two decisions, as pure functions ---- */

/* The count k in 0 .. n with the highest rate E(k) / ms[k], E(k) = 1 + reach[0] + ... + reach[k - 1] expected tokens.
 * ms [n + 1]: whole step with k drafts. Every k is tried, since costs rise in steps; the smallest of equals. *rate (may
 * be NULL) gets its tokens per millisecond. */
int draft_best_count(const double *reach, int n, const double *ms, double *rate);
/* After drafting, when that time is spent: the k in 0 .. n that maximises E(k) - lambda * ms[k], where lambda is the
 * long-run rate in tokens per millisecond (Dinkelbach 1967: at the best long-run rate this choice attains it). */
int draft_best_width(const double *reach, int n, const double *ms, double lambda);

/* ---- the controller ---- */

typedef struct draft_arm_desc {
    const char *name;       /* borrowed, for reports */
    bool is_tree;           /* the items are nodes of a tree, not positions of a chain */
    bool has_conf;          /* its drafts come with confidences (chains) or weights (trees) */
    bool is_cost_per_token; /* drafting k tokens costs k times as much as one (else: the same for every k) */
    bool is_fed;            /* it has a context, which is fed with every token while it drafts */
    double draft_share;     /* first guess: of one token, or of a draft, in plain steps; 0 = not known */
    double feed_share;      /* first guess: of feeding one token, in plain steps */
} draft_arm_desc;

typedef struct draft_control_params {
    double min_gain;   /* drafting must promise 1 + min_gain times the plain rate, at least (draft_control_margin) */
    double hysteresis; /* another width or arm must promise 1 + hysteresis times the rate of the one in use */
    int rest_tokens;   /* tokens an arm rests after it stopped paying; then it is tried again, one arm at a time */
    int explore_steps; /* every so many drafting steps (oftener at first) one goes to a wider draft or another arm */
    double allowance, grant; /* see above; both in plain steps */
} draft_control_params;

/* 0.08, 0.03, 64, 32, 0.01, 8. */
draft_control_params draft_control_params_default(void);

typedef enum draft_reason {
    DRAFT_PLAIN_UNMEASURED, /* no step has been timed yet */
    DRAFT_PLAIN_BEST,       /* nothing promises to pay, or what might is resting */
    DRAFT_PLAIN_CREDIT,     /* it might pay, but a failure would cost more than the credit */
    DRAFT_PLAIN_PROBE,      /* it pays, by a plain step's cost that was measured long ago */
    DRAFT_BEST,             /* the best promise */
    DRAFT_FIRST_TRIES,      /* a new arm's first steps */
    DRAFT_RETRY,            /* an arm that rested is tried again */
    DRAFT_EXPLORE           /* a wider draft, or another arm, to keep estimates alive */
} draft_reason;

typedef struct draft_plan {
    int arm; /* DRAFT_NO_ARM: a plain step */
    int k;   /* drafts to ask for: positions of a chain or nodes of a tree; 0 for a plain step */
    draft_reason reason;
    double rate;  /* promised tokens per millisecond */
    int n_caught; /* tokens that its context is to be fed with first, the last of those that it lacks */
} draft_plan;

/* What an arm can do in this step. */
typedef struct draft_offer {
    int k_max;         /* drafts it can give (room in the context, budget); 0 = nothing now */
    const float *conf; /* [k_max] confidences known before drafting (lookup drafters: the draft is free), else NULL */
    int n_behind;      /* tokens that its context lacks */
    int n_least;       /* of them, the last ones that it must be fed with to draft at all */
} draft_offer;

/* One step that was run. */
typedef struct draft_outcome {
    int64_t n_ctx;       /* positions committed before it */
    int n_drafted;       /* drafts made, dropped ones included; at most DRAFT_REACH_MAX_ITEMS count */
    int n_verified;      /* of them run through the target: rows - 1 */
    int n_accepted;      /* accepted ones, before the cut at stop tokens and budget */
    const float *conf;   /* [n_drafted] confidences of a chain (NULL: not known), or weights of a tree's nodes */
    const uint8_t *path; /* trees: [n_accepted + 1] accepted rows, path[0] = 0 */
    double draft_ms, verify_ms, other_ms; /* negative = not measured */
    /* Tokens that the context of fed arms got: before the draft, which had fallen behind, and after the step; and the
     * time of that, which the three above do not have. */
    int n_caught, n_fed;
    double caught_ms, fed_ms;
} draft_outcome;

/* State of one arm; read-only for others. */
typedef struct draft_arm {
    draft_arm_desc desc;
    draft_reach reach;
    /* Of one token, or of a draft; the guess stands in before it was measured. A hiccup of the machine only ever adds,
     * so of three measurements the least counts, and a first one far above what was believed counts as less. n_costs of
     * them were made, at first and again whenever the arm is tried anew. */
    double draft_ms, least_ms;
    bool has_cost;
    int n_costs;
    int k;           /* the width it last drafted by choice; 0 = none yet */
    int n_steps;     /* it drafted in */
    int64_t used_at; /* token count when it drafted last, or had its turn to */
    int64_t rests_until;
    int n_skips, skips_left;     /* exploration turns it sits out after one that promised nothing */
    int n_cuts;                  /* has_conf: running means over its drafts, each cut at the best width */
    double cut_accepted, cut_ms; /* expected accepted drafts, expected milliseconds of verification */
} draft_arm;

/* Milliseconds for each of many tokens, as a running mean of n measurements. */
typedef struct draft_feed_rate {
    int n;
    double ms;
} draft_feed_rate;

/* A few consecutive steps of one arm, to learn about it. */
typedef struct draft_trial {
    int arm, n_left, n_misses; /* n_misses: its steps that accepted nothing */
    draft_reason reason;
} draft_trial;

typedef struct draft_control {
    draft_control_params params;
    draft_cost cost;
    double other_ms; /* running mean of a step's remaining time, of n_others measurements */
    int n_others;
    draft_feed_rate fed, caught; /* of one token at a step, and of one of many that waited */
    double scatter;              /* running mean of how far measured steps are off, relative */
    int n_arms;
    draft_arm arm[DRAFT_MAX_ARMS];
    int current; /* arm in use, DRAFT_NO_ARM while decoding plainly */
    double credit;
    int64_t n_tokens; /* seen so far */
    int64_t retried_at;
    int n_failed_retries; /* each doubles the next rest, up to twice rest_tokens */
    draft_trial trial;
    int n_since_probe, n_probes_left, probe_interval; /* drafting steps since a plain one; plain ones still to do */
    int n_since_explore, explore_interval, n_explored;
    draft_plan plan;  /* the last one */
    double best_rate; /* the best promise when it was made */
    uint64_t n_steps, n_drafting, n_exploring, n_switches;
    uint64_t sum_k; /* drafts verified */
} draft_control;

/* params NULL: the defaults. widths [n_widths]: see draft_cost_init. Keep the object as long as the engine: what it
 * learns about costs and drafters holds for all requests. */
void draft_control_init(draft_control *c, const draft_control_params *params, const draft_arm_desc *arms, int n_arms,
                        const int *widths, int n_widths);
/* A new request: halves the weight of the evidence about acceptance, ends rests. Costs and credit stay. */
void draft_control_begin(draft_control *c);

/* offers [n_arms]. */
draft_plan draft_control_plan(draft_control *c, int64_t n_ctx, const draft_offer *offers);
/* How many of the n drafts made under the last plan to verify: the first 0 .. n (in a tree: nodes). conf as in
 * draft_outcome; without confidences all of them. */
int draft_control_width(const draft_control *c, int64_t n_ctx, const float *conf, int n);
/* The step that the last plan led to. A plain one has n_drafted = 0. */
void draft_control_observe(draft_control *c, const draft_outcome *o);

/* What to do with the context of fed arms after the last plan, or at the beginning of a text: late while one of them is
 * in use, the first text is not begun, or it costs next to nothing. */
draft_feeding draft_control_feeding(const draft_control *c, int64_t n_ctx);
/* What drafting must promise above the plain rate: min_gain, or more where measured times scatter so much that such a
 * gain might be none. */
double draft_control_margin(const draft_control *c);

/* Expected milliseconds of a whole step: drafting n_drafted, verifying n_verified, without feeding. arm may be
 * DRAFT_NO_ARM. */
double draft_control_step_ms(const draft_control *c, int64_t n_ctx, int arm, int n_drafted, int n_verified);
/* Tokens per millisecond of plain steps, as modelled. */
double draft_control_plain_rate(const draft_control *c, int64_t n_ctx);

#endif
