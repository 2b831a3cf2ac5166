/* The sampler against plain definitions, on random logits. */
#include "testing.h"

#include <math.h>

#include "base/rng.h"
#include "decode/sampler.h"

enum { N_VOCAB = 300 };

static void random_logits(rng *r, float *logits)
{
    for (int i = 0; i < N_VOCAB; i++) logits[i] = (float)(3 * rng_normal(r));
}

static int rank_of(const float *logits, int32_t token)
{
    int rank = 0;
    for (int32_t i = 0; i < N_VOCAB; i++)
        rank += logits[i] > logits[token] || (logits[i] == logits[token] && i < token);
    return rank;
}

static int32_t pick(const facet_sampling *p, const float *logits, const int32_t *history, size_t n)
{
    float copy[N_VOCAB];
    sampler *s;
    facet_error err;
    int32_t token;
    memcpy(copy, logits, sizeof copy);
    assert_ok(sampler_open(p, N_VOCAB, &s, &err), err);
    assert_ok(sampler_pick(s, copy, history, n, &token, &err), err);
    sampler_close(s);
    return token;
}

static void top_k_draws_only_from_the_k_largest(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 1);
    for (int trial = 0; trial < 3000; trial++) {
        float logits[N_VOCAB];
        random_logits(&r, logits);
        if (trial % 3 == 0) /* many ties */
            for (int i = 0; i < N_VOCAB; i++) logits[i] = floorf(logits[i]);
        if (trial % 7 == 0) /* sorted input, the usual trap of a selection */
            for (int i = 0; i < N_VOCAB; i++) logits[i] = (float)(trial % 2 ? i : -i);
        facet_sampling p = facet_sampling_default();
        p.temperature = 100; /* nearly uniform among those that stay */
        p.seed = (uint64_t)trial;
        p.top_k = 1 + (int)rng_below(&r, N_VOCAB);
        assert_in_range(rank_of(logits, pick(&p, logits, NULL, 0)), 0, p.top_k - 1);
    }
}

static void greedy_takes_the_lowest_of_equal_maxima(void **state)
{
    (void)state;
    float logits[N_VOCAB] = {0};
    logits[7] = logits[200] = 5;
    const facet_sampling p = facet_sampling_default();
    assert_int_equal(pick(&p, logits, NULL, 0), 7);
}

static void top_p_and_min_p_keep_what_they_say(void **state)
{
    (void)state;
    float logits[N_VOCAB];
    for (int i = 0; i < N_VOCAB; i++) logits[i] = -100;
    logits[10] = logf(0.5f);
    logits[11] = logf(0.3f);
    logits[12] = logf(0.2f);
    for (uint64_t seed = 0; seed < 300; seed++) {
        facet_sampling p = facet_sampling_default();
        p.temperature = 1;
        p.seed = seed;
        p.top_p = 0.7f; /* 0.5 does not reach it, 0.5 + 0.3 does */
        assert_in_range(pick(&p, logits, NULL, 0), 10, 11);
        p.top_p = 1;
        p.min_p = 0.5f; /* 0.3 / 0.5 stays, 0.2 / 0.5 goes */
        assert_in_range(pick(&p, logits, NULL, 0), 10, 11);
    }
}

/* Chi-square of 20,000 draws over 8 outcomes: 99.99 % quantile at 7 degrees of freedom is 29.9. The seed is fixed. */
static void draws_follow_the_softmax(void **state)
{
    (void)state;
    float logits[N_VOCAB], copy[N_VOCAB];
    double weight[8], sum = 0, chi = 0;
    int count[8] = {0};
    for (int i = 0; i < N_VOCAB; i++) logits[i] = -INFINITY;
    for (int i = 0; i < 8; i++) {
        logits[20 + i] = 0.4f * (float)i;
        sum += weight[i] = exp((double)logits[20 + i] / 0.8);
    }
    facet_sampling p = facet_sampling_default();
    p.temperature = 0.8f;
    p.seed = 5;
    sampler *s;
    facet_error err;
    assert_ok(sampler_open(&p, N_VOCAB, &s, &err), err);
    for (int i = 0; i < 20000; i++) {
        int32_t token;
        memcpy(copy, logits, sizeof copy);
        assert_ok(sampler_pick(s, copy, NULL, (size_t)i, &token, &err), err); /* a draw for each position */
        assert_in_range(token, 20, 27);
        count[token - 20]++;
    }
    sampler_close(s);
    for (int i = 0; i < 8; i++) {
        const double want = 20000 * weight[i] / sum;
        chi += (count[i] - want) * (count[i] - want) / want;
    }
    assert_true(chi < 29.9);
}

static void a_draw_depends_on_seed_and_position_alone(void **state)
{
    (void)state;
    float logits[N_VOCAB] = {0};
    facet_sampling p = facet_sampling_default();
    p.temperature = 1;
    int n_other_seed = 0, n_other_position = 0;
    for (size_t pos = 0; pos < 100; pos++) {
        p.seed = 5;
        const int32_t token = pick(&p, logits, NULL, pos);
        assert_int_equal(pick(&p, logits, NULL, pos), token);
        n_other_position += pick(&p, logits, NULL, pos + 1) != token;
        p.seed = 6;
        n_other_seed += pick(&p, logits, NULL, pos) != token;
    }
    assert_true(n_other_position > 90);
    assert_true(n_other_seed > 90);
}

static void penalties_and_bias_move_the_choice(void **state)
{
    (void)state;
    float logits[N_VOCAB] = {0};
    logits[3] = 2;
    logits[4] = 1.5f;
    const int32_t history[] = {3, 9, 3};
    facet_sampling p = facet_sampling_default();
    p.repeat_penalty = 2;
    assert_int_equal(pick(&p, logits, history, 3), 4);
    p = facet_sampling_default();
    p.presence_penalty = 0.6f;
    assert_int_equal(pick(&p, logits, history, 3), 4);
    p = facet_sampling_default();
    p.frequency_penalty = 0.3f; /* twice seen: 0.6 */
    assert_int_equal(pick(&p, logits, history, 3), 4);
    p.penalty_last_n = 1; /* once seen: 0.3 is not enough */
    assert_int_equal(pick(&p, logits, history, 3), 3);
    p = facet_sampling_default();
    const facet_logit_bias bias = {50, 10};
    p.bias = &bias;
    p.n_bias = 1;
    assert_int_equal(pick(&p, logits, NULL, 0), 50);
}

static void non_finite_logits_are_an_error(void **state)
{
    (void)state;
    const float bad[] = {NAN, INFINITY};
    for (int i = 0; i < 2; i++) {
        float logits[N_VOCAB] = {0};
        logits[100] = bad[i];
        sampler *s;
        facet_error err;
        int32_t token;
        const facet_sampling p = facet_sampling_default();
        assert_ok(sampler_open(&p, N_VOCAB, &s, &err), err);
        assert_int_equal(sampler_pick(s, logits, NULL, 0, &token, &err), FACET_ERR_NUMERIC);
        assert_non_null(strstr(err.message, "token 100"));
        sampler_close(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(top_k_draws_only_from_the_k_largest),
        cmocka_unit_test(greedy_takes_the_lowest_of_equal_maxima),
        cmocka_unit_test(top_p_and_min_p_keep_what_they_say),
        cmocka_unit_test(draws_follow_the_softmax),
        cmocka_unit_test(a_draw_depends_on_seed_and_position_alone),
        cmocka_unit_test(penalties_and_bias_move_the_choice),
        cmocka_unit_test(non_finite_logits_are_an_error),
    };
    return cmocka_run_group_tests_name("sampler", tests, NULL, NULL);
}
