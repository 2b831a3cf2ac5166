/* Temperatures above 0, penalties and bias: a draft holds when it equals the target's own draw, and draws depend on
 * seed and position alone; so the speculative text is the plain text of the same seed. */
#include "spec_scripted.h"

typedef struct fixture {
    spec_world w;
    spec_prompts prompts;
    spec_variants few;
    facet_session *plain, *spec;
    spec_said want, got;
} fixture;

static fixture *open_fixture(void)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->w = spec_open_bundled(0);
    f->prompts = spec_bundled_prompts();
    f->few = spec_few_variants(f->w.engine);
    f->plain = spec_session(f->w.engine);
    f->spec = spec_session(f->w.engine);
    return f;
}

static void close_fixture(fixture *f)
{
    facet_session_close(f->plain);
    facet_session_close(f->spec);
    spec_free_prompts(&f->prompts);
    spec_close(&f->w);
    free(f);
}

static facet_sampling with_temperature(float temperature, uint64_t seed)
{
    facet_sampling s = facet_sampling_default();
    s.temperature = temperature;
    s.seed = seed;
    return s;
}

static void compare(fixture *f, const spec_request *q, const spec_variant *v, const char *what, bool wants_state)
{
    char text[128];
    snprintf(text, sizeof text, "%s, %s, seed %d", v->name, what, (int)q->sampling->seed);
    spec_say(f->spec, q, &v->how, NULL, &f->got);
    spec_assert_same_said(&f->got, &f->want, text);
    if (wants_state) spec_assert_same_state(f->spec, f->plain, text);
}

static spec_request request_for(const fixture *f, const char *prompt, int32_t n, const facet_sampling *s)
{
    const spec_prompt *p = spec_prompt_named(&f->prompts, prompt);
    return (spec_request){.prompt = p->ids, .n_prompt = p->n, .n_predict = n, .ignore_eos = true, .sampling = s};
}

static const facet_logit_bias bias[] = {{400, -5}, {106, 2}, {500, 6}};

/* The settings that a sampler has, one at a time and together. */
static int settings(facet_sampling out[16], const char *names[16])
{
    int n = 0;
    for (int i = 0; i < 11; i++) {
        facet_sampling s = with_temperature(0.9f, 0);
        names[n] = "temperature 0.9";
        if (i == 1) s.temperature = 2, names[n] = "temperature 2";
        if (i == 2) s.top_k = 5, s.temperature = 3, names[n] = "top-k 5";
        if (i == 3) s.top_p = 0.8f, s.temperature = 2, names[n] = "top-p 0.8";
        if (i == 4) s.min_p = 0.05f, s.temperature = 2, names[n] = "min-p 0.05";
        if (i == 5) s.repeat_penalty = 1.3f, names[n] = "repetition penalty";
        if (i == 6) s.presence_penalty = 0.7f, s.frequency_penalty = 0.4f, names[n] = "presence and frequency";
        if (i == 7) s.bias = bias, s.n_bias = 3, names[n] = "bias";
        if (i == 8) s.temperature = 0, s.repeat_penalty = 1.5f, names[n] = "greedy with a penalty";
        if (i == 9) s.temperature = 0, s.bias = bias, s.n_bias = 3, names[n] = "greedy with a bias";
        if (i == 10) {
            s = (facet_sampling){.struct_size = sizeof s,
                                 .temperature = 1.5f,
                                 .top_k = 64,
                                 .top_p = 0.95f,
                                 .min_p = 0.01f,
                                 .repeat_penalty = 1.1f,
                                 .presence_penalty = 0.2f,
                                 .frequency_penalty = 0.1f,
                                 .penalty_last_n = -1,
                                 .bias = bias,
                                 .n_bias = 3};
            names[n] = "everything";
        }
        out[n++] = s;
    }
    return n;
}

