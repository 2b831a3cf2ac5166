/* Every reference output of the small F16 models, on every CPU backend (or on the one that FACET_TEST_DEVICE names). */
#include "golden.h"

#include "decode/session.h"

static const char *const models[] = {"tiny-31b", "tiny-26b-a4b", "tiny-e2b"};
enum { N_MODELS = 3 };

static const char *const *devices(void)
{
    static const char *list[3];
    const char *only = getenv("FACET_TEST_DEVICE");
    list[0] = only && *only ? only : "ref";
    list[1] = only && *only ? NULL : "cpu";
    return list;
}

typedef struct fixture {
    facet_model *model;
    facet_engine *engine;
} fixture;

static fixture open_engine(const char *name, const char *device, bool wants_layers)
{
    fixture f = {0};
    facet_error err;
    char file[64];
    snprintf(file, sizeof file, "models/%s-F16.gguf", name);
    assert_ok(facet_model_open(test_shared(file), &f.model, &err), err);
    facet_engine_params p = facet_engine_params_default();
    int layers[MAX_CAPTURES];
    for (int i = 0; i < f.model->h.n_layers; i++) layers[i] = i;
    p.device = device;
    p.n_ctx = 4096;
    p.wants_hidden = true;
    if (wants_layers) {
        p.n_captures = f.model->h.n_layers;
        p.capture_layers = layers;
    }
    assert_ok(facet_engine_open(f.model, &p, &f.engine, &err), err);
    return f;
}

static void close_engine(fixture *f)
{
    facet_engine_close(f->engine);
    facet_model_close(f->model);
}

/* Logits, hidden and argmax of every position, in chunks of at most 64 wanted rows. */
static void eval_all(facet_engine *e, const int32_t *ids, size_t n, float *logits, float *hidden, int32_t *argmax)
{
    facet_error err;
    kv_seq kv = {0};
    const size_t V = e->model->h.n_vocab, H = e->model->h.n_embd;
    for (size_t at = 0; at < n;) {
        const int rows = n - at < ENGINE_MAX_OUT ? (int)(n - at) : ENGINE_MAX_OUT;
        assert_ok(engine_eval(e, &kv, ids + at, (int32_t)at, rows, rows, &err), err);
        assert_ok(e->be->ops->read(e->be, e->compiled, e->plan->v_logits, 0, rows, logits + at * V, &err), err);
        assert_ok(e->be->ops->read(e->be, e->compiled, e->plan->v_hidden, 0, rows, hidden + at * H, &err), err);
        assert_ok(e->be->ops->read(e->be, e->compiled, e->plan->v_argmax, 0, rows, argmax + at, &err), err);
        at += (size_t)rows;
        kv_seq_release_window(e->pool, &kv, (int32_t)at);
    }
    kv_seq_free(e->pool, &kv);
}

/* The cache holds f16: at most one row in a hundred may differ by more than f32 arithmetic does (an expert of nearly
 * equal weight chosen otherwise), and none by more than f16 activations may. */
static void check_rows(const json_t *p, const char *field, const float *all, size_t width, float usual, float limit)
{
    const json_t *positions = json_object_get(p, "positions");
    const size_t n = json_array_size(positions);
    const char *file = json_string_value(json_object_get(p, field));
    float *want = golden_floats(file, n * width);
    size_t n_beyond = 0;
    for (size_t i = 0; i < n; i++) {
        size_t at, pos = (size_t)json_integer_value(json_array_get(positions, i));
        float d = max_diff(all + pos * width, want + i * width, width, &at);
        n_beyond += !(d <= usual);
        if (!(d <= limit))
            fail_msg("%s at position %zu, element %zu: %g, wanted %g", file, pos, at, (double)all[pos * width + at],
                     (double)want[i * width + at]);
    }
    if (n_beyond > (n + 99) / 100)
        fail_msg("%s: %zu of %zu rows differ by more than %g", file, n_beyond, n, (double)usual);
    mem_free(want);
}

static void check_prompt(facet_engine *e, const json_t *p)
{
    size_t n;
    int32_t *ids = golden_ids(json_object_get(p, "ids"), &n);
    const size_t V = e->model->h.n_vocab, H = e->model->h.n_embd;
    float *logits = malloc(n * V * sizeof *logits), *hidden = malloc(n * H * sizeof *hidden);
    int32_t *argmax = malloc(n * sizeof *argmax);
    eval_all(e, ids, n, logits, hidden, argmax);
    for (size_t i = 0; i < n; i++)
        if (json_number_value(json_array_get(json_object_get(p, "margin"), i)) > 0.05)
            assert_int_equal(argmax[i], json_integer_value(json_array_get(json_object_get(p, "argmax"), i)));
    check_rows(p, "logits", logits, V, 0.01f, 0.1f);
    check_rows(p, "hidden", hidden, H, 0.05f, 0.5f);
    free(ids);
    free(logits);
    free(hidden);
    free(argmax);
}

