/* The table of step costs. */
#include "testing.h"

#include <math.h>

#include "base/rng.h"
#include "decode/draft_cost.h"

#define assert_near(a, b) assert_true(fabs((a) - (b)) < 1e-9)

static void measured_widths_and_lines_between_them(void **state)
{
    (void)state;
    draft_cost c;
    draft_cost_init(&c, NULL, 0);
    assert_false(draft_cost_is_known(&c));
    assert_near(draft_cost_ms(&c, 0, 4), 0);
    draft_cost_set(&c, 100, 4, 16);
    assert_false(draft_cost_is_known(&c)); /* no one-row step yet */
    assert_near(draft_cost_ms(&c, 100, 1), 16);
    draft_cost_set(&c, 100, 1, 10);
    assert_true(draft_cost_is_known(&c));
    draft_cost_set(&c, 100, 8, 36);
    assert_near(draft_cost_ms(&c, 100, 1), 10);
    assert_near(draft_cost_ms(&c, 100, 2), 12);
    assert_near(draft_cost_ms(&c, 100, 3), 14);
    assert_near(draft_cost_ms(&c, 100, 4), 16);
    assert_near(draft_cost_ms(&c, 100, 6), 26);
    assert_near(draft_cost_ms(&c, 100, 8), 36);
    assert_near(draft_cost_ms(&c, 100, 16), 36 + 8 * (36.0 - 10) / 7); /* on as between 1 and 8 */
    assert_near(draft_cost_ms(&c, 100, 1000), draft_cost_ms(&c, 100, 64));
}

static void one_measured_width_is_assumed_flat(void **state)
{
    (void)state;
    draft_cost c;
    draft_cost_init(&c, NULL, 0);
    draft_cost_observe(&c, 100, 1, 10);
    for (int n = 1; n <= 64; n++) assert_near(draft_cost_ms(&c, 100, n), 10);
}

/* A guess of what a further row costs stands in until wider steps were measured, and as a lower bound after. */
static void a_guess_stands_in_for_wider_steps(void **state)
{
    (void)state;
    draft_cost c;
    draft_cost_init(&c, NULL, 0);
    draft_cost_guess(&c, 0.1);
    draft_cost_observe(&c, 0, 1, 10);
    assert_near(draft_cost_ms(&c, 0, 1), 10);
    assert_near(draft_cost_ms(&c, 0, 5), 14);
    draft_cost_observe(&c, 0, 5, 12); /* cheaper than guessed */
    assert_near(draft_cost_ms(&c, 0, 3), 11);
    assert_near(draft_cost_ms(&c, 0, 5), 12);
    assert_near(draft_cost_ms(&c, 0, 7), 14);
}

static void a_wider_step_never_costs_less(void **state)
{
    (void)state;
    draft_cost c;
    draft_cost_init(&c, NULL, 0);
    draft_cost_set(&c, 0, 1, 10);
    draft_cost_set(&c, 0, 2, 14); /* violators: pooled to 13 */
    draft_cost_set(&c, 0, 3, 12);
    draft_cost_set(&c, 0, 4, 20);
    assert_near(draft_cost_ms(&c, 0, 1), 10);
    assert_near(draft_cost_ms(&c, 0, 2), 13);
    assert_near(draft_cost_ms(&c, 0, 3), 13);
    assert_near(draft_cost_ms(&c, 0, 4), 20);
    rng r;
    rng_seed(&r, 31);
    for (int i = 0; i < 3000; i++) {
        draft_cost_observe(&c, (int64_t)rng_below(&r, 100000), 1 + (int)rng_below(&r, 64), 5 + 20 * rng_uniform(&r));
        const int64_t at = (int64_t)rng_below(&r, 100000);
        for (int n = 2; n <= 64; n++) assert_true(draft_cost_ms(&c, at, n) >= draft_cost_ms(&c, at, n - 1));
        assert_true(draft_cost_ms(&c, at, 1) > 0);
    }
}

static void padded_widths_cost_what_runs(void **state)
{
    (void)state;
    draft_cost c;
    draft_cost_init(&c, (const int[]){1, 2, 4, 8}, 4);
    draft_cost_set(&c, 0, 1, 10);
    draft_cost_observe(&c, 0, 3, 14); /* ran as 4 */
    draft_cost_set(&c, 0, 8, 22);
    assert_near(draft_cost_ms(&c, 0, 3), 14);
    assert_near(draft_cost_ms(&c, 0, 4), 14);
    assert_near(draft_cost_ms(&c, 0, 5), 22);
    assert_near(draft_cost_ms(&c, 0, 8), 22);
    assert_near(draft_cost_ms(&c, 0, 10), 22 + 2 * 12.0 / 7); /* above the last width nothing is padded */
}

/* One hiccup in the first two steps of a width leaves no trace; before the second it counts as twice the expected. */
static void the_first_two_steps_of_a_width(void **state)
{
    (void)state;
    static const double seen[][2] = {{500, 12}, {12, 500}, {12, 12.5}};
    for (int i = 0; i < 3; i++) {
        draft_cost c;
        draft_cost_init(&c, NULL, 0);
        draft_cost_guess(&c, 0.1);
        draft_cost_observe(&c, 0, 1, i ? 10 : 900);
        assert_false(draft_cost_is_known(&c));
        draft_cost_observe(&c, 0, 1, i ? 900 : 10);
        assert_true(draft_cost_is_known(&c));
        assert_near(draft_cost_ms(&c, 0, 1), 10);
        draft_cost_observe(&c, 0, 4, seen[i][0]);
        assert_near(draft_cost_ms(&c, 0, 4), i ? 12 : 2 * 13);
        draft_cost_observe(&c, 0, 4, seen[i][1]);
        assert_near(draft_cost_ms(&c, 0, 4), 12);
    }
}

