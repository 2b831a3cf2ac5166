/* Prompts with a hidden number: as long as asked for, the number where it was asked for, counted in tokens. */
#include "testing.h"

#include <math.h>

#include "base/mem.h"
#include "decode/needle.h"

static facet_model *model;

static int open_model(void **state)
{
    (void)state;
    facet_error err;
    return facet_model_open(FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf", &model, &err) == FACET_OK ? 0 : -1;
}

static int close_model(void **state)
{
    (void)state;
    facet_model_close(model);
    return 0;
}

static needle_prompt build(int32_t n_tokens, int depth, uint64_t seed, bool is_raw)
{
    needle_prompt p;
    facet_error err;
    const needle_params params = {.n_tokens = n_tokens, .depth = depth, .seed = seed, .is_raw = is_raw};
    assert_ok(needle_build(model, &params, &p, &err), err);
    return p;
}

static size_t count_of(const char *text, const char *part)
{
    size_t n = 0;
    for (const char *s = text; (s = strstr(s, part)); s++) n++;
    return n;
}

/* Text of tokens [begin, end). */
static char *text_of(const needle_prompt *p, size_t begin, size_t end)
{
    char *text;
    size_t n;
    facet_error err;
    assert_ok(facet_detokenize(model, p->ids + begin, end - begin, true, &text, &n, &err), err);
    return text;
}

static void check(int32_t n_tokens, int depth, uint64_t seed, bool is_raw)
{
    enum { SENTENCE = 24 }; /* no sentence has more tokens of the small vocabulary */
    needle_prompt p = build(n_tokens, depth, seed, is_raw);
    int32_t *ids;
    size_t n;
    facet_error err;
    assert_ok(facet_tokenize(model, p.text, p.n_text, false, true, &ids, &n, &err), err);
    assert_int_equal(n, p.n_ids);
    assert_memory_equal(ids, p.ids, n * sizeof *ids);
    if (n > (size_t)n_tokens || n + 2 < (size_t)n_tokens) fail_msg("%zu tokens, wanted %d", n, n_tokens);
    assert_int_equal(ids[0], 2);
    assert_int_equal(count_of(p.text, p.key), 1);
    assert_int_equal(strlen(p.key), NEEDLE_KEY_DIGITS);
    char *needle = text_of(&p, p.needle, p.n_ids), *before = text_of(&p, 0, p.first),
         *after = text_of(&p, p.last, p.n_ids), want[64];
    snprintf(want, sizeof want, " The pass key is %s.", p.key);
    assert_true(strncmp(needle, want, strlen(want)) == 0);
    assert_non_null(strstr(before, "Read this text."));
    assert_non_null(strstr(after, "What is the pass key?"));
    assert_int_equal(strcspn(p.text, "0123456789"), strstr(p.text, p.key) - p.text); /* no other digit */
    size_t n_needle;
    int32_t *alone;
    assert_ok(facet_tokenize(model, want, strlen(want), false, false, &alone, &n_needle, &err), err);
    const double straw = (double)(p.last - p.first - n_needle), at = (double)(p.needle - p.first);
    if (fabs(at - straw * depth / 100) > SENTENCE / 2.0)
        fail_msg("seed %d: %d tokens: %.0f before the number of %.0f, wanted %d %%", (int)seed, n_tokens, at, straw,
                 depth);
    if (depth == 0) assert_int_equal(p.needle, p.first);
    if (depth == 100) assert_int_equal(p.needle + n_needle, p.last);
    facet_free(alone);
    facet_free(needle);
    facet_free(before);
    facet_free(after);
    facet_free(ids);
    needle_free(&p);
}

static void length_and_depth(void **state)
{
    (void)state;
    static const int32_t lengths[] = {NEEDLE_MIN_TOKENS, 129, 200, 511, 2048, 5000};
    static const int depths[] = {0, 1, 25, 33, 50, 99, 100};
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
        for (size_t d = 0; d < sizeof depths / sizeof *depths; d++)
            for (int is_raw = 0; is_raw < 2; is_raw++) check(lengths[l], depths[d], l * 7 + d, is_raw);
}

/* The same question about the same text, whatever the depth; another number, so that no answer is right twice. */
static void seeds(void **state)
{
    (void)state;
    needle_prompt a = build(400, 25, 7, false), b = build(400, 25, 7, false), c = build(400, 75, 7, false),
                  d = build(400, 25, 8, false);
    assert_string_equal(a.text, b.text);
    assert_string_not_equal(a.key, c.key);
    assert_string_not_equal(a.text, d.text);
    assert_string_not_equal(a.key, d.key);
    char *needle[2] = {strstr(a.text, " The pass key is"), strstr(c.text, " The pass key is")};
    for (int i = 0; i < 2; i++) memmove(needle[i], needle[i] + 23, strlen(needle[i] + 23) + 1);
    assert_string_equal(a.text, c.text);
    needle_free(&a);
    needle_free(&b);
    needle_free(&c);
    needle_free(&d);
}

static void forms(void **state)
{
    (void)state;
    needle_prompt chat = build(300, 50, 1, false), raw = build(300, 50, 1, true);
    assert_non_null(strstr(chat.text, "<|turn>user\nRead this text."));
    assert_non_null(strstr(chat.text, "\nWhat is the pass key?<turn|>\n<|turn>model\n"));
    assert_true(strncmp(raw.text, "<bos>Read this text.", 20) == 0);
    static const char end[] = "\nQuestion: What is the pass key?\nAnswer:";
    assert_string_equal(raw.text + raw.n_text - strlen(end), end);
    needle_free(&chat);
    needle_free(&raw);
}

static void wrong_numbers(void **state)
{
    (void)state;
    static const needle_params list[] = {{.n_tokens = NEEDLE_MIN_TOKENS - 1},
                                         {.n_tokens = -5},
                                         {.n_tokens = 500, .depth = -1},
                                         {.n_tokens = 500, .depth = 101}};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        needle_prompt p;
        facet_error err;
        assert_int_equal(needle_build(model, &list[i], &p, &err), FACET_ERR_ARG);
        assert_non_null(strstr(err.message, "128 at least, 0 to 100"));
        assert_true(!p.text && !p.ids);
    }
}

