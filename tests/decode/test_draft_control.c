/* The controller's decisions, one at a time. Whole runs are in test_draft_control_runs.c. */
#include "testing.h"

#include <math.h>

#include "base/rng.h"
#include "decode/draft_control.h"

/* ---- the pure functions ---- */

static const double illustration[] = {.80, .75, .70, .65, .60, .55, .50}; /* conditional acceptance by position */

static void chain_reach(const double *a, int n, double *reach)
{
    double p = 1;
    for (int i = 0; i < n; i++) reach[i] = p *= a[i];
}

/* Rates at every width, as published to four decimals (tokens per millisecond), and the best width. */
static void numeric_illustration_of_the_cost_model(void **state)
{
    (void)state;
    const struct {
        double base, per_row, per_draft;
        double rate[7];
        int n_rates, best;
        double speedup;
    } cases[] = {
        {28, 0.25, 1.2, {.0357, .0611, .0777, .0872, .0915, .0924, .0912}, 7, 5, 2.59},
        {12, 3.2, 0.8, {.0833, .1125, .1200, .1175, .1105}, 5, 2, 1.44},
    };
    for (int i = 0; i < 2; i++) {
        double reach[7], ms[8], expected = 1, rate;
        chain_reach(illustration, 7, reach);
        for (int k = 0; k <= 7; k++) ms[k] = cases[i].base + (cases[i].per_row + cases[i].per_draft) * k;
        for (int k = 0; k < cases[i].n_rates; k++) {
            if (k) expected += reach[k - 1];
            assert_true(fabs(expected / ms[k] - cases[i].rate[k]) < 0.00006);
        }
        assert_int_equal(draft_best_count(reach, 7, ms, &rate), cases[i].best);
        assert_true(fabs(rate * ms[0] - cases[i].speedup) < 0.006);
    }
}

/* Costs jump at a tile border: the best width lies behind a worse one. */
static void every_width_is_tried(void **state)
{
    (void)state;
    const double reach[] = {.9, .9, .9, .9, .9, .9, .9}, ms[] = {10, 10, 10, 20, 20, 20, 20, 20};
    double rate;
    assert_int_equal(draft_best_count(reach, 7, ms, &rate), 7); /* .28 at k = 2, .185 at 3, .365 at 7 */
    assert_true(fabs(rate - 7.3 / 20) < 1e-12);
    assert_int_equal(draft_best_count(reach, 4, ms, NULL), 2);
    assert_int_equal(draft_best_count(reach, 0, ms, NULL), 0);
    assert_int_equal(draft_best_count((const double[]){0, 0}, 2, (const double[]){5, 5, 5}, NULL), 0);
}

/* Two kinds of steps, sure and unsure. Cutting each with lambda = the long-run rate reaches the best long-run rate of
 * all pairs of fixed widths (renewal-reward); cutting each by its own rate would not. */
static void cutting_with_the_long_run_rate_is_optimal(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 61);
    int n_better = 0;
    for (int trial = 0; trial < 300; trial++) {
        enum { N = 6 };
        double reach[2][N], ms[N + 1], share = 0.2 + 0.6 * rng_uniform(&r), best = 0, own[2];
        const double draft = 3 * rng_uniform(&r);
        ms[0] = 10 + draft;
        for (int k = 1; k <= N; k++) ms[k] = ms[k - 1] + 4 * rng_uniform(&r);
        for (int s = 0; s < 2; s++) {
            double p = 1;
            for (int i = 0; i < N; i++) reach[s][i] = p *= (s ? 0.3 : 0.8) + 0.2 * rng_uniform(&r);
        }
        double tokens[2][N + 1];
        for (int s = 0; s < 2; s++)
            for (int k = 0; k <= N; k++) tokens[s][k] = k ? tokens[s][k - 1] + reach[s][k - 1] : 1;
        for (int a = 0; a <= N; a++)
            for (int b = 0; b <= N; b++) {
                const double rate =
                    (share * tokens[0][a] + (1 - share) * tokens[1][b]) / (share * ms[a] + (1 - share) * ms[b]);
                best = fmax(best, rate);
            }
        const int a = draft_best_width(reach[0], N, ms, best), b = draft_best_width(reach[1], N, ms, best);
        assert_true(fabs((share * tokens[0][a] + (1 - share) * tokens[1][b]) / (share * ms[a] + (1 - share) * ms[b]) -
                         best) < 1e-9);
        const int x = draft_best_count(reach[0], N, ms, NULL), y = draft_best_count(reach[1], N, ms, NULL);
        own[0] = share * tokens[0][x] + (1 - share) * tokens[1][y];
        own[1] = share * ms[x] + (1 - share) * ms[y];
        n_better += own[0] / own[1] < best - 1e-6;
    }
    assert_true(n_better > 30);
}