static void measurements_converge_and_hiccups_do_not_count(void **state)
{
    (void)state;
    draft_cost c;
    rng r;
    rng_seed(&r, 32);
    draft_cost_init(&c, NULL, 0);
    for (int i = 0; i < 400; i++) {
        draft_cost_observe(&c, 500, 1, 10 + 0.2 * rng_normal(&r));
        draft_cost_observe(&c, 500, 8, 15 + 0.3 * rng_normal(&r));
    }
    assert_true(fabs(draft_cost_ms(&c, 500, 1) - 10) < 0.3);
    assert_true(fabs(draft_cost_ms(&c, 500, 8) - 15) < 0.4);
    const double before = draft_cost_ms(&c, 500, 1);
    draft_cost_observe(&c, 500, 1, 5000);
    assert_true(draft_cost_ms(&c, 500, 1) <= before * 1.101); /* counted as twice the expected */
    const double now = draft_cost_ms(&c, 500, 1);
    draft_cost_observe(&c, 500, 1, NAN);
    draft_cost_observe(&c, 500, 1, -1);
    draft_cost_observe(&c, 500, 1, INFINITY);
    assert_near(draft_cost_ms(&c, 500, 1), now);
}

/* A width that was measured long ago does not hold back the ones in use, nor does it ever turn into nonsense. */
static void old_measurements_fade(void **state)
{
    (void)state;
    draft_cost c;
    draft_cost_init(&c, NULL, 0);
    draft_cost_set(&c, 0, 8, 15);
    draft_cost_set(&c, 0, 16, 14);
    for (int i = 0; i < 100000; i++) draft_cost_observe(&c, 0, 4, 20);
    assert_true(fabs(draft_cost_ms(&c, 0, 4) - 20) < 0.01);
    assert_true(fabs(draft_cost_ms(&c, 0, 16) - 20) < 0.01);
}

/* As the context grows, every width gets slower by the same time; only one width is run. */
static void the_other_widths_follow_a_common_drift(void **state)
{
    (void)state;
    draft_cost c;
    draft_cost_init(&c, NULL, 0);
    draft_cost_set(&c, 500, 1, 10);
    draft_cost_set(&c, 500, 8, 15);
    for (int i = 0; i < 200; i++) draft_cost_observe(&c, 500, 8, 19);
    assert_true(fabs(draft_cost_ms(&c, 500, 8) - 19) < 0.01);
    assert_true(fabs(draft_cost_ms(&c, 500, 1) - 10 * sqrt(19.0 / 15)) < 0.05); /* half of the drift's share */
    for (int i = 0; i < 200; i++) {
        draft_cost_observe(&c, 500, 8, 19);
        draft_cost_observe(&c, 500, 1, 14);
    }
    assert_true(fabs(draft_cost_ms(&c, 500, 8) - 19) < 0.2);
    assert_true(fabs(draft_cost_ms(&c, 500, 1) - 14) < 0.2);
}

static void contexts_have_their_own_costs(void **state)
{
    (void)state;
    draft_cost c;
    draft_cost_init(&c, NULL, 0);
    draft_cost_set(&c, 2048, 1, 10);
    draft_cost_set(&c, 40000, 1, 30);
    assert_near(draft_cost_ms(&c, 0, 1), 10);
    assert_near(draft_cost_ms(&c, 2049, 1), 10);    /* unmeasured: the nearest below */
    assert_near(draft_cost_ms(&c, 32769, 1), 30);   /* a bucket of 32Ki to 128Ki */
    assert_near(draft_cost_ms(&c, 1000000, 1), 30); /* the last has no end */
    draft_cost_observe(&c, 5000, 1, 14);            /* starts from its neighbour */
    assert_true(draft_cost_ms(&c, 5000, 1) > 10 && draft_cost_ms(&c, 5000, 1) < 14);
    assert_near(draft_cost_ms(&c, 100, 1), 10);
    draft_cost_init(&c, NULL, 0);
    draft_cost_set(&c, 40000, 1, 30);
    assert_near(draft_cost_ms(&c, 100, 1), 30); /* nothing below: the nearest above */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(measured_widths_and_lines_between_them),
        cmocka_unit_test(one_measured_width_is_assumed_flat),
        cmocka_unit_test(a_guess_stands_in_for_wider_steps),
        cmocka_unit_test(a_wider_step_never_costs_less),
        cmocka_unit_test(padded_widths_cost_what_runs),
        cmocka_unit_test(the_first_two_steps_of_a_width),
        cmocka_unit_test(measurements_converge_and_hiccups_do_not_count),
        cmocka_unit_test(old_measurements_fade),
        cmocka_unit_test(the_other_widths_follow_a_common_drift),
        cmocka_unit_test(contexts_have_their_own_costs),
    };
    return cmocka_run_group_tests_name("draft_cost", tests, NULL, NULL);
}
