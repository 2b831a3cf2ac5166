/* test_rebuild_keys.c: engines whose global layers keep V alone (facet_engine_params.rebuild_keys) against those that
 * keep both: memory, logits, tokens of tasks, forks, what cannot be done. Strategies: test_spec_matrix.c; snapshots:
 * test_snapshot.c, test_snapshot_file.c; kernels: tests/compute/test_attn_rebuild.c. */
#include "spec_world.h"

#include <math.h>

/* Two engines of the bundled model that differ in how they keep keys. */
typedef struct pair {
    spec_world w[2]; /* [rebuild_keys] */
    facet_session *s[2];
} pair;

static pair pair_open(const spec_setup *o)
{
    pair p;
    for (int i = 0; i < 2; i++) {
        spec_setup q = *o;
        q.rebuild_keys = i;
        p.w[i] = spec_open(&q);
        p.s[i] = spec_session(p.w[i].engine);
    }
    return p;
}

static void pair_close(pair *p)
{
    for (int i = 0; i < 2; i++) {
        facet_session_close(p->s[i]);
        spec_close(&p->w[i]);
    }
}

static void text_of(int32_t *out, int n, uint64_t seed)
{
    rng r;
    rng_seed(&r, seed);
    for (int i = 0; i < n; i++) out[i] = i ? 300 + (int32_t)rng_below(&r, 1500) : 2;
}

static float *logits_of(facet_session *s, const int32_t *text, int n)
{
    facet_error err;
    float *out = malloc(s->engine->model->h.n_vocab * sizeof *out);
    assert_ok(facet_session_sync(s, text, (size_t)n, &err), err);
    assert_ok(facet_session_logits(s, out, &err), err);
    return out;
}

/* ---- layout ---- */

static void global_layers_take_half(void **state)
{
    (void)state;
    static const char *const types[][2] = {{"f16", "f16"}, {"q8_0", "q8_0"}, {"rot_q4_0", "rot_q4_0"}};
    for (int t = 0; t < 3; t++) {
        pair p = pair_open(&(spec_setup){.target = SPEC_TARGET, .k = types[t][0], .v = types[t][1]});
        const kv_desc *both = &p.w[0].engine->kv, *alone = &p.w[1].engine->kv;
        assert_int_equal(2 * kv_group_page_bytes(alone, KV_GROUP_GLOBAL), kv_group_page_bytes(both, KV_GROUP_GLOBAL));
        assert_int_equal(kv_group_page_bytes(alone, KV_GROUP_LOCAL), kv_group_page_bytes(both, KV_GROUP_LOCAL));
        for (int l = 0; l < alone->n_layers; l++) {
            assert_int_equal(alone->layers[l].rebuilds_k, alone->layers[l].group == KV_GROUP_GLOBAL);
            assert_false(both->layers[l].rebuilds_k);
        }
        pair_close(&p);
    }
}

/* The finer of two types; at least q8_0 in the layer that an MTP assistant reads. */
static void one_type_stands_for_both(void **state)
{
    (void)state;
    for (int has_mtp = 0; has_mtp < 2; has_mtp++) {
        spec_world w = spec_open(&(spec_setup){
            .target = SPEC_TARGET, .mtp = has_mtp ? SPEC_MTP : NULL, .k = "tq3_0", .v = "q4_0", .rebuild_keys = true});
        const kv_desc *d = &w.engine->kv;
        int last = -1;
        for (int l = 0; l < d->n_layers; l++)
            if (d->layers[l].group == KV_GROUP_GLOBAL) last = l;
        for (int l = 0; l < last; l++)
            if (d->layers[l].group == KV_GROUP_GLOBAL)
                assert_true(d->layers[l].k_type == KV_Q4_0 && d->layers[l].v_type == KV_Q4_0);
        const kv_type want = has_mtp ? KV_Q8_0 : KV_Q4_0;
        assert_true(d->layers[last].k_type == want && d->layers[last].v_type == want && d->layers[last].rebuilds_k);
        spec_close(&w);
    }
}

static void models_with_values_of_their_own_are_refused(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/tiny-e2b-F16.gguf");
    facet_model *m;
    facet_engine *e;
    facet_error err;
    assert_ok(facet_model_open(test_shared("models/tiny-e2b-F16.gguf"), &m, &err), err);
    facet_engine_params p = facet_engine_params_default();
    p.device = "cpu";
    p.n_ctx = 64;
    p.rebuild_keys = true;
    assert_int_equal(facet_engine_open(m, &p, &e, &err), FACET_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "rebuild_keys: the global layers of this model have values of their own"));
    facet_model_close(m);
}

/* ---- logits ---- */

/* With an f32 cache nothing is rounded. */
static double largest_difference(const char *target, const char *device, int n)
{
    int32_t text[700];
    text_of(text, n, 1);
    pair p = pair_open(&(spec_setup){.target = target, .k = "f32", .v = "f32", .device = device, .n_threads = 2});
    float *want = logits_of(p.s[0], text, n), *got = logits_of(p.s[1], text, n);
    double worst = 0;
    for (uint32_t t = 0; t < p.w[0].model->h.n_vocab; t++) worst = fmax(worst, fabs((double)got[t] - want[t]));
    print_message("%s: largest difference of a logit %.2e\n", device, worst);
    free(want);
    free(got);
    pair_close(&p);
    return worst;
}

static void the_reference_gives_the_same_bits(void **state)
{
    (void)state;
    assert_true(largest_difference(SPEC_TARGET, "ref", 200) == 0);
}

/* The kernels differ by what another order of sums leaves; F16 weights, since rounding of activations makes it larger.
 */
