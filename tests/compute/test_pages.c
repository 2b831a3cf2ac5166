/* Pages as bytes, on every backend: what was written is read, other pages and groups stay; memory of a group goes and
 * comes; and weights of a part. */
#include "testing.h"

#include "base/mem.h"
#include "base/rng.h"
#include "compute/backend.h"

enum { N_PAGES = 9, N_ROWS = 64, N_IN = 64 };

static const char *const devices[] = {"cpu", "ref", "cuda"};

/* NULL where there is no such device. */
static backend *open_device(const char *name)
{
    backend *b = NULL;
    facet_error err;
    const backend_config cfg = {.n_threads = 1};
    if (backend_open(name, &cfg, &b, &err) == FACET_OK) return b;
    if (err.status != FACET_ERR_DEVICE) fail_msg("%s: %s", name, err.message);
    print_message("%s: %s\n", name, err.message);
    return NULL;
}

static backend_info info_of(const backend *b)
{
    backend_info i;
    b->ops->info(b, &i);
    return i;
}

static kv_layer_desc layers[] = {
    {.group = 1, .n_kv_heads = 2, .head_dim = 64, .k_type = KV_F16, .v_type = KV_Q8_0},
    {.group = 0, .n_kv_heads = 1, .head_dim = 128, .k_type = KV_F32, .v_type = KV_F16},
    {.group = 1, .n_kv_heads = 2, .head_dim = 64, .k_type = KV_Q8_0, .v_type = KV_Q8_0},
};
static const kv_desc desc = {.n_groups = 2,
                             .n_layers = 3,
                             .groups = {{.n_pages = N_PAGES}, {.window = 100, .n_pages = N_PAGES}},
                             .layers = layers};

static void fill(rng *r, uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)rng_below(r, 256);
}

static void pages_of(backend *b)
{
    facet_error err;
    rng r;
    uint8_t *all[2], *got[2];
    const int32_t ids[N_PAGES] = {4, 0, 8, 2, 7, 1, 6, 3, 5};
    rng_seed(&r, 3);
    assert_ok(b->ops->kv_alloc(b, &desc, &err), err);
    assert_true(strlen(info_of(b).page_layout) > 0);
    const uint64_t kv_bytes = info_of(b).kv_bytes;
    for (int g = 0; g < 2; g++) {
        const size_t n = N_PAGES * kv_group_page_bytes(&desc, g);
        fill(&r, all[g] = malloc(n), n);
        got[g] = malloc(n);
        assert_ok(b->ops->kv_write(b, g, ids, N_PAGES, all[g], &err), err);
    }
    for (int g = 0; g < 2; g++) {
        const size_t bytes = kv_group_page_bytes(&desc, g);
        assert_ok(b->ops->kv_read(b, g, ids, N_PAGES, got[g], &err), err);
        assert_memory_equal(got[g], all[g], N_PAGES * bytes);
        assert_ok(b->ops->kv_read(b, g, ids + 3, 2, got[g], &err), err);
        assert_memory_equal(got[g], all[g] + 3 * bytes, 2 * bytes);
        assert_ok(b->ops->kv_write(b, g, ids + 5, 1, all[g], &err), err); /* page 1 becomes page 4 */
        memcpy(all[g] + 5 * bytes, all[g], bytes);
        assert_ok(b->ops->kv_read(b, g, ids, N_PAGES, got[g], &err), err);
        assert_memory_equal(got[g], all[g], N_PAGES * bytes);
        assert_ok(b->ops->kv_read(b, g, NULL, 0, NULL, &err), err);
    }

    /* a copy of a page is one of its bytes */
    const kv_copy copy = {.group = 1, .src = 4, .dst = 3};
    const batch in = {.n_copies = 1, .copies = &copy};
    assert_ok(b->ops->move(b, &in, &err), err);
    memcpy(all[1] + 7 * kv_group_page_bytes(&desc, 1), all[1], kv_group_page_bytes(&desc, 1));

    /* one group goes, the other one stays */
    b->ops->kv_drop(b, 1);
    const uint64_t less = info_of(b).kv_bytes;
    assert_true(kv_bytes - less == N_PAGES * kv_group_page_bytes(&desc, 1));
    assert_int_equal(b->ops->kv_read(b, 1, ids, 1, got[1], &err), FACET_ERR_PARKED);
    assert_int_equal(b->ops->kv_write(b, 1, ids, 1, got[1], &err), FACET_ERR_PARKED);
    b->ops->kv_drop(b, 1);
    assert_true(info_of(b).kv_bytes == less);
    assert_ok(b->ops->kv_read(b, 0, ids, N_PAGES, got[0], &err), err);
    assert_memory_equal(got[0], all[0], N_PAGES * kv_group_page_bytes(&desc, 0));
    assert_ok(b->ops->kv_renew(b, 1, &err), err);
    assert_ok(b->ops->kv_renew(b, 1, &err), err);
    assert_true(info_of(b).kv_bytes == kv_bytes);
    assert_ok(b->ops->kv_write(b, 1, ids, N_PAGES, all[1], &err), err);
    assert_ok(b->ops->kv_read(b, 1, ids, N_PAGES, got[1], &err), err);
    assert_memory_equal(got[1], all[1], N_PAGES * kv_group_page_bytes(&desc, 1));

    static const int32_t wrong[] = {-1, N_PAGES};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(b->ops->kv_read(b, 0, &wrong[i], 1, got[0], &err), FACET_ERR_ARG);
        assert_int_equal(b->ops->kv_write(b, 0, &wrong[i], 1, got[0], &err), FACET_ERR_ARG);
        assert_int_equal(b->ops->kv_read(b, i ? 2 : -1, ids, 1, got[0], &err), FACET_ERR_ARG);
    }
    for (int g = 0; g < 2; g++) free(all[g]), free(got[g]);
}