static void for_every_prompt(void (*check)(facet_engine *e, const json_t *prompt))
{
    for (const char *const *d = devices(); *d; d++)
        for (int m = 0; m < N_MODELS; m++) {
            char name[64];
            snprintf(name, sizeof name, "goldens/%s.json", models[m]);
            json_t *j = golden_json(test_shared(name));
            json_t *prompts = json_object_get(j, "prompts");
            if (!prompts) prompts = j;
            assert_true(json_array_size(prompts) >= 7);
            fixture f = open_engine(models[m], *d, false);
            for (size_t i = 0; i < json_array_size(prompts); i++) check(f.engine, json_array_get(prompts, i));
            close_engine(&f);
            json_decref(j);
        }
}

static void logits_and_hidden_match(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("goldens/tiny-31b.json");
    for_every_prompt(check_prompt);
}

typedef struct collected {
    int32_t ids[64];
    size_t n;
} collected;

static bool collect(void *ud, int32_t token, const char *text, size_t n)
{
    (void)text, (void)n;
    collected *c = ud;
    if (token >= 0 && c->n < 64) c->ids[c->n++] = token;
    return true;
}

static void check_greedy(facet_engine *e, const json_t *p)
{
    size_t n;
    int32_t *ids = golden_ids(json_object_get(p, "ids"), &n);
    const json_t *want = json_object_get(p, "greedy"), *margin = json_object_get(p, "greedy_margin");
    facet_error err;
    facet_session *s;
    assert_ok(facet_session_open(e, &s, &err), err);
    collected got = {0};
    facet_generate_params g = facet_generate_params_default();
    g.n_predict = (int32_t)json_array_size(want);
    g.ignore_eos = true;
    g.on_token = collect;
    g.ud = &got;
    facet_generate_result r;
    facet_sampling greedy = facet_sampling_default();
    assert_ok(facet_generate(s, ids, n, &greedy, &g, &r, &err), err);
    assert_int_equal(got.n, json_array_size(want));
    for (size_t i = 0; i < got.n; i++) {
        if (json_number_value(json_array_get(margin, i)) < 1e-3)
            break; /* an exact tie: either token is right, and the rest follows it */
        assert_int_equal(got.ids[i], json_integer_value(json_array_get(want, i)));
    }
    facet_session_close(s);
    free(ids);
}

static void greedy_continuations_match(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("goldens/tiny-31b.json");
    for_every_prompt(check_greedy);
}

static void hidden_states_of_every_layer_match(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("goldens/tiny-31b.json");
    for (const char *const *d = devices(); *d; d++)
        for (int m = 0; m < N_MODELS; m++) {
            char name[64];
            snprintf(name, sizeof name, "goldens/%s.json", models[m]);
            json_t *j = golden_json(test_shared(name)), *prompts = json_object_get(j, "prompts"),
                   *p = json_array_get(prompts ? prompts : j, 0);
            assert_string_equal(json_string_value(json_object_get(p, "name")), "short");
            fixture f = open_engine(models[m], *d, true);
            facet_engine *e = f.engine;
            size_t n;
            int32_t *ids = golden_ids(json_object_get(p, "ids"), &n);
            const size_t H = e->model->h.n_embd;
            const int L = e->model->h.n_layers;
            float *want = golden_floats(json_string_value(json_object_get(p, "layers")), ((size_t)L + 1) * n * H),
                  *got = malloc(n * H * sizeof *got);
            kv_seq kv = {0};
            facet_error err;
            assert_ok(engine_eval(e, &kv, ids, 0, (int)n, (int)n, &err), err);
            for (int l = 0; l < L; l++) { /* the golden's last row is the final norm's output, which v_hidden holds */
                const int v = l == L - 1 ? e->plan->v_hidden : e->plan->v_capture[l];
                assert_ok(e->be->ops->read(e->be, e->compiled, v, 0, (int)n, got, &err), err);
                size_t at;
                float diff = max_diff(got, want + (size_t)(l + 1) * n * H, n * H, &at);
                if (!(diff < 0.02f))
                    fail_msg("%s on %s, layer %d, element %zu: differs by %g", models[m], *d, l, at, (double)diff);
            }
            kv_seq_free(e->pool, &kv);
            free(got);
            free(ids);
            mem_free(want);
            close_engine(&f);
            json_decref(j);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hidden_states_of_every_layer_match),
        cmocka_unit_test(logits_and_hidden_match),
        cmocka_unit_test(greedy_continuations_match),
    };
    return cmocka_run_group_tests_name("goldens", tests, NULL, NULL);
}