/* ---- the controller ---- */

static const draft_arm_desc mtp = {.name = "mtp", .is_cost_per_token = true, .draft_share = 1.2 / 28};
static const draft_arm_desc block = {.name = "block", .has_conf = true, .draft_share = 5.0 / 28};

static void measure(draft_control *c, double base, double per_row)
{
    static const int widths[] = {1, 2, 4, 8, 16, 32, 64};
    for (int i = 0; i < 7; i++) draft_cost_set(&c->cost, 0, widths[i], base + per_row * (widths[i] - 1));
}

/* One step in which n of the drafts are accepted. */
static draft_plan step(draft_control *c, int k_max, int n_accepted)
{
    const draft_offer offers[DRAFT_MAX_ARMS] = {{.k_max = k_max}, {.k_max = k_max}};
    const draft_plan p = draft_control_plan(c, 0, offers);
    const int n = p.k < n_accepted ? p.k : n_accepted;
    const draft_outcome o = {
        .n_drafted = p.k, .n_verified = p.k, .n_accepted = n, .draft_ms = -1, .verify_ms = -1, .other_ms = -1};
    draft_control_observe(c, &o);
    return p;
}

static void plain_until_a_step_was_timed(void **state)
{
    (void)state;
    static draft_control c;
    draft_control_init(&c, NULL, &mtp, 1, NULL, 0);
    const draft_offer offer = {.k_max = 5};
    draft_plan p = draft_control_plan(&c, 0, &offer);
    assert_int_equal(p.arm, DRAFT_NO_ARM);
    assert_int_equal(p.reason, DRAFT_PLAIN_UNMEASURED);
    draft_control_observe(&c, &(draft_outcome){.verify_ms = 280, .draft_ms = -1, .other_ms = 0}); /* a cold machine */
    p = draft_control_plan(&c, 0, &offer);
    assert_int_equal(p.reason, DRAFT_PLAIN_UNMEASURED);
    draft_control_observe(&c, &(draft_outcome){.verify_ms = 28, .draft_ms = -1, .other_ms = 0});
    assert_true(draft_control_plain_rate(&c, 0) == 1.0 / 28);
    p = draft_control_plan(&c, 0, &offer);
    assert_int_equal(p.reason, DRAFT_FIRST_TRIES);
    assert_int_equal(p.arm, 0);
    assert_in_range(p.k, 1, 5);
}

static void nothing_offered_is_a_plain_step(void **state)
{
    (void)state;
    static draft_control c;
    draft_control_init(&c, NULL, (const draft_arm_desc[]){mtp, block}, 2, NULL, 0);
    measure(&c, 28, 0.25);
    for (int i = 0; i < 200; i++) assert_int_equal(step(&c, 0, 0).arm, DRAFT_NO_ARM);
    draft_control_init(&c, NULL, NULL, 0, NULL, 0);
    measure(&c, 28, 0.25);
    for (int i = 0; i < 200; i++) assert_int_equal(step(&c, 5, 0).arm, DRAFT_NO_ARM);
}

static void a_sure_drafter_is_used_as_wide_as_offered(void **state)
{
    (void)state;
    static draft_control c;
    draft_control_init(&c, NULL, &mtp, 1, NULL, 0);
    measure(&c, 28, 0.25);
    draft_plan p = {0};
    for (int i = 0; i < 60; i++) p = step(&c, 7, 7);
    assert_int_equal(p.k, 7);
    assert_int_equal(p.reason, DRAFT_BEST);
    p = step(&c, 3, 3); /* less room: near the end of the context or the budget */
    assert_int_equal(p.k, 3);
}