static void every_setting_gives_the_plain_text_of_its_seed(void **state)
{
    (void)state;
    static const char *const prompts[] = {"story", "code", "json", "bytes"};
    fixture *f = open_fixture();
    facet_sampling s[16];
    const char *names[16];
    const int n = settings(s, names);
    int n_accepted = 0, n_rejected = 0;
    for (int i = 0; i < n; i++)
        for (uint64_t seed = 1; seed <= 4; seed++) {
            s[i].seed = seed * 1000 + (uint64_t)i;
            const spec_request q = request_for(f, prompts[seed % 4], 40, &s[i]);
            spec_say(f->plain, &q, NULL, NULL, &f->want);
            for (int k = 0; k < f->few.n; k++) {
                compare(f, &q, &f->few.list[k], names[i], seed == 1);
                n_accepted += (int)f->got.r.spec.accepted;
                n_rejected += (int)(f->got.r.spec.drafted - f->got.r.spec.accepted);
            }
        }
    assert_true(n_accepted > 500); /* it did matter */
    assert_true(n_rejected > 500);
    close_fixture(f);
}

static void every_strategy_and_length_at_temperature_1(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    const spec_variants all = spec_all_variants(f->w.engine);
    for (int k = 0; k < all.n; k++) {
        const facet_sampling s = with_temperature(1, (uint64_t)k);
        const spec_request q = request_for(f, k % 2 ? "story" : "tools", 40, &s);
        spec_say(f->plain, &q, NULL, NULL, &f->want);
        compare(f, &q, &all.list[k], "temperature 1", k % 5 == 0);
    }
    close_fixture(f);
}

/* Different seeds give different texts, so that equal ones mean something. */
static void seeds_matter(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    int n_different = 0;
    for (uint64_t seed = 0; seed < 10; seed++) {
        const facet_sampling a = with_temperature(1.5f, seed), b = with_temperature(1.5f, seed + 1);
        spec_request q = request_for(f, "bytes", 20, &a);
        spec_say(f->plain, &q, NULL, NULL, &f->want);
        q.sampling = &b;
        spec_say(f->plain, &q, NULL, NULL, &f->got);
        n_different += memcmp(f->want.ids, f->got.ids, 20 * sizeof *f->got.ids) != 0;
    }
    assert_true(n_different >= 9);
    close_fixture(f);
}

/* A sampled text that is cut in two, and one whose seed meets another history: position decides, not the count of
 * draws.
 */
static void a_sampled_text_in_two_calls(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    const facet_sampling s = with_temperature(1.2f, 77);
    const spec_request q = request_for(f, "story", 40, &s);
    spec_say(f->plain, &q, NULL, NULL, &f->want);
    int32_t *ids = malloc((q.n_prompt + 40) * sizeof *ids);
    memcpy(ids, q.prompt, q.n_prompt * sizeof *ids);
    memcpy(ids + q.n_prompt, f->want.ids, 40 * sizeof *ids);
    for (int k = 0; k < f->few.n; k++)
        for (int first = 1; first < 20; first += 3) {
            const spec_request rest = {.prompt = ids,
                                       .n_prompt = q.n_prompt + (size_t)first,
                                       .n_predict = 40 - first,
                                       .ignore_eos = true,
                                       .sampling = &s};
            spec_request head = q;
            head.n_predict = first;
            spec_say(f->spec, &head, &f->few.list[k].how, NULL, &f->got);
            assert_memory_equal(f->got.ids, f->want.ids, (size_t)first * sizeof *ids);
            spec_say(f->spec, &rest, &f->few.list[k].how, NULL, &f->got);
            assert_memory_equal(f->got.ids, f->want.ids + first, (size_t)(40 - first) * sizeof *ids);
        }
    free(ids);
    close_fixture(f);
}

/* The penalties at each row of a block must count the drafts before it. The text repeats itself, the window of the
 * penalty is short and long, and the drafts are all right: every row is judged with drafts in its history. */
