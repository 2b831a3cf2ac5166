/* What drafting may cost where it gains nothing, and what it must gain where drafts are good, in modelled time: shapes
 * of small targets on a CPU, where a draft costs half a step or several and further rows are dear, and of large ones.
 */
#include "testing.h"

#include "decode/draft_world.h"

enum { N_SEEDS = 8, N_GOOD = 4000 };

static run the_run;

static void report(const char *what, double value)
{
    if (getenv("FACET_TEST_VERBOSE")) print_message("%-50s %.3f\n", what, value);
}

#define FED .feed_ms = .09, .caught_ms = .04
#define ALL_HOLD                                                                                                       \
    {                                                                                                                  \
        .99                                                                                                            \
    }

static const world useless[] = {
    {"small target, mtp", 1, .5, .01, 1, {D("m", NEVER, 0, .5, 15)}},
    {"small target, sure mtp", 1, .5, .01, 1, {D_WITH("m", NEVER, 0, .5, 15, .conf = CONF_ALWAYS_HIGH)}},
    {"small target, block", 1, .5, .01, 1, {D_WITH("d", NEVER, 4, 0, 15, .conf = CONF_ALWAYS_HIGH, FED)}},
    {"small target, all three",
     1,
     .5,
     .01,
     3,
     {D("m", NEVER, 0, .5, 15), D("n", NEVER, .02, 0, 15), D_WITH("d", NEVER, 4, 0, 15, .conf = CONF_TRUE, FED)}},
    {"large target, block",
     28,
     3,
     .1,
     1,
     {D_WITH("d", NEVER, 9, 0, 15, .conf = CONF_TRUE, .feed_ms = .28, .caught_ms = .05)}},
};

/* At most 3 % from 400 tokens on, at every length; nothing about costs is known at first. */
static void useless_drafters_cost_at_most_three_percent(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof useless / sizeof *useless; i++) {
        const world *w = &useless[i];
        double worst = 0;
        for (uint64_t seed = 1; seed <= N_SEEDS; seed++)
            for (int knows = 0; knows < 2; knows++) {
                start(&the_run, w, seed);
                if (!knows) {
                    draft_cost_init(&the_run.c.cost, NULL, 0);
                    draft_cost_guess(&the_run.c.cost, 0.12);
                }
                advance_to(&the_run, 400);
                while (the_run.tokens < 3000) {
                    worst = fmax(worst, the_run.ms / (the_run.tokens * plain_ms(w)));
                    advance(&the_run);
                }
            }
        report(w->name, worst);
        if (worst > 1.03) fail_msg("%s: %.4f of plain", w->name, worst);
    }
}

/* The context of a drafter that does not draft is not fed, but for its tries. */
static void feeding_rests(void **state)
{
    (void)state;
    const world *w = &useless[2];
    start(&the_run, w, 3);
    advance_to(&the_run, 1000);
    const double before = the_run.feeding_ms;
    advance_to(&the_run, 3000);
    report("feeding, of plain", (the_run.feeding_ms - before) / (2000 * plain_ms(w)));
    assert_true(the_run.feeding_ms - before < 0.01 * 2000 * plain_ms(w));
    assert_true(before > 0); /* it was tried */
}

/* A drafter whose feeding costs next to nothing keeps its context. */
static void cheap_feeding_goes_on(void **state)
{
    (void)state;
    world w = useless[4];
    w.d[0].feed_ms = .1;
    start(&the_run, &w, 3);
    advance_to(&the_run, 2000);
    assert_int_equal(draft_control_feeding(&the_run.c, 0), DRAFT_FEED_LATE);
    assert_true(the_run.ms < 1.03 * 2000 * plain_ms(&w));
}

