/* The notation: what is read, what it means, what is refused and where. */
#include "grammar_testing.h"

static const struct {
    const char *grammar;
    const char *in, *out; /* texts, separated by '|'; a lone "-" is the empty text */
} meanings[] = {
    {"root ::= \"a\"", "a", "-|b|aa|A"},
    {"root ::= \"a\" | \"bc\" |", "-|a|bc", "b|c|abc"},
    {"root ::= \"a\"*", "-|a|aaaa", "b|ab"},
    {"root ::= \"ab\"+", "ab|abab", "-|a|aba"},
    {"root ::= \"a\"? \"b\"", "b|ab", "-|a|aab"},
    {"root ::= \"a\"{3}", "aaa", "-|a|aa|aaaa"},
    {"root ::= \"a\"{2,}", "aa|aaaaaaa", "-|a"},
    {"root ::= \"a\"{0,2}", "-|a|aa", "aaa"},
    {"root ::= \"a\"{0}", "-", "a"},
    {"root ::= \"a\"{1,1}", "a", "-|aa"},
    {"root ::= [a-c]{2,3} \"c\"", "aac|abcc|ccc", "ac|abab|cc"},
    {"root ::= (\"a\" | \"b\"){2} \"c\"", "abc|bbc", "ac|abbc"},
    {"root ::= (\"a\"{2}){2}", "aaaa", "aa|aaa|aaaaa"},
    {"root ::= (\"a\"?){3} \"b\"", "b|ab|aab|aaab", "aaaab|a"},
    {"root ::= (\"a\"*)* \"b\"", "b|ab|aaab", "a"},
    {"root ::= ((\"a\" | \"b\"*)+)? \"c\"", "c|abbac", "-|d"},
    {"root ::= [^a-y]", "z|\xc3\xa9|\xe6\x97\xa5|\xf0\x9f\x8c\x8d| ", "a|y|-|zz"},
    {"root ::= [\xc3\xa0-\xc3\xbf]+", "\xc3\xa9|\xc3\xa0\xc3\xbf", "a|\xc3\x80|\xc3"},
    {"root ::= [a\\-z]+", "a|-z|z-a", "b|-"},
    {"root ::= [-az]+", "a-z", "b"},
    {"root ::= [az-]+", "a-z", "b"},
    {"root ::= [\\x41\\u00e9\\U0001F30D\\n\\]\\\\]+", "A\xc3\xa9\xf0\x9f\x8c\x8d\n]\\", "B"},
    {"root ::= \"\\x41\\t\\\"\\\\\"", "A\t\"\\", "A"},
    {"root ::= .", "a|\n|\xc3\xa9|\xf4\x8f\xbf\xbf", "-|aa|\xc3|\xed\xa0\x80"},
    {"root ::= \"\xe6\x97\xa5\"", "\xe6\x97\xa5", "\xe6\x97|\xe6\x97\xa6"},
    {"root ::= \"\" \"a\"", "a", "-"},
    {"# first\nroot ::= # here\n  x y # there\n\nx ::= \"a\" |\n \"b\"\ny ::= (\n\"c\"\n|\n\"d\"\n)", "ac|bd", "a|cd"},
    {"a-1_B ::= \"x\"\nroot ::= a-1_B", "x", "a"},
    {"root ::= \"a\" root | \"b\"", "b|ab|aaab", "a|ba"},
    {"root ::= \"(\" root \")\" | \"\"", "-|()|(())", "(|)|()()"},
    {"root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"d\"", "d|adb|aadbc|aadcb", "ad|adbc|abd"},
    {"root ::= x \"b\"\nx ::= \"a\"*", "b|aab", "a|ba"},
    {"root ::= x* \"!\"\nx ::= y z\ny ::= \"a\"?\nz ::= \"b\"?", "!|a!|ba!|abb!", "-|c!"},
    {"root ::= x{2,4}\nx ::= \"a\" | \"aa\"", "aa|aaa|aaaaaaaa", "a|aaaaaaaaa"},
    {"root ::= \"a\" | none\nnone ::= \"b\" none", "a", "b|bb"},
    {"root ::= \"a\" | [] \"b\"", "a", "b"},
    {"root ::= \"a\" none* \"b\"\nnone ::= \"c\" none", "ab", "acb"},
};

