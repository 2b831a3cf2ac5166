/* Products of packed matrices: every type and instruction set against act_dot()/float_dot(), bit by bit. */
#include "testing.h"

#include <math.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "base/rng.h"
#include "compute/cpu/linear.h"
#include "quant/block.h"

static const tensor_type types[] = {TYPE_F32,  TYPE_F16,    TYPE_BF16,   TYPE_Q4_0,  TYPE_Q4_1, TYPE_Q5_0,
                                    TYPE_Q5_1, TYPE_Q8_0,   TYPE_Q2_K,   TYPE_Q3_K,  TYPE_Q4_K, TYPE_Q5_K,
                                    TYPE_Q6_K, TYPE_IQ4_NL, TYPE_IQ4_XS, TYPE_MXFP4, TYPE_NVFP4};
enum { N_TYPES = sizeof types / sizeof types[0] };

static rng rand_state;

/* ---- weights: random bytes, finite scales ---- */

static void random_f16(uint8_t p[2])
{
    store_f16(p, (float)(rng_normal(&rand_state) * 0.01));
}

static void fix_scales(tensor_type type, uint8_t *b)
{
    switch (type) {
    case TYPE_Q2_K:
        random_f16(b + 80);
        random_f16(b + 82);
        return;
    case TYPE_Q3_K: random_f16(b + 108); return;
    case TYPE_Q6_K: random_f16(b + 208); return;
    case TYPE_MXFP4: *b = (uint8_t)(rng_below(&rand_state, 8) ? 90 + *b % 64 : *b % 3); return;
    case TYPE_NVFP4: return; /* every byte is finite */
    case TYPE_Q4_1:
    case TYPE_Q5_1:
    case TYPE_Q4_K:
    case TYPE_Q5_K: random_f16(b + 2); /* fall through */
    default: random_f16(b);
    }
}

static void random_blocks(tensor_type type, uint8_t *w, size_t n_values)
{
    const type_info *info = type_get((uint32_t)type);
    for (size_t i = 0; i < n_values / info->block_len; i++, w += info->block_bytes) {
        if (type_is_float(type)) {
            float x = (float)rng_normal(&rand_state);
            info->encode(&x, w, 1);
            continue;
        }
        for (size_t k = 0; k < info->block_bytes; k++) w[k] = (uint8_t)rng_next(&rand_state);
        fix_scales(type, w);
    }
}

/* ---- one matrix with its input and the expected output ---- */

typedef struct bench {
    tensor_type type;
    uint32_t n_in, n_out;
    int n_rows;
    size_t row_bytes;
    uint8_t *file, *tiles;
    float *x, *want;
    act_block *q;
    packed_matrix w;
    linear_input in;
} bench;

static void *aligned(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(p);
    return p;
}

static void interleave(const float *x, uint32_t n_in, int n_rows, act_block *q)
{
    for (int r = 0; r < n_rows; r++) act_quantize(x + (size_t)r * n_in, n_in, q + r, (size_t)n_rows);
}

static linear_input input_of(const bench *b, const float *x, act_block *q, int n_rows)
{
    if (!type_is_float(b->type)) interleave(x, b->n_in, n_rows, q);
    return (linear_input){.n_rows = n_rows, .q = q, .f32 = x, .ld = b->n_in};
}

static void expect(bench *b)
{
    const size_t stride = (size_t)b->n_rows;
    for (int r = 0; r < b->n_rows; r++)
        for (uint32_t o = 0; o < b->n_out; o++) {
            const uint8_t *w = b->file + o * b->row_bytes;
            b->want[(size_t)r * b->n_out + o] = type_is_float(b->type)
                                                    ? float_dot(b->type, w, b->x + (size_t)r * b->n_in, b->n_in)
                                                    : act_dot(b->type, w, b->q + r, stride, b->n_in);
        }
}

static void setup(bench *b, tensor_type type, uint32_t n_in, uint32_t n_out, int n_rows)
{
    const size_t n_tiles = (n_out + LINEAR_TILE - 1) / LINEAR_TILE, tile = linear_tile_bytes(type, n_in);
    *b = (bench){.type = type, .n_in = n_in, .n_out = n_out, .n_rows = n_rows};
    b->row_bytes = type_bytes(type_get((uint32_t)type), n_in);
    b->file = aligned(n_out * b->row_bytes);
    b->tiles = aligned(n_tiles * tile);
    b->x = aligned((size_t)n_rows * n_in * sizeof(float));
    b->q = aligned((size_t)n_rows * act_n_blocks(n_in) * sizeof(act_block));
    b->want = aligned((size_t)n_rows * n_out * sizeof(float));
    random_blocks(type, b->file, (size_t)n_out * n_in);
    for (size_t i = 0; i < (size_t)n_rows * n_in; i++) b->x[i] = (float)rng_normal(&rand_state);
    memset(b->x, 0, 32 * sizeof(float)); /* a group of zeros */
    assert_true(linear_can_pack(type, n_in));
    assert_int_equal(tile % 64, 0);
    for (uint32_t t = 0; t < n_tiles; t++) linear_pack_tile(type, n_in, n_out, b->file, t, b->tiles + t * tile);
    b->w = (packed_matrix){.type = type, .n_in = n_in, .n_out = n_out, .tile_bytes = tile, .data = b->tiles};
    b->in = input_of(b, b->x, b->q, n_rows);
    expect(b);
}