static void two_failures_end_the_first_tries_and_a_rest_follows(void **state)
{
    (void)state;
    static draft_control c;
    draft_control_init(&c, NULL, &mtp, 1, NULL, 0);
    measure(&c, 12, 3.2); /* a mixture: every row costs */
    assert_int_equal(step(&c, 5, 0).reason, DRAFT_FIRST_TRIES);
    assert_int_equal(step(&c, 5, 0).reason, DRAFT_FIRST_TRIES);
    int n_plain = 0;
    draft_plan p;
    while (n_plain < 1000 && (p = step(&c, 5, 0)).arm == DRAFT_NO_ARM) {
        assert_int_equal(p.reason, DRAFT_PLAIN_BEST);
        n_plain++;
    }
    assert_in_range(n_plain, 62, 64); /* tokens, counted from the last failure */
    assert_int_equal(p.reason, DRAFT_RETRY);
}

static void pitfall_29_a_retry_that_works_brings_the_drafter_back(void **state)
{
    (void)state;
    static draft_control c;
    draft_control_init(&c, NULL, &mtp, 1, NULL, 0);
    measure(&c, 12, 3.2);
    for (int i = 0; i < 1000; i++) step(&c, 5, 0);
    int n = 0;
    while (n < 1000 && step(&c, 5, 5).reason != DRAFT_BEST) n++;
    assert_true(n < 2 * 64);
    int n_best = 0;
    for (int i = 0; i < 100; i++) n_best += step(&c, 5, 5).reason == DRAFT_BEST;
    assert_true(n_best > 90);
    assert_int_equal(c.arm[0].k, 5);
}

static void a_width_is_kept_unless_another_is_clearly_better(void **state)
{
    (void)state;
    static draft_control c;
    draft_control_init(&c, NULL, &mtp, 1, NULL, 0);
    measure(&c, 28, 0.25);
    rng r;
    rng_seed(&r, 62);
    double reach[7];
    chain_reach(illustration, 7, reach);
    for (int i = 0; i < 2000; i++) {
        const double u = rng_uniform(&r);
        int n = 0;
        while (n < 7 && reach[n] > u) n++;
        step(&c, 7, n);
    }
    assert_in_range(c.arm[0].k, 4, 6);
    assert_true(c.n_switches < 12); /* in 2000 steps whose estimates all move */
}

/* Two drafters that are always right: one that is 1 % cheaper is not worth a change, one that is 10 % cheaper is. */
static void an_arm_is_kept_unless_another_is_clearly_better(void **state)
{
    (void)state;
    static draft_control c;
    const double other_ms[] = {1.13, 0.5};
    for (int i = 0; i < 2; i++) {
        draft_arm_desc other = mtp;
        other.draft_share = other_ms[i] / 28;
        draft_control_init(&c, NULL, (const draft_arm_desc[]){mtp, other}, 2, NULL, 0);
        measure(&c, 28, 0.25);
        c.arm[0].n_steps = c.arm[1].n_steps = 100; /* the first tries are over */
        c.current = 0;
        for (int k = 0; k < 300; k++) step(&c, 5, 5);
        assert_int_equal(c.current, i);
    }
}

/* Beside a sure drafter a useless one gets its first two tries, then single steps, ever more rarely. */
static void a_useless_arm_is_explored_ever_more_rarely(void **state)
{
    (void)state;
    static draft_control c;
    draft_control_init(&c, NULL, (const draft_arm_desc[]){mtp, mtp}, 2, NULL, 0);
    measure(&c, 28, 0.25);
    int n_useless = 0, n_late = 0;
    for (int i = 0; i < 4000; i++) {
        const draft_offer offers[] = {{.k_max = 5}, {.k_max = 5}};
        const draft_plan p = draft_control_plan(&c, 0, offers);
        const int n = p.arm == 0 ? p.k : 0;
        n_useless += p.arm == 1;
        n_late += p.arm == 1 && i >= 2000;
        draft_control_observe(
            &c,
            &(draft_outcome){
                .n_drafted = p.k, .n_verified = p.k, .n_accepted = n, .draft_ms = -1, .verify_ms = -1, .other_ms = -1});
    }
    assert_in_range(n_useless, 3, 14);
    assert_in_range(n_late, 1, 5); /* but never forgotten */
}

