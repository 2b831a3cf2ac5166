/* vocab.h: the inside of a tokenizer: tokens by id, by text and by character. Private to src/text. */
#ifndef FACET_TEXT_VOCAB_H
#define FACET_TEXT_VOCAB_H

#include "text/bpe.h"
#include "text/special.h"
#include "text/tokenizer.h"

/* What a token does at run time. Stored types vary between files; the names of special.c decide first. */
typedef enum token_class {
    TOKEN_NORMAL,
    TOKEN_CONTROL, /* matched in SPECIAL_ALL only, prints nothing */
    TOKEN_USER,    /* matched unless SPECIAL_NONE, visible */
    TOKEN_BYTE     /* one byte of a character that is no token */
} token_class;

#define N_CHAR_PAGES 0x1100 /* code points by pages of 256 */

struct tokenizer {
    int32_t n_vocab;
    char *text;                        /* all texts, one behind the other */
    uint32_t *start;                   /* [n_vocab + 1] offsets in text */
    uint8_t *class_of;                 /* [n_vocab] token_class */
    uint8_t *is_end;                   /* [n_vocab] */
    int32_t *by_text;                  /* open addressing, at most half full; -1: free */
    size_t by_text_mask;               /* slots - 1 */
    size_t max_bytes;                  /* of the longest text */
    int32_t byte_ids[256];             /* the byte tokens; the value of one is found through its text */
    int32_t *char_pages[N_CHAR_PAGES]; /* ids of the one-character tokens; NULL: none in this page */
    bpe_table merges;
    special_set specials;
    special_ids ids;
    int32_t *suppressed;
    int n_suppressed;
};

/* The token with exactly this text, or -1. */
int32_t vocab_find(const tokenizer *t, const char *s, size_t n);

/* The token of one character, or -1. */
static inline int32_t vocab_char(const tokenizer *t, uint32_t cp)
{
    const int32_t *page = t->char_pages[cp >> 8];
    return page ? page[cp & 255] : -1;
}

/* The reading of tokenizer.ggml.* into a zeroed tokenizer, in this order. Errors name the key. */
facet_status vocab_read_tokens(tokenizer *t, const gguf_file *f, facet_error *err);
facet_status vocab_read_merges(tokenizer *t, const gguf_file *f, facet_error *err);
facet_status vocab_read_specials(tokenizer *t, const gguf_file *f, facet_error *err);

#endif
