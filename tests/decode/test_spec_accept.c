/* Acceptance, truncation and drawing, case by case. Whole loops are in test_spec_loop.c. */
#include "testing.h"

#include <math.h>

#include "base/rng.h"
#include "decode/spec_accept.h"

/* ---- chains ---- */

static void chain_accepts_up_to_the_first_difference(void **state)
{
    (void)state;
    const int32_t token[] = {9, 1, 2, 3, 4};
    for (int wrong = 1; wrong <= 5; wrong++) {
        int32_t verdict[] = {1, 2, 3, 4, 5};
        if (wrong < 5) verdict[wrong - 1] = 100;
        assert_int_equal(spec_accept_chain(token, verdict, 5), wrong);
    }
    assert_int_equal(spec_accept_chain(token, (const int32_t[]){1}, 1), 1);
}

/* Draft j is judged by the verdict before it, not by its own row's; an agreement after a rejection counts for nothing.
 */
static void pitfall_27_a_draft_is_judged_by_the_row_before_it(void **state)
{
    (void)state;
    const int32_t token[] = {9, 1, 2, 3};
    const int32_t own[] = {9, 1, 2, 3}; /* each row repeats its own token */
    assert_int_equal(spec_accept_chain(token, own, 4), 1);
    const int32_t later[] = {7, 2, 3, 4}; /* the first draft is wrong, the others would follow */
    assert_int_equal(spec_accept_chain(token, later, 4), 1);
    const spec_commit c = spec_truncate(token, later, NULL, 1, 100, NULL, NULL);
    assert_int_equal(c.n, 1);
    assert_int_equal(c.pending, 7); /* draft 1 is never emitted */
}

/* ---- truncation ---- */

enum { ROWS = 6 };
static const int32_t row_token[ROWS] = {50, 51, 52, 53, 54, 55};
static const int32_t row_verdict[ROWS] = {60, 61, 62, 63, 64, 65};
static const uint8_t row_path[4] = {0, 2, 3, 5};

static void budget_cuts_at_every_position(void **state)
{
    (void)state;
    for (int64_t left = 0; left <= 8; left++) {
        const spec_commit c = spec_truncate(row_token, row_verdict, NULL, ROWS, left, NULL, NULL);
        const int n = left < ROWS ? (int)left : ROWS;
        assert_int_equal(c.n, n);
        assert_false(c.is_stopped);
        assert_int_equal(c.last_row, n - 1);
        assert_int_equal(c.pending, n ? row_verdict[n - 1] : row_token[0]);
        const spec_commit p = spec_truncate(row_token, row_verdict, row_path, 4, left, NULL, NULL);
        const int m = left < 4 ? (int)left : 4;
        assert_int_equal(p.n, m);
        assert_int_equal(p.last_row, m ? row_path[m - 1] : -1);
        assert_int_equal(p.pending, m ? row_verdict[row_path[m - 1]] : row_token[0]);
    }
}

typedef struct stop_at {
    int32_t token;
    int32_t seen[ROWS];
    int n;
} stop_at;

static bool stop_seen(void *ud, int32_t token)
{
    stop_at *s = ud;
    s->seen[s->n++] = token;
    return token == s->token;
}

static void stop_token_cuts_at_every_position(void **state)
{
    (void)state;
    for (int at = 0; at < ROWS; at++) {
        stop_at s = {.token = row_token[at]};
        const spec_commit c = spec_truncate(row_token, row_verdict, NULL, ROWS, 100, stop_seen, &s);
        assert_int_equal(c.n, at + 1);
        assert_true(c.is_stopped);
        assert_int_equal(c.last_row, at);
        assert_int_equal(c.pending, row_verdict[at]);
        assert_int_equal(s.n, at + 1); /* once per committed token, in order */
        assert_memory_equal(s.seen, row_token, (size_t)s.n * sizeof *s.seen);
    }
    for (int at = 0; at < 4; at++) {
        stop_at s = {.token = row_token[row_path[at]]};
        const spec_commit c = spec_truncate(row_token, row_verdict, row_path, 4, 100, stop_seen, &s);
        assert_int_equal(c.n, at + 1);
        assert_true(c.is_stopped);
        assert_int_equal(c.pending, row_verdict[row_path[at]]);
    }
}

