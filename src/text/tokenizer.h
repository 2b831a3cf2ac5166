/* tokenizer.h: Gemma 4 BPE over Unicode characters with byte fallback, and the streaming detokeniser. */
#ifndef FACET_TEXT_TOKENIZER_H
#define FACET_TEXT_TOKENIZER_H

#include "base/buf.h"
#include "file/gguf.h"

typedef struct tokenizer tokenizer;

typedef enum special_mode {
    SPECIAL_ALL,  /* every special token in the text is parsed */
    SPECIAL_USER, /* only the user-defined ones (the reference's parse_special = false) */
    SPECIAL_NONE  /* none: text from people who are not trusted to write markers */
} special_mode;

/* Special tokens that the rest of the engine asks for by role; -1 where the vocabulary lacks one. */
typedef struct special_ids {
    int32_t bos, eos, pad, unk, mask;
    int32_t turn_open, turn_close;         /* <|turn> <turn|> */
    int32_t channel_open, channel_close;   /* <|channel> <channel|> */
    int32_t call_open, call_close;         /* <|tool_call> <tool_call|> */
    int32_t response_open, response_close; /* <|tool_response> <tool_response|> */
    int32_t quote, think;                  /* <|"|> <|think|> */
} special_ids;

/* Builds from tokenizer.ggml.* of an open file; copies what it keeps. Errors name the key. */
facet_status tokenizer_open(const gguf_file *f, tokenizer **out, facet_error *err);
void tokenizer_close(tokenizer *t);

int32_t tokenizer_n_vocab(const tokenizer *t);
const special_ids *tokenizer_special(const tokenizer *t);
/* True for <eos>, <turn|>, <|tool_response> and the file's own end tokens. */
bool tokenizer_is_end(const tokenizer *t, int32_t id);
bool tokenizer_is_control(const tokenizer *t, int32_t id); /* prints nothing in normal output */
/* Ids whose logits are always -inf (tokenizer.ggml.suppress_tokens); *n their count. */
const int32_t *tokenizer_suppressed(const tokenizer *t, int *n);
/* Raw text of a token as stored (U+2581 for blanks); NULL for an id out of range. */
const char *tokenizer_token_text(const tokenizer *t, int32_t id, size_t *n);
/* Value of a byte token's text "<0xNN>", or -1. */
int tokenizer_byte_value(const char *s, size_t n);

/* Appends the bytes that the token adds to a text, U+2581 as a blank; possibly a part of a character. Nothing for ids
 * out of range, control tokens, end tokens and the markers of chats (special_ids). */
void tokenizer_append_text(const tokenizer *t, int32_t id, buf *out);

/* Appends to *ids (mem_realloc'ed by the function, owned by the caller) and *n; *cap is its capacity. With add_bos,
 * <bos> comes first unless the text itself begins with it (and mode parses it). Linear-log in the text; any bytes are
 * accepted. */
facet_status tokenizer_encode(const tokenizer *t, const char *text, size_t len, bool add_bos, special_mode mode,
                              int32_t **ids, size_t *n, size_t *cap, facet_error *err);

/* Streaming detokeniser: only whole UTF-8 characters leave it. Zero-initialise with show_special set. */
typedef struct detokenizer {
    bool show_special; /* control tokens as their text */
    char pending[4];
    int n_pending;
} detokenizer;

/* Appends the text that is complete after this token. Ids out of range append nothing. */
void detokenizer_push(detokenizer *d, const tokenizer *t, int32_t id, buf *out);
/* Ends the stream: an unfinished character becomes U+FFFD. */
void detokenizer_finish(detokenizer *d, buf *out);

#endif
