/* The controller over whole texts, in modelled time: what it may lose, what it must win, how it comes back. */
#include "testing.h"

#include "decode/draft_tree.h"
#include "decode/draft_world.h"

enum { N_TOKENS = 2000, N_SEEDS = 8 };

static run the_run;

/* Figures for the documentation: FACET_TEST_VERBOSE=1 test_draft_control_runs. */
static void report(const char *what, double value)
{
    if (getenv("FACET_TEST_VERBOSE")) print_message("%-40s %.3f\n", what, value);
}

/* ---- what it may lose ---- */

static const world hopeless[] = {
    {"dense, one", 28, .25, 0, 1, {D("m", NEVER, 0, 1.2, 15)}},
    {"dense, dear drafter", 28, .25, .1, 1, {D("m", NEVER, 100, 0, 15)}},
    {"dense, very dear drafter", 28, .25, .1, 1, {D("m", NEVER, 1000, 0, 15)}},
    {"dense, four",
     28,
     .25,
     .1,
     4,
     {D("m", NEVER, 0, 1.2, 15), D("d", NEVER, 5, 0, 15), D("t", NEVER, 5, 0, 30), D("n", NEVER, 0, 0, 15)}},
    {"dense, four overconfident",
     28,
     .25,
     .1,
     4,
     {D_WITH("m", NEVER, 0, 1.2, 15, .conf = CONF_ALWAYS_HIGH), D_WITH("d", NEVER, 5, 0, 15, .conf = CONF_ALWAYS_HIGH),
      D_WITH("t", NEVER, 5, 0, 30, .conf = CONF_ALWAYS_HIGH), D_WITH("n", NEVER, 0, 0, 15, .conf = CONF_ALWAYS_HIGH)}},
    {"mixture, one", 12, 3.2, 0, 1, {D("m", NEVER, 0, .8, 15)}},
    {"mixture, one overconfident", 12, 3.2, 0, 1, {D_WITH("m", NEVER, 0, .8, 15, .conf = CONF_ALWAYS_HIGH)}},
    {"mixture, four",
     12,
     3.2,
     .1,
     4,
     {D("m", NEVER, 0, .8, 15), D("d", NEVER, 5, 0, 15), D("t", NEVER, 5, 0, 30), D("n", NEVER, 0, 0, 15)}},
    {"mixture, four overconfident",
     12,
     3.2,
     .1,
     4,
     {D_WITH("m", NEVER, 0, .8, 15, .conf = CONF_ALWAYS_HIGH), D_WITH("d", NEVER, 5, 0, 15, .conf = CONF_ALWAYS_HIGH),
      D_WITH("t", NEVER, 5, 0, 30, .conf = CONF_ALWAYS_HIGH), D_WITH("n", NEVER, 0, 0, 15, .conf = CONF_ALWAYS_HIGH)}},
    {"mixture, too weak to pay", 12, 3.2, .1, 2, {D("m", WEAK, 0, .8, 15), D("d", WEAK, 5, 0, 15)}},
};

/* At most 3 % over 2,000 tokens, and at every step the bound that the header states. */
static void a_hopeless_drafter_costs_at_most_three_percent(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof hopeless / sizeof *hopeless; i++)
        for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
            const world *w = &hopeless[i];
            start(&the_run, w, seed);
            const double ms = advance_to(&the_run, N_TOKENS);
            if (seed == 1) report(w->name, ms / (N_TOKENS * plain_ms(w)));
            if (ms > 1.03 * N_TOKENS * plain_ms(w))
                fail_msg("%s, seed %d: %.4f of plain", w->name, (int)seed, ms / (N_TOKENS * plain_ms(w)));
            assert_true(the_run.worst_excess <= 8 + 1e-9);
        }
}