static void pitfall_34_penalties_count_the_drafted_prefix(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    const facet_speculation how = {.adapt = FACET_ADAPT_OFF};
    const int windows[] = {1, 2, 5, 16, 64, -1};
    int32_t *truth = malloc((200 + 512) * sizeof *truth);
    for (int i = 0; i < 12; i++) {
        facet_sampling s = with_temperature(i % 2 ? 1.1f : 0, 5);
        s.penalty_last_n = windows[i / 2];
        s.repeat_penalty = 1.4f;
        s.frequency_penalty = 0.5f;
        spec_request q = request_for(f, "code", 200, &s);
        spec_say(f->plain, &q, NULL, NULL, &f->want); /* with more than is asked for: the oracle's text */
        memcpy(truth, q.prompt, q.n_prompt * sizeof *truth);
        memcpy(truth + q.n_prompt, f->want.ids, 200 * sizeof *truth);
        q.n_predict = 60;
        spec_say(f->plain, &q, NULL, NULL, &f->want);
        for (int kind = SCRIPT_ORACLE; kind <= SCRIPT_LAST; kind++) {
            script c = script_open((script_kind)kind, kind != SCRIPT_ORACLE, 15, (uint64_t)i);
            c.truth = truth;
            c.n_truth = (int)q.n_prompt + 200;
            spec_say(f->spec, &q, &how, &c.ops, &f->got);
            spec_assert_same_said(&f->got, &f->want, "penalties");
            assert_int_equal(f->got.r.spec.accepted, c.n_right);
            if (kind == SCRIPT_ORACLE) assert_int_equal(f->got.r.spec.accepted, f->got.r.spec.drafted);
        }
    }
    free(truth);
    close_fixture(f);
}

static facet_status propose_with_any_confidence(strategy *st, facet_session *s, int32_t pending, int k, proposal *out,
                                                facet_error *err)
{
    script *c = (script *)(uintptr_t)st->ops;
    const facet_status status = script_propose(st, s, pending, k, out, err);
    for (int j = 0; j < out->n; j++) out->conf[j] = (float)rng_uniform(&c->r);
    return status;
}

/* What the drafter believes, with a soft cap or without, enters no ratio: it may make the drafts shorter, but the text
 * is that of the seed. */
static void pitfall_35_confidences_are_in_no_ratio(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    int32_t *truth = malloc((200 + 512) * sizeof *truth);
    for (uint64_t seed = 1; seed <= 12; seed++) {
        const facet_sampling s = with_temperature(1, seed);
        spec_request q = request_for(f, "code", 200, &s);
        spec_say(f->plain, &q, NULL, NULL, &f->want);
        memcpy(truth, q.prompt, q.n_prompt * sizeof *truth);
        memcpy(truth + q.n_prompt, f->want.ids, 200 * sizeof *truth);
        q.n_predict = 60;
        spec_say(f->plain, &q, NULL, NULL, &f->want);
        for (int adapt = FACET_ADAPT_COST; adapt <= FACET_ADAPT_OFF; adapt++) {
            const facet_speculation how = {.adapt = (facet_spec_adapt)adapt};
            script c = script_open(SCRIPT_HALF, seed % 2, 15, seed);
            c.ops.propose = propose_with_any_confidence;
            c.truth = truth;
            c.n_truth = (int)q.n_prompt + 200;
            spec_say(f->spec, &q, &how, &c.ops, &f->got);
            spec_assert_same_said(&f->got, &f->want, "confidences");
        }
    }
    free(truth);
    close_fixture(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_setting_gives_the_plain_text_of_its_seed),
        cmocka_unit_test(every_strategy_and_length_at_temperature_1),
        cmocka_unit_test(seeds_matter),
        cmocka_unit_test(a_sampled_text_in_two_calls),
        cmocka_unit_test(pitfall_34_penalties_count_the_drafted_prefix),
        cmocka_unit_test(pitfall_35_confidences_are_in_no_ratio),
    };
    return cmocka_run_group_tests_name("spec_sampling", tests, NULL, NULL);
}