static void the_earlier_of_budget_and_stop_token_wins(void **state)
{
    (void)state;
    for (int at = 0; at < ROWS; at++)
        for (int left = 1; left <= ROWS; left++) {
            stop_at s = {.token = row_token[at]};
            const spec_commit c = spec_truncate(row_token, row_verdict, NULL, ROWS, left, stop_seen, &s);
            assert_int_equal(c.n, at + 1 < left ? at + 1 : left);
            assert_int_equal(c.is_stopped, at + 1 <= left);
            assert_int_equal(s.n, c.n); /* tokens beyond the budget are not even asked about */
        }
}

/* ---- drawing ---- */

static void uniforms_are_uniform_and_depend_on_every_argument(void **state)
{
    (void)state;
    enum { N = 200000, BINS = 100 };
    for (uint32_t lane = 0; lane < 2; lane++) {
        int count[BINS] = {0}, pair[16] = {0};
        double chi = 0, chi_pair = 0;
        for (int i = 0; i < N; i++) {
            const double u = spec_uniform(42, i, lane);
            assert_true(u >= 0 && u < 1);
            count[(int)(u * BINS)]++;
            pair[(int)(u * 4) * 4 + (int)(spec_uniform(42, i + 1, lane) * 4)]++;
        }
        for (int i = 0; i < BINS; i++) chi += pow(count[i] - N / BINS, 2) / (N / BINS);
        for (int i = 0; i < 16; i++) chi_pair += pow(pair[i] - N / 16, 2) / (N / 16);
        assert_true(chi < 161);     /* 99.99 % quantile at 99 degrees of freedom */
        assert_true(chi_pair < 45); /* at 15 */
    }
    int n_equal = 0;
    for (int i = 0; i < 1000; i++) {
        const double u = spec_uniform(42, i, 0);
        assert_true(u == spec_uniform(42, i, 0));
        n_equal += u == spec_uniform(43, i, 0);
        n_equal += u == spec_uniform(42, i, 1);
        n_equal += u == spec_uniform(42, i + 1, 0);
    }
    assert_int_equal(n_equal, 0);
}

static void draw_follows_the_weights(void **state)
{
    (void)state;
    const float w[] = {0, 2, 0, 1, 1, 0};
    assert_int_equal(spec_draw(w, 6, 0), 1);
    assert_int_equal(spec_draw(w, 6, 0.49), 1);
    assert_int_equal(spec_draw(w, 6, 0.51), 3);
    assert_int_equal(spec_draw(w, 6, 0.76), 4);
    assert_int_equal(spec_draw(w, 6, nextafter(1, 0)), 4);
    const float none[] = {0, 0}, bad[] = {1, NAN};
    assert_int_equal(spec_draw(none, 2, 0.5), -1);
    assert_int_equal(spec_draw(bad, 2, 0.5), -1);
}

/* ---- rejection sampling ---- */

enum { TOY = 8 };

static void normalise(float *w)
{
    float sum = 0;
    for (int i = 0; i < TOY; i++) sum += w[i];
    for (int i = 0; i < TOY; i++) w[i] /= sum;
}

/* p[0] = first token's distribution, p[1 + t] = the second's after t; q likewise, flatter and shifted. */
static void toy_distributions(float p[TOY + 1][TOY], float q[TOY + 1][TOY])
{
    rng r;
    rng_seed(&r, 77);
    for (int row = 0; row <= TOY; row++) {
        for (int i = 0; i < TOY; i++) {
            p[row][i] = (float)exp(1.5 * rng_normal(&r));
            q[row][i] = (float)(exp(0.7 * rng_normal(&r)) + 0.3 * (double)p[row][i]);
        }
        p[row][(row + 2) % TOY] = 0; /* what the target excludes must never come out */
        normalise(p[row]);
        normalise(q[row]);
    }
}

