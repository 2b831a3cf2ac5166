#include "text/tokenizer.h"

#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "text/vocab.h"

#define BLANK 0x2581u       /* stands for U+0020 in token texts */
#define REPLACEMENT 0xfffdu /* for each maximal invalid part of the input */

/* How much of a file's string goes into a message. */
static int shown(gguf_str s)
{
    return s.n < 40 ? (int)s.n : 40;
}

/* Only what the algorithm of this file covers: merges over characters, with blanks as U+2581. */
static facet_status check_model(const gguf_file *f, facet_error *err)
{
    gguf_str model = {"", 0}, pre = {"", 0};
    FACET_TRY(gguf_get_str(f, "tokenizer.ggml.model", true, &model, err));
    FACET_TRY(gguf_get_str(f, "tokenizer.ggml.pre", false, &pre, err));
    bool is_gemma4 = model.n == 6 && memcmp(model.s, "gemma4", 6) == 0;
    bool is_llama = model.n == 5 && memcmp(model.s, "llama", 5) == 0;
    bool is_pre_gemma4 = pre.n == 6 && memcmp(pre.s, "gemma4", 6) == 0;
    if (is_gemma4 || (is_llama && is_pre_gemma4 && gguf_find(f, "tokenizer.ggml.merges"))) return FACET_OK;
    return error_set(err, FACET_ERR_UNSUPPORTED,
                     "%s: tokenizer.ggml.model: \"%.*s\" (pre \"%.*s\") is not a Gemma 4 tokenizer", f->path,
                     shown(model), model.s, shown(pre), pre.s);
}

facet_status tokenizer_open(const gguf_file *f, tokenizer **out, facet_error *err)
{
    FACET_TRY(check_model(f, err));
    tokenizer *t = mem_calloc(1, sizeof *t);
    if (!t) return error_memory(err, "a tokenizer", sizeof *t);
    facet_status status = vocab_read_tokens(t, f, err);
    if (status == FACET_OK) status = vocab_read_merges(t, f, err);
    if (status == FACET_OK) status = vocab_read_specials(t, f, err);
    if (status != FACET_OK) {
        error_prefix(err, "%s", f->path);
        tokenizer_close(t);
        return status;
    }
    *out = t;
    return FACET_OK;
}

void tokenizer_close(tokenizer *t)
{
    if (!t) return;
    mem_free(t->text);
    mem_free(t->start);
    mem_free(t->class_of);
    mem_free(t->is_end);
    mem_free(t->by_text);
    for (size_t i = 0; i < N_CHAR_PAGES; i++) mem_free(t->char_pages[i]);
    bpe_table_free(&t->merges);
    special_free(&t->specials);
    mem_free(t->suppressed);
    mem_free(t);
}

int32_t tokenizer_n_vocab(const tokenizer *t)
{
    return t->n_vocab;
}

const special_ids *tokenizer_special(const tokenizer *t)
{
    return &t->ids;
}

bool tokenizer_is_end(const tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_vocab && t->is_end[id];
}

bool tokenizer_is_control(const tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_vocab && t->class_of[id] == TOKEN_CONTROL;
}

const int32_t *tokenizer_suppressed(const tokenizer *t, int *n)
{
    *n = t->n_suppressed;
    return t->suppressed;
}

