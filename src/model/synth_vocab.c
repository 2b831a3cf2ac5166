#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "model/synth.h"

#define BLANK "\xe2\x96\x81" /* U+2581 */
#define KEY(name) "tokenizer.ggml." name

enum { TYPE_NORMAL = 1, TYPE_CONTROL = 3, TYPE_USER = 4, TYPE_BYTE = 6 };
enum { NEWLINES = 107, BLANKS = 138, BYTES = 238, SMALL_TAIL = 494 };

/* Ids of the public vocabulary; a smaller one has the last seven at its end. */
static const struct named_token {
    int id;
    int32_t type;
    const char *text;
} named[] = {
    {0, TYPE_CONTROL, "<pad>"},          {1, TYPE_CONTROL, "<eos>"},          {2, TYPE_CONTROL, "<bos>"},
    {3, TYPE_CONTROL, "<unk>"},          {4, TYPE_CONTROL, "<mask>"},         {46, TYPE_CONTROL, "<|tool>"},
    {47, TYPE_CONTROL, "<tool|>"},       {48, TYPE_USER, "<|tool_call>"},     {49, TYPE_USER, "<tool_call|>"},
    {50, TYPE_USER, "<|tool_response>"}, {51, TYPE_USER, "<tool_response|>"}, {52, TYPE_USER, "<|\"|>"},
    {98, TYPE_CONTROL, "<|think|>"},     {100, TYPE_USER, "<|channel>"},      {101, TYPE_USER, "<channel|>"},
    {105, TYPE_CONTROL, "<|turn>"},      {106, TYPE_CONTROL, "<turn|>"},      {255999, TYPE_CONTROL, "<|image>"},
    {256000, TYPE_CONTROL, "<|audio>"},  {258880, TYPE_CONTROL, "<|image|>"}, {258881, TYPE_CONTROL, "<|audio|>"},
    {258882, TYPE_CONTROL, "<image|>"},  {258883, TYPE_CONTROL, "<audio|>"},  {258884, TYPE_CONTROL, "<|video|>"},
};
enum { N_NAMED = sizeof named / sizeof *named, N_TAIL = 7 };

typedef struct vocab_maker {
    int n;
    gguf_str *tokens; /* s = NULL until `text` is whole; n = length, 0 = not set yet */
    size_t *at;       /* where the text of each stands */
    int32_t *types;
    buf text;
    buf merges; /* texts one behind the other, each ended by NUL */
    int n_merges;
    int next_free; /* every id below it is set */
} vocab_maker;

static void set_token(vocab_maker *v, int id, int32_t type, const char *s, size_t n)
{
    v->at[id] = v->text.len;
    v->tokens[id].n = n;
    v->types[id] = type;
    buf_append(&v->text, s, n);
}

static void add_token(vocab_maker *v, const char *s)
{
    while (v->next_free < v->n && v->tokens[v->next_free].n) v->next_free++;
    if (v->next_free < v->n) set_token(v, v->next_free, TYPE_NORMAL, s, strlen(s));
}

static void add_merge(vocab_maker *v, const char *left, const char *right)
{
    buf_printf(&v->merges, "%s %s", left, right);
    buf_putc(&v->merges, '\0');
    v->n_merges++;
}

/* Runs of 1 (or 2) to 31 of one character; the longest is merged first. `id` is that of the shortest run. */
static void add_runs(vocab_maker *v, const char *one, int first, int id)
{
    char run[31 * 4 + 1] = "", left[31 * 4 + 1] = "";
    size_t k = strlen(one);
    for (int i = 1; i <= 31; i++) {
        memcpy(run + (size_t)(i - 1) * k, one, k + 1);
        if (i >= first) set_token(v, id + i - first, TYPE_NORMAL, run, (size_t)i * k);
    }
    for (int i = 16; i >= 1; i /= 2) {
        memcpy(left, run, (size_t)i * k);
        left[(size_t)i * k] = '\0';
        for (int j = i < 31 - i ? i : 31 - i; j >= 1; j--) {
            char right[31 * 4 + 1];
            memcpy(right, run, (size_t)j * k);
            right[(size_t)j * k] = '\0';
            add_merge(v, left, right);
        }
    }
}

static void add_bytes(vocab_maker *v)
{
    char text[8];
    for (unsigned b = 0; b < 256; b++) {
        int n = snprintf(text, sizeof text, "<0x%02X>", b);
        set_token(v, BYTES + (int)b, TYPE_BYTE, text, (size_t)n);
    }
}

static void add_characters(vocab_maker *v, int id)
{
    set_token(v, id++, TYPE_NORMAL, BLANK, strlen(BLANK));
    for (char c = 0x21; c < 0x7f; c++) set_token(v, id++, TYPE_NORMAL, &c, 1);
}

