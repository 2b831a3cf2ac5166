/* JSON schemas: what is generated under their grammars fits them, which is judged by a validator of the tests' own;
 * what is not supported is refused with its place. */
#include "grammar_testing.h"

#include "grammar/schema.h"
#include "json_validator.h"
#include "random_schema.h"

enum { N_SCHEMAS = 1000, N_TEXTS = 3, MAX_TOKENS = 4000, ENOUGH = 60 };

static masker *schema_masker(const char *text)
{
    facet_error err;
    grammar *g;
    if (schema_parse(text, strlen(text), &g, &err) != FACET_OK) fail_msg("%s: %s", text, err.message);
    return masker_of(g);
}

/* ---- random schemas ---- */

static int32_t byte_tokens[256]; /* a token of this one byte */

static void find_bytes(void)
{
    for (int32_t t = trie->n_vocab - 1; t >= 0; t--) {
        size_t n;
        const char *text = trie_text(trie, t, &n);
        if (n == 1) byte_tokens[(uint8_t)*text] = t;
    }
}

static int32_t random_allowed(const uint64_t *bits, rng *r)
{
    int32_t n = 0, pick = -1;
    for (size_t w = 0; w < mask_words(trie); w++)
        for (uint64_t b = bits[w]; b; b &= b - 1)
            if (rng_below(r, (uint32_t)++n) == 0) pick = (int32_t)(w * 64) + __builtin_ctzll(b);
    return pick;
}

/* Any token, but closing ones rather often, and, when the text is long enough, wherever they may come. */
static int32_t choose(const uint64_t *bits, bool is_long, rng *r)
{
    static const char closers[] = "\"]}", ways_out[] = "]}n0/:@.=abcxyT-$";
    for (const char *p = closers; *p; p++)
        if (has_bit(bits, byte_tokens[(uint8_t)*p]) && ((is_long && *p == '"') || chance(r, 15)))
            return byte_tokens[(uint8_t)*p];
    for (int i = 0; is_long && i < 64; i++) {
        const int32_t other = byte_tokens[(uint8_t)ways_out[rng_below(r, sizeof ways_out - 1)]];
        if (has_bit(bits, other)) return other;
    }
    return random_allowed(bits, r);
}

/* A random text of the grammar. False: it did not come to an end. */
static bool random_text(masker *k, rng *r, uint64_t *bits, buf *out)
{
    facet_error err;
    int32_t at = masker_start(k);
    buf_clear(out);
    for (int i = 0; i < MAX_TOKENS; i++) {
        assert_ok(masker_mask(k, at, bits, &err), err);
        const int32_t token = choose(bits, i > ENOUGH, r);
        if (masker_is_final(k, at) && (token < 0 || i > ENOUGH || chance(r, 50))) return true;
        assert_true(token >= 0);
        size_t n;
        const char *text = trie_text(trie, token, &n);
        buf_append(out, text, n);
        assert_ok(masker_advance(k, at, token, &at, &err), err);
        assert_int_not_equal(at, STATE_DEAD);
    }
    return false;
}