static void teardown(bench *b)
{
    free(b->file);
    free(b->tiles);
    free(b->x);
    free(b->q);
    free(b->want);
}

/* ---- checks ---- */

static bool same(float a, float b)
{
    return f32_bits(a) == f32_bits(b) || (isnan(a) && isnan(b));
}

/* Rows [begin, end) of `got` [.., ld] against what is expected; everything else is still poison. */
static void check_output(const bench *b, const char *set, const float *got, size_t ld, int begin, int end)
{
    for (int r = 0; r < b->n_rows; r++)
        for (size_t o = 0; o < ld; o++) {
            bool written = r >= begin && r < end && o < b->n_out;
            float have = got[(size_t)r * ld + o], want = written ? b->want[(size_t)r * b->n_out + o] : -777.0f;
            if (!same(have, want))
                fail_msg("%s %s, %u -> %u, %d rows [%d, %d): row %d column %zu is %.9g, wanted %.9g", set,
                         type_name((uint32_t)b->type), b->n_in, b->n_out, b->n_rows, begin, end, r, o, (double)have,
                         (double)want);
        }
}

static float *poisoned(size_t n)
{
    float *y = aligned(n * sizeof(float));
    for (size_t i = 0; i < n; i++) y[i] = -777.0f;
    return y;
}

static void check_batch(const bench *b, const char *set, linear_fn fn, int begin, int end)
{
    const size_t ld = b->n_out + 19;
    const uint32_t n_tiles = (b->n_out + LINEAR_TILE - 1) / LINEAR_TILE, split = n_tiles / 2;
    float *y = poisoned((size_t)b->n_rows * ld);
    fn(&b->w, split, n_tiles, &b->in, begin, end, y, ld); /* two shares, as threads take them */
    fn(&b->w, 0, split, &b->in, begin, end, y, ld);
    check_output(b, set, y, ld, begin, end);
    free(y);
}

/* One row given alone has the bits that it has in the batch. */
static void check_alone(const bench *b, const char *set, linear_fn fn, int row)
{
    bench one = *b;
    act_block *q = aligned(act_n_blocks(b->n_in) * sizeof(act_block));
    float *y = poisoned(b->n_out);
    one.n_rows = 1;
    one.in = input_of(b, b->x + (size_t)row * b->n_in, q, 1);
    one.want = b->want + (size_t)row * b->n_out;
    fn(&b->w, 0, (b->n_out + LINEAR_TILE - 1) / LINEAR_TILE, &one.in, 0, 1, y, b->n_out);
    check_output(&one, set, y, b->n_out, 0, 1);
    free(y);
    free(q);
}

static void check_set(const bench *b, const char *set, linear_fn fn)
{
    if (!fn) return;
    check_batch(b, set, fn, 0, b->n_rows);
    if (b->n_rows > 2) check_batch(b, set, fn, 1, b->n_rows - 1);
    check_alone(b, set, fn, (int)rng_below(&rand_state, (uint32_t)b->n_rows));
}

static void check_all_sets(tensor_type type, uint32_t n_in, uint32_t n_out, int n_rows)
{
    bench b;
    setup(&b, type, n_in, n_out, n_rows);
    check_set(&b, "scalar", linear_scalar(type));
    check_set(&b, "avx2", linear_avx2(type));
    check_set(&b, "avx512", linear_avx512(type));
    assert_non_null(linear_best(type));
    teardown(&b);
}

static uint32_t block_len(tensor_type type)
{
    uint32_t len = type_get((uint32_t)type)->block_len;
    return len < 32 ? 32 : len;
}

static void say_missing_sets(void)
{
    if (!linear_avx2(TYPE_Q4_K)) print_message("skipped: AVX2 (this CPU or FACET_CPU)\n");
    if (!linear_avx512(TYPE_Q4_K)) print_message("skipped: AVX-512 VNNI (this CPU or FACET_CPU)\n");
}

/* ---- tests ---- */

static void test_all_widths(void **state)
{
    (void)state;
    say_missing_sets();
    for (int i = 0; i < N_TYPES; i++)
        for (int rows = 1; rows <= 20; rows++) check_all_sets(types[i], 3 * block_len(types[i]), 21, rows);
}

static void test_shapes(void **state)
{
    (void)state;
    static const uint32_t outs[] = {1, 15, 16, 17, 48};
    for (int i = 0; i < N_TYPES; i++)
        for (int k = 0; k < 10; k++) {
            uint32_t blocks = 1 + rng_below(&rand_state, block_len(types[i]) < 256 ? 35 : 6);
            int rows = 1 + (int)rng_below(&rand_state, 64);
            check_all_sets(types[i], blocks * block_len(types[i]), outs[k % 5], rows);
        }
}