/* "▁a" … and "aa" …, with their merges. */
static void add_pairs(vocab_maker *v)
{
    char left[4] = BLANK, right[2] = "", text[8];
    for (int i = -1; i < 26; i++) {
        if (i >= 0) snprintf(left, sizeof left, "%c", 'a' + i);
        for (int j = 0; j < 26; j++) {
            right[0] = (char)('a' + j);
            snprintf(text, sizeof text, "%s%s", left, right);
            add_token(v, text);
            add_merge(v, left, right);
        }
    }
}

static void add_filler(vocab_maker *v)
{
    char text[32];
    for (int id = 0; id < v->n; id++) {
        if (v->tokens[id].n) continue;
        int n = id == 5      ? snprintf(text, sizeof text, "[multimodal]")
                : id < BYTES ? snprintf(text, sizeof text, "<unused%d>", id)
                             : snprintf(text, sizeof text, BLANK "tok%d", id);
        set_token(v, id, TYPE_NORMAL, text, (size_t)n);
    }
}

static void fill(vocab_maker *v)
{
    bool is_full = v->n == SYNTH_MAX_VOCAB;
    for (int i = 0; i < N_NAMED; i++) {
        int id = is_full || i < N_NAMED - N_TAIL ? named[i].id : v->n - N_NAMED + i;
        set_token(v, id, named[i].type, named[i].text, strlen(named[i].text));
    }
    add_runs(v, "\n", 1, NEWLINES);
    add_runs(v, BLANK, 2, BLANKS);
    add_bytes(v);
    add_characters(v, is_full ? 236743 : SMALL_TAIL);
    add_runs(v, "\t", 1, is_full ? 255968 : SMALL_TAIL + 95);
    v->next_free = SMALL_TAIL;
    add_pairs(v);
    add_filler(v);
}

static facet_status put_merges(gguf_writer *w, const vocab_maker *v, facet_error *err)
{
    gguf_str *s = mem_resize_array(NULL, (size_t)v->n_merges, sizeof *s);
    if (!s) return error_memory(err, "merges", (size_t)v->n_merges * sizeof *s);
    const char *p = v->merges.data;
    for (int i = 0; i < v->n_merges; i++) {
        s[i] = (gguf_str){p, strlen(p)};
        p += s[i].n + 1;
    }
    facet_status status = gguf_put_strings(w, KEY("merges"), s, (uint64_t)v->n_merges, err);
    mem_free(s);
    return status;
}

static facet_status put_all(gguf_writer *w, vocab_maker *v, facet_error *err)
{
    uint64_t n = (uint64_t)v->n;
    v->tokens = mem_calloc((size_t)n, sizeof *v->tokens);
    v->at = mem_calloc((size_t)n, sizeof *v->at);
    v->types = mem_calloc((size_t)n, sizeof *v->types);
    float *scores = mem_resize_array(NULL, (size_t)n, sizeof *scores);
    facet_status status = FACET_OK;
    if (!v->tokens || !v->at || !v->types || !scores)
        status = error_memory(err, "a vocabulary", (size_t)n * sizeof *v->tokens);
    if (status == FACET_OK) {
        fill(v);
        if (v->text.failed || v->merges.failed) status = error_memory(err, "a vocabulary", v->text.len);
    }
    if (status == FACET_OK) {
        for (uint64_t i = 0; i < n; i++) {
            v->tokens[i].s = v->text.data + v->at[i];
            scores[i] = -1000.0f;
        }
        status = gguf_put_str(w, KEY("model"), "gemma4", 6, err);
        if (status == FACET_OK) status = gguf_put_strings(w, KEY("tokens"), v->tokens, n, err);
        if (status == FACET_OK) status = gguf_put_array(w, KEY("scores"), GGUF_F32, scores, n, err);
        if (status == FACET_OK) status = gguf_put_array(w, KEY("token_type"), GGUF_I32, v->types, n, err);
        if (status == FACET_OK) status = put_merges(w, v, err);
    }
    mem_free(scores);
    return status;
}

facet_status synth_put_vocab(gguf_writer *w, int n, facet_error *err)
{
    vocab_maker v = {.n = n};
    facet_status status = put_all(w, &v, err);
    mem_free(v.tokens);
    mem_free(v.at);
    mem_free(v.types);
    buf_free(&v.text);
    buf_free(&v.merges);
    FACET_TRY(status);
    FACET_TRY(gguf_put_u32(w, KEY("bos_token_id"), 2, err));
    FACET_TRY(gguf_put_u32(w, KEY("eos_token_id"), 1, err));
    FACET_TRY(gguf_put_u32(w, KEY("unknown_token_id"), 3, err));
    FACET_TRY(gguf_put_u32(w, KEY("padding_token_id"), 0, err));
    FACET_TRY(gguf_put_u32(w, KEY("mask_token_id"), 4, err));
    FACET_TRY(gguf_put_bool(w, KEY("add_bos_token"), true, err));
    FACET_TRY(gguf_put_bool(w, KEY("add_sep_token"), false, err));
    return gguf_put_bool(w, KEY("add_space_prefix"), false, err);
}
