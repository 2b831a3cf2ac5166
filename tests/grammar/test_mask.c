/* Masks: exact by an independent recogniser, over random grammars; the same from memory, after forgetting, and however
 * states were reached. */
#include "grammar_testing.h"

#include "earley.h"

enum { N_GRAMMARS = 1500, N_STEPS = 8 };

/* Bits of the tokens whose bytes lead on, by the recogniser. */
static bool reference_mask(chart *c, uint64_t *bits)
{
    const int at = c->n_bytes;
    memset(bits, 0, mask_words(trie) * sizeof *bits);
    for (int32_t t = 0; t < trie->n_vocab; t++) {
        size_t n, i = 0;
        const char *text = trie_text(trie, t, &n);
        if (at + (int)n > MAX_TEXT) return false;
        while (i < n && chart_read(c, (unsigned char)text[i])) i++;
        chart_back(c, at);
        if (n && i == n) bits[t >> 6] |= UINT64_C(1) << (t & 63);
        if (c->is_full) return false;
    }
    return true;
}

static int32_t random_token(const uint64_t *bits, rng *r)
{
    int32_t n = 0, pick = -1;
    for (int32_t t = 0; t < trie->n_vocab; t++)
        if (has_bit(bits, t) && rng_below(r, (uint32_t)++n) == 0) pick = t;
    return pick;
}

typedef struct bench {
    uint64_t *got, *want;
    item *items;
    int n_masks, n_full, n_refused, n_empty;
} bench;

/* A random walk; masks and ends are compared at every step. */
static void compare_along_a_walk(bench *b, const random_grammar *g, masker *k, const char *notation, rng *r)
{
    facet_error err;
    chart c;
    chart_begin(&c, g, b->items);
    int32_t state = masker_start(k);
    for (int step = 0; step < N_STEPS; step++) {
        if (!reference_mask(&c, b->want)) {
            b->n_full++;
            return;
        }
        assert_ok(masker_mask(k, state, b->got, &err), err);
        for (int32_t t = 0; t < trie->n_vocab; t++)
            if (has_bit(b->got, t) != has_bit(b->want, t))
                fail_msg("%s step %d, token %d: got %d, wanted %d", notation, step, t, has_bit(b->got, t),
                         has_bit(b->want, t));
        if (masker_is_final(k, state) != chart_may_end(&c))
            fail_msg("%s step %d: end is %d", notation, step, !chart_may_end(&c));
        b->n_masks++;
        const int32_t token = random_token(b->want, r);
        if (token < 0) return;
        size_t n;
        const char *text = trie_text(trie, token, &n);
        for (size_t i = 0; i < n; i++) assert_true(chart_read(&c, (unsigned char)text[i]));
        assert_ok(masker_advance(k, state, token, &state, &err), err);
        assert_int_not_equal(state, STATE_DEAD);
    }
}

static bool is_productive_root(const random_grammar *g)
{
    for (int p = 0; p < g->n_productions; p++)
        if (g->left[p] == FIRST_SYMBOL && g->productive[p]) return true;
    return false;
}

