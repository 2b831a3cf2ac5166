/* Learned acceptance. */
#include "testing.h"

#include <math.h>

#include "base/rng.h"
#include "decode/draft_reach.h"

#define assert_near(a, b) assert_true(fabs((a) - (b)) < 1e-9)

static void before_anything_was_seen(void **state)
{
    (void)state;
    static draft_reach r;
    double reach[4];
    assert_near(draft_reach_accept(&r, 1, -1), 0.5);
    assert_near(draft_reach_accept(&r, 40, 0.97f), (double)0.97f); /* a confidence is believed */
    draft_reach_of_chain(&r, NULL, 4, reach);
    assert_near(reach[0], 0.5);
    assert_near(reach[3], 0.0625);
    const float w[] = {0.6f, 0.1f};
    draft_reach_of_tree(&r, w, 2, reach); /* a tree's weights are taken at their word */
    assert_near(reach[0], (double)0.6f);
    assert_near(reach[1], (double)0.1f);
}

/* Beta(1, 1) over all depths of the bin; that mean with weight 2 as the prior of the position. */
static void counts_become_posterior_means(void **state)
{
    (void)state;
    draft_reach r = {0};
    draft_reach_observe_chain(&r, NULL, 1, 1);
    assert_near(draft_reach_accept(&r, 1, -1), (1 + 2 * (2.0 / 3)) / 3);
    assert_near(draft_reach_accept(&r, 2, -1), 2.0 / 3); /* not seen: the pooled mean */
    draft_reach_observe_chain(&r, NULL, 1, 0);           /* counts of before fade to .98 */
    const double pooled = (0.98 + 1) / (1.98 + 2);
    assert_near(draft_reach_accept(&r, 1, -1), (0.98 + 2 * pooled) / (1.98 + 2));
}

/* Of five verified drafts two are accepted: positions 1 and 2 were right, 3 wrong; 4 and 5 say nothing. */
static void positions_after_the_first_rejection_are_not_counted(void **state)
{
    (void)state;
    draft_reach r = {0};
    for (int i = 0; i < 300; i++) draft_reach_observe_chain(&r, NULL, 5, 2);
    assert_true(draft_reach_accept(&r, 1, -1) > 0.97);
    assert_true(draft_reach_accept(&r, 2, -1) > 0.97);
    assert_true(draft_reach_accept(&r, 3, -1) < 0.03);
    assert_near(r.at[3][DRAFT_REACH_BINS].n, 0);
    assert_near(r.at[4][DRAFT_REACH_BINS].n, 0);
    assert_true(fabs(r.at[0][DRAFT_REACH_BINS].n - 50) < 1); /* what a factor of .98 remembers */
}

/* A drafter whose confidences are too high, differently so: the estimates are the true rates. */
static void confidences_are_calibrated(void **state)
{
    (void)state;
    static draft_reach r;
    rng g;
    rng_seed(&g, 41);
    double mean[2] = {0};
    for (int i = 0; i < 20000; i++) {
        float conf[4];
        int n = 0;
        for (int j = 0; j < 4; j++) conf[j] = rng_below(&g, 2) ? 0.97f : 0.6f;
        while (n < 4 && rng_uniform(&g) < (conf[n] > 0.9f ? 0.8 : 0.3)) n++;
        draft_reach_observe_chain(&r, conf, 4, n);
        if (i < 10000) continue;
        mean[0] += draft_reach_accept(&r, 1, 0.97f) / 10000;
        mean[1] += draft_reach_accept(&r, 1, 0.6f) / 10000;
    }
    assert_true(fabs(mean[0] - 0.8) < 0.02);
    assert_true(fabs(mean[1] - 0.3) < 0.02);
}

static void tree_weights_are_calibrated(void **state)
{
    (void)state;
    static draft_reach r;
    rng g;
    double reach[2], mean[2] = {0};
    const float w[] = {0.9f, 0.3f}; /* really .45 and .4 */
    rng_seed(&g, 42);
    for (int i = 0; i < 20000; i++) {
        uint8_t path[3] = {0};
        int n = 1;
        if (rng_uniform(&g) < 0.45) path[n++] = 1;
        if (rng_uniform(&g) < 0.4) path[n++] = 2;
        draft_reach_observe_tree(&r, w, 2, path, n);
        draft_reach_of_tree(&r, w, 2, reach);
        for (int k = 0; k < 2 && i >= 10000; k++) mean[k] += reach[k] / 10000;
    }
    assert_true(fabs(mean[0] - 0.45) < 0.02);
    assert_true(fabs(mean[1] - 0.4) < 0.02);
    const float certain[] = {1.0f};
    draft_reach_observe_tree(&r, certain, 1, (const uint8_t[]){0, 1}, 2);
    draft_reach_of_tree(&r, certain, 1, reach);
    assert_true(reach[0] <= 1);
}

static void expectation_before_drafting(void **state)
{
    (void)state;
    draft_reach r = {0};
    double reach[4];
    draft_reach_expected(&r, 2, reach);
    assert_near(reach[1], 0.25); /* the chain about which nothing is known */
    const float w[] = {0.6f, 0.4f};
    draft_reach_note_tree(&r, w, 2);
    draft_reach_expected(&r, 4, reach);
    assert_near(reach[0], (double)0.6f);
    assert_near(reach[1], (double)0.4f);
    assert_near(reach[2], (double)0.4f / 2); /* beyond what was drafted it halves */
    assert_near(reach[3], (double)0.4f / 4);
    const float w2[] = {0.8f};
    draft_reach_note_tree(&r, w2, 1);
    draft_reach_expected(&r, 2, reach);
    assert_near(reach[0], (double)0.6f + 0.1 * ((double)0.8f - (double)0.6f));
    assert_near(reach[1], (double)0.4f);
}

static void aging_gives_new_evidence_more_weight(void **state)
{
    (void)state;
    draft_reach old = {0}, aged;
    for (int i = 0; i < 200; i++) draft_reach_observe_chain(&old, NULL, 1, 0);
    aged = old;
    draft_reach_age(&aged, 0.1);
    for (int i = 0; i < 4; i++) {
        draft_reach_observe_chain(&old, NULL, 1, 1);
        draft_reach_observe_chain(&aged, NULL, 1, 1);
    }
    assert_true(draft_reach_accept(&old, 1, -1) < 0.15);
    assert_true(draft_reach_accept(&aged, 1, -1) > 0.35);
    draft_reach_age(&aged, 0);
    assert_near(draft_reach_accept(&aged, 1, -1), 0.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(before_anything_was_seen),
        cmocka_unit_test(counts_become_posterior_means),
        cmocka_unit_test(positions_after_the_first_rejection_are_not_counted),
        cmocka_unit_test(confidences_are_calibrated),
        cmocka_unit_test(tree_weights_are_calibrated),
        cmocka_unit_test(expectation_before_drafting),
        cmocka_unit_test(aging_gives_new_evidence_more_weight),
    };
    return cmocka_run_group_tests_name("draft_reach", tests, NULL, NULL);
}