static void pages_as_bytes(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        backend *b = open_device(devices[i]);
        if (!b) continue;
        pages_of(b);
        b->ops->close(b);
    }
}

/* ---- weights ---- */

/* Rows of weight 0, part 0, are gathered, and multiplied with weight 1, part 1. */
typedef struct product {
    weight w[2];
    plan *p;
    int out;
} product;

static product make_product(void)
{
    product x = {0};
    facet_error err;
    rng r;
    rng_seed(&r, 4);
    for (int i = 0; i < 2; i++) {
        float *data = malloc(N_ROWS * N_IN * sizeof *data);
        for (int k = 0; k < N_ROWS * N_IN; k++) data[k] = (float)rng_normal(&r);
        x.w[i] = (weight){.type = TYPE_F32,
                          .ne = {N_IN, N_ROWS, 1},
                          .data = data,
                          .bytes = N_ROWS * N_IN * sizeof *data,
                          .is_rows = i == 0,
                          .is_matrix = true,
                          .part = i};
    }
    assert_ok(plan_new("product", &x.p, &err), err);
    const int in = plan_value_new(x.p, ROWS_ALL, VALUE_F32, N_IN, false, "x");
    x.out = plan_value_new(x.p, ROWS_ALL, VALUE_F32, N_ROWS, true, "y");
    plan_op *embed = plan_add(x.p, OP_EMBED, -1);
    embed->o = in;
    embed->w0 = 0;
    embed->scale = 1;
    plan_op *linear = plan_add(x.p, OP_LINEAR, -1);
    linear->i0 = in;
    linear->o = x.out;
    linear->w0 = 1;
    linear->scale = 1;
    assert_ok(plan_finish(x.p, &err), err);
    return x;
}

static void multiply(backend *b, const product *x, float out[8 * N_ROWS])
{
    facet_error err;
    compiled *c;
    const int32_t token[8] = {5, 1, 63, 0, 20, 21, 22, 7}, zero[8] = {0};
    const batch in = {.n_rows = 8, .token = token, .pos = zero, .slot = zero, .seq = zero};
    assert_ok(b->ops->compile(b, x->p, 8, 8, &c, &err), err);
    assert_ok(b->ops->run(b, c, &in, &err), err);
    assert_ok(b->ops->read(b, c, x->out, 0, 8, out, &err), err);
    b->ops->release(b, c);
}

static void parts_of_weights(void **state)
{
    (void)state;
    facet_error err;
    float want[8 * N_ROWS], got[8 * N_ROWS];
    for (int i = 0; i < 3; i++) {
        backend *b = open_device(devices[i]);
        if (!b) continue;
        product x = make_product();
        assert_ok(b->ops->load(b, x.w, 2, &err), err);
        const uint64_t all = info_of(b).weight_bytes;
        multiply(b, &x, want);
        for (int part = 0; part < 2; part++) {
            b->ops->unload(b, part);
            b->ops->unload(b, part);
            const uint64_t less = info_of(b).weight_bytes;
            assert_true(strcmp(devices[i], "ref") == 0 ? all == 0 : less == all / 2 && less > 0);
            assert_ok(b->ops->reload(b, part, &err), err);
            assert_ok(b->ops->reload(b, part, &err), err);
            assert_true(info_of(b).weight_bytes == all);
            multiply(b, &x, got);
            assert_memory_equal(got, want, sizeof want);
        }
        assert_true(want[0] != 0);
        b->ops->close(b);
        plan_free(x.p);
        for (int k = 0; k < 2; k++) free((void *)(uintptr_t)x.w[k].data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_as_bytes),
        cmocka_unit_test(parts_of_weights),
    };
    return cmocka_run_group_tests_name("pages and parts", tests, NULL, NULL);
}
