/* Bad and hostile prompts and requests, on the bundled model: each gets its stated tokens, or an error that names what
 * was met and what was wanted; and the session goes on working. */
#include "testing.h"

#include <math.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "decode/session.h"

enum { N_CTX = 256, BIG = 1 << 20, BOS = 2, BYTE_0 = 130, N_VOCAB = 2048 };

#define FFFD "\xef\xbf\xbd"
#define QUERY "<bos><|turn>user\nWhat is 82 - 61?<turn|>\n<|turn>model\n"

static facet_model *model;
static facet_engine *engine;

static int open_all(void **state)
{
    (void)state;
    facet_engine_params p = facet_engine_params_default();
    p.device = "cpu";
    p.n_ctx = N_CTX;
    p.n_sessions = 2;
    if (facet_model_open(FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf", &model, NULL) != FACET_OK) return -1;
    return facet_engine_open(model, &p, &engine, NULL) == FACET_OK ? 0 : -1;
}

static int close_all(void **state)
{
    (void)state;
    facet_engine_close(engine);
    facet_model_close(model);
    return 0;
}

static facet_session *open_session(void)
{
    facet_session *s = NULL;
    facet_error err;
    assert_ok(facet_session_open(engine, &s, &err), err);
    return s;
}

static int32_t *tokens_of(const char *text, size_t len, bool add_bos, size_t *n)
{
    int32_t *ids = NULL;
    facet_error err;
    assert_ok(facet_tokenize(model, text, len, add_bos, true, &ids, n, &err), err);
    return ids;
}

/* ---- bytes ---- */

/* `same` is the text that the bytes stand for: its tokens, and what comes back from them. */
static const struct {
    const char *name, *bytes, *same;
} encodings[] = {
    {"stray continuation", "a\x80z", "a" FFFD "z"},
    {"bytes that are never used", "\xfe\xff", FFFD FFFD},
    {"cut two-byte character", "a\xc3", "a" FFFD},
    {"cut three-byte character", "a\xe2\x82", "a" FFFD},
    {"cut four-byte character", "\xf0\x9f\x98", FFFD},
    {"cut by another character", "\xf0\x9f\x98 ok", FFFD " ok"},
    {"over-long slash, 2 bytes", "\xc0\xaf", FFFD FFFD},
    {"over-long slash, 3 bytes", "\xe0\x80\xaf", FFFD FFFD FFFD},
    {"over-long slash, 4 bytes", "\xf0\x80\x80\xaf", FFFD FFFD FFFD FFFD},
    {"over-long NUL", "\xc0\x80", FFFD FFFD},
    {"high surrogate", "\xed\xa0\x80", FFFD FFFD FFFD},
    {"low surrogate", "\xed\xbf\xbf", FFFD FFFD FFFD},
    {"surrogate pair as in CESU-8", "\xed\xa0\xbd\xed\xb8\x80", FFFD FFFD FFFD FFFD FFFD FFFD},
    {"beyond U+10FFFF", "\xf4\x90\x80\x80", FFFD FFFD FFFD FFFD},
    {"five-byte form", "\xf8\x88\x80\x80\x80", FFFD FFFD FFFD FFFD FFFD},
    {"bad bytes inside a special token", "<bo\xffs>", "<bo" FFFD "s>"},
    {"byte order mark",
     "\xef\xbb\xbf"
     "a",
     "\xef\xbb\xbf"
     "a"},
    {"noncharacter U+FFFF", "\xef\xbf\xbf", "\xef\xbf\xbf"},
    {"last code point", "\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"},
    {"right-to-left override",
     "\xe2\x80\xae"
     "abc",
     "\xe2\x80\xae"
     "abc"},
    {"control characters", "\x01\x02\x1b[31m\x7f", "\x01\x02\x1b[31m\x7f"},
    {"carriage returns", "a\r\n\r\nb", "a\r\n\r\nb"},
    {"the blank's stand-in",
     "a\xe2\x96\x81"
     "b",
     "a b"},
};

static void check_text(const int32_t *ids, size_t n, const char *want, size_t len)
{
    detokenizer d = {.show_special = true};
    buf out = {0};
    for (size_t i = 0; i < n; i++) detokenizer_push(&d, model->tok, ids[i], &out);
    detokenizer_finish(&d, &out);
    assert_int_equal(out.len, len);
    if (len) assert_memory_equal(out.data, want, len);
    buf_free(&out);
}

static void malformed_bytes_become_replacement_characters(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof encodings / sizeof *encodings; i++) {
        const char *bytes = encodings[i].bytes, *same = encodings[i].same;
        size_t n, n_same;
        int32_t *ids = tokens_of(bytes, strlen(bytes), false, &n),
                *want = tokens_of(same, strlen(same), false, &n_same);
        if (n != n_same || memcmp(ids, want, n * sizeof *ids) != 0) fail_msg("%s", encodings[i].name);
        check_text(ids, n, same, strlen(same));
        facet_free(ids);
        facet_free(want);
    }
}

static void nul_bytes_are_text(void **state)
{
    (void)state;
    static const char text[] = "a\0b\0\0c";
    size_t n;
    int32_t *ids = tokens_of(text, sizeof text - 1, false, &n);
    assert_int_equal(n, 6);
    assert_int_equal(ids[1], BYTE_0);
    check_text(ids, n, text, sizeof text - 1);
    facet_free(ids);
}

/* Every pair of bytes is a prompt whose text comes back valid. */
static void every_pair_of_bytes(void **state)
{
    (void)state;
    for (int pair = 0; pair < 1 << 16; pair++) {
        const char text[2] = {(char)(pair >> 8), (char)pair};
        size_t n;
        int32_t *ids = tokens_of(text, 2, false, &n);
        detokenizer d = {.show_special = true};
        buf out = {0};
        for (size_t i = 0; i < n; i++) detokenizer_push(&d, model->tok, ids[i], &out);
        detokenizer_finish(&d, &out);
        assert_true(utf8_valid(out.data, out.len));
        if (utf8_valid(text, 2)) assert_memory_equal(out.data, text, 2);
        buf_free(&out);
        facet_free(ids);
    }
}

/* ---- length ---- */

static void empty_prompts(void **state)
{
    (void)state;
    facet_session *s = open_session();
    facet_error err;
    facet_sampling greedy = facet_sampling_default();
    facet_generate_params g = facet_generate_params_default();
    facet_generate_result r = {.n_tokens = -7};
    size_t n;
    int32_t *ids = tokens_of("", 0, false, &n);
    assert_int_equal(n, 0);
    assert_int_equal(facet_generate(s, ids, 0, &greedy, &g, &r, &err), FACET_ERR_ARG);
    assert_string_equal(err.message, "an empty prompt: give at least one token");
    assert_int_equal(r.n_tokens, -7);
    facet_free(ids);
    static const char *const only_bos[] = {"", "<bos>"}; /* not twice */
    for (int i = 0; i < 2; i++) {
        ids = tokens_of(only_bos[i], strlen(only_bos[i]), true, &n);
        assert_int_equal(n, 1);
        assert_int_equal(ids[0], BOS);
        g.n_predict = 3;
        g.ignore_eos = true;
        assert_ok(facet_generate(s, ids, 1, &greedy, &g, &r, &err), err);
        assert_int_equal(r.n_tokens, 3);
        facet_free(ids);
    }
    facet_session_close(s);
}

/* A megabyte of one piece: tokenised in linear time, and refused by its number of tokens. */
static void prompts_of_a_megabyte(void **state)
{
    (void)state;
    static const struct {
        const char *piece;
        size_t n_ids; /* of the whole; 0 = whatever the merges give */
    } pieces[] = {
        {"a", 0},
        {" ", 0},
        {"\n", 0},
        {"\t", 0},
        {"\xff", 3 * (size_t)BIG},
        {"\xf0\x9f\x98\x80", BIG},
        {"<", 0},
        {"<bos>", BIG / 5},
        {"<|turn>", BIG / 7},
        {"<|tur", 0},
        {"<turn|><|turn>", 2 * (BIG / 14)},
    };
    facet_session *s = open_session();
    char *text = malloc(BIG);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        const size_t len = strlen(pieces[i].piece), total = BIG / len * len;
        for (size_t at = 0; at < total; at += len) memcpy(text + at, pieces[i].piece, len);
        size_t n;
        int32_t *ids = tokens_of(text, total, false, &n);
        if (pieces[i].n_ids && n != pieces[i].n_ids) fail_msg("'%s': %zu tokens", pieces[i].piece, n);
        facet_error err;
        char want[96];
        snprintf(want, sizeof want, "%zu tokens: the context holds %d", n, N_CTX);
        assert_int_equal(facet_session_sync(s, ids, n, &err), FACET_ERR_LIMIT);
        if (!strstr(err.message, want)) fail_msg("'%s': %s", pieces[i].piece, err.message);
        assert_int_equal(facet_session_n_tokens(s), 0);
        facet_free(ids);
    }
    free(text);
    facet_session_close(s);
}