/* Acceptance that turns at random, so that every estimate is wrong half of the time. */
static void the_bound_holds_whatever_the_drafters_do(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 71);
    for (int trial = 0; trial < 300; trial++) {
        world w = {"random",        5 + 30 * rng_uniform(&r),  4 * rng_uniform(&r),
                   rng_uniform(&r), 1 + (int)rng_below(&r, 4), {{0}}};
        for (int i = 0; i < w.n_drafters; i++) {
            drafter *d = &w.d[i];
            *d = (drafter){.name = &"mdtn"[i],
                           .flat_ms = i % 2 ? 20 * rng_uniform(&r) : 0,
                           .token_ms = i % 2 ? 0 : 2 * rng_uniform(&r),
                           .k_max = 1 + (int)rng_below(&r, 40),
                           .conf = (confidence)rng_below(&r, 3),
                           .from = rng_below(&r, 2) ? (int)rng_below(&r, 500) : 0};
            for (int k = 0; k < MAX_DEPTH; k++) d->accept[k] = rng_uniform(&r);
            d->to = rng_below(&r, 2) ? d->from + 1 + (int)rng_below(&r, 500) : 0;
        }
        start(&the_run, &w, (uint64_t)trial);
        advance_to(&the_run, 1000);
        assert_true(the_run.worst_excess <= 8 + 1e-9);
    }
}

/* ---- what it must win ---- */

static const world hopeful[] = {
    {"dense, mtp", 28, .25, 0, 1, {D("m", SHORT_CHAIN, 0, 1.2, 15)}},
    {"mixture, mtp", 12, 3.2, 0, 1, {D("m", SHORT_CHAIN, 0, .8, 15)}},
    {"dense, block", 28, .25, .1, 1, {D("d", LONG_CHAIN, 5, 0, 15)}},
    {"dense, block with confidences", 28, .25, .1, 1, {D_WITH("d", LONG_CHAIN, 5, 0, 15, .conf = CONF_TRUE)}},
    {"mixture, block", 12, 3.2, .1, 1, {D("d", LONG_CHAIN, 5, 0, 15)}},
    {"mixture, block with confidences", 12, 3.2, .1, 1, {D_WITH("d", LONG_CHAIN, 5, 0, 15, .conf = CONF_TRUE)}},
    {"dense, weak", 28, .25, .1, 1, {D("m", WEAK, 0, 1.2, 15)}},
    {"mixture, fair with confidences", 12, 3.2, .1, 1, {D_WITH("m", FAIR, 0, .8, 15, .conf = CONF_TRUE)}},
    {"dense, mtp and block", 28, .25, .1, 2, {D("m", SHORT_CHAIN, 0, 1.2, 15), D("d", LONG_CHAIN, 5, 0, 15)}},
    {"mixture, mtp and block", 12, 3.2, .1, 2, {D("m", SHORT_CHAIN, 0, .8, 15), D("d", LONG_CHAIN, 5, 0, 15)}},
    {"mixture, mtp and two useless",
     12,
     3.2,
     .1,
     3,
     {D("n", NEVER, 0, 0, 15), D("m", SHORT_CHAIN, 0, .8, 15), D("d", NEVER, 5, 0, 15)}},
};

/* Within 5 % of the best fixed choice in hindsight, on the mean of eight texts of 2,000 tokens. */
static void a_good_drafter_is_used_within_five_percent(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof hopeful / sizeof *hopeful; i++) {
        double ratio = 0;
        for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
            start(&the_run, &hopeful[i], seed);
            const double ms = advance_to(&the_run, N_TOKENS);
            ratio += ms / best_fixed(&hopeful[i], seed, 0, N_TOKENS) / N_SEEDS;
        }
        report(hopeful[i].name, ratio);
        if (ratio > 1.05) fail_msg("%s: %.4f of the best fixed choice", hopeful[i].name, ratio);
    }
}

/* Measured times scatter by 10 %, and one in a hundred is a hiccup of twenty times. */
static void noisy_times_do_little_harm(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof hopeful / sizeof *hopeful; i++) {
        double ratio = 0;
        for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
            start(&the_run, &hopeful[i], seed);
            the_run.noise = 0.1;
            rng_seed(&the_run.luck, seed);
            const double ms = advance_to(&the_run, N_TOKENS);
            ratio += ms / best_fixed(&hopeful[i], seed, 0, N_TOKENS) / N_SEEDS;
        }
        report(hopeful[i].name, ratio);
        if (ratio > 1.15) fail_msg("%s: %.4f of the best fixed choice", hopeful[i].name, ratio);
    }
    for (size_t i = 0; i < sizeof hopeless / sizeof *hopeless; i++) {
        start(&the_run, &hopeless[i], 1);
        the_run.noise = 0.1;
        rng_seed(&the_run.luck, 1);
        assert_true(advance_to(&the_run, N_TOKENS) < 1.04 * N_TOKENS * plain_ms(&hopeless[i]));
    }
}

