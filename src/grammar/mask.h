/* mask.h: which tokens of a vocabulary may come next in a grammar: a bit for each.
 *
 * A token is allowed iff its bytes lead from the text's state to one that lives, which in a reduced grammar means: iff
 * some text that begins with it is in the language. Found by walking the tree of the vocabulary's texts with the
 * machine of state.h. In a quoted string most of the vocabulary is allowed, and a walk takes milliseconds; so what a
 * walk finds is kept where it does not depend on the surroundings (the idea of XGrammar: Dong et al. 2024,
 * arXiv:2411.15100):
 *
 *   state (node, frame) --localised--> the same node, with nobody to return to
 *        its walk, kept for good:  tokens that stay inside                     -> bits
 *                                  beginnings after which the rule has ended   -> "pops", nodes of the tree
 *   mask = bits, and below each pop what the true surroundings allow
 *
 * Where a rule can end almost anywhere (blanks, digits), there are too many pops; then one more caller, and one more,
 * is made part of what is kept.
 *
 * One thread at a time. Masks are sets of bits so that a device can apply them. */
#ifndef FACET_GRAMMAR_MASK_H
#define FACET_GRAMMAR_MASK_H

#include "grammar/state.h"
#include "grammar/trie.h"

/* What a walk from one state found. */
typedef struct kept_walk {
    int32_t state;
    uint64_t *bits;  /* [mask_words], or NULL: few tokens */
    int32_t *tokens; /* [n_tokens] those few */
    int32_t *pops;   /* [n_pops] nodes of the tree with children, the root not among them */
    int32_t n_tokens, n_pops;
    bool is_heavy; /* too much lies below the pops: they are not kept */
} kept_walk;

/* A group of state numbers that stay good while they are registered. */
typedef struct state_holder {
    int32_t *states;
    size_t n;
    struct state_holder *next, *previous;
} state_holder;

typedef struct masker {
    const token_trie *trie; /* borrowed */
    grammar *g;             /* owned */
    machine *m;
    kept_walk *walks;
    int32_t n_walks, cap_walks;
    size_t walk_bytes;
    size_t max_bytes;
    int32_t heavy_nodes; /* of the tree below pops, above which these are not kept */
    int max_contexts;    /* groups and ways to return, above which a state is walked as it is */
    state_holder *holders;
    /* scratch */
    int32_t *path; /* [max_bytes + 1] states along the present beginning */
    int32_t *pops; /* of the walk under way */
    int32_t n_pops, cap_pops;
    uint64_t *scratch; /* [mask_words] */
} masker;

/* Takes the grammar over, also when it fails. max_bytes: memory that it may hold for states and walks. */
facet_status masker_open(grammar *g, const token_trie *trie, size_t max_bytes, masker **out, facet_error *err);
void masker_close(masker *k);

static inline size_t mask_words(const token_trie *t)
{
    return ((size_t)t->n_vocab + 63) / 64;
}

/* Registers states [n] (borrowed): they get new numbers when others are forgotten. */
void masker_hold(masker *k, state_holder *h, int32_t *states, size_t n);
void masker_release(masker *k, state_holder *h);
/* Between two uses of states that nobody holds: forgets what is not held when memory runs short. */
facet_status masker_trim(masker *k, facet_error *err);

int32_t masker_start(const masker *k);
bool masker_is_final(const masker *k, int32_t state); /* the text may end here */
/* The state after a token; STATE_DEAD when it is not allowed (as is one without text). FACET_ERR_LIMIT: the grammar is
 * too ambiguous for the memory or the steps that a token may take. */
facet_status masker_advance(masker *k, int32_t state, int32_t token, int32_t *out, facet_error *err);
/* bits [mask_words]: bit t % 64 of word t / 64 for each allowed token t. */
facet_status masker_mask(masker *k, int32_t state, uint64_t *bits, facet_error *err);

#endif
