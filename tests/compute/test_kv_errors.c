/* test_kv_errors.c: what the types of the cache lose, against the figures that are published for them: of single
 * values, and of attention over keys and values of different types. */
#include "testing.h"

#include "base/file_map.h"
#include "base/mem.h"
#include "compute/attn_world.h"
#include "quant/rotate.h"

static double error_of(const float *got, const float *want, size_t n)
{
    double error = 0, power = 0;
    for (size_t i = 0; i < n; i++) {
        error += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        power += (double)want[i] * want[i];
    }
    return error / power;
}

/* Relative squared errors of normal values. q8_0: the largest of 32 magnitudes has the mean square 5.71; 31 of 32
 * values are off by a uniform 1/127 of it (test_tq3.c). f16: values lie in an octave [1, 2) of their scale with mean
 * square of the rounding 2^-22 / 12 / 1.9 of theirs. A rotation leaves normal values normal. */
static const struct {
    kv_type type;
    double error;
} encoders[] = {{KV_F32, 0},        {KV_F16, 4.2e-8},       {KV_Q8_0, 2.87e-5},  {KV_ROT_Q8_0, 2.87e-5},
                {KV_Q4_0, 7.66e-3}, {KV_ROT_Q4_0, 7.66e-3}, {KV_TQ3_0, 3.431e-2}};

static double cached_error(rng *r, kv_type type, int head_dim, bool is_v)
{
    enum { SLOTS = 2 * KV_PAGE_LEN };
    attn_world w = world_open(r, (shape){head_dim, 1, 1, is_v ? KV_F32 : type, is_v ? type : KV_F32, SLOTS});
    const size_t n = (size_t)SLOTS * (size_t)head_dim;
    float *x = world_floats(r, n, 1.7f), *y = malloc(n * sizeof *y);
    for (int i = 0; i < SLOTS; i++) {
        const size_t at = (size_t)i * (size_t)head_dim;
        (is_v ? attn_put_v : attn_put_k)(&w.layer, world_page(&w, i), i % KV_PAGE_LEN, 0, x + at);
        (is_v ? attn_get_v : attn_get_k)(&w.layer, world_page(&w, i), i % KV_PAGE_LEN, 0, y + at);
    }
    if (kv_type_get(type)->is_rotated) unrotate_values(y, n);
    const double error = error_of(y, x, n);
    free(x);
    free(y);
    world_close(&w);
    return error;
}

static void errors_of_normal_values(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 11);
    assert_int_equal(sizeof encoders / sizeof *encoders, KV_TYPE_COUNT);
    for (size_t i = 0; i < KV_TYPE_COUNT; i++)
        for (int axis = 0; axis < 2; axis++)
            for (int head_dim = 256; head_dim <= 512; head_dim *= 2) {
                const double error = cached_error(&r, encoders[i].type, head_dim, axis);
                const char *name = kv_type_get(encoders[i].type)->name;
                print_message("%s, %c, %d: %.3e\n", name, axis ? 'V' : 'K', head_dim, error);
                if (!(fabs(error - encoders[i].error) <= 0.05 * encoders[i].error))
                    fail_msg("%s: seed 11: %.4e, wanted %.4e", name, error, encoders[i].error);
            }
}

static float *read_floats(const char *name, size_t n)
{
    char path[64], *data = NULL;
    size_t size = 0;
    facet_error err;
    snprintf(path, sizeof path, "attn/%s.f32", name);
    assert_ok(file_read_all(test_data(path), 1 << 20, &data, &size, &err), err);
    assert_int_equal(size, n * sizeof(float));
    return (float *)(void *)data;
}

/* Relative squared errors of attention's output, as published with the vectors (the first of two sets): D 512, 2 query
 * heads on 1 KV head, 96 positions, one channel of the keys six times as large. Given to two digits, f16 to one. */
static const struct {
    kv_type k, v;
    double error;
} pairs[] = {{KV_F16, KV_F16, 8e-8},      {KV_Q8_0, KV_Q8_0, 3.1e-4},   {KV_Q8_0, KV_Q4_0, 8.0e-3},
             {KV_Q8_0, KV_TQ3_0, 3.7e-2}, {KV_Q4_0, KV_Q4_0, 6.3e-2},   {KV_Q4_0, KV_TQ3_0, 8.9e-2},
             {KV_TQ3_0, KV_Q8_0, 1.0e-1}, {KV_TQ3_0, KV_TQ3_0, 1.4e-1}, {KV_ROT_Q4_0, KV_ROT_Q4_0, 4.7e-2}};

static void errors_of_pairs_of_types(void **state)
{
    (void)state;
    enum { D = 512, KEYS = 96 };
    float *q = read_floats("attn_q", 2 * D), *k = read_floats("attn_k", KEYS * D), *v = read_floats("attn_v", KEYS * D),
          *want = read_floats("attn_out_f32", 2 * D), out[2 * D];
    rng r;
    rng_seed(&r, 12);
    for (size_t p = 0; p < sizeof pairs / sizeof *pairs; p++) {
        attn_world w = world_open(&r, (shape){D, 1, 2, pairs[p].k, pairs[p].v, KEYS});
        for (int i = 0; i < KEYS; i++) {
            attn_put_k(&w.layer, world_page(&w, i), i % KV_PAGE_LEN, 0, k + i * D);
            attn_put_v(&w.layer, world_page(&w, i), i % KV_PAGE_LEN, 0, v + i * D);
        }
        attn_work work = world_work(&w, 0);
        work.scale = 1.0f;
        const attn_row row = {.table = w.table, .pos = KEYS - 1, .base = KEYS, .q = q, .out = out};
        attn_ref().rows(&work, &row, 1, 0);
        const double error = error_of(out, want, 2 * D);
        print_message("%s / %s: %.3e\n", kv_type_get(pairs[p].k)->name, kv_type_get(pairs[p].v)->name, error);
        if (fabs(error / pairs[p].error - 1) > (pairs[p].k == KV_F16 ? 0.1 : 0.05))
            fail_msg("%.4e, wanted %.2g", error, pairs[p].error);
        world_close(&w);
    }
    mem_free(q);
    mem_free(k);
    mem_free(v);
    mem_free(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_of_normal_values),
        cmocka_unit_test(errors_of_pairs_of_types),
    };
    return cmocka_run_group_tests_name("kv_errors", tests, NULL, NULL);
}