/* Nothing was measured beforehand: the first step is plain, the costs of all widths are learned from the steps. */
static void costs_learned_on_the_way_do_nearly_as_well(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof hopeful / sizeof *hopeful; i++) {
        double ratio = 0;
        for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
            start(&the_run, &hopeful[i], seed);
            draft_cost_init(&the_run.c.cost, NULL, 0);
            const double ms = advance_to(&the_run, N_TOKENS);
            ratio += ms / best_fixed(&hopeful[i], seed, 0, N_TOKENS) / N_SEEDS;
        }
        report(hopeful[i].name, ratio);
        if (ratio > 1.06) fail_msg("%s: %.4f of the best fixed choice", hopeful[i].name, ratio);
    }
    for (size_t i = 0; i < sizeof hopeless / sizeof *hopeless; i++) {
        start(&the_run, &hopeless[i], 1);
        draft_cost_init(&the_run.c.cost, NULL, 0);
        const double ms = advance_to(&the_run, N_TOKENS) / (N_TOKENS * plain_ms(&hopeless[i]));
        report(hopeless[i].name, ms);
        assert_true(ms < 1.04);
    }
}

/* Nothing is known at the start, and any of the first measurements may be forty times too long: of a plain step, of a
 * draft, of a verification. */
static void a_hiccup_at_the_start_rules_nothing_out(void **state)
{
    (void)state;
    static const world worlds[] = {
        {"dense, mtp", 28, .25, .1, 1, {D("m", LONG_CHAIN, 0, 1.2, 15)}},
        {"dense, block", 28, .25, .1, 1, {D_WITH("d", LONG_CHAIN, 5, 0, 15, .conf = CONF_TRUE)}},
        {"costly rows, mtp", 28, 8, .1, 1, {D("m", LONG_CHAIN, 0, 3, 15)}},
    };
    for (size_t i = 0; i < sizeof worlds / sizeof *worlds; i++) {
        const double best = best_fixed(&worlds[i], 1, 0, N_TOKENS);
        double worst = 0;
        for (int bit = 0; bit < 40; bit++) {
            start(&the_run, &worlds[i], 1);
            draft_cost_init(&the_run.c.cost, NULL, 0);
            draft_cost_guess(&the_run.c.cost, 0.1);
            the_run.c.other_ms = the_run.c.n_others = 0;
            the_run.hiccups = UINT64_C(1) << bit;
            const double ratio = advance_to(&the_run, N_TOKENS) / best;
            if (ratio > 1.15) fail_msg("%s, hiccup %d: %.3f of the best fixed choice", worlds[i].name, bit, ratio);
            worst = fmax(worst, ratio);
        }
        report(worlds[i].name, worst);
    }
}

/* Every draft of the first steps was measured at a bad time: the drafter seems too dear to pay, or even to try. It is
 * doubted, tried again, and used. */
static void costs_of_a_bad_time_are_forgotten(void **state)
{
    (void)state;
    static const world worlds[] = {
        {"dense, mtp", 28, .25, .1, 1, {D("m", LONG_CHAIN, 0, 1.2, 15)}},
        {"dense, block", 28, .25, .1, 1, {D_WITH("d", LONG_CHAIN, 9, 0, 15, .conf = CONF_TRUE)}},
    };
    for (size_t i = 0; i < sizeof worlds / sizeof *worlds; i++) {
        start(&the_run, &worlds[i], 1);
        the_run.hiccups = 0xaaaa; /* every second measurement is one of drafting, and these were eight steps */
        advance_to(&the_run, 2000);
        const int from = the_run.tokens;
        const double ratio = advance_to(&the_run, 4000) / best_fixed(&worlds[i], 1, from, 4000);
        report(worlds[i].name, ratio);
        if (ratio > 1.1) fail_msg("%s: %.3f of the best fixed choice", worlds[i].name, ratio);
    }
}