static const char *text_of(const char *list, size_t *n)
{
    static char text[64];
    *n = strcspn(list, "|");
    memcpy(text, list, *n);
    text[*n] = 0;
    if (strcmp(text, "-") == 0) text[0] = 0;
    return text;
}

static void check_texts(masker *k, const char *notation, const char *list, bool want)
{
    for (size_t n; *list; list += n + (list[n] == '|')) {
        const char *text = text_of(list, &n);
        if (accepts(k, text) != want) fail_msg("%s: '%s' is %s", notation, text, want ? "not accepted" : "accepted");
    }
}

static void means_what_it_says(void **state)
{
    (void)state;
    uint64_t *bits = calloc(mask_words(trie), sizeof *bits);
    for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++) {
        masker *k = gbnf_masker(meanings[i].grammar);
        check_texts(k, meanings[i].grammar, meanings[i].in, true);
        check_texts(k, meanings[i].grammar, meanings[i].out, false);
        checked_mask(k, masker_start(k), bits);
        masker_close(k);
    }
    free(bits);
}

static const struct {
    const char *grammar, *message;
} mistakes[] = {
    {"", "line 1, column 1: there is no rule 'root'"},
    {"a ::= \"x\"", "there is no rule 'root'"},
    {"root", "line 1, column 1: wanted a rule: NAME ::= ..."},
    {"root = \"a\"", "line 1, column 1: wanted a rule"},
    {"root ::= \"a\"\n::= b", "line 2, column 1: wanted a text, a set, a rule's name"},
    {"root ::= \"a", "line 1, column 10: this text has no closing quote"},
    {"root ::= \"a\nb\"", "line 1, column 10: this text has no closing quote"},
    {"root ::= \n  [a", "line 2, column 3: this set has no closing bracket"},
    {"root ::= [z-a]", "line 1, column 11: a range of characters ends before it begins"},
    {"root ::= (\"a\"", "line 1, column 10: this bracket is not closed"},
    {"root ::= \"a\")", "line 1, column 13: a closing bracket without an opening one"},
    {"root ::= *", "line 1, column 10: a repetition with nothing before it"},
    {"root ::= \"a\" | +", "line 1, column 16: a repetition with nothing before it"},
    {"root ::= \"a\"{2,1}", "line 1, column 13: a repetition's maximum is below its minimum"},
    {"root ::= \"a\"{x}", "line 1, column 14: wanted a number of repetitions"},
    {"root ::= \"a\"{2", "line 1, column 15: wanted the '}' of a repetition"},
    {"root ::= \"a\"{99999999}", "line 1, column 14: a repetition count is above 16777216"},
    {"root ::= \"\\q\"", "line 1, column 11: unknown escape"},
    {"root ::= \"\\x4\"", "line 1, column 11: an escape has too few hexadecimal digits"},
    {"root ::= \"\\uD800\"", "an escape names no character"},
    {"root ::= \"\\U00110000\"", "an escape names no character"},
    {"root ::= \"a\\", "a backslash at the end of the grammar"},
    {"root ::= <think>", "line 1, column 10: tokens (<...>) are not supported"},
    {"root ::= a!", "line 1, column 11: wanted a text, a set"},
    {"root ::= foo\n", "line 1, column 10: rule 'foo' is not defined"},
    {"root ::= \"a\"\nroot ::= \"b\"", "line 2, column 1: rule 'root' is defined twice"},
    {"root ::= \"\xc3\xa9\xc3\xa9\" \"\\q\"", "line 1, column 16: unknown escape"}, /* columns are characters */
    {"root ::= root \"a\" | \"b\"", "rule 'root' begins with itself (rule 'root' -> rule 'root')"},
    {"root ::= a\na ::= b\nb ::= \"x\"? a \"y\" | \"z\"",
     "rule 'a' begins with itself (rule 'a' -> rule 'b' -> rule 'a')"},
    {"root ::= \"a\"* root", "matches no text"},
    {"root ::= \"a\"* root | \"b\"", "rule 'root' begins with itself"},
    {"root ::= (\"a\" | root){3} | \"b\"", "rule 'root' begins with itself"},
    {"root ::= \"a\" root", "rule 'root' matches no text"},
    {"root ::= []", "rule 'root' matches no text"},
    {"root ::= \xff", "the grammar is not valid UTF-8"},
};