static void masks_are_exact(void **state)
{
    (void)state;
    bench b = {.got = calloc(mask_words(trie), 8),
               .want = calloc(mask_words(trie), 8),
               .items = calloc(MAX_ITEMS, sizeof(item))};
    random_grammar *g = malloc(sizeof *g);
    buf notation = {0};
    rng r;
    rng_seed(&r, 7);
    for (int i = 0; i < N_GRAMMARS; i++) {
        facet_error err = {0};
        grammar *parsed;
        random_make(g, &r);
        random_print(g, &notation);
        const facet_status status = gbnf_parse(notation.data, notation.len, &parsed, &err);
        const bool is_empty = !is_productive_root(g), is_left = begins_with_itself(g);
        if ((status == FACET_OK) == (is_empty || is_left))
            fail_msg("%s: '%s', but empty %d, left-recursive %d", notation.data, err.message, is_empty, is_left);
        b.n_empty += is_empty;
        b.n_refused += is_left;
        if (status != FACET_OK) continue;
        masker *k = masker_of(parsed);
        static const int32_t heavy[] = {1 << 13, 0, 3}; /* the last two: callers become part of what is kept */
        k->heavy_nodes = heavy[i % 3];
        if (i % 5 == 4) k->max_contexts = 2;
        for (int walk = 0; walk < 2; walk++) compare_along_a_walk(&b, g, k, notation.data, &r);
        masker_close(k);
    }
    print_message("%d masks; %d grammars begin with themselves, %d match nothing, %d walks cut short\n", b.n_masks,
                  b.n_refused, b.n_empty, b.n_full);
    assert_true(b.n_masks > N_GRAMMARS * 3);
    assert_true(b.n_refused > 20 && b.n_empty > 5 && b.n_full < N_GRAMMARS / 4);
    buf_free(&notation);
    free(g);
    free(b.got);
    free(b.want);
    free(b.items);
}

/* ---- counters ---- */

/* Loops are looked at with their counts brought down to few; at every count the mask must be as if they were not. */
static void counters_are_exact(void **state)
{
    (void)state;
    static const int bounds[][2] = {{0, 3}, {1, 40}, {17, 17}, {20, 60}, {40, 44}, {0, 90}, {90, 120}, {50, -1}};
    uint64_t *bits = calloc(mask_words(trie), 8);
    facet_error err;
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
        for (int shape = 0; shape < 3; shape++) {
            static const char *const shapes[] = {"root ::= \"<\" [a-z ]{%d,%s} \">\"",
                                                 "root ::= \"<\" x{%d,%s} \">\"\nx ::= [a-z ] | \"\\n\" \" \"",
                                                 "root ::= y \">\"\ny ::= \"<\" ([a-z ] \" \"?){%d,%s}"};
            char text[128], max[16] = "";
            if (bounds[i][1] >= 0) snprintf(max, sizeof max, "%d", bounds[i][1]);
            snprintf(text, sizeof text, shapes[shape], bounds[i][0], max);
            masker *k = gbnf_masker(text);
            k->heavy_nodes = shape == 2 ? 0 : k->heavy_nodes;
            int32_t at = state_after(k, "<", 1);
            for (int count = 0; at != STATE_DEAD; count++) {
                checked_mask(k, at, bits);
                int32_t end;
                assert_ok(machine_next(k->m, at, k->g->class_of['>'], &end, &err), err);
                const bool may_end = count >= bounds[i][0] && (bounds[i][1] < 0 || count <= bounds[i][1]);
                if (masker_is_final(k, end) != may_end) fail_msg("%s: end after %d is %d", text, count, !may_end);
                if (count > bounds[i][0] + 70 && bounds[i][1] < 0) break;
                assert_ok(machine_next(k->m, at, k->g->class_of['q'], &at, &err), err);
                assert_int_equal(at == STATE_DEAD, bounds[i][1] >= 0 && count >= bounds[i][1]);
            }
            masker_close(k);
        }
    free(bits);
}

/* A count among thousands costs no walk of its own. */
static void far_counts_share_their_walk(void **state)
{
    (void)state;
    facet_error err;
    uint64_t *bits = calloc(mask_words(trie), 8);
    masker *k = gbnf_masker("root ::= \"<\" [a-z ]{0,5000} \">\"");
    int32_t at = state_after(k, "<", 1);
    assert_ok(masker_mask(k, at, bits, &err), err);
    const int32_t n_walks = k->n_walks;
    for (int i = 0; i < 4000; i++) {
        assert_ok(machine_next(k->m, at, k->g->class_of['q'], &at, &err), err);
        assert_ok(masker_mask(k, at, bits, &err), err);
    }
    assert_int_equal(k->n_walks, n_walks);
    masker_close(k);
    free(bits);
}

/* ---- what tokens are ---- */