static void exploration_is_rare_and_goes_wider(void **state)
{
    (void)state;
    static draft_control c;
    draft_control_init(&c, NULL, &mtp, 1, NULL, 0);
    measure(&c, 12, 3.2);
    int n_explored = 0;
    for (int i = 0; i < 2000; i++) {
        const draft_plan p = step(&c, 10, 2);
        if (p.reason != DRAFT_EXPLORE) continue;
        n_explored++;
        assert_int_equal(p.k, 3); /* the next wider than 2 */
    }
    assert_in_range(n_explored, 2000 / 33, 2000 / 32 + 4);
    assert_int_equal(c.arm[0].k, 2);
}

static void credit_bounds_what_is_begun(void **state)
{
    (void)state;
    static draft_control c;
    const draft_arm_desc dear = {.name = "dear", .draft_share = 6}; /* a failure costs six plain steps */
    draft_control_init(&c, NULL, &dear, 1, NULL, 0);
    measure(&c, 28, 0);
    assert_int_equal(step(&c, 5, 0).arm, 0);
    assert_true(fabs(c.credit - (8 - 6 + 0.01)) < 1e-9);
    const draft_plan p = step(&c, 5, 0);
    assert_int_equal(p.arm, DRAFT_NO_ARM);
    assert_int_equal(p.reason, DRAFT_PLAIN_CREDIT);
    const draft_arm_desc dearer = {.name = "dearer", .draft_share = 9};
    draft_control_init(&c, NULL, &dearer, 1, NULL, 0);
    measure(&c, 28, 0);
    for (int i = 0; i < 500; i++) assert_int_equal(step(&c, 5, 0).arm, DRAFT_NO_ARM); /* never affordable */
}

/* An arm that can never be paid for must not keep the others from being used, nor from being tried again. */
/* Of n steps, all of which draft with arm 1 but for plain ones that are there to see what those cost. */
static int drafting_steps(draft_control *c, int n)
{
    int n_drafting = 0;
    for (int i = 0; i < n; i++) {
        const draft_plan p = step(c, 5, 5);
        assert_true(p.arm == 1 || p.reason == DRAFT_PLAIN_PROBE);
        n_drafting += p.arm == 1;
    }
    return n_drafting;
}

static void an_unaffordable_arm_is_passed_over(void **state)
{
    (void)state;
    static draft_control c;
    const draft_arm_desc dear = {.name = "dear", .draft_share = 17};
    draft_control_init(&c, NULL, (const draft_arm_desc[]){dear, mtp}, 2, NULL, 0);
    measure(&c, 28, 0.25);
    assert_in_range(drafting_steps(&c, 300), 290, 300);
    for (int i = 0; i < 700; i++) assert_int_not_equal(step(&c, 5, 0).arm, 0);
    int n_plain = 0;
    while (n_plain < 1000 && step(&c, 5, 5).reason != DRAFT_BEST) n_plain++;
    assert_true(n_plain < 2 * 64);
    assert_in_range(drafting_steps(&c, 20), 16, 20);
}

static void confidences_cut_a_draft(void **state)
{
    (void)state;
    static draft_control c;
    float sure[15], unsure[15];
    for (int i = 0; i < 15; i++) {
        sure[i] = 0.97f;
        unsure[i] = 0.2f;
    }
    draft_control_init(&c, NULL, &block, 1, NULL, 0);
    measure(&c, 12, 3.2);
    const draft_offer offer = {.k_max = 15};
    int n_sure = 0, n_unsure = 0, n_best = 0;
    for (int i = 0; i < 300; i++) {
        const draft_plan p = draft_control_plan(&c, 0, &offer);
        const float *conf = i % 2 ? sure : unsure; /* sure drafts are right, unsure ones wrong */
        const int n = draft_control_width(&c, 0, conf, p.k);
        if (p.reason == DRAFT_BEST) {
            assert_int_equal(p.k, 15); /* one pass drafts the whole block: always in full */
            n_best++;
        }
        if (p.reason == DRAFT_BEST && i > 100) *(i % 2 ? &n_sure : &n_unsure) += n;
        draft_control_observe(&c, &(draft_outcome){.n_drafted = p.k,
                                                   .n_verified = n,
                                                   .n_accepted = i % 2 ? n : 0,
                                                   .conf = p.k ? conf : NULL,
                                                   .draft_ms = -1,
                                                   .verify_ms = -1,
                                                   .other_ms = -1});
    }
    assert_true(n_best > 200);
    assert_true(n_sure > 14 * 90); /* all or nearly all of 15 in every sure step */
    assert_int_equal(n_unsure, 0);
}