static void check_text(const json_t *schema, const buf *text, int i)
{
    json_error_t e;
    json_t *v = json_loadb(text->data, text->len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
    if (!v || !validate(schema, schema, v)) {
        char *s = json_dumps(schema, JSON_COMPACT);
        fail_msg("schema %d %s: '%.*s' %s", i, s, (int)text->len, text->data, v ? "does not fit" : e.text);
    }
    json_decref(v);
}

static void generated_texts_fit_their_schemas(void **state)
{
    (void)state;
    uint64_t *bits = calloc(mask_words(trie), 8);
    buf text = {0};
    rng r;
    int n_empty = 0, n_texts = 0;
    size_t n_bytes = 0;
    rng_seed(&r, 20);
    for (int i = 0; i < N_SCHEMAS; i++) {
        json_t *schema = random_document(&r);
        char *s = json_dumps(schema, JSON_COMPACT);
        facet_error err = {0};
        grammar *g;
        const facet_status status = schema_parse(s, strlen(s), &g, &err);
        if (status == FACET_ERR_ARG && strstr(err.message, "matches no text"))
            n_empty++; /* bounds that no multiple lies between, and the like */
        else if (status != FACET_OK)
            fail_msg("schema %d %s: %s", i, s, err.message);
        masker *k = status == FACET_OK ? masker_of(g) : NULL;
        for (int t = 0; t < N_TEXTS && k; t++) {
            if (!random_text(k, &r, bits, &text)) fail_msg("schema %d %s: no end to '%.300s'", i, s, text.data);
            check_text(schema, &text, i);
            n_texts++;
            n_bytes += text.len;
        }
        masker_close(k);
        free(s);
        json_decref(schema);
    }
    print_message("%d texts of %zu bytes fit; %d schemas fit nothing\n", n_texts, n_bytes, n_empty);
    assert_in_range(n_empty, 0, N_SCHEMAS / 20);
    buf_free(&text);
    free(bits);
}

/* ---- what is in and what is out ---- */

static const struct {
    const char *schema, *in, *out; /* texts, separated by a newline; NULL = none */
} meanings[] = {
    {"true", "1|\"a\"|{}|[1, 2]|null|{\"a\": [true]}", "|01|{a:1}|[1,]| 1"},
    {"{}", "1|[[]]", "nul"},
    {"{\"type\":\"null\"}", "null", "0"},
    {"{\"type\":[\"boolean\",\"null\"]}", "true|false|null", "0|\"true\""},
    {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
     "\"ab\"|\"\xc3\xa9\xe6\x97\xa5\xf0\x9f\x8c\x8d\"|\"\\n\\u00e9\"|\"\\ud83c\\udf0d!\"",
     "\"a\"|\"abcd\"|\"\\ud83c\\udf0d\"|\"a\\ud83c\"|\"a\\u0000\"|ab"},
    {"{\"type\":\"string\",\"pattern\":\"^[a-c]+$\",\"minLength\":2,\"maxLength\":4}", "\"ab\"|\"cccc\"",
     "\"a\"|\"aaaaa\"|\"ad\""},
    {"{\"type\":\"string\",\"pattern\":\"^a{2,3}b?$\",\"minLength\":1,\"maxLength\":9}", "\"aa\"|\"aaab\"",
     "\"a\"|\"ab\""},
    {"{\"pattern\":\"b\"}", "\"b\"|\"abc\"|\"\\nb\"", "\"a\"|\"\""},
    {"{\"pattern\":\"^\\\"\\\\\\\\$\"}", "\"\\\"\\\\\"", "\"\\\"\""},
    {"{\"format\":\"date\"}", "\"2024-02-29\"|\"2023-12-31\"|\"2000-02-29\"|\"0001-01-01\"|\"0400-02-29\"",
     "\"2023-02-29\"|\"1900-02-29\"|\"2023-04-31\"|\"2023-13-01\"|\"2023-1-1\"|\"2023-00-10\"|\"0000-01-01\"|\"0000-02-"
     "29\""},
    {"{\"format\":\"date-time\"}", "\"2024-02-29T23:59:59Z\"|\"2024-01-01T00:00:00.123+02:30\"",
     "\"2024-02-29 23:59:59Z\"|\"2024-02-29T24:00:00Z\"|\"2024-02-29T23:59:59\""},
    {"{\"format\":\"uuid\"}", "\"123e4567-e89b-12d3-a456-426614174000\"", "\"123e4567-e89b-12d3-a456-42661417400\""},
    {"{\"format\":\"ipv4\"}", "\"0.10.255.199\"", "\"256.1.1.1\"|\"01.1.1.1\"|\"1.1.1\""},
    {"{\"type\":\"integer\"}", "0|-1|123456789012345678", "1.0|01|1234567890123456789|--1|+1"},
    {"{\"type\":\"integer\",\"minimum\":7,\"maximum\":1203}", "7|9|10|99|999|1000|1199|1200|1203",
     "6|0|1204|1210|1300|2000|10000|-7|07"},
    {"{\"type\":\"integer\",\"minimum\":-12,\"maximum\":-3}", "-12|-10|-3", "-13|-2|3|0|-0|-120"},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":-1,\"exclusiveMaximum\":2}", "0|1", "-1|2|-0"},
    {"{\"type\":\"integer\",\"minimum\":0.5,\"maximum\":2.5}", "1|2", "0|3"},
    {"{\"type\":\"integer\",\"multipleOf\":7,\"minimum\":-20,\"maximum\":100}", "0|-14|7|98", "-21|1|99|105|-20"},
    {"{\"type\":\"integer\",\"multipleOf\":1000}", "0|1000|-345000", "100|1001"},
    {"{\"type\":\"integer\",\"format\":\"int32\"}", "2147483647|-2147483648", "2147483648|-2147483649"},
    {"{\"type\":\"number\"}", "0|-1.5|1e5|2.5E-10|123.456", "1.|.5|01.5|1e|1e999"},
    {"{\"type\":\"number\",\"minimum\":0.5,\"maximum\":10}", "0.5|0.50|0.51|1|9.999|10|10.0",
     "0.4|0.49|10.1|11|0|-1|1e0"},
    {"{\"type\":\"number\",\"exclusiveMinimum\":0.5,\"exclusiveMaximum\":10}", "0.51|0.500001|9.999999",
     "0.5|0.50|10|10.0"},
    {"{\"type\":\"number\",\"minimum\":-2.25,\"maximum\":-0.75}", "-2.25|-1|-0.75|-0.76", "-2.26|-0.74|-3|0|1"},
    {"{\"type\":\"number\",\"minimum\":-1,\"exclusiveMinimum\":true,\"maximum\":0}", "-0.5|0|0.0", "-1|-1.0|0.1|-0"},
    {"{\"type\":\"number\",\"multipleOf\":1}", "1|-20", "1.5|29.584e01|1.0"},
    {"{\"type\":\"number\",\"multipleOf\":0.01}", "1|1.5|-3.14", "1.234|1e2"},
    {"{\"enum\":[\"a\",1,null,[1,2],{\"k\":\"v\"},2.5]}", "\"a\"|1|null|[1,2]|{\"k\":\"v\"}|2.5",
     "2|\"b\"|[1, 2]|2.50"},
    {"{\"enum\":[\"a\",1,2.5],\"type\":\"integer\"}", "1", "\"a\"|2.5"},
    {"{\"const\":0.1}", "0.1", "0.10"},
    {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1,\"maxItems\":3}",
     "[1]|[1, 2]|[1,2,3]|[\n  1\n]", "[]|[1,2,3,4]|[\"a\"]|[1,]"},
    {"{\"type\":\"array\",\"maxItems\":0}", "[]|[ ]", "[1]"},
    {"{\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"string\"}]}", "[]|[1]|[1,\"a\"]",
     "[\"a\"]|[1,2]|[1,\"a\",3]"},
    {"{\"prefixItems\":[{\"type\":\"integer\"}],\"items\":{\"type\":\"null\"},\"minItems\":2}",
     "[1,null]|[1,null,null]", "[1]|[null,null]"},
    {"{\"items\":[{\"type\":\"integer\"}],\"additionalItems\":false}", "[1]|[]", "[1,1]"},
    {"{\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"null\"}},\"required\":[\"b\"]}",
     "{\"b\":null}|{\"a\": 1, \"b\": null}|{\n  \"b\": null\n}",
     "{}|{\"a\":1}|{\"b\":null,\"a\":1}|{\"b\":null,\"c\":1}|{\"b\":1}"},
    {"{\"properties\":{\"a\":true},\"additionalProperties\":{\"type\":\"null\"}}",
     "{}|{\"a\":1}|{\"b\":null}|{\"a\":1,\"aa\":null,\"\":null}", "{\"b\":1}|{\"a\":1,\"a\":null}|{\"\\u0061\":null}"},
    {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"},\"maxProperties\":2,\"minProperties\":1}",
     "{\"x\":1}|{\"x\":1,\"y\":2}", "{}|{\"x\":1,\"y\":2,\"z\":3}"},
    {"{\"patternProperties\":{\"^x_\":{\"type\":\"integer\"}},\"additionalProperties\":false}", "{}|{\"x_1\":1}",
     "{\"y\":1}|{\"x_1\":null}"},
    {"{\"required\":[\"z\"],\"additionalProperties\":{\"type\":\"null\"}}", "{\"z\":null}|{\"z\":null,\"y\":null}",
     "{}|{\"y\":null}"},
    {"{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"null\"}]}", "1|null", "\"a\""},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"integer\"}},\"oneOf\":[{"
     "\"required\":[\"a\"]},{\"required\":[\"b\"]}]}",
     "{\"a\":1}|{\"b\":1}", "{}"},
    {"{\"allOf\":[{\"minimum\":3},{\"maximum\":5,\"type\":\"integer\"}]}", "3|5", "2|6"},
    {"{\"allOf\":[{\"enum\":[1,2,3]},{\"enum\":[2,3,4]}]}", "2|3", "1|4"},
    {"{\"allOf\":[{\"properties\":{\"a\":{\"minimum\":1}}},{\"properties\":{\"a\":{\"type\":\"integer\",\"maximum\":2}}"
     ",\"required\":[\"a\"]}]}",
     "{\"a\":1}|{\"a\":2}", "{\"a\":0}|{}"},
    {"{\"allOf\":[{\"properties\":{\"a\":true},\"additionalProperties\":false},{\"properties\":{\"b\":true}}]}",
     "{}|{\"a\":1}", "{\"b\":1}"},
    {"{\"$defs\":{\"t\":{\"type\":\"object\",\"properties\":{\"l\":{\"$ref\":\"#/$defs/"
     "t\"}},\"required\":[]}},\"$ref\":\"#/$defs/t\"}",
     "{}|{\"l\":{\"l\":{}}}", "{\"l\":1}"},
    {"{\"type\":\"object\",\"properties\":{\"c\":{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}}}",
     "{}|{\"c\":[{\"c\":[]},{}]}", "{\"c\":[1]}"},
    {"{\"definitions\":{\"a~b/c%\":{\"type\":\"null\"}},\"$ref\":\"#/definitions/a~0b~1c%25\"}", "null", "1"},
    {"{\"$ref\":\"#/$defs/a\",\"minimum\":5,\"$defs\":{\"a\":{\"type\":\"integer\",\"maximum\":7}}}", "5|7", "4|8"},
    {"{\"properties\":{\"a\":false,\"b\":true}}", "{}|{\"b\":1}", "{\"a\":1}"},
    {"{\"title\":\"t\",\"x-unknown\":1,\"type\":\"null\",\"default\":5}", "null", "5"},
};