static void markers_never_match_text(void **state)
{
    (void)state;
    static const char *const markers[] = {"<bos>",      "<eos>",        "<turn|>", "<|channel>",
                                          "<channel|>", "<|tool_call>", "<|\"|>"};
    uint64_t *bits = calloc(mask_words(trie), 8);
    buf text = {0};
    masker *k = gbnf_masker("root ::= .*");
    checked_mask(k, masker_start(k), bits);
    int n_silent = 0;
    for (int32_t t = 0; t < trie->n_vocab; t++) {
        size_t n = 0;
        const char *stored = tokenizer_token_text(model->tok, t, &n);
        buf_clear(&text);
        detokenizer d = {.show_special = false};
        detokenizer_push(&d, model->tok, t, &text);
        const bool is_special = tokenizer_is_control(model->tok, t) || tokenizer_is_end(model->tok, t);
        n_silent += !has_bit(bits, t);
        for (size_t i = 0; i < sizeof markers / sizeof *markers; i++)
            if (strlen(markers[i]) == n && memcmp(stored, markers[i], n) == 0) assert_false(has_bit(bits, t));
        if (is_special) assert_false(has_bit(bits, t));
        if (text.len && !is_special && stored[0] != '<') assert_true(has_bit(bits, t));
    }
    assert_in_range(n_silent, 24, 24 + 64 + 13); /* markers; bytes 80 to BF and those that begin no character */
    masker_close(k);
    buf_free(&text);
    free(bits);
}

/* A token may end inside a character; then only what completes it may follow, and the text may not end. */
static void characters_come_in_pieces(void **state)
{
    (void)state;
    facet_error err;
    uint64_t *bits = calloc(mask_words(trie), 8);
    masker *k = gbnf_masker("root ::= [\xe6\x97\xa0-\xe6\x97\xaf]*");
    static const unsigned char bytes[] = {0xe6, 0x97, 0xa5};
    int32_t at = masker_start(k);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(masker_is_final(k, at), i == 0);
        checked_mask(k, at, bits);
        int n_bytes = 0;
        for (int32_t t = 0; t < trie->n_vocab; t++) {
            size_t n;
            const char *text = trie_text(trie, t, &n);
            if (!has_bit(bits, t) || n != 1) continue;
            n_bytes++;
            if (i < 2) assert_int_equal((unsigned char)text[0], bytes[i]);
            if (i == 2) assert_in_range((unsigned char)text[0], 0xa0, 0xaf);
        }
        assert_int_equal(n_bytes, i < 2 ? 1 : 16);
        assert_ok(machine_next(k->m, at, k->g->class_of[bytes[i]], &at, &err), err);
    }
    assert_true(masker_is_final(k, at));
    assert_int_equal(at, masker_start(k)); /* equal places are the same state */
    masker_close(k);
    free(bits);
}

/* ---- memory and ambiguity ---- */

#define AMBIGUOUS "root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"a\" root root | \"d\""

/* 2^n readings of n letters: the states grow with n, not with the readings. */
static void ambiguity_is_polynomial(void **state)
{
    (void)state;
    facet_error err;
    uint64_t *bits = calloc(mask_words(trie), 8);
    masker *k = gbnf_masker(AMBIGUOUS);
    int32_t at = masker_start(k);
    for (int i = 0; i < 300; i++) {
        assert_ok(machine_next(k->m, at, k->g->class_of['a'], &at, &err), err);
        assert_int_not_equal(at, STATE_DEAD);
    }
    assert_in_range(machine_bytes(k->m), 1, 8 << 20);
    checked_mask(k, at, bits);
    assert_ok(machine_next(k->m, at, k->g->class_of['d'], &at, &err), err);
    for (int i = 0; i < 300; i++) {
        assert_false(masker_is_final(k, at));
        assert_ok(machine_next(k->m, at, k->g->class_of[i % 2 ? 'b' : 'c'], &at, &err), err);
    }
    assert_true(masker_is_final(k, at));
    masker_close(k);
    free(bits);
}