/* A drafter whose cost nobody stated costs one step to find out, and no more. */
static void an_unknown_cost_is_one_surprise(void **state)
{
    (void)state;
    const world w = {"dense, very dear drafter", 28, .25, .1, 1, {D("m", NEVER, 1000, 0, 15)}};
    start(&the_run, &w, 1);
    the_run.c.arm[0].desc.draft_share = 0;
    advance_to(&the_run, N_TOKENS);
    assert_true(the_run.ms / plain_ms(&w) <= 1.01 * N_TOKENS + 8 + (1000 + .25 * 15) / plain_ms(&w));
    assert_int_equal(the_run.c.n_drafting, 1);
}

/* Four drafters of which one is very good: the first tries of the others take their time, then it is used fully. */
static void one_good_drafter_among_four(void **state)
{
    (void)state;
    const world w = {"dense, four",
                     28,
                     .25,
                     .1,
                     4,
                     {D("m", SHORT_CHAIN, 0, 1.2, 15), D_WITH("d", LONG_CHAIN, 5, 0, 15, .conf = CONF_TRUE),
                      D("n", WEAK, 0, 0, 15), D("t", NEVER, 3, 0, 15)}};
    double all = 0, later = 0;
    for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
        start(&the_run, &w, seed);
        const double first = advance_to(&the_run, 300), at = the_run.tokens;
        const double rest = advance_to(&the_run, N_TOKENS);
        all += (first + rest) / best_fixed(&w, seed, 0, N_TOKENS) / N_SEEDS;
        later += rest / best_fixed(&w, seed, (int)at, N_TOKENS) / N_SEEDS;
    }
    report("one of four", all);
    report("one of four, after 300 tokens", later);
    assert_true(all < 1.10);
    assert_true(later < 1.05);
}

/* A lookup drafter that has something in a third of the text, and a drafter that always has: together better than
 * either alone. */
static void drafters_that_come_and_go_are_combined(void **state)
{
    (void)state;
    const world w = {"mixture, lookup and mtp",
                     12,
                     1.6,
                     .1,
                     2,
                     {D_WITH("n", LONG_CHAIN, 0, 0, 8, .offered_every = 3), D("m", FAIR, 0, .8, 8)}};
    double ratio = 0;
    for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
        start(&the_run, &w, seed);
        const double ms = advance_to(&the_run, N_TOKENS);
        ratio += ms / best_fixed(&w, seed, 0, N_TOKENS) / N_SEEDS;
    }
    report("lookup and mtp, of the better one alone", ratio);
    assert_true(ratio < 0.97);
}

/* ---- how it comes back ---- */

static const world late[] = {
    {"dense", 28, .25, .1, 1, {D_WITH("m", SHORT_CHAIN, 0, 1.2, 15, .from = 1000)}},
    {"mixture", 12, 3.2, .1, 1, {D_WITH("m", SHORT_CHAIN, 0, .8, 15, .from = 1000)}},
    {"mixture, block with confidences",
     12,
     3.2,
     .1,
     1,
     {D_WITH("d", LONG_CHAIN, 5, 0, 15, .conf = CONF_TRUE, .from = 1000)}},
    {"mixture, with two useless",
     12,
     3.2,
     .1,
     3,
     {D("n", NEVER, 0, 0, 15), D_WITH("m", SHORT_CHAIN, 0, .8, 15, .from = 1000), D("d", NEVER, 5, 0, 15)}},
};

static void pitfall_29_a_drafter_that_becomes_good_is_used_again(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof late / sizeof *late; i++) {
        double ratio = 0;
        for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
            start(&the_run, &late[i], seed);
            const double bad = advance_to(&the_run, 1000);
            assert_true(bad < 1.04 * 1000 * plain_ms(&late[i]));
            advance_to(&the_run, 1300);
            const int at = the_run.tokens;
            const double good = advance_to(&the_run, 3000);
            ratio += good / best_fixed(&late[i], seed, at, 3000) / N_SEEDS;
        }
        report(late[i].name, ratio);
        if (ratio > 1.05) fail_msg("%s: %.4f of the best fixed choice", late[i].name, ratio);
    }
}

