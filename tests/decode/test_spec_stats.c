/* Speculation statistics. */
#include "testing.h"

#include <math.h>

#include "base/rng.h"
#include "decode/spec_stats.h"

#define assert_near(a, b) assert_true(fabs((a) - (b)) < 1e-9)

static spec_step chain_step(int n_drafted, int n_accepted, int n_committed)
{
    return (spec_step){.n_drafted = n_drafted,
                       .n_accepted = n_accepted,
                       .n_committed = n_committed,
                       .planned_k = n_drafted,
                       .draft_ms = 1,
                       .verify_ms = 10,
                       .other_ms = 0.5};
}

static void counts_of_a_few_steps(void **state)
{
    (void)state;
    spec_stats s;
    spec_stats_reset(&s);
    const spec_step steps[] = {chain_step(4, 4, 5),
                               chain_step(4, 1, 2),
                               chain_step(2, 2, 1), /* cut after one token */
                               {.n_committed = 1, .is_fallback = true, .verify_ms = 8}};
    for (size_t i = 0; i < 4; i++) spec_stats_add(&s, &steps[i]);
    assert_int_equal(s.n_steps, 4);
    assert_int_equal(s.n_drafting, 3);
    assert_int_equal(s.n_fallback, 1);
    assert_int_equal(s.n_drafted, 10);
    assert_int_equal(s.n_accepted, 7);
    assert_int_equal(s.n_committed, 9);
    assert_near(spec_stats_accept_rate(&s), 0.7);
    assert_near(spec_stats_tokens_per_step(&s), 9.0 / 4);
    assert_near(spec_stats_accepted_length(&s), 1 + 7.0 / 4); /* before the cut: larger */
    assert_near(spec_stats_mean_k(&s), 10.0 / 4);
    assert_near(spec_stats_at(&s, 1), 1);
    assert_near(spec_stats_at(&s, 2), 2.0 / 3);
    assert_near(spec_stats_at(&s, 3), 1.0 / 2); /* two steps verified a third draft */
    assert_near(spec_stats_given(&s, 2), 2.0 / 3);
    assert_near(spec_stats_given(&s, 3), 1);
    assert_near(spec_stats_at(&s, 5), 0);
    assert_near(spec_stats_at(&s, 0), 0);
    assert_near(spec_stats_given(&s, 65), 0);
    assert_int_equal(s.histogram[0], 1);
    assert_int_equal(s.histogram[1], 1);
    assert_int_equal(s.histogram[2], 1);
    assert_int_equal(s.histogram[4], 1);
    assert_near(s.verify_ms, 38);
}

static void unconditional_is_the_product_of_conditional(void **state)
{
    (void)state;
    spec_stats s;
    rng r;
    rng_seed(&r, 51);
    spec_stats_reset(&s);
    for (int i = 0; i < 500; i++) {
        int n = 0;
        while (n < 6 && rng_uniform(&r) < 0.7) n++;
        const spec_step step = chain_step(6, n, n + 1);
        spec_stats_add(&s, &step);
    }
    double product = 1, mean = 0;
    for (int j = 1; j <= 6; j++) {
        product *= spec_stats_given(&s, j);
        assert_near(spec_stats_at(&s, j), product);
        mean += product;
    }
    assert_near(spec_stats_accepted_length(&s), 1 + mean);
    assert_near(spec_stats_tokens_per_step(&s), 1 + mean); /* nothing was cut */
    uint64_t n_hist = 0;
    for (int i = 0; i < SPEC_STATS_DEPTHS; i++) n_hist += s.histogram[i];
    assert_int_equal(n_hist, s.n_steps);
}

