/* grammar_testing.h: the bundled model's vocabulary, grammars over it, and whether a text is in a grammar. */
#ifndef FACET_TESTS_GRAMMAR_TESTING_H
#define FACET_TESTS_GRAMMAR_TESTING_H

#include "testing.h"

#include "base/mem.h"
#include "base/rng.h"
#include "grammar/gbnf.h"
#include "grammar/mask.h"
#include "model/model.h"

#define GRAMMAR_MODEL FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf"

static facet_model *model;
static const token_trie *trie;

static inline int grammar_setup(void **state)
{
    (void)state;
    facet_error err;
    assert_ok(facet_model_open(GRAMMAR_MODEL, &model, &err), err);
    assert_ok(model_trie(model, &trie, &err), err);
    return 0;
}

static inline int grammar_teardown(void **state)
{
    (void)state;
    facet_model_close(model);
    return 0;
}

enum { TEST_BYTES = 64 << 20 };

static inline masker *masker_of(grammar *g)
{
    facet_error err;
    masker *k;
    assert_ok(masker_open(g, trie, TEST_BYTES, &k, &err), err);
    return k;
}

static inline masker *gbnf_masker(const char *text)
{
    facet_error err;
    grammar *g;
    if (gbnf_parse(text, strlen(text), &g, &err) != FACET_OK) fail_msg("%s: %s", text, err.message);
    return masker_of(g);
}

/* The state after n bytes. */
static inline int32_t state_after(masker *k, const char *text, size_t n)
{
    facet_error err;
    int32_t state = masker_start(k);
    for (size_t i = 0; i < n; i++)
        assert_ok(machine_next(k->m, state, k->g->class_of[(uint8_t)text[i]], &state, &err), err);
    return state;
}

static inline bool accepts(masker *k, const char *text)
{
    return masker_is_final(k, state_after(k, text, strlen(text)));
}

static inline bool has_bit(const uint64_t *bits, int32_t token)
{
    return bits[token >> 6] >> (token & 63) & 1;
}

/* The mask of a state; it must say of each token what advancing by it says. Returns how many are allowed. */
static inline int checked_mask(masker *k, int32_t state, uint64_t *bits)
{
    facet_error err;
    int n = 0;
    assert_ok(masker_mask(k, state, bits, &err), err);
    for (int32_t t = 0; t < trie->n_vocab; t++) {
        int32_t next;
        assert_ok(masker_advance(k, state, t, &next, &err), err);
        if (has_bit(bits, t) != (next != STATE_DEAD))
            fail_msg("state %d, token %d: the mask says %d, advancing %d", state, t, has_bit(bits, t),
                     next != STATE_DEAD);
        n += has_bit(bits, t);
    }
    return n;
}

#endif