/* Many whole tiles and a part of one, from an even and an odd tile on: float kernels take two at once. */
static void test_many_tiles(void **state)
{
    (void)state;
    static const tensor_type some[] = {TYPE_F32, TYPE_F16, TYPE_BF16, TYPE_Q4_K, TYPE_Q6_K};
    for (int i = 0; i < 5; i++)
        for (int rows = 1; rows <= 64; rows += rows < 18 ? 1 : 23) {
            check_all_sets(some[i], 256, 16 * (5 + (uint32_t)rows % 3) + (uint32_t)rows % 2, rows);
        }
}

/* More activations than one block of rows holds. */
static void test_row_blocks(void **state)
{
    (void)state;
    check_all_sets(TYPE_Q4_K, 8192, 18, 61);
    check_all_sets(TYPE_Q8_0, 8160, 18, 43);
    check_all_sets(TYPE_F16, 8160, 18, 43);
    check_all_sets(TYPE_BF16, 8160, 98, 43);
}

static void test_pack_is_a_permutation(void **state)
{
    (void)state;
    for (int i = 0; i < N_TYPES; i++)
        for (uint32_t blocks = 1; blocks < 8; blocks++) {
            const uint32_t n_in = blocks * block_len(types[i]), n_out = 33;
            const type_info *info = type_get((uint32_t)types[i]);
            const size_t bytes = n_out * type_bytes(info, n_in);
            uint8_t *file = aligned(bytes), *back = aligned(bytes), *tile = aligned(linear_tile_bytes(types[i], n_in));
            for (size_t k = 0; k < bytes; k++) file[k] = (uint8_t)rng_next(&rand_state);
            for (uint32_t t = 0; t < 3; t++) {
                linear_pack_tile(types[i], n_in, n_out, file, t, tile);
                linear_unpack_tile(types[i], n_in, n_out, tile, t, back);
            }
            if (memcmp(file, back, bytes) != 0) fail_msg("%s, %u values: not the same bytes", info->name, n_in);
            free(file);
            free(back);
            free(tile);
        }
}

/* Padding of whole records costs little: at most 64 bytes a record of 256 values. */
static void test_tile_bytes(void **state)
{
    (void)state;
    for (int i = 0; i < N_TYPES; i++) {
        size_t file = LINEAR_TILE * type_bytes(type_get((uint32_t)types[i]), 1536);
        assert_in_range(linear_tile_bytes(types[i], 1536), file, file + 6 * 64);
    }
    assert_false(linear_can_pack(TYPE_Q4_K, 128));
    assert_false(linear_can_pack(TYPE_F16, 40));
    assert_false(linear_can_pack(TYPE_I32, 64));
    assert_false(linear_can_pack(TYPE_Q8_0, 0));
}

static void check_quantize(const float *x, size_t n, size_t stride)
{
    const size_t bytes = act_n_blocks(n) * stride * sizeof(act_block);
    act_block *want = aligned(bytes), *have = aligned(bytes);
    memset(want, 0x5a, bytes);
    memset(have, 0x5a, bytes);
    act_quantize(x, n, want, stride);
    act_quantize_best()(x, n, have, stride);
    for (size_t b = 0; b < act_n_blocks(n); b++) {
        const act_block *w = want + b * stride, *h = have + b * stride;
        assert_memory_equal(w->q, h->q, sizeof w->q);
        assert_memory_equal(w->sum16, h->sum16, sizeof w->sum16);
        for (int g = 0; g < 8; g++) assert_true(same(w->scale[g], h->scale[g]));
        for (int g = 0; g < 8; g++) assert_true(same(w->scale_sum[g], h->scale_sum[g]));
    }
    if (stride > 1) assert_memory_equal(want + 1, have + 1, sizeof *want); /* blocks of other rows */
    free(want);
    free(have);
}

static void test_quantize(void **state)
{
    (void)state;
    float x[32 * 41];
    for (int round = 0; round < 200; round++) {
        size_t n = 32 * (1 + rng_below(&rand_state, 41));
        float scale = ldexpf(1.0f, (int)rng_below(&rand_state, 240) - 130);
        for (size_t i = 0; i < n; i++) x[i] = (float)rng_normal(&rand_state) * scale;
        for (size_t i = 0; i < n; i += 37) x[i] = (float)((int)rng_below(&rand_state, 255) - 127) * 0.5f * scale;
        check_quantize(x, n, 1 + rng_below(&rand_state, 3));
    }
    memset(x, 0, sizeof x);
    x[40] = NAN;
    x[70] = INFINITY;
    x[100] = 0x1p-119f;
    x[130] = 0x1p-120f;
    x[170] = -0.0f;
    check_quantize(x, 256, 1);
}

static int seed_random(void **state)
{
    (void)state;
    rng_seed(&rand_state, 20);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_all_widths, seed_random),
        cmocka_unit_test_setup(test_shapes, seed_random),
        cmocka_unit_test_setup(test_many_tiles, seed_random),
        cmocka_unit_test_setup(test_row_blocks, seed_random),
        cmocka_unit_test_setup(test_pack_is_a_permutation, seed_random),
        cmocka_unit_test_setup(test_tile_bytes, seed_random),
        cmocka_unit_test_setup(test_quantize, seed_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