static void a_prompt_as_long_as_the_context(void **state)
{
    (void)state;
    facet_session *s = open_session();
    facet_error err;
    facet_sampling greedy = facet_sampling_default();
    facet_generate_params g = facet_generate_params_default();
    facet_generate_result r;
    int32_t ids[N_CTX + 1] = {BOS};
    for (int i = 1; i <= N_CTX; i++) ids[i] = 500 + i;
    g.ignore_eos = true;
    assert_int_equal(facet_generate(s, ids, N_CTX + 1, &greedy, &g, &r, &err), FACET_ERR_LIMIT);
    assert_non_null(strstr(err.message, "257 tokens: the context holds 256"));
    for (int less = 0; less < 3; less++) { /* the last token needs no place of its own */
        assert_ok(facet_generate(s, ids, (size_t)(N_CTX - less), &greedy, &g, &r, &err), err);
        assert_int_equal(r.n_tokens, 1 + less);
        assert_int_equal(r.stop, FACET_STOP_LIMIT);
        assert_int_equal(facet_session_n_tokens(s), N_CTX);
    }
    g.n_predict = 0; /* nothing, but the prompt is evaluated */
    assert_ok(facet_generate(s, ids, 40, &greedy, &g, &r, &err), err);
    assert_int_equal(r.n_tokens, 0);
    assert_int_equal(r.stop, FACET_STOP_LIMIT);
    assert_int_equal(facet_session_n_tokens(s), 40);
    g.n_predict = -2;
    assert_int_equal(facet_generate(s, ids, 40, &greedy, &g, &r, &err), FACET_ERR_ARG);
    assert_string_equal(err.message, "n_predict is -2, wanted -1 (to the end of the context) or more");
    facet_session_close(s);
}