static void verdicts(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        bool is_found;
    } list[] = {{"The pass key is 01234.", true},
                {"01234", true},
                {" **01234**\n", true},
                {"1234", false},
                {"The key: 012345", false},
                {"901234.", false},
                {"012345, no: 01234", true},
                {"", false},
                {"0 1 2 3 4", false}};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (needle_is_found(list[i].answer, "01234") != list[i].is_found) fail_msg("'%s'", list[i].answer);
}

/* Each of a prompt's allocations fails once. */
static void memory_is_short(void **state)
{
    (void)state;
    const needle_params params = {.n_tokens = 160, .depth = 50, .seed = 3};
    uint64_t n = 0;
    for (facet_status status = FACET_ERR_MEMORY; status != FACET_OK;) {
        needle_prompt p;
        facet_error err;
        const int64_t before = mem_n_live();
        mem_fail_at(++n);
        status = needle_build(model, &params, &p, &err);
        mem_fail_at(0);
        if (status == FACET_OK)
            needle_free(&p);
        else
            assert_int_equal(status, FACET_ERR_MEMORY);
        assert_int_equal(mem_n_live(), before);
    }
    print_message("%d allocations\n", (int)n - 1);
    assert_true(n > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(length_and_depth), cmocka_unit_test(seeds),    cmocka_unit_test(forms),
        cmocka_unit_test(wrong_numbers),    cmocka_unit_test(verdicts), cmocka_unit_test(memory_is_short),
    };
    return cmocka_run_group_tests_name("needle", tests, open_model, close_model);
}