static const world early[] = {
    {"dense", 28, .25, .1, 1, {D_WITH("m", LONG_CHAIN, 0, 1.2, 15, .to = 1000)}},
    {"mixture", 12, 3.2, .1, 1, {D_WITH("m", LONG_CHAIN, 0, .8, 15, .to = 1000)}},
    {"mixture, block with confidences",
     12,
     3.2,
     .1,
     1,
     {D_WITH("d", LONG_CHAIN, 5, 0, 15, .conf = CONF_ALWAYS_HIGH, .to = 1000)}},
};

/* What was gained before does not pay for losses after: at most 16 plain steps and 1 % over the next thousand tokens.
 */
static void a_drafter_that_becomes_bad_is_dropped(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof early / sizeof *early; i++)
        for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
            start(&the_run, &early[i], seed);
            advance_to(&the_run, 1000);
            const int at = the_run.tokens;
            const double plain = plain_ms(&early[i]), bad = advance_to(&the_run, 2000) / plain;
            assert_true(bad <= 16 + 1.01 * (the_run.tokens - at) + 1e-9);
        }
}

/* ---- trees ---- */

/* Marginals of a block: at each depth a confident or an open distribution over eight tokens; the text follows them. */
static void block_marginals(uint64_t seed, int tokens, int n_depths, int32_t *token, float *logp, int32_t *truth)
{
    for (int d = 0; d < n_depths; d++) {
        float p[DRAFT_TREE_RANKS];
        double sum = 0;
        const double spread = rng_uniform_at(seed, tokens + d, 60) < 0.6 ? 2.5 : 0.5;
        for (int k = 0; k < DRAFT_TREE_RANKS; k++) sum += exp(-spread * k);
        for (int k = 0; k < DRAFT_TREE_RANKS; k++) {
            p[k] = (float)(exp(-spread * k) / sum);
            token[d * DRAFT_TREE_RANKS + k] = k;
            logp[d * DRAFT_TREE_RANKS + k] = logf(p[k]);
        }
        double rest = rng_uniform_at(seed, tokens + d, 61);
        for (truth[d] = 0; truth[d] < DRAFT_TREE_RANKS - 1 && rest >= (double)p[truth[d]]; truth[d]++)
            rest -= (double)p[truth[d]];
    }
}

enum { DEPTHS = 15 };

/* Grows the tree of the block after `tokens` tokens, and the path that the text takes through it. */
static int grow(uint64_t seed, int tokens, int budget, draft_tree *t, uint8_t *path)
{
    int32_t token[DEPTHS * DRAFT_TREE_RANKS], truth[DEPTHS];
    float logp[DEPTHS * DRAFT_TREE_RANKS];
    facet_error err;
    block_marginals(seed, tokens, DEPTHS, token, logp, truth);
    const draft_marginals m = {DEPTHS, DRAFT_TREE_RANKS, token, logp};
    assert_ok(draft_tree_build(&m, 0, budget, draft_tree_rule_default(), t, &err), err);
    int n = 0;
    for (int at = 0; at >= 0; at = n - 1 < DEPTHS ? draft_tree_child(t, at, truth[n - 1]) : -1) path[n++] = (uint8_t)at;
    return n;
}

static double fixed_tree_run(const world *w, int budget, uint64_t seed)
{
    draft_tree t;
    uint8_t path[64];
    double ms = 0;
    for (int tokens = 0; tokens < N_TOKENS;) {
        const int n = grow(seed, tokens, budget, &t, path);
        ms += verify_ms(w, t.n_rows) + w->other_ms + w->d[0].flat_ms;
        tokens += n;
    }
    return ms;
}