static void without_confidences_nothing_is_cut(void **state)
{
    (void)state;
    static draft_control c;
    draft_control_init(&c, NULL, &mtp, 1, NULL, 0);
    measure(&c, 28, 0.25);
    for (int i = 0; i < 50; i++) {
        const draft_plan p = step(&c, 5, 3);
        assert_int_equal(draft_control_width(&c, 0, NULL, p.k), p.k);
    }
}

/* Captured widths 1, 2, 4, 8: rows that only fill a width are free, so the whole width is used. */
static void captured_widths_are_filled(void **state)
{
    (void)state;
    static draft_control c;
    draft_control_init(&c, NULL, &mtp, 1, (const int[]){1, 2, 4, 8}, 4);
    c.arm[0].desc.draft_share = 0;
    draft_cost_set(&c.cost, 0, 1, 12);
    draft_cost_set(&c.cost, 0, 2, 15);
    draft_cost_set(&c.cost, 0, 4, 21);
    draft_cost_set(&c.cost, 0, 8, 36);
    for (int i = 0; i < 300; i++) {
        const draft_plan p = step(&c, 10, i % 3 ? 3 : 1);
        if (p.reason == DRAFT_BEST && i > 50) assert_true(p.k == 1 || p.k == 3 || p.k == 7);
    }
    assert_int_equal(c.arm[0].k, 3);
}

static void costs_of_drafting_are_learned(void **state)
{
    (void)state;
    static draft_control c;
    draft_control_init(&c, NULL, (const draft_arm_desc[]){mtp, block}, 2, NULL, 0);
    measure(&c, 28, 0.25);
    for (int i = 0; i < 400; i++) {
        const draft_offer offers[] = {{.k_max = 5}, {.k_max = 5}};
        const draft_plan p = draft_control_plan(&c, 0, offers);
        const double ms = p.arm == 0 ? 0.5 * p.k : 7;
        draft_control_observe(&c, &(draft_outcome){.n_drafted = p.k,
                                                   .n_verified = p.k,
                                                   .n_accepted = p.k,
                                                   .draft_ms = p.k ? ms : -1,
                                                   .verify_ms = 30 + 0.25 * p.k,
                                                   .other_ms = 2});
    }
    assert_true(fabs(c.arm[0].draft_ms - 0.5) < 0.01);
    assert_true(fabs(c.arm[1].draft_ms - 7) < 0.1);
    assert_true(fabs(c.other_ms - 2) < 0.01);
    assert_true(fabs(draft_control_step_ms(&c, 0, 0, 5, 5) - (0.5 * 5 + 31.25 + 2)) < 0.1);
    assert_true(fabs(draft_control_step_ms(&c, 0, 1, 3, 5) - (7 + 31.25 + 2)) < 0.2);
}

/* Short requests end in the middle of accepted drafts: what counts is what was accepted, not what was delivered. */
static void pitfall_30_observe_wants_the_length_before_the_cut(void **state)
{
    (void)state;
    static draft_control right, wrong;
    draft_control_init(&right, NULL, &mtp, 1, NULL, 0);
    draft_control_init(&wrong, NULL, &mtp, 1, NULL, 0);
    measure(&right, 28, 0.25);
    measure(&wrong, 28, 0.25);
    for (int i = 0; i < 300; i++) {
        step(&right, 7, 7);
        step(&wrong, 7, 1); /* two tokens were left */
    }
    assert_int_equal(right.arm[0].k, 7);
    assert_true(wrong.arm[0].k < 3); /* the mistake would show */
}

/* A drafter that is asked and has nothing to say must not keep the others from their turn. */
static void an_empty_draft_is_no_deadlock(void **state)
{
    (void)state;
    static draft_control c;
    draft_control_init(&c, NULL, (const draft_arm_desc[]){block, mtp}, 2, NULL, 0);
    measure(&c, 28, 0.25);
    int n_used = 0;
    for (int i = 0; i < 200; i++) {
        const draft_offer offers[] = {{.k_max = 5}, {.k_max = 5}};
        const draft_plan p = draft_control_plan(&c, 0, offers);
        const int n = p.arm == 1 ? p.k : 0;
        n_used += p.arm == 1;
        draft_control_observe(
            &c, &(draft_outcome){
                    .n_drafted = n, .n_verified = n, .n_accepted = n, .draft_ms = -1, .verify_ms = -1, .other_ms = -1});
    }
    assert_true(n_used > 150);
}

