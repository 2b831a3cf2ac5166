/* What the presets of the cache cost a model: `balanced` cannot be told from f16, `small` and `tiny` are what their
 * help says, in this order. The bundled model by itself; with the reference set also its passkeys, with
 * FACET_TEST_FULL=1 those of 16,000 tokens on three models. */
#include "testing.h"

#include <jansson.h>

#include "decode/needle.h"
#include "decode/score.h"

/* setting: a preset, or f32 for both types. */
static facet_engine *open_engine(facet_model *m, const char *setting, int32_t n_ctx)
{
    facet_engine *e;
    facet_error err;
    facet_engine_params p = facet_engine_params_default();
    p.device = "cpu";
    p.n_ctx = n_ctx;
    if (strcmp(setting, "f32") == 0)
        p.cache_type_k = p.cache_type_v = setting;
    else
        p.cache_preset = setting;
    assert_ok(facet_engine_open(m, &p, &e, &err), err);
    return e;
}

static score_kl_result divergence(facet_model *m, const needle_prompt *text, const char *setting)
{
    enum { N_CTX = 1000 };
    score_kl_result r;
    facet_error err;
    facet_engine *a = open_engine(m, "exact", N_CTX), *b = open_engine(m, setting, N_CTX);
    const score_params p = {.tokens = text->ids, .n_tokens = text->n_ids, .n_ctx = N_CTX};
    assert_ok(score_kl(a, b, &p, &r, &err), err);
    print_message("%s: mean KL %.3e, 99 %% %.3e, same argmax %.2f %% of %zu\n", setting, r.mean, r.p99,
                  100 * r.same_argmax, r.n_scored);
    facet_engine_close(a);
    facet_engine_close(b);
    return r;
}

/* Mean divergences of f32, balanced, small and tiny on a text that the model was not trained on. */
static void measure(const char *path, double mean[4])
{
    static const char *const settings[] = {"f32", "balanced", "small", "tiny"};
    facet_model *m;
    facet_error err;
    needle_prompt text;
    const needle_params p = {.n_tokens = 2002, .depth = 30, .seed = 2};
    assert_ok(facet_model_open(path, &m, &err), err);
    assert_ok(needle_build(m, &p, &text, &err), err);
    for (int i = 0; i < 4; i++) mean[i] = divergence(m, &text, settings[i]).mean;
    needle_free(&text);
    facet_model_close(m);
    assert_true(mean[1] < mean[2] / 5 && mean[2] < mean[3] / 1.5);
}

/* With quantised weights, activations are rounded to 8 bits, which makes any difference of the cache a larger one: the
 * step from f16 to f32 as well. That from f16 to q8_0 is no other. */
static void balanced_is_as_near_to_f16_as_f32(void **state)
{
    (void)state;
    double mean[4];
    measure(FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf", mean);
    assert_true(mean[0] > 1e-5 && mean[1] < 2 * mean[0]);
    assert_true(mean[2] < 0.01 && mean[3] < 0.1);
}

/* Weights in F16: only the cache differs. A mean of 1e-6 nats changes the likelihood of a thousand tokens by a factor
 * of 1.001. */
static void presets_cost_what_they_say(void **state)
{
    (void)state;
    double mean[4];
    TEST_NEEDS_SHARED("models/tiny-31b-F16.gguf");
    measure(test_shared("models/tiny-31b-F16.gguf"), mean);
    assert_true(mean[0] < 1e-6 && mean[1] < 1e-4);
    assert_true(mean[2] < 0.05 && mean[3] < 0.1);
}

/* ---- passkeys ---- */

static bool on_token(void *ud, int32_t token, const char *text, size_t n)
{
    char *answer = ud;
    const size_t len = strlen(answer);
    (void)token;
    if (len + n >= 256) return false;
    memcpy(answer + len, text, n);
    answer[len + n] = 0;
    return true;
}

static bool is_answered(facet_model *m, facet_session *s, const json_t *line)
{
    const char *prompt = json_string_value(json_object_get(line, "prompt")),
               *want = json_string_value(json_object_get(line, "answer"));
    int32_t *ids;
    size_t n;
    char answer[256] = "";
    facet_error err;
    facet_generate_result r;
    facet_sampling greedy = facet_sampling_default();
    facet_generate_params g = facet_generate_params_default();
    g.n_predict = 32;
    g.on_token = on_token;
    g.ud = answer;
    assert_true(prompt && want);
    assert_ok(facet_tokenize(m, prompt, strlen(prompt), true, true, &ids, &n, &err), err);
    assert_ok(facet_generate(s, ids, n, &greedy, &g, &r, &err), err);
    facet_free(ids);
    const char *begin = answer + strspn(answer, " \n");
    return strncmp(begin, want, strlen(want)) == 0;
}

/* Right answers to the prompts of so many tokens. */
static int count_right(const char *model, const char *preset, int n_tokens, int *total)
{
    facet_model *m;
    facet_session *s;
    facet_error err;
    char line[1 << 17];
    int right = 0;
    assert_ok(facet_model_open(test_shared(model), &m, &err), err);
    facet_engine *e = open_engine(m, preset, n_tokens + 500);
    assert_ok(facet_session_open(e, &s, &err), err);
    FILE *f = fopen(test_shared("models/passkey.jsonl"), "r");
    assert_non_null(f);
    *total = 0;
    while (fgets(line, sizeof line, f)) {
        json_t *j = json_loads(line, 0, NULL);
        assert_non_null(j);
        if (json_integer_value(json_object_get(j, "tokens")) == n_tokens) {
            right += is_answered(m, s, j);
            ++*total;
        }
        json_decref(j);
    }
    fclose(f);
    facet_session_close(s);
    facet_engine_close(e);
    facet_model_close(m);
    print_message("%s, %s, %d tokens: %d of %d\n", model, preset, n_tokens, right, *total);
    return right;
}

static void passkeys_are_found(void **state)
{
    (void)state;
    static const char *const models[] = {"models/tiny-31b-F16.gguf", "models/tiny-26b-a4b-F16.gguf",
                                         "models/tiny-e2b-F16.gguf"};
    static const char *const presets[] = {"balanced", "small"};
    const char *full = getenv("FACET_TEST_FULL");
    const bool is_full = full && strcmp(full, "1") == 0;
    TEST_NEEDS_SHARED("models/passkey.jsonl");
    for (size_t i = 0; i < (is_full ? 3 : 1); i++) {
        TEST_NEEDS_SHARED(models[i]);
        for (size_t p = 0; p < 2; p++) {
            int total;
            const int right = count_right(models[i], presets[p], is_full ? 16000 : 2000, &total);
            assert_int_equal(total, 4);
            assert_int_equal(right, total);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(balanced_is_as_near_to_f16_as_f32),
        cmocka_unit_test(presets_cost_what_they_say),
        cmocka_unit_test(passkeys_are_found),
    };
    return cmocka_run_group_tests_name("kv_quality", tests, NULL, NULL);
}