/* The first token that is this byte. */
static int32_t byte_token(char byte)
{
    for (int32_t t = 0; t < trie->n_vocab; t++) {
        size_t n;
        const char *text = trie_text(trie, t, &n);
        if (n == 1 && *text == byte) return t;
    }
    return -1;
}

/* What is not held is forgotten when memory runs short; what is held goes on as if nothing had happened. */
static void forgets_and_goes_on(void **state)
{
    (void)state;
    facet_error err;
    rng r;
    grammar *g;
    uint64_t *small_bits = calloc(mask_words(trie), 8), *bits = calloc(mask_words(trie), 8);
    static const char notation[] = "root ::= x*\nx ::= \"(\" x* \")\" | \"[\" x{1,3} \"]\" | [a-z ]{2,9} \".\"";
    assert_ok(gbnf_parse(notation, sizeof notation - 1, &g, &err), err);
    masker *small, *k = gbnf_masker(notation);
    assert_ok(masker_open(g, trie, 96 << 10, &small, &err), err);
    int32_t held[3] = {0}, at = masker_start(k);
    state_holder h;
    masker_hold(small, &h, held, 3);
    held[1] = masker_start(small);
    int n_trims = 0;
    rng_seed(&r, 3);
    for (int i = 0; i < 600; i++) {
        const int32_t before = small->m->n_states;
        assert_ok(masker_trim(small, &err), err);
        n_trims += small->m->n_states < before;
        assert_ok(masker_mask(small, held[1], small_bits, &err), err);
        assert_ok(masker_mask(k, at, bits, &err), err);
        assert_memory_equal(bits, small_bits, mask_words(trie) * 8);
        assert_int_equal(masker_is_final(k, at), masker_is_final(small, held[1]));
        const int32_t open = byte_token("([ "[rng_below(&r, 3)]);
        const int32_t token = has_bit(bits, open) && rng_below(&r, 2) ? open : random_token(bits, &r);
        assert_true(token >= 0);
        assert_ok(masker_advance(small, held[1], token, &held[1], &err), err);
        assert_ok(masker_advance(k, at, token, &at, &err), err);
    }
    print_message("%d times forgotten, %d states in the end, %d without forgetting\n", n_trims, small->m->n_states,
                  k->m->n_states);
    assert_true(n_trims > 3);
    masker_release(small, &h);
    masker_close(small);
    masker_close(k);
    free(bits);
    free(small_bits);
}

static void says_when_memory_is_short(void **state)
{
    (void)state;
    facet_error err = {0};
    grammar *g;
    masker *k;
    uint64_t *bits = calloc(mask_words(trie), 8);
    assert_ok(gbnf_parse(AMBIGUOUS, strlen(AMBIGUOUS), &g, &err), err);
    assert_ok(masker_open(g, trie, 16 << 10, &k, &err), err);
    int32_t at = masker_start(k);
    facet_status status = FACET_OK;
    for (int i = 0; i < 1000 && status == FACET_OK; i++)
        status = machine_next(k->m, at, k->g->class_of['a'], &at, &err);
    assert_int_equal(status, FACET_ERR_LIMIT);
    assert_non_null(strstr(err.message, "too ambiguous"));
    state_holder h;
    masker_hold(k, &h, &at, 0);
    assert_ok(masker_trim(k, &err), err); /* and it goes on */
    assert_ok(masker_mask(k, masker_start(k), bits, &err), err);
    masker_release(k, &h);
    masker_close(k);
    free(bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_are_exact),
        cmocka_unit_test(counters_are_exact),
        cmocka_unit_test(far_counts_share_their_walk),
        cmocka_unit_test(markers_never_match_text),
        cmocka_unit_test(characters_come_in_pieces),
        cmocka_unit_test(ambiguity_is_polynomial),
        cmocka_unit_test(forgets_and_goes_on),
        cmocka_unit_test(says_when_memory_is_short),
    };
    return cmocka_run_group_tests_name("token masks", tests, grammar_setup, grammar_teardown);
}