static void check_list(masker *k, const char *schema, const char *list, bool want)
{
    char text[128];
    for (size_t n; *list; list += n + (list[n] == '|')) {
        n = strcspn(list, "|");
        memcpy(text, list, n);
        text[n] = 0;
        if (accepts(k, text) != want) fail_msg("%s: %s is %s", schema, text, want ? "refused" : "accepted");
    }
}

static void schemas_mean_what_they_say(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++) {
        masker *k = schema_masker(meanings[i].schema);
        check_list(k, meanings[i].schema, meanings[i].in, true);
        check_list(k, meanings[i].schema, meanings[i].out, false);
        masker_close(k);
    }
}

/* ---- refusals ---- */

static const struct {
    const char *schema;
    facet_status status;
    const char *message;
} refusals[] = {
    {"", FACET_ERR_ARG, "the JSON schema: line 1"},
    {"{", FACET_ERR_ARG, "the JSON schema: line 1"},
    {"{\"type\":\"null\",\"type\":\"null\"}", FACET_ERR_ARG, "duplicate"},
    {"[1]", FACET_ERR_ARG, "#: wanted a schema: an object, true or false"},
    {"false", FACET_ERR_ARG, "# matches no text"},
    {"{\"type\":\"int\"}", FACET_ERR_ARG, "#/type: wanted null, boolean"},
    {"{\"type\":[]}", FACET_ERR_ARG, "#/type: wanted"},
    {"{\"properties\":{\"a\":1}}", FACET_ERR_ARG, "#/properties: wanted an object of schemas"},
    {"{\"properties\":{\"a/b\":{\"minLength\":-1}}}", FACET_ERR_ARG,
     "#/properties/a~1b/minLength: wanted a whole number"},
    {"{\"items\":{\"required\":\"x\"}}", FACET_ERR_ARG, "#/items/required: wanted an array of strings"},
    {"{\"enum\":[]}", FACET_ERR_ARG, "#/enum: wanted an array of at least one value"},
    {"{\"anyOf\":[{},{\"anyOf\":[]}]}", FACET_ERR_ARG, "#/anyOf/1/anyOf: wanted an array of at least one schema"},
    {"{\"maxLength\":99999999}", FACET_ERR_LIMIT, "#/maxLength: 99999999: wanted at most 16777216"},
    {"{\"properties\":{\"x\":{\"not\":{}}}}", FACET_ERR_UNSUPPORTED,
     "#/properties/x/not: this keyword is not supported"},
    {"{\"if\":{}}", FACET_ERR_UNSUPPORTED, "#/if: this keyword is not supported"},
    {"{\"items\":{\"uniqueItems\":true}}", FACET_ERR_UNSUPPORTED, "#/items/uniqueItems: true is only supported"},
    {"{\"contains\":{}}", FACET_ERR_UNSUPPORTED, "#/contains"},
    {"{\"propertyNames\":{}}", FACET_ERR_UNSUPPORTED, "#/propertyNames"},
    {"{\"unevaluatedProperties\":false}", FACET_ERR_UNSUPPORTED, "#/unevaluatedProperties"},
    {"{\"dependentRequired\":{}}", FACET_ERR_UNSUPPORTED, "#/dependentRequired"},
    {"{\"$ref\":\"other.json\"}", FACET_ERR_UNSUPPORTED, "#/$ref: 'other.json': only references within the document"},
    {"{\"$ref\":\"#/$defs/x\"}", FACET_ERR_ARG, "#/$ref: '#/$defs/x' is not in the document"},
    {"{\"$ref\":\"#/title\",\"title\":\"x\"}", FACET_ERR_ARG, "#/$ref: '#/title' is no schema"},
    {"{\"$ref\":\"#\"}", FACET_ERR_ARG, "# matches no text"},
    {"{\"anyOf\":[{\"type\":\"null\"},{\"$ref\":\"#\"}]}", FACET_ERR_ARG, "# begins with itself"},
    {"{\"$ref\":\"#\",\"type\":\"null\"}", FACET_ERR_LIMIT, "$ref and allOf lead back here"},
    {"{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}", FACET_ERR_ARG, "# matches no text"},
    {"{\"allOf\":[{\"type\":\"null\"},{\"type\":\"string\"}]}", FACET_ERR_ARG, "# matches no text"},
    {"{\"allOf\":[{\"pattern\":\"a\"},{\"pattern\":\"b\"}]}", FACET_ERR_UNSUPPORTED,
     "#/allOf/1/pattern: two different values"},
    {"{\"allOf\":[{},{\"properties\":{\"p\":{\"not\":{}}}}]}", FACET_ERR_UNSUPPORTED, "#/allOf/1/properties/p/not"},
    {"{\"allOf\":[{\"items\":{}},{\"prefixItems\":[{}]}]}", FACET_ERR_UNSUPPORTED,
     "#/allOf/1/prefixItems: together with items"},
    {"{\"type\":\"string\",\"pattern\":\"(?=a)\"}", FACET_ERR_UNSUPPORTED,
     "#/pattern: character 1 of the pattern: groups that begin with (?"},
    {"{\"pattern\":\"^a(b$\"}", FACET_ERR_UNSUPPORTED, "#/pattern: character 5 of the pattern: anchors inside groups"},
    {"{\"pattern\":\"^a(b\"}", FACET_ERR_ARG, "#/pattern: character 3 of the pattern: this bracket is not closed"},
    {"{\"pattern\":\"[a\"}", FACET_ERR_ARG, "#/pattern: character 1 of the pattern: this set has no closing bracket"},
    {"{\"pattern\":\"a**\"}", FACET_ERR_ARG, "#/pattern: character 3 of the pattern: a repetition of a repetition"},
    {"{\"pattern\":\"*a\"}", FACET_ERR_ARG,
     "#/pattern: character 1 of the pattern: a repetition with nothing before it"},
    {"{\"pattern\":\"(a)\\\\1\"}", FACET_ERR_UNSUPPORTED,
     "#/pattern: character 4 of the pattern: references to groups"},
    {"{\"pattern\":\"\\\\bx\"}", FACET_ERR_UNSUPPORTED, "word boundaries"},
    {"{\"pattern\":\"\\\\p{L}\"}", FACET_ERR_UNSUPPORTED, "Unicode properties"},
    {"{\"pattern\":\"a^\"}", FACET_ERR_UNSUPPORTED, "'^' behind the beginning"},
    {"{\"pattern\":\"^ab?$\",\"minLength\":2}", FACET_ERR_UNSUPPORTED,
     "#/pattern: together with minLength or maxLength"},
    {"{\"format\":\"regex\"}", FACET_ERR_UNSUPPORTED, "#/format: 'regex': supported are date"},
    {"{\"type\":\"integer\",\"format\":\"date\"}", FACET_ERR_UNSUPPORTED, "#/format: 'date': supported for numbers"},
    {"{\"format\":\"date\",\"pattern\":\"a\"}", FACET_ERR_UNSUPPORTED, "#/format: together with pattern"},
    {"{\"multipleOf\":0}", FACET_ERR_ARG, "#/multipleOf: 0: wanted a number above 0"},
    {"{\"multipleOf\":2000}", FACET_ERR_UNSUPPORTED, "#/multipleOf: 2000: wanted at most 1024"},
    {"{\"multipleOf\":0.3}", FACET_ERR_UNSUPPORTED, "#/multipleOf: 0.2999"},
    {"{\"minimum\":1e-30}", FACET_ERR_UNSUPPORTED, "#/minimum: "},
    {"{\"type\":\"integer\",\"minimum\":5,\"maximum\":4}", FACET_ERR_ARG, "# matches no text"},
    {"{\"type\":\"object\",\"minProperties\":2}", FACET_ERR_UNSUPPORTED, "#/minProperties: 2 is more than"},
    {"{\"properties\":{\"a\":{},\"b\":{}},\"maxProperties\":1}", FACET_ERR_UNSUPPORTED,
     "#/maxProperties: 1 is less than"},
    {"{\"patternProperties\":{\"a\":{},\"b\":{}}}", FACET_ERR_UNSUPPORTED,
     "#/patternProperties: more than one pattern"},
    {"{\"patternProperties\":{\"(\":{}}}", FACET_ERR_ARG, "#/patternProperties: character 1 of the pattern"},
    {"{\"enum\":[\"a\"],\"minLength\":2}", FACET_ERR_UNSUPPORTED, "#: enum or const together with keywords"},
};