/* Drafters at which the best fixed length is a little better or worse than none. */
static void break_even_costs_at_most_three_percent(void **state)
{
    (void)state;
    double worst = 0, least = 2, most = 0;
    for (int i = 0; i <= 20; i++) {
        const double accept = .88 + .006 * i;
        const world worlds[] = {
            {"mtp", 1, .5, .01, 1, {D("m", {accept}, 0, .45, 15)}},
            {"sure mtp", 1, .5, .01, 1, {D_WITH("m", {accept}, 0, .45, 15, .conf = CONF_TRUE)}},
            {"block", 1, .3, .01, 1, {D_WITH("d", {accept - .22}, .8, 0, 15, .conf = CONF_TRUE, FED)}},
        };
        for (size_t j = 0; j < sizeof worlds / sizeof *worlds; j++)
            for (int noise = 0; noise < 2; noise++) {
                double sum = 0, best = 0;
                for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
                    start(&the_run, &worlds[j], seed);
                    the_run.noise = .1 * noise;
                    rng_seed(&the_run.luck, seed);
                    sum += advance_to(&the_run, 1000) / (the_run.tokens * plain_ms(&worlds[j])) / N_SEEDS;
                    double drafting = INFINITY;
                    for (int k = 1; k <= 15; k++)
                        drafting = fmin(drafting, fixed_run(&worlds[j], &worlds[j].d[0], k, seed, 0, 1000));
                    best += drafting / (1000 * plain_ms(&worlds[j])) / N_SEEDS;
                }
                if (best < .9) continue; /* that is a good one */
                if (sum > 1.03) fail_msg("%s, accept %g: %.4f of plain", worlds[j].name, accept, sum);
                worst = fmax(worst, sum);
                least = fmin(least, best);
                most = fmax(most, best);
            }
    }
    report("break-even", worst);
    report("break-even: best fixed length, least", least);
    report("break-even: best fixed length, most", most);
    assert_true(least < .98 && most > 1.02); /* both sides of it */
}

static const world good[] = {
    {"cheap mtp", 1, .2, .01, 1, {D_WITH("m", ALL_HOLD, 0, .1, 15, .conf = CONF_TRUE)}},
    {"block, small target", 1, .2, .01, 1, {D_WITH("d", ALL_HOLD, 2, 0, 15, .conf = CONF_TRUE, FED)}},
    {"block, large target",
     28,
     1,
     .1,
     1,
     {D_WITH("d", LONG_CHAIN, 9, 0, 15, .conf = CONF_TRUE, .feed_ms = .28, .caught_ms = .05)}},
    {"block beside a useless mtp",
     28,
     1,
     .1,
     2,
     {D("m", NEVER, 0, 2, 15), D_WITH("d", LONG_CHAIN, 9, 0, 15, .conf = CONF_TRUE, .feed_ms = .28, .caught_ms = .05)}},
};

static void good_drafters_reach_95_percent_of_the_best_length(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        double ratio = 0;
        for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
            start(&the_run, &good[i], seed);
            ratio += best_fixed(&good[i], seed, 0, N_GOOD) / advance_to(&the_run, N_GOOD) / N_SEEDS;
        }
        report(good[i].name, ratio);
        if (ratio < .95) fail_msg("%s: %.4f of the best fixed length's throughput", good[i].name, ratio);
    }
}

/* Nothing holds for 5000 tokens, then nearly everything: within another 600 it is found out. */
static void drafting_comes_back_after_a_long_useless_stretch(void **state)
{
    (void)state;
    enum { FROM = 5000, FOUND = FROM + 600, TO = FROM + 4000 };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        world w = good[i];
        for (int j = 0; j < w.n_drafters; j++) w.d[j].from = FROM;
        double ratio = 0;
        for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
            start(&the_run, &w, seed);
            const double useless_ms = advance_to(&the_run, FROM);
            assert_true(useless_ms < 1.03 * FROM * plain_ms(&w));
            advance_to(&the_run, FOUND);
            const int at = the_run.tokens;
            ratio += best_fixed(&w, seed, at, TO) / advance_to(&the_run, TO) / N_SEEDS;
        }
        report(w.name, ratio);
        if (ratio < .95) fail_msg("%s: %.4f of the best fixed length's throughput", w.name, ratio);
    }
}

/* What a gain must be at least follows how far measured steps scatter. */
static void the_margin_follows_the_scatter_of_times(void **state)
{
    (void)state;
    double margin[3];
    for (int i = 0; i < 3; i++) {
        start(&the_run, &useless[0], 1);
        the_run.noise = .2 * i;
        rng_seed(&the_run.luck, 7);
        advance_to(&the_run, 1000);
        margin[i] = draft_control_margin(&the_run.c);
        report("margin", margin[i]);
    }
    assert_true(margin[0] == the_run.c.params.min_gain);
    assert_true(margin[1] > margin[0] && margin[2] > 1.5 * margin[1]);
    assert_true(margin[2] < .8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(useless_drafters_cost_at_most_three_percent),
        cmocka_unit_test(feeding_rests),
        cmocka_unit_test(cheap_feeding_goes_on),
        cmocka_unit_test(break_even_costs_at_most_three_percent),
        cmocka_unit_test(good_drafters_reach_95_percent_of_the_best_length),
        cmocka_unit_test(drafting_comes_back_after_a_long_useless_stretch),
        cmocka_unit_test(the_margin_follows_the_scatter_of_times),
    };
    return cmocka_run_group_tests_name("draft_control_bounds", tests, NULL, NULL);
}