static void an_f32_cache_loses_nothing(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/tiny-31b-F16.gguf");
    char path[1024];
    snprintf(path, sizeof path, "%s", test_shared("models/tiny-31b-F16.gguf"));
    assert_true(largest_difference(path, "cpu", 700) < 1e-3);
}

/* However many threads share the work, and whether the text comes at once or piece by piece. */
static void bits_do_not_depend_on_the_step(void **state)
{
    (void)state;
    enum { N = 600 };
    int32_t text[N];
    float *want = NULL;
    size_t bytes = 0;
    text_of(text, N, 2);
    for (int i = 0; i < 4; i++) {
        static const int threads[] = {1, 2, 3, 5}, pieces[] = {N, 1, 37, 200};
        spec_world w = spec_open(&(spec_setup){
            .target = SPEC_TARGET, .n_threads = threads[i], .k = "rot_q8_0", .v = "q8_0", .rebuild_keys = true});
        facet_session *s = spec_session(w.engine);
        facet_error err;
        int n = 0;
        if (pieces[i] == 1) { /* the first 500 at once: steps of one row take long */
            assert_ok(facet_session_sync(s, text, 500, &err), err);
            n = 500;
        }
        for (; n < N; n += pieces[i])
            assert_ok(facet_session_append(s, text + n, (size_t)(N - n < pieces[i] ? N - n : pieces[i]), &err), err);
        float *got = logits_of(s, text, N);
        bytes = w.model->h.n_vocab * sizeof *got;
        if (want) assert_memory_equal(got, want, bytes);
        if (!want) want = got;
        if (got != want) free(got);
        facet_session_close(s);
        spec_close(&w);
    }
    free(want);
}

/* ---- tokens ---- */

/* Greedy answers to the tasks; by default every fourth. */
static void answer_tasks(const char *name, const char *type, int least_in_hundred)
{
    char relative[128], path[1024];
    snprintf(relative, sizeof relative, "models/%s.gguf", name);
    snprintf(path, sizeof path, "%s", test_shared(relative));
    pair p = pair_open(&(spec_setup){.target = path, .k = type, .v = type});
    spec_prompts prompts = {0};
    spec_load_prompts(&prompts, test_shared("models/tasks.jsonl"), p.w[0].model);
    spec_said *want = malloc(sizeof *want), *got = malloc(sizeof *got);
    int n = 0, n_same = 0;
    for (int i = 0; i < prompts.n; i += spec_is_full() ? 1 : 4, n++) {
        const spec_request q = {.prompt = prompts.list[i].ids, .n_prompt = prompts.list[i].n, .n_predict = 64};
        spec_say(p.s[0], &q, NULL, NULL, want);
        spec_say(p.s[1], &q, NULL, NULL, got);
        n_same += got->n == want->n && memcmp(got->ids, want->ids, (size_t)got->n * sizeof *got->ids) == 0;
    }
    print_message("%s, cache %s: %d of %d answers are the same, token by token\n", name, type, n_same, n);
    assert_true(n > 20 && 100 * n_same >= least_in_hundred * n);
    free(want);
    free(got);
    spec_free_prompts(&prompts);
    pair_close(&p);
}

static void tasks_have_the_same_answers(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/tasks.jsonl");
    answer_tasks("tiny-31b-F16", "f16", 98);
    answer_tasks("tiny-26b-a4b-F16", "f16", 98);
    answer_tasks("tiny-31b-Q4_K_M", "q8_0", 95);
    answer_tasks("tiny-26b-a4b-Q4_K_M", "q8_0", 95);
}

/* ---- forks ---- */

static void forks_go_their_own_ways(void **state)
{
    (void)state;
    enum { N = 200, MORE = 100 };
    int32_t text[2][N + MORE];
    for (int i = 0; i < 2; i++) {
        text_of(text[i], N, 3);
        text_of(text[i] + N - 1, MORE + 1, 4 + (uint64_t)i);
        text[i][N - 1] = 400;
    }
    spec_world w = spec_open(&(spec_setup){.target = SPEC_TARGET, .k = "q8_0", .v = "q8_0", .rebuild_keys = true});
    facet_session *a = spec_session(w.engine), *b, *fresh = spec_session(w.engine);
    facet_error err;
    assert_ok(facet_session_sync(a, text[0], N, &err), err);
    const int32_t before = kv_pool_free_pages(w.engine->pool, KV_GROUP_GLOBAL);
    assert_ok(facet_session_fork(a, &b, &err), err);
    assert_int_equal(kv_pool_free_pages(w.engine->pool, KV_GROUP_GLOBAL), before); /* nothing is copied */
    assert_ok(facet_session_append(a, text[0] + N, MORE, &err), err);
    assert_ok(facet_session_append(b, text[1] + N, MORE, &err), err);
    for (int i = 0; i < 2; i++) {
        float *got = logits_of(i ? b : a, text[i], N + MORE), *want = logits_of(fresh, text[i], N + MORE);
        assert_memory_equal(got, want, w.model->h.n_vocab * sizeof *got);
        free(got);
        free(want);
    }
    facet_session_close(a);
    facet_session_close(b);
    facet_session_close(fresh);
    spec_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(global_layers_take_half),
        cmocka_unit_test(one_type_stands_for_both),
        cmocka_unit_test(models_with_values_of_their_own_are_refused),
        cmocka_unit_test(the_reference_gives_the_same_bits),
        cmocka_unit_test(an_f32_cache_loses_nothing),
        cmocka_unit_test(bits_do_not_depend_on_the_step),
        cmocka_unit_test(tasks_have_the_same_answers),
        cmocka_unit_test(forks_go_their_own_ways),
    };
    return cmocka_run_group_tests_name("rebuilt keys", tests, NULL, NULL);
}
