/* Speculation statistics. */
#include "testing.h"

#include <math.h>

#include "base/rng.h"
#include "decode/spec_stats.h"

#define assert_near(a, b) assert_true(fabs((a) - (b)) < 1e-9)

static spec_step chain_step(int n_drafted, int n_accepted, int n_committed)
{
    return (spec_step){.method = FACET_SPEC_MTP,
                       .n_asked = n_drafted,
                       .n_drafted = n_drafted,
                       .n_accepted = n_accepted,
                       .n_committed = n_committed,
                       .max_depth = n_drafted,
                       .draft_ms = 1,
                       .verify_ms = 10,
                       .other_ms = 0.5};
}

static void counts_of_a_few_steps(void **state)
{
    (void)state;
    facet_spec_stats s = {0};
    const spec_step steps[] = {chain_step(4, 4, 5),
                               chain_step(4, 1, 2),
                               chain_step(2, 2, 1), /* cut after one token */
                               {.n_asked = 2, .n_committed = 1, .is_switched = true, .verify_ms = 8}};
    for (size_t i = 0; i < 4; i++) spec_stats_add(&s, &steps[i]);
    assert_int_equal(s.steps, 4);
    assert_int_equal(s.plain_steps, 1);
    assert_int_equal(s.asked, 12);
    assert_int_equal(s.drafted, 10);
    assert_int_equal(s.accepted, 7);
    assert_int_equal(s.committed, 9);
    assert_int_equal(s.switches, 1);
    assert_int_equal(s.method_steps[FACET_SPEC_MTP], 3);
    assert_int_equal(s.method_steps[FACET_SPEC_NONE], 0);
    assert_near(s.accept_rate, 0.7);
    assert_near(s.mean_accepted, 9.0 / 4);
    static const uint64_t reached[] = {3, 3, 1, 1}, held[] = {3, 2, 1, 1}, lengths[] = {1, 1, 1, 0, 1};
    for (int i = 0; i < FACET_SPEC_DEPTHS; i++) {
        assert_int_equal(s.reached[i], i < 4 ? reached[i] : 0);
        assert_int_equal(s.held[i], i < 4 ? held[i] : 0);
        assert_near(s.acceptance[i], i < 4 ? (double)held[i] / (double)reached[i] : 0);
    }
    for (int i = 0; i <= FACET_SPEC_DEPTHS; i++) assert_int_equal(s.lengths[i], i < 5 ? lengths[i] : 0);
    assert_near(s.draft_ms, 3);
    assert_near(s.verify_ms, 38);
    assert_near(s.other_ms, 1.5);
}

static void acceptance_is_conditional(void **state)
{
    (void)state;
    facet_spec_stats s = {0};
    rng r;
    rng_seed(&r, 51);
    for (int i = 0; i < 4000; i++) {
        int n = 0;
        while (n < 6 && rng_uniform(&r) < 0.7) n++;
        const spec_step step = chain_step(6, n, n + 1);
        spec_stats_add(&s, &step);
    }
    double product = 1, mean = 0;
    uint64_t n_steps = 0, n_accepted = 0;
    for (int j = 0; j < 6; j++) {
        assert_in_range(s.acceptance[j] * 1000, 640, 760);
        mean += product *= s.acceptance[j];
    }
    for (int i = 0; i <= FACET_SPEC_DEPTHS; i++) {
        n_steps += s.lengths[i];
        n_accepted += (uint64_t)i * s.lengths[i];
    }
    assert_near(s.mean_accepted, 1 + mean); /* nothing was cut */
    assert_int_equal(n_steps, s.steps);
    assert_int_equal(n_accepted, s.accepted);
}

static void trees_have_nodes_and_depth(void **state)
{
    (void)state;
    facet_spec_stats s = {0};
    const spec_step a = {.method = FACET_SPEC_DFLASH,
                         .n_drafted = 22,
                         .n_accepted = 3,
                         .n_committed = 4,
                         .max_depth = 6,
                         .is_tree = true,
                         .n_moves = 2};
    const spec_step b = {.n_drafted = 10, .n_committed = 1, .max_depth = 4, .is_tree = true};
    spec_stats_add(&s, &a);
    spec_stats_add(&s, &b);
    assert_int_equal(s.tree_steps, 2);
    assert_int_equal(s.tree_nodes, 32);
    assert_int_equal(s.tree_depth, 10);
    assert_int_equal(s.moves, 2);
    assert_int_equal(s.reached[3], 1); /* by depth, not by node */
    assert_int_equal(s.reached[4], 0);
    assert_near(s.acceptance[0], 0.5);
}

static void merging_equals_adding_in_one(void **state)
{
    (void)state;
    rng r;
    facet_spec_stats all = {0}, merged = {0};
    rng_seed(&r, 52);
    for (int p = 0; p < 3; p++) {
        facet_spec_stats part = {0};
        for (int i = 0; i < 50; i++) {
            const int k = (int)rng_below(&r, 40), n = (int)rng_below(&r, (uint32_t)k + 1);
            spec_step step = chain_step(k, n, n + 1);
            step.method = (facet_spec_method)(1 + rng_below(&r, 3));
            step.is_tree = rng_below(&r, 2);
            step.n_moves = (int)rng_below(&r, 3);
            step.is_switched = rng_below(&r, 2);
            spec_stats_add(&part, &step);
            spec_stats_add(&all, &step);
        }
        facet_spec_stats_add(&merged, &part);
    }
    assert_memory_equal(&merged, &all, sizeof all); /* halves and wholes: sums of times are exact */
}

static void numbers_out_of_range_stay_inside_the_arrays(void **state)
{
    (void)state;
    facet_spec_stats s = {0};
    const spec_step step = chain_step(1000, 900, 901);
    spec_stats_add(&s, &step);
    assert_int_equal(s.accepted, 900);
    assert_int_equal(s.lengths[FACET_SPEC_DEPTHS], 1);
    assert_int_equal(s.reached[0], 1);
    assert_int_equal(s.reached[FACET_SPEC_DEPTHS - 1], 901 - FACET_SPEC_DEPTHS + 1);
    assert_int_equal(s.held[FACET_SPEC_DEPTHS - 1], 900 - FACET_SPEC_DEPTHS + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_of_a_few_steps),
        cmocka_unit_test(acceptance_is_conditional),
        cmocka_unit_test(trees_have_nodes_and_depth),
        cmocka_unit_test(merging_equals_adding_in_one),
        cmocka_unit_test(numbers_out_of_range_stay_inside_the_arrays),
    };
    return cmocka_run_group_tests_name("spec_stats", tests, NULL, NULL);
}
