/* Random numbers that depend on a position. */
#include "testing.h"

#include "base/rng.h"

static void uniforms_are_uniform_and_depend_on_every_argument(void **state)
{
    (void)state;
    enum { N = 200000, BINS = 100 };
    for (uint32_t lane = 0; lane < 2; lane++) {
        int count[BINS] = {0}, pair[16] = {0};
        double chi = 0, chi_pair = 0;
        for (int i = 0; i < N; i++) {
            const double u = rng_uniform_at(42, i, lane);
            assert_true(u >= 0 && u < 1);
            count[(int)(u * BINS)]++;
            pair[(int)(u * 4) * 4 + (int)(rng_uniform_at(42, i + 1, lane) * 4)]++;
        }
        for (int i = 0; i < BINS; i++) chi += pow(count[i] - N / BINS, 2) / (N / BINS);
        for (int i = 0; i < 16; i++) chi_pair += pow(pair[i] - N / 16, 2) / (N / 16);
        assert_true(chi < 161);     /* 99.99 % quantile at 99 degrees of freedom */
        assert_true(chi_pair < 45); /* at 15 */
    }
    int n_equal = 0;
    for (int i = 0; i < 1000; i++) {
        const double u = rng_uniform_at(42, i, 0);
        assert_true(u == rng_uniform_at(42, i, 0));
        n_equal += u == rng_uniform_at(43, i, 0);
        n_equal += u == rng_uniform_at(42, i, 1);
        n_equal += u == rng_uniform_at(42, i + 1, 0);
    }
    assert_int_equal(n_equal, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(uniforms_are_uniform_and_depend_on_every_argument)};
    return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}