/* ---- ids ---- */

static void ids_out_of_range(void **state)
{
    (void)state;
    static const int32_t bad[] = {-1, INT32_MIN, N_VOCAB, INT32_MAX};
    static const int places[] = {0, 1, 63, 64, 199};
    facet_session *s = open_session();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        for (size_t p = 0; p < sizeof places / sizeof *places; p++) {
            int32_t ids[200];
            for (int k = 0; k < 200; k++) ids[k] = 300 + k;
            ids[places[p]] = bad[i];
            facet_error err;
            char want[96];
            snprintf(want, sizeof want, "token %d at position %d: the vocabulary has %d entries", bad[i], places[p],
                     N_VOCAB);
            assert_int_equal(facet_session_sync(s, ids, 200, &err), FACET_ERR_ARG);
            assert_string_equal(err.message, want);
            ids[places[p]] = 1999; /* what was kept is no lie: the whole sequence can follow */
            assert_ok(facet_session_sync(s, ids, 200, &err), err);
            assert_int_equal(facet_session_n_tokens(s), 200);
        }
    facet_session_close(s);
}

static void every_id_is_a_prompt(void **state)
{
    (void)state;
    facet_session *s = open_session();
    float *logits = malloc(N_VOCAB * sizeof *logits);
    for (int32_t id = 0; id < N_VOCAB; id += 1 + 7 * (id > 400)) { /* all special and byte tokens */
        facet_error err;
        assert_ok(facet_session_sync(s, &id, 1, &err), err);
        assert_ok(facet_session_logits(s, logits, &err), err);
        for (int i = 0; i < N_VOCAB; i++) assert_true(logits[i] < INFINITY && !isnan(logits[i]));
    }
    free(logits);
    facet_session_close(s);
}

/* ---- requests ---- */

typedef struct answer {
    facet_generate_result r;
    buf text;
} answer;

static bool collect(void *ud, int32_t token, const char *text, size_t n)
{
    (void)token;
    return buf_append(&((answer *)ud)->text, text, n);
}

/* Answers QUERY; status and message of the call come back. */
static facet_status ask(const facet_sampling *sampling, facet_generate_params g, answer *a, facet_error *err)
{
    facet_session *s = open_session();
    size_t n;
    int32_t *ids = tokens_of(QUERY, strlen(QUERY), true, &n);
    *a = (answer){0};
    g.on_token = collect;
    g.ud = a;
    const facet_status status = facet_generate(s, ids, n, sampling, &g, &a->r, err);
    facet_free(ids);
    facet_session_close(s);
    return status;
}