static void says_where_it_is_wrong(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        facet_error err = {0};
        grammar *g = NULL;
        const facet_status status = gbnf_parse(mistakes[i].grammar, strlen(mistakes[i].grammar), &g, &err);
        if (status != FACET_ERR_ARG || !strstr(err.message, mistakes[i].message) || g)
            fail_msg("'%s': status %d, '%s', wanted '%s'", mistakes[i].grammar, (int)status, err.message,
                     mistakes[i].message);
    }
}

/* ---- limits ---- */

static char *repeated(const char *before, const char *middle, size_t n, const char *after)
{
    const size_t m = strlen(middle);
    char *s = malloc(strlen(before) + n * m + strlen(after) + 1), *p = s;
    p = stpcpy(p, before);
    for (size_t i = 0; i < n; i++) p = stpcpy(p, middle);
    strcpy(p, after);
    return s;
}

static void expect_limit(char *text, facet_status want, const char *message)
{
    facet_error err = {0};
    grammar *g;
    assert_int_equal(gbnf_parse(text, strlen(text), &g, &err), want);
    if (!strstr(err.message, message)) fail_msg("'%s', wanted '%s'", err.message, message);
    free(text);
}

static void has_limits(void **state)
{
    (void)state;
    expect_limit(repeated("root ::= ", "(", 65, "\"a\""), FACET_ERR_ARG, "nested more than 64 deep");
    expect_limit(repeated("root ::= \"", "a", GBNF_MAX_BYTES, "\""), FACET_ERR_LIMIT, "wanted at most 1048576");
}

/* Sixty-four brackets and a counter of 16 million are small grammars. */
static void counts_without_unrolling(void **state)
{
    (void)state;
    facet_error err;
    grammar *g;
    char *deep = repeated("root ::= ", "(", 63, "\"a\""), *all = repeated(deep, "){0,3}", 63, "");
    assert_ok(gbnf_parse(all, strlen(all), &g, &err), err);
    assert_in_range(g->n_nodes, 1, 1000);
    masker *k = masker_of(g);
    assert_true(accepts(k, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
    masker_close(k);
    free(deep);
    free(all);
    k = gbnf_masker("root ::= [a-z]{16000000,16777216} \"!\"");
    assert_in_range(k->g->n_nodes, 1, 20);
    assert_false(accepts(k, "aaa!"));
    masker_close(k);
    k = gbnf_masker("root ::= \"<\" [a-z]{2,5000} \">\"");
    char *text = repeated("<", "q", 5000, ">"), *longer = repeated("<", "q", 5001, ">");
    assert_true(accepts(k, text));
    assert_false(accepts(k, longer));
    assert_false(accepts(k, "<q>"));
    masker_close(k);
    free(text);
    free(longer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(means_what_it_says),
        cmocka_unit_test(says_where_it_is_wrong),
        cmocka_unit_test(has_limits),
        cmocka_unit_test(counts_without_unrolling),
    };
    return cmocka_run_group_tests_name("GBNF", tests, grammar_setup, grammar_teardown);
}