static void trees_have_nodes_and_depth(void **state)
{
    (void)state;
    spec_stats s;
    spec_stats_reset(&s);
    const spec_step a = {
        .n_drafted = 22, .n_accepted = 3, .n_committed = 4, .max_depth = 6, .is_tree = true, .n_moves = 2};
    const spec_step b = {.n_drafted = 10, .n_accepted = 0, .n_committed = 1, .max_depth = 4, .is_tree = true};
    spec_stats_add(&s, &a);
    spec_stats_add(&s, &b);
    assert_int_equal(s.n_tree_steps, 2);
    assert_int_equal(s.n_tree_nodes, 32);
    assert_int_equal(s.sum_tree_depth, 10);
    assert_int_equal(s.n_moves, 2);
    assert_int_equal(s.verified[5], 1); /* by depth, not by node */
    assert_int_equal(s.verified[6], 0);
    assert_near(spec_stats_at(&s, 1), 0.5);
}

static void merging_equals_adding_in_one(void **state)
{
    (void)state;
    rng r;
    spec_stats parts[3], all, merged;
    rng_seed(&r, 52);
    spec_stats_reset(&all);
    spec_stats_reset(&merged);
    for (int p = 0; p < 3; p++) {
        spec_stats_reset(&parts[p]);
        for (int i = 0; i < 50; i++) {
            const int k = (int)rng_below(&r, 16), n = (int)rng_below(&r, (uint32_t)k + 1);
            spec_step step = chain_step(k, n, n + 1);
            step.is_tree = rng_below(&r, 2);
            step.max_depth = k / 2;
            step.n_moves = (int)rng_below(&r, 3);
            step.is_switched = rng_below(&r, 2);
            step.is_fallback = k == 0;
            spec_stats_add(&parts[p], &step);
            spec_stats_add(&all, &step);
        }
        spec_stats_merge(&merged, &parts[p]);
    }
    assert_memory_equal(&merged, &all, sizeof all); /* halves and wholes: sums of times are exact */
    spec_stats_reset(&merged);
    assert_int_equal(merged.n_steps, 0);
    assert_near(spec_stats_tokens_per_step(&merged), 0);
    assert_near(spec_stats_accepted_length(&merged), 0);
}

static void numbers_out_of_range_stay_inside_the_arrays(void **state)
{
    (void)state;
    spec_stats s;
    spec_stats_reset(&s);
    const spec_step step = chain_step(1000, 900, 901);
    spec_stats_add(&s, &step);
    assert_int_equal(s.n_accepted, 900);
    assert_int_equal(s.histogram[SPEC_STATS_DEPTHS - 1], 1);
    assert_int_equal(s.verified[SPEC_STATS_DEPTHS - 1], 1);
}

static void the_line_for_people(void **state)
{
    (void)state;
    spec_stats s;
    char line[400], small[20];
    spec_stats_reset(&s);
    spec_stats_format(&s, line, sizeof line);
    assert_string_equal(line, "0 steps (0 plain), 0.00 tokens per step, accepted 0 of 0 drafts; draft 0.0 ms, "
                              "verify 0.0 ms, other 0.0 ms");
    spec_step step = chain_step(3, 2, 3);
    spec_stats_add(&s, &step);
    step =
        (spec_step){.n_drafted = 8, .n_accepted = 1, .n_committed = 2, .max_depth = 3, .is_tree = true, .n_moves = 1};
    spec_stats_add(&s, &step);
    step = (spec_step){.n_committed = 1};
    spec_stats_add(&s, &step);
    const int n = spec_stats_format(&s, line, sizeof line);
    assert_string_equal(line,
                        "3 steps (1 plain), 2.00 tokens per step, accepted 3 of 11 drafts (1.00 0.50 0.00), trees of "
                        "8.0 nodes, depth 3.0, 1 rows moved; draft 1.0 ms, verify 10.0 ms, other 0.5 ms");
    assert_int_equal(n, (int)strlen(line));
    assert_int_equal(spec_stats_format(&s, small, sizeof small), n);
    assert_string_equal(small, "3 steps (1 plain), ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_of_a_few_steps),
        cmocka_unit_test(unconditional_is_the_product_of_conditional),
        cmocka_unit_test(trees_have_nodes_and_depth),
        cmocka_unit_test(merging_equals_adding_in_one),
        cmocka_unit_test(numbers_out_of_range_stay_inside_the_arrays),
        cmocka_unit_test(the_line_for_people),
    };
    return cmocka_run_group_tests_name("spec_stats", tests, NULL, NULL);
}
