/* needle.h: prompts that hide a number in a long text and ask for it, of a wanted length and with the number at a
 * wanted depth. The text is made of random short sentences without digits, in words that small models know too. */
#ifndef FACET_DECODE_NEEDLE_H
#define FACET_DECODE_NEEDLE_H

#include "facet.h"

enum { NEEDLE_KEY_DIGITS = 5, NEEDLE_MIN_TOKENS = 128 };

typedef struct needle_params {
    int32_t n_tokens; /* of the prompt, >= NEEDLE_MIN_TOKENS; it gets at most so many, and rarely more than two fewer */
    int depth;        /* percent of the text's tokens that stand before the number, 0 to 100 */
    uint64_t seed;    /* of the text; the number also depends on depth and length */
    bool is_raw;      /* plain text that ends in "Answer:" instead of a chat, for models that know no chats */
} needle_params;

typedef struct needle_prompt {
    char *text; /* [n_text] what the model is asked, special tokens written out; owned */
    size_t n_text;
    int32_t *ids; /* [n_ids] the same; owned */
    size_t n_ids;
    /* tokens before the long text, before the sentence with the number, and before the question */
    size_t first, needle, last;
    char key[NEEDLE_KEY_DIGITS + 1];
} needle_prompt;

/* FACET_ERR_ARG when the numbers are out of range, or the length has no room for the question. */
facet_status needle_build(const facet_model *m, const needle_params *p, needle_prompt *out, facet_error *err);
void needle_free(needle_prompt *n);

/* True when the answer has the key as a number of its own. */
bool needle_is_found(const char *answer, const char *key);

#endif