const char *tokenizer_token_text(const tokenizer *t, int32_t id, size_t *n)
{
    if (id < 0 || id >= t->n_vocab) return NULL;
    *n = t->start[id + 1] - t->start[id];
    return t->text + t->start[id];
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int tokenizer_byte_value(const char *s, size_t n)
{
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>') return -1;
    int high = hex_digit(s[3]), low = hex_digit(s[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/* Where one call of tokenizer_encode stands. */
typedef struct encoder {
    const tokenizer *t;
    int32_t **ids;
    size_t *n, *cap;
    bpe_scratch scratch;
    facet_error *err;
} encoder;

static facet_status emit(encoder *e, int32_t id)
{
    if (*e->n == *e->cap) {
        size_t cap = *e->cap ? 2 * *e->cap : 64;
        int32_t *ids = mem_resize_array(*e->ids, cap, sizeof *ids);
        if (!ids) return error_memory(e->err, "token ids", cap * sizeof *ids);
        *e->ids = ids;
        *e->cap = cap;
    }
    (*e->ids)[(*e->n)++] = id;
    return FACET_OK;
}

static facet_status emit_symbol(encoder *e, int32_t id)
{
    if (id >= 0) return emit(e, id);
    char bytes[4];
    int n = utf8_encode((uint32_t)(-1 - id), bytes);
    for (int i = 0; i < n; i++) FACET_TRY(emit(e, e->t->byte_ids[(unsigned char)bytes[i]]));
    return FACET_OK;
}

/* Merges and emits the characters pushed so far. */
static facet_status flush(encoder *e)
{
    bpe_scratch *s = &e->scratch;
    if (s->n == 0) return FACET_OK;
    if (s->n == 1) {
        s->n = 0;
        return emit_symbol(e, s->symbols[0].id);
    }
    FACET_TRY(bpe_merge(s, &e->t->merges, e->err));
    for (uint32_t i = 0; i != UINT32_MAX; i = s->symbols[i].next) FACET_TRY(emit_symbol(e, s->symbols[i].id));
    s->n = 0;
    return FACET_OK;
}

/* The next character of s[0..n) as the vocabulary writes it. */
static uint32_t next_character(const char *s, size_t n, size_t *length)
{
    uint32_t cp;
    int k = utf8_decode(s, n, &cp);
    *length = k ? (size_t)k : (size_t)utf8_invalid_length(s, n);
    if (!k) return REPLACEMENT;
    return cp == ' ' ? BLANK : cp;
}

/* Byte-pair merging of one run, in the pieces that no merge can join. */
static facet_status encode_run(encoder *e, const char *s, size_t n)
{
    uint32_t last = 0;
    for (size_t i = 0, length; i < n; i += length) {
        uint32_t cp = next_character(s + i, n - i, &length);
        if (!bpe_may_join(&e->t->merges, last, cp)) FACET_TRY(flush(e));
        int32_t id = vocab_char(e->t, cp);
        FACET_TRY(bpe_push_symbol(&e->scratch, id >= 0 ? id : -1 - (int32_t)cp, e->err));
        last = cp;
    }
    return flush(e);
}

/* Text without special tokens: runs of newlines and runs of anything else. */
static facet_status encode_raw(encoder *e, const char *s, size_t n)
{
    while (n) {
        size_t run = 0;
        if (*s == '\n') {
            while (run < n && s[run] == '\n') run++;
            int32_t id = vocab_find(e->t, s, run);
            FACET_TRY(id >= 0 ? emit(e, id) : encode_run(e, s, run));
        } else {
            const char *newline = memchr(s, '\n', n);
            run = newline ? (size_t)(newline - s) : n;
            FACET_TRY(encode_run(e, s, run));
        }
        s += run;
        n -= run;
    }
    return FACET_OK;
}

/* No special text of the family contains the beginning of another, so that the longest match at the leftmost place is
 * also what replacing the longest texts first gives. */
static facet_status encode_text(encoder *e, const char *s, size_t n, special_mode mode)
{
    size_t raw = 0;
    for (size_t i = 0, length = 0; mode != SPECIAL_NONE && i < n;) {
        int32_t id = -1;
        if (e->t->specials.is_first[(unsigned char)s[i]])
            id = special_match(&e->t->specials, s + i, n - i, mode == SPECIAL_USER, &length);
        if (id < 0) {
            i++;
            continue;
        }
        FACET_TRY(encode_raw(e, s + raw, i - raw));
        FACET_TRY(emit(e, id));
        raw = i += length;
    }
    return encode_raw(e, s + raw, n - raw);
}

static facet_status emit_bos(encoder *e, const char *text, size_t len, special_mode mode)
{
    int32_t bos = e->t->ids.bos;
    if (bos < 0) return error_set(e->err, FACET_ERR_UNSUPPORTED, "the vocabulary has no <bos> token");
    size_t n = 0;
    const char *s = tokenizer_token_text(e->t, bos, &n);
    bool is_there = mode == SPECIAL_ALL && n > 0 && len >= n && memcmp(text, s, n) == 0;
    return is_there ? FACET_OK : emit(e, bos);
}

facet_status tokenizer_encode(const tokenizer *t, const char *text, size_t len, bool add_bos, special_mode mode,
                              int32_t **ids, size_t *n, size_t *cap, facet_error *err)
{
    encoder e = {.t = t, .ids = ids, .n = n, .cap = cap, .err = err};
    size_t before = *n;
    facet_status status = add_bos ? emit_bos(&e, text, len, mode) : FACET_OK;
    if (status == FACET_OK) status = encode_text(&e, text, len, mode);
    bpe_scratch_free(&e.scratch);
    if (status != FACET_OK) *n = before;
    return status;
}
