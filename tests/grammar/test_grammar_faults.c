/* Memory that runs short at the n-th allocation, for n = 1, 2, ...: a clean error, nothing left behind, and what was
 * there before goes on. */
#include "grammar_testing.h"

#include "grammar/constraint.h"
#include "grammar/schema.h"

static const char gbnf[] = "root ::= \"{\" x{2,5} \"}\" # a comment\nx ::= [a-z]+ (\",\" | \" \"?)* | \"(\" root \")\"";
static const char nested[] =
    "root ::= x (\",\" x)*\nx ::= y | z\ny ::= [a-z]* \" \"? z?\nz ::= \"{\" root? \"}\"? | \"(\" root \")\"? \" \"?";
static const char schema[] =
    "{\"$defs\":{\"d\":{\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"pattern\":\"^[a-f]{2,9}$\","
    "\"maxLength\":5}}},"
    "{\"properties\":{\"a\":{\"minLength\":3},\"b\":{\"type\":\"number\",\"minimum\":-1.5,\"maximum\":7}},"
    "\"additionalProperties\":"
    "{\"enum\":[1,\"x\"]}}]}},\"type\":\"array\",\"items\":{\"anyOf\":[{\"$ref\":\"#/$defs/d\"},{\"format\":\"date\"},"
    "{\"type\":\"integer\",\"multipleOf\":3}]},\"minItems\":1}";

typedef struct subject {
    const char *name;
    int least; /* allocations at least */
    facet_status (*call)(void *ud, facet_error *err);
    void *ud;
} subject;

static void fail_each(const subject *s)
{
    uint64_t k = 1;
    for (bool is_past = false; !is_past; k++) {
        facet_error err = {0};
        const int64_t live = mem_n_live();
        mem_fail_at(k);
        const facet_status status = s->call(s->ud, &err);
        is_past = mem_fail_at(0) < k;
        if (status != (is_past ? FACET_OK : FACET_ERR_MEMORY) || (!is_past && !strstr(err.message, "out of memory")))
            fail_msg("%s, allocation %d: status %d: %s", s->name, (int)k, (int)status, err.message);
        if (mem_n_live() != live)
            fail_msg("%s, allocation %d: %d blocks are left", s->name, (int)k, (int)(mem_n_live() - live));
    }
    print_message("%s: %d allocations\n", s->name, (int)k - 2);
    assert_true(k - 2 >= (uint64_t)s->least);
}

static facet_status parse_gbnf(void *ud, facet_error *err)
{
    grammar *g;
    (void)ud;
    FACET_TRY(gbnf_parse(gbnf, sizeof gbnf - 1, &g, err));
    grammar_close(g);
    return FACET_OK;
}

static facet_status parse_schema(void *ud, facet_error *err)
{
    grammar *g;
    (void)ud;
    FACET_TRY(schema_parse(schema, sizeof schema - 1, &g, err));
    grammar_close(g);
    return FACET_OK;
}

static facet_status make_trie(void *ud, facet_error *err)
{
    token_trie *t;
    (void)ud;
    FACET_TRY(trie_open(model->tok, &t, err));
    trie_close(t);
    return FACET_OK;
}

/* Some tokens along, with masks, under a fresh grammar each time. */
static facet_status run(masker *k, facet_error *err)
{
    constraint *c;
    const uint64_t *bits;
    bool ok;
    FACET_TRY(constraint_open(k, model->tok, 0, &c, err));
    facet_status status = FACET_OK;
    for (const char *p = "{(abc, "; *p && status == FACET_OK; p++) {
        int32_t token = 0;
        for (size_t n = 0; token < trie->n_vocab && (n != 1 || *trie_text(trie, token, &n) != *p); token++)
            if (trie_text(trie, token, &n) && n == 1 && *trie_text(trie, token, &n) == *p) break;
        status = constraint_mask(c, 0, &bits, err);
        if (status == FACET_OK) status = constraint_advance(c, 0, token, 1, &ok, err);
        if (status == FACET_OK) constraint_settle(c, 1);
    }
    constraint_close(c);
    return status;
}

static facet_status use_masks(void *ud, facet_error *err)
{
    grammar *g;
    masker *k;
    (void)ud;
    FACET_TRY(gbnf_parse(gbnf, sizeof gbnf - 1, &g, err));
    FACET_TRY(masker_open(g, trie, TEST_BYTES, &k, err));
    const facet_status status = run(k, err);
    masker_close(k);
    return status;
}

static void memory_may_run_short(void **state)
{
    (void)state;
    fail_each(&(subject){"GBNF", 10, parse_gbnf, NULL});
    fail_each(&(subject){"schema", 40, parse_schema, NULL});
    fail_each(&(subject){"trie", 8, make_trie, NULL});
    fail_each(&(subject){"masks", 40, use_masks, NULL});
}

/* Failures in the middle of a walk leave the grammar usable, and its masks right. */
static int use_with_failure(masker *k, uint64_t n, const char *text, uint64_t *bits)
{
    facet_error err;
    int n_failed = 0;
    int32_t at = masker_start(k);
    mem_fail_at(n);
    for (; *text; text++) {
        while (masker_mask(k, at, bits, &err) == FACET_ERR_MEMORY) n_failed++;
        while (machine_next(k->m, at, k->g->class_of[(uint8_t)*text], &at, &err) == FACET_ERR_MEMORY) n_failed++;
        assert_int_not_equal(at, STATE_DEAD);
    }
    mem_fail_at(0);
    checked_mask(k, at, bits);
    return n_failed;
}

static void masks_go_on_after_failures(void **state)
{
    (void)state;
    static const char text[] = "{({a,ab },b ({a,b}),c},cc,dd ,({{a,b},({e,f}),({g,h}) ";
    masker *fresh = gbnf_masker(nested);
    uint64_t *bits = calloc(mask_words(trie), 8), *want = calloc(mask_words(trie), 8);
    int n_failed = 0;
    checked_mask(fresh, state_after(fresh, text, sizeof text - 1), want);
    for (uint64_t n = 1; n < 80; n++) {
        masker *k = gbnf_masker(nested);
        n_failed += use_with_failure(k, n, text, bits);
        assert_memory_equal(bits, want, mask_words(trie) * 8);
        masker_close(k);
    }
    print_message("%d failures\n", n_failed);
    assert_true(n_failed > 20);
    masker_close(fresh);
    free(bits);
    free(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_may_run_short),
        cmocka_unit_test(masks_go_on_after_failures),
    };
    return cmocka_run_group_tests_name("grammars short of memory", tests, grammar_setup, grammar_teardown);
}