static void expect_text(const facet_sampling *sampling, facet_generate_params g, facet_stop stop, const char *text)
{
    answer a;
    facet_error err;
    assert_ok(ask(sampling, g, &a, &err), err);
    assert_true(utf8_valid(a.text.data ? a.text.data : "", a.text.len));
    assert_string_equal(a.text.data ? a.text.data : "", text);
    assert_int_equal(a.r.stop, stop);
    buf_free(&a.text);
}

static void expect_refusal(const facet_sampling *sampling, facet_generate_params g, facet_status want,
                           const char *message)
{
    answer a;
    facet_error err = {0};
    assert_int_equal(ask(sampling, g, &a, &err), want);
    if (!strstr(err.message, message)) fail_msg("\"%s\" lacks \"%s\"", err.message, message);
    buf_free(&a.text);
}

/* The model says C3 A9 C3 A9 ...: a character of two tokens, again and again. */
static facet_sampling e_acute(facet_logit_bias bias[2])
{
    facet_sampling s = facet_sampling_default();
    bias[0] = (facet_logit_bias){BYTE_0 + 0xc3, 1.0005e6f};
    bias[1] = (facet_logit_bias){BYTE_0 + 0xa9, 1e6f};
    s.bias = bias;
    s.n_bias = 2;
    s.frequency_penalty = 1000;
    s.penalty_last_n = -1;
    return s;
}

static void stop_texts(void **state)
{
    (void)state;
    facet_logit_bias bias[2];
    const facet_sampling greedy = facet_sampling_default(), acute = e_acute(bias);
    facet_generate_params g = facet_generate_params_default();
    const char *stop[2];
    g.stop = stop;
    g.n_stop = 1;
    static const struct {
        const char *stop, *text;
    } found[] = {{"8", ""}, {" = ", "82 - 61"}, {" 61 = 2", "82 -"}, {"82 - 61 = 21.", ""}, {".", "82 - 61 = 21"}};
    for (size_t i = 0; i < sizeof found / sizeof *found; i++) {
        stop[0] = found[i].stop;
        expect_text(&greedy, g, FACET_STOP_STRING, found[i].text);
    }
    static const char *const absent[] = {"82 - 61 = 21.!", "\xc3\xa9", "=21", "turn|>"};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
        stop[0] = absent[i];
        expect_text(&greedy, g, FACET_STOP_EOS, "82 - 61 = 21.");
    }
    char *big = malloc(BIG); /* as long as no answer; begins like one */
    memset(big, '!', BIG);
    memcpy(big, "82 - 61 = 21", 12);
    big[BIG - 1] = 0;
    stop[0] = big;
    expect_text(&greedy, g, FACET_STOP_EOS, "82 - 61 = 21.");
    free(big);

    g.n_predict = 6;
    stop[0] = "\xc3\xa9\xc3\xa9";
    expect_text(&acute, g, FACET_STOP_STRING, "");
    stop[0] = "none";
    expect_text(&acute, g, FACET_STOP_LIMIT, "\xc3\xa9\xc3\xa9\xc3\xa9");
    g.n_predict = 5; /* half a character is left */
    expect_text(&acute, g, FACET_STOP_LIMIT, "\xc3\xa9\xc3\xa9" FFFD);

    static const char *const parts[] = {"\xc3", "\xa9", "a\xff", "\xed\xa0\x80", "\xe2\x82"};
    g.n_stop = 2;
    stop[0] = "fine";
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        stop[1] = parts[i];
        expect_refusal(&acute, g, FACET_ERR_ARG, "stop text 2 is not valid UTF-8");
    }
    stop[1] = "";
    expect_refusal(&greedy, g, FACET_ERR_ARG, "stop text 2 is empty");
    stop[1] = NULL;
    expect_refusal(&greedy, g, FACET_ERR_ARG, "stop text 2 is empty");
    g.stop = NULL;
    expect_refusal(&greedy, g, FACET_ERR_ARG, "stop text 1 is empty");
}

static void invalid_bytes_from_the_model(void **state)
{
    (void)state;
    facet_sampling s = facet_sampling_default();
    facet_generate_params g = facet_generate_params_default();
    const facet_logit_bias bias = {BYTE_0 + 0xff, 1e9f};
    s.bias = &bias;
    s.n_bias = 1;
    g.n_predict = 3;
    expect_text(&s, g, FACET_STOP_LIMIT, FFFD FFFD FFFD);
}