/* Draws two drafts from q, verifies them, and completes the pair with plain draws. Returns accepted drafts. */
static int draw_pair(float p[TOY + 1][TOY], float q[TOY + 1][TOY], int64_t pos, int32_t pair[2])
{
    float prow[3][TOY], qrow[2][TOY], scratch[TOY];
    int32_t draft[2], pending;
    draft[0] = spec_draw(q[0], TOY, spec_uniform(1, pos, 7));
    draft[1] = spec_draw(q[1 + draft[0]], TOY, spec_uniform(1, pos + 1, 7));
    memcpy(prow[0], p[0], sizeof prow[0]);
    memcpy(prow[1], p[1 + draft[0]], sizeof prow[1]);
    memcpy(prow[2], p[1 + draft[1]], sizeof prow[2]);
    memcpy(qrow[0], q[0], sizeof qrow[0]);
    memcpy(qrow[1], q[1 + draft[0]], sizeof qrow[1]);
    const int n = spec_accept_sampled(prow[0], qrow[0], draft, 2, TOY, 5, pos, scratch, &pending);
    pair[0] = n > 0 ? draft[0] : pending;
    pair[1] = n > 1 ? draft[1] : n == 1 ? pending : spec_draw(p[1 + pair[0]], TOY, spec_uniform(9, pos + 1, 0));
    return n;
}

/* Chi-square of a million pairs over 64 - (excluded) cells; the 99.99 % quantile at 63 degrees of freedom is 114. */
static void rejection_sampling_reproduces_the_target(void **state)
{
    (void)state;
    enum { N = 1000000 };
    float p[TOY + 1][TOY], q[TOY + 1][TOY];
    int count[TOY][TOY] = {{0}}, n_first = 0;
    double chi = 0, overlap = 0;
    toy_distributions(p, q);
    for (int i = 0; i < N; i++) {
        int32_t pair[2];
        n_first += draw_pair(p, q, 3 * (int64_t)i, pair) > 0;
        count[pair[0]][pair[1]]++;
    }
    for (int a = 0; a < TOY; a++)
        for (int b = 0; b < TOY; b++) {
            const double want = N * (double)p[0][a] * (double)p[1 + a][b];
            if (want == 0)
                assert_int_equal(count[a][b], 0);
            else
                chi += pow(count[a][b] - want, 2) / want;
        }
    assert_true(chi < 114);
    for (int i = 0; i < TOY; i++) overlap += fmin((double)p[0][i], (double)q[0][i]);
    assert_true(overlap > 0.3 && overlap < 0.95);
    assert_true(fabs((double)n_first / N - overlap) < 4 * sqrt(overlap * (1 - overlap) / N));
}

static void rejection_sampling_at_the_edges(void **state)
{
    (void)state;
    const float p[] = {0.5f, 0.5f, 0, 0, 1, 0}, same[] = {0.5f, 0.5f, 0}, apart[] = {0, 0, 1};
    float scratch[3];
    int32_t pending;
    for (int64_t pos = 0; pos < 2000; pos++) {
        /* q equal to p: always accepted; the next token comes from p's last row */
        assert_int_equal(spec_accept_sampled(p, same, (const int32_t[]){1}, 1, 3, 3, pos, scratch, &pending), 1);
        assert_int_equal(pending, 1);
        /* a draft that the target excludes: never accepted, the residual is p */
        assert_int_equal(spec_accept_sampled(p, apart, (const int32_t[]){2}, 1, 3, 3, pos, scratch, &pending), 0);
        assert_in_range(pending, 0, 1);
    }
    assert_int_equal(spec_accept_sampled(p + 3, same, NULL, 0, 3, 3, 0, scratch, &pending), 0);
    assert_int_equal(pending, 1);
    /* p and q agree but for rounding and the draft is not in either: the residual is empty, p is drawn from */
    assert_int_equal(spec_accept_sampled(p, same, (const int32_t[]){2}, 1, 3, 3, 0, scratch, &pending), 0);
    assert_in_range(pending, 0, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chain_accepts_up_to_the_first_difference),
        cmocka_unit_test(pitfall_27_a_draft_is_judged_by_the_row_before_it),
        cmocka_unit_test(budget_cuts_at_every_position),
        cmocka_unit_test(stop_token_cuts_at_every_position),
        cmocka_unit_test(the_earlier_of_budget_and_stop_token_wins),
        cmocka_unit_test(uniforms_are_uniform_and_depend_on_every_argument),
        cmocka_unit_test(draw_follows_the_weights),
        cmocka_unit_test(rejection_sampling_reproduces_the_target),
        cmocka_unit_test(rejection_sampling_at_the_edges),
    };
    return cmocka_run_group_tests_name("spec_accept", tests, NULL, NULL);
}