/* Mean nodes verified by the controller; *ratio: its time over that of the best fixed budget. */
static double tree_run(const world *w, uint64_t seed, double *ratio)
{
    static draft_control c;
    const draft_arm_desc arm = {.name = "tree", .is_tree = true, .has_conf = true};
    const draft_offer offer = {.k_max = 63};
    double ms = 0, nodes = 0, best = N_TOKENS * plain_ms(w);
    int n_steps = 0;
    draft_control_init(&c, NULL, &arm, 1, NULL, 0);
    for (int n = 1; n <= 64; n *= 2) draft_cost_set(&c.cost, 0, n, verify_ms(w, n));
    for (int tokens = 0; tokens < N_TOKENS; n_steps++) {
        draft_tree whole, cut;
        uint8_t path[64];
        const draft_plan p = draft_control_plan(&c, 0, &offer);
        grow(seed, tokens, p.k, &whole, path);
        const int n_drafted = whole.n_rows - 1, n = draft_control_width(&c, 0, whole.weight + 1, n_drafted);
        const int n_path = grow(seed, tokens, n, &cut, path); /* the first n nodes are the tree of that budget */
        const draft_outcome o = {.n_drafted = n_drafted,
                                 .n_verified = n,
                                 .n_accepted = n_path - 1,
                                 .conf = whole.weight + 1,
                                 .path = path,
                                 .draft_ms = p.arm >= 0 ? w->d[0].flat_ms : -1,
                                 .verify_ms = verify_ms(w, 1 + n),
                                 .other_ms = w->other_ms};
        draft_control_observe(&c, &o);
        ms += o.verify_ms + o.other_ms + fmax(o.draft_ms, 0);
        tokens += n_path;
        nodes += n;
    }
    for (int budget = 1; budget <= 63; budget++) best = fmin(best, fixed_tree_run(w, budget, seed));
    *ratio = ms / best;
    return nodes / n_steps;
}

static void trees_are_cut_to_what_rows_cost(void **state)
{
    (void)state;
    const world worlds[] = {{"dense", 28, .25, .1, 1, {D("t", NEVER, 5, 0, 63)}},
                            {"mixture", 12, 1.6, .1, 1, {D("t", NEVER, 2, 0, 63)}}};
    double nodes[2] = {0}, ratio[2] = {0};
    for (int i = 0; i < 2; i++)
        for (uint64_t seed = 1; seed <= 3; seed++) {
            double r;
            nodes[i] += tree_run(&worlds[i], seed, &r) / 3;
            ratio[i] += r / 3;
        }
    report("trees, dense", ratio[0]);
    report("trees, dense: nodes", nodes[0]);
    report("trees, mixture", ratio[1]);
    report("trees, mixture: nodes", nodes[1]);
    assert_true(ratio[0] < 1.05);
    assert_true(ratio[1] < 1.05);
    assert_true(nodes[0] > 2 * nodes[1]);
}

/* ---- determinism ---- */

/* The same steps lead to the same choices, and so do the same steps on a machine twice as fast. */
static void choices_depend_on_arguments_alone(void **state)
{
    (void)state;
    const world *w = &hopeful[8];
    world faster = *w;
    faster.base_ms /= 2;
    faster.row_ms /= 2;
    faster.other_ms /= 2;
    for (int i = 0; i < 2; i++) {
        faster.d[i].flat_ms /= 2;
        faster.d[i].token_ms /= 2;
    }
    start(&the_run, w, 5);
    advance_to(&the_run, N_TOKENS);
    const uint64_t first = the_run.choices;
    start(&the_run, w, 5);
    advance_to(&the_run, N_TOKENS);
    assert_true(the_run.choices == first);
    start(&the_run, &faster, 5);
    advance_to(&the_run, N_TOKENS);
    assert_true(the_run.choices == first);
    start(&the_run, w, 6);
    advance_to(&the_run, N_TOKENS);
    assert_true(the_run.choices != first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hopeless_drafter_costs_at_most_three_percent),
        cmocka_unit_test(the_bound_holds_whatever_the_drafters_do),
        cmocka_unit_test(a_good_drafter_is_used_within_five_percent),
        cmocka_unit_test(noisy_times_do_little_harm),
        cmocka_unit_test(costs_learned_on_the_way_do_nearly_as_well),
        cmocka_unit_test(a_hiccup_at_the_start_rules_nothing_out),
        cmocka_unit_test(costs_of_a_bad_time_are_forgotten),
        cmocka_unit_test(an_unknown_cost_is_one_surprise),
        cmocka_unit_test(one_good_drafter_among_four),
        cmocka_unit_test(drafters_that_come_and_go_are_combined),
        cmocka_unit_test(pitfall_29_a_drafter_that_becomes_good_is_used_again),
        cmocka_unit_test(a_drafter_that_becomes_bad_is_dropped),
        cmocka_unit_test(trees_are_cut_to_what_rows_cost),
        cmocka_unit_test(choices_depend_on_arguments_alone),
    };
    return cmocka_run_group_tests_name("draft_control_runs", tests, NULL, NULL);
}
