/* fuzz_grammar.h: using a grammar that a fuzz target made, over a vocabulary of a few hundred tokens. */
#ifndef FACET_FUZZ_GRAMMAR_H
#define FACET_FUZZ_GRAMMAR_H

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/rng.h"
#include "grammar/mask.h"
#include "text/small_vocab.h"

/* JSON punctuation, which the small vocabulary lacks, is there as byte tokens. */
static inline const token_trie *fuzz_trie(void)
{
    static token_trie *trie;
    if (trie) return trie;
    buf b = {0};
    gguf_file *f = NULL;
    tokenizer *t = NULL;
    small_vocab(&b, "gemma4", NULL, 0, 0);
    if (gguf_open_memory(b.data, b.len, "small", &f, NULL) != FACET_OK || tokenizer_open(f, &t, NULL) != FACET_OK ||
        trie_open(t, &trie, NULL) != FACET_OK)
        abort();
    tokenizer_close(t);
    gguf_close(f);
    buf_free(&b);
    return trie;
}

static inline void fuzz_check_mask(masker *k, int32_t state, uint64_t *bits)
{
    const token_trie *t = k->trie;
    facet_error err;
    if (masker_mask(k, state, bits, &err) != FACET_OK) return;
    for (int32_t id = 0; id < t->n_vocab; id++) {
        int32_t next;
        if (masker_advance(k, state, id, &next, &err) != FACET_OK) return;
        if ((bits[id >> 6] >> (id & 63) & 1) != (next != STATE_DEAD)) abort();
    }
}

/* Takes g over. */
static inline void fuzz_run_grammar(grammar *g, uint64_t seed)
{
    const token_trie *t = fuzz_trie();
    facet_error err;
    masker *k;
    rng r;
    rng_seed(&r, seed);
    if (masker_open(g, t, 4 << 20, &k, &err) != FACET_OK) return;
    uint64_t *bits = mem_calloc(mask_words(t), sizeof *bits);
    int32_t state = masker_start(k);
    for (int i = 0; i < 12 && state != STATE_DEAD; i++) {
        fuzz_check_mask(k, state, bits);
        int32_t token = -1, n = 0;
        for (int32_t id = 0; id < t->n_vocab; id++)
            if (bits[id >> 6] >> (id & 63) & 1 && rng_below(&r, (uint32_t)++n) == 0) token = id;
        if (token < 0) break;
        if (masker_advance(k, state, token, &state, &err) != FACET_OK) break;
    }
    mem_free(bits);
    masker_close(k);
}

/* A text of the grammar, which it takes as borrowed; false when none came out in time. */
static inline bool fuzz_generate(const grammar *g, uint64_t seed, buf *out)
{
    machine *m;
    facet_error err;
    rng r;
    bool is_done = false;
    rng_seed(&r, seed + 1);
    if (machine_open(g, 4 << 20, &m, &err) != FACET_OK) return false;
    int32_t state = m->start;
    for (int i = 0; i < 400 && !is_done; i++) {
        static const char closers[] = "\"]}";
        is_done = m->states[state].is_final;
        int32_t next = STATE_DEAD;
        for (const char *p = closers; *p && next == STATE_DEAD && i > 40; p++)
            if (machine_next(m, state, g->class_of[(uint8_t)*p], &next, &err) == FACET_OK && next != STATE_DEAD)
                buf_putc(out, *p);
        for (int k = 0; k < 300 && next == STATE_DEAD && !is_done; k++) {
            const uint8_t byte = g->byte_of[rng_below(&r, (uint32_t)g->n_classes)];
            if (machine_next(m, state, g->class_of[byte], &next, &err) == FACET_OK && next != STATE_DEAD)
                buf_putc(out, (char)byte);
        }
        if (next == STATE_DEAD) break;
        state = next;
    }
    is_done = is_done && !out->failed;
    machine_close(m);
    return is_done;
}

#endif