static void refuses_with_the_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        facet_error err = {0};
        grammar *g = NULL;
        const facet_status status = schema_parse(refusals[i].schema, strlen(refusals[i].schema), &g, &err);
        if (status != refusals[i].status || !strstr(err.message, refusals[i].message) || g)
            fail_msg("%s: status %d, '%s', wanted %d, '%s'", refusals[i].schema, (int)status, err.message,
                     (int)refusals[i].status, refusals[i].message);
    }
}

static void any_object_is_any_object(void **state)
{
    (void)state;
    facet_error err;
    grammar *g;
    assert_ok(schema_any_object(&g, &err), err);
    masker *k = masker_of(g);
    check_list(k, "object", "{}|{\"a\": [1, {\"b\": null}]}", true);
    check_list(k, "object", "[]|1|{\"a\"}|{}{}", false);
    masker_close(k);
}

/* Deep documents, documents of many parts, and ones that multiply. */
static void has_limits(void **state)
{
    (void)state;
    buf b = {0};
    facet_error err;
    grammar *g;
    for (int i = 0; i < 1000; i++) buf_puts(&b, "{\"items\":");
    buf_puts(&b, "{}");
    for (int i = 0; i < 1000; i++) buf_puts(&b, "}");
    assert_ok(schema_parse(b.data, b.len, &g, &err), err);
    grammar_close(g);
    buf_clear(&b);
    buf_puts(&b, "{\"properties\":{");
    for (int i = 0; i < 5000; i++) buf_printf(&b, "%s\"p%d\":{\"type\":\"integer\"}", i ? "," : "", i);
    buf_puts(&b, "}}");
    assert_ok(schema_parse(b.data, b.len, &g, &err), err);
    grammar_close(g);
    buf_clear(&b);
    buf_puts(&b, "{\"$defs\":{\"a\":{\"properties\":{\"c\":{\"$ref\":\"#/$defs/a\"}}},\"b\":{\"properties\":{\"c\":"
                 "{\"$ref\":\"#/$defs/b\"}}}},\"allOf\":[{\"$ref\":\"#/$defs/a\"},{\"$ref\":\"#/$defs/b\"}]}");
    assert_int_equal(schema_parse(b.data, b.len, &g, &err), FACET_ERR_LIMIT);
    assert_non_null(strstr(err.message, "nested too deeply"));
    buf_free(&b);
}

static int setup(void **state)
{
    grammar_setup(state);
    assert_non_null(setlocale(LC_CTYPE, "C.UTF-8"));
    find_bytes();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schemas_mean_what_they_say),        cmocka_unit_test(refuses_with_the_place),
        cmocka_unit_test(any_object_is_any_object),          cmocka_unit_test(has_limits),
        cmocka_unit_test(generated_texts_fit_their_schemas),
    };
    return cmocka_run_group_tests_name("JSON schemas", tests, setup, grammar_teardown);
}