static void biases(void **state)
{
    (void)state;
    facet_generate_params g = facet_generate_params_default();
    facet_sampling s = facet_sampling_default();
    static facet_logit_bias all[2 * N_VOCAB];
    s.bias = all;
    s.n_bias = N_VOCAB;
    for (int i = 0; i < 2 * N_VOCAB; i++) all[i] = (facet_logit_bias){i % N_VOCAB, 3};
    expect_text(&s, g, FACET_STOP_EOS, "82 - 61 = 21."); /* all alike: the same answer */
    s.n_bias = 2 * N_VOCAB;                              /* each twice */
    expect_text(&s, g, FACET_STOP_EOS, "82 - 61 = 21.");
    for (int i = 0; i < 2 * N_VOCAB; i++) all[i].bias = -INFINITY;
    expect_refusal(&s, g, FACET_ERR_NUMERIC, "every token is excluded by logit bias");
    s.temperature = 1;
    expect_refusal(&s, g, FACET_ERR_NUMERIC, "every token is excluded by logit bias");
    s.n_bias = N_VOCAB - 1; /* one is left */
    g.n_predict = 3;
    g.ignore_eos = true;
    answer a;
    facet_error err;
    assert_ok(ask(&s, g, &a, &err), err);
    assert_int_equal(a.r.n_tokens, 3);
    buf_free(&a.text);
}

/* Each field beyond its range, with the message that names it. */
static void samplings_out_of_range(void **state)
{
    (void)state;
    const facet_sampling d = facet_sampling_default();
    facet_logit_bias high = {5, INFINITY}, nan = {5, NAN}, big = {5, 3e38f}, id = {N_VOCAB, 0}, below = {-1, 0};
    struct {
        facet_sampling s;
        const char *message;
    } bad[24];
    int n = 0;
#define BAD(field, value, text) (bad[n].s = d, bad[n].s.field = (value), bad[n++].message = (text))
#define BAD_BIAS(b, text) (BAD(bias, &(b), text), bad[n - 1].s.n_bias = 1)
    BAD(struct_size, 4, "struct_size is 4");
    BAD(temperature, -0.1f, "temperature -0.1: wanted 0 or more");
    BAD(temperature, NAN, "temperature");
    BAD(temperature, INFINITY, "temperature inf");
    BAD(top_k, -1, "top-k -1");
    BAD(top_p, 0, "top-p 0");
    BAD(top_p, 1.5f, "top-p 1.5");
    BAD(top_p, NAN, "top-p");
    BAD(min_p, -1, "min-p -1");
    BAD(min_p, NAN, "min-p");
    BAD(repeat_penalty, 0, "repeat penalty 0: wanted 1e-06 to 1e+06");
    BAD(repeat_penalty, NAN, "repeat penalty");
    BAD(presence_penalty, INFINITY, "presence penalty inf: wanted -1e+06 to 1e+06");
    BAD(presence_penalty, -3e38f, "presence penalty -3e+38");
    BAD(frequency_penalty, 3e38f, "frequency penalty 3e+38");
    BAD(frequency_penalty, NAN, "frequency penalty");
    BAD_BIAS(high, "logit bias for token 5: inf: wanted a token below 2048 and a bias of at most 1e+09");
    BAD_BIAS(nan, "logit bias for token 5");
    BAD_BIAS(big, "logit bias for token 5: 3e+38");
    BAD_BIAS(id, "logit bias for token 2048");
    BAD_BIAS(below, "logit bias for token -1");
#undef BAD_BIAS
#undef BAD
    for (int i = 0; i < n; i++)
        expect_refusal(&bad[i].s, facet_generate_params_default(), FACET_ERR_ARG, bad[i].message);
    facet_generate_params g = facet_generate_params_default();
    g.struct_size--;
    expect_refusal(&d, g, FACET_ERR_ARG, "facet_generate_params.struct_size");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_bytes_become_replacement_characters),
        cmocka_unit_test(nul_bytes_are_text),
        cmocka_unit_test(every_pair_of_bytes),
        cmocka_unit_test(empty_prompts),
        cmocka_unit_test(prompts_of_a_megabyte),
        cmocka_unit_test(a_prompt_as_long_as_the_context),
        cmocka_unit_test(ids_out_of_range),
        cmocka_unit_test(every_id_is_a_prompt),
        cmocka_unit_test(stop_texts),
        cmocka_unit_test(invalid_bytes_from_the_model),
        cmocka_unit_test(biases),
        cmocka_unit_test(samplings_out_of_range),
    };
    return cmocka_run_group_tests_name("prompts", tests, open_all, close_all);
}