static void a_new_request_keeps_costs_and_half_of_the_evidence(void **state)
{
    (void)state;
    static draft_control c;
    draft_control_init(&c, NULL, &mtp, 1, NULL, 0);
    measure(&c, 12, 3.2);
    for (int i = 0; i < 20; i++) step(&c, 5, 0);
    const double credit = c.credit, n = c.arm[0].reach.any_depth[DRAFT_REACH_BINS].n;
    assert_int_equal(step(&c, 5, 0).arm, DRAFT_NO_ARM); /* resting */
    draft_control_begin(&c);
    assert_true(fabs(c.arm[0].reach.any_depth[DRAFT_REACH_BINS].n - n / 2) < 1e-12);
    assert_int_equal(c.arm[0].rests_until, 0);
    assert_true(fabs(c.credit - fmin(8, credit + 0.01)) < 1e-12); /* no new grant */
    assert_true(draft_cost_is_known(&c.cost));
}

/* Drafts all hold and yet do not pay, which the costs of plain steps that were measured at a bad time hide: one draft
 * of 6 ms, two rows at 15 and one at 10. Plain steps between the drafts show it, and drafting ends. */
static void plain_steps_are_measured_again(void **state)
{
    (void)state;
    static draft_control c;
    const draft_offer o = {.k_max = 1};
    draft_control_init(&c, NULL, &mtp, 1, NULL, 0);
    int n_probes = 0, n_late = 0;
    for (int i = 0; i < 1000; i++) {
        const draft_plan p = draft_control_plan(&c, 100, &o);
        n_probes += p.reason == DRAFT_PLAIN_PROBE;
        n_late += i >= 400 && p.arm == 0;
        const double plain = p.reason == DRAFT_PLAIN_UNMEASURED ? 20 : 10;
        draft_control_observe(&c, &(draft_outcome){.n_ctx = 100,
                                                   .n_drafted = p.k,
                                                   .n_verified = p.k,
                                                   .n_accepted = p.k,
                                                   .draft_ms = 6 * p.k,
                                                   .verify_ms = p.k ? 15 : plain,
                                                   .other_ms = 0});
    }
    assert_in_range(n_probes, 2, 40);
    assert_in_range(n_late, 0, 60);
    assert_true(draft_cost_ms(&c.cost, 100, 1) < 10.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numeric_illustration_of_the_cost_model),
        cmocka_unit_test(every_width_is_tried),
        cmocka_unit_test(cutting_with_the_long_run_rate_is_optimal),
        cmocka_unit_test(plain_until_a_step_was_timed),
        cmocka_unit_test(nothing_offered_is_a_plain_step),
        cmocka_unit_test(a_sure_drafter_is_used_as_wide_as_offered),
        cmocka_unit_test(two_failures_end_the_first_tries_and_a_rest_follows),
        cmocka_unit_test(pitfall_29_a_retry_that_works_brings_the_drafter_back),
        cmocka_unit_test(a_width_is_kept_unless_another_is_clearly_better),
        cmocka_unit_test(an_arm_is_kept_unless_another_is_clearly_better),
        cmocka_unit_test(a_useless_arm_is_explored_ever_more_rarely),
        cmocka_unit_test(exploration_is_rare_and_goes_wider),
        cmocka_unit_test(credit_bounds_what_is_begun),
        cmocka_unit_test(an_unaffordable_arm_is_passed_over),
        cmocka_unit_test(confidences_cut_a_draft),
        cmocka_unit_test(without_confidences_nothing_is_cut),
        cmocka_unit_test(captured_widths_are_filled),
        cmocka_unit_test(costs_of_drafting_are_learned),
        cmocka_unit_test(pitfall_30_observe_wants_the_length_before_the_cut),
        cmocka_unit_test(an_empty_draft_is_no_deadlock),
        cmocka_unit_test(plain_steps_are_measured_again),
        cmocka_unit_test(a_new_request_keeps_costs_and_half_of_the_evidence),
    };
    return cmocka_run_group_tests_name("draft_control", tests, NULL, NULL);
}
