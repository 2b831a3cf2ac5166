/* The published width rules, with their own test vectors. */
#include "testing.h"

#include "decode/draft_adaptive.h"

static void feed(draft_adaptive *a, int n_steps, int n_accepted, int n_rows)
{
    for (int i = 0; i < n_steps; i++) draft_adaptive_observe(a, n_accepted, n_rows);
}

static void published_vectors(void **state)
{
    (void)state;
    draft_adaptive a;
    draft_adaptive_init(&a, DRAFT_ADAPTIVE_ON, false, 16, 0);
    assert_int_equal(a.n_rows, 16);
    feed(&a, 7, 6, 16);
    assert_int_equal(a.n_rows, 16); /* the window is not full */
    feed(&a, 1, 6, 16);
    assert_int_equal(a.n_rows, 8); /* 40 / 120 = .333 */
    feed(&a, 8, 7, 8);
    assert_int_equal(a.n_rows, 16); /* 48 / 56 = .857 */
    feed(&a, 8, 7, 16);
    assert_int_equal(a.n_rows, 16); /* 48 / 120 = .40 */
    feed(&a, 8, 1, 16);
    assert_int_equal(a.n_rows, 8);
    feed(&a, 80, 1, 8);
    assert_int_equal(a.n_rows, 8); /* the floor */
    feed(&a, 8, 8, 8);
    assert_int_equal(a.n_rows, 16); /* and back (no ratchet) */
}

static void thresholds_are_strict(void **state)
{
    (void)state;
    draft_adaptive a;
    draft_adaptive_init(&a, DRAFT_ADAPTIVE_ON, false, 21, 0);
    feed(&a, 8, 8, 21); /* 56 / 160 = .35 exactly */
    assert_int_equal(a.n_rows, 21);
    draft_adaptive_init(&a, DRAFT_ADAPTIVE_ON, false, 101, 51);
    feed(&a, 8, 40, 51); /* 312 / 400 = .78 exactly */
    assert_int_equal(a.n_rows, 51);
    feed(&a, 7, 40, 51);
    feed(&a, 1, 41, 51);
    assert_int_equal(a.n_rows, 101); /* twice 51, clamped to the block */
}

static void small_blocks_and_rows(void **state)
{
    (void)state;
    draft_adaptive a;
    draft_adaptive_init(&a, DRAFT_ADAPTIVE_ON, true, 5, 0);
    assert_int_equal(a.min_rows, 5); /* min(8, block) */
    feed(&a, 8, 1, 5);
    assert_int_equal(a.n_rows, 5);
    draft_adaptive_init(&a, DRAFT_ADAPTIVE_ON, true, 16, 3);
    assert_int_equal(a.n_rows, 8);
    draft_adaptive_init(&a, DRAFT_ADAPTIVE_ON, true, 16, 99);
    assert_int_equal(a.n_rows, 16);
    feed(&a, 8, 0, 0); /* counts as room for one draft, none accepted: no division by zero */
    assert_int_equal(a.n_rows, 8);
}

static void on_by_default_for_mixtures_alone(void **state)
{
    (void)state;
    draft_adaptive a;
    draft_adaptive_init(&a, DRAFT_ADAPTIVE_AUTO, true, 16, 0);
    assert_true(a.is_on);
    draft_adaptive_init(&a, DRAFT_ADAPTIVE_AUTO, false, 16, 0);
    assert_false(a.is_on);
    feed(&a, 80, 1, 16);
    assert_int_equal(a.n_rows, 16);
    draft_adaptive_init(&a, DRAFT_ADAPTIVE_OFF, true, 16, 4);
    assert_false(a.is_on);
    assert_int_equal(a.n_rows, 4); /* off, a width below the floor is kept */
    feed(&a, 80, 4, 4);
    assert_int_equal(a.n_rows, 4);
}

static void switches_are_read_as_documented(void **state)
{
    (void)state;
    assert_true(draft_switch_is_set("1"));
    assert_true(draft_switch_is_set("yes"));
    assert_true(draft_switch_is_set("10"));
    assert_false(draft_switch_is_set("0"));
    assert_false(draft_switch_is_set("01"));
    assert_false(draft_switch_is_set(""));
    assert_false(draft_switch_is_set(NULL));
}

static void width_follows_the_running_product(void **state)
{
    (void)state;
    const float p[] = {.9f, .8f, .7f, .6f, .5f, .9f}; /* products .9 .72 .504 .3024 .1512 .136 */
    assert_int_equal(draft_width_by_confidence(p, 6, .20f, 4), 5);
    assert_int_equal(draft_width_by_confidence(p, 6, .14f, 4), 6);
    assert_int_equal(draft_width_by_confidence(p, 6, .60f, 4), 4); /* never fewer than the least */
    assert_int_equal(draft_width_by_confidence(p, 6, .60f, 1), 3);
    assert_int_equal(draft_width_by_confidence(p, 2, .60f, 4), 3); /* nor more than there are */
    assert_int_equal(draft_width_by_confidence(p, 6, 0, 4), 7);    /* off */
    assert_int_equal(draft_width_by_confidence(p, 6, 1.1f, 1), 1);
    assert_int_equal(draft_width_by_confidence(NULL, 0, .2f, 4), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_vectors),
        cmocka_unit_test(thresholds_are_strict),
        cmocka_unit_test(small_blocks_and_rows),
        cmocka_unit_test(on_by_default_for_mixtures_alone),
        cmocka_unit_test(switches_are_read_as_documented),
        cmocka_unit_test(width_follows_the_running_product),
    };
    return cmocka_run_group_tests_name("draft_adaptive", tests, NULL, NULL);
}
