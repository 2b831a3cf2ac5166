#include "model/hf_tokenizer.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "model/hf_config.h"
#include "text/tokenizer.h"

#define KEY(name) "tokenizer.ggml." name

enum { NORMAL = 1, CONTROL = 3, USER = 4, UNUSED = 5, BYTE = 6 };
enum { MAX_TEMPLATE = 16 << 20 };

/* Borrows the texts from the JSON, and those of padding from `pad`. */
typedef struct vocab {
    const json_t *json, *config; /* config may be NULL */
    int n;
    gguf_str *tokens;
    int32_t *types;
    float *scores;
    buf pad;
} vocab;

static facet_status set_token(vocab *v, const char *text, const json_t *id, facet_error *err)
{
    json_int_t i = json_is_integer(id) ? json_integer_value(id) : -1;
    if (i < 0 || i >= v->n)
        return error_set(err, FACET_ERR_FORMAT, "tokenizer.json: token '%.40s' has no id below %d", text, v->n);
    v->tokens[i] = (gguf_str){text, strlen(text)};
    v->types[i] = NORMAL;
    return FACET_OK;
}

/* Special tokens that models write as part of their answers. */
static bool is_visible(const char *text)
{
    static const char *const names[] = {"<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>",
                                        "<|\"|>",       "<|channel>",   "<channel|>",       NULL};
    for (const char *const *p = names; *p; p++)
        if (strcmp(*p, text) == 0) return true;
    return false;
}

static facet_status read_tokens(vocab *v, facet_error *err)
{
    json_t *model = json_object_get(v->json, "model"), *list = json_object_get(model, "vocab");
    const char *type = json_string_value(json_object_get(model, "type"));
    if (!type || strcmp(type, "BPE") != 0 || !json_is_object(list))
        return error_set(err, FACET_ERR_UNSUPPORTED, "tokenizer.json: not a BPE vocabulary");
    const char *text;
    json_t *id;
    json_object_foreach(list, text, id) FACET_TRY(set_token(v, text, id, err));
    const json_t *added = json_object_get(v->json, "added_tokens");
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *t = json_array_get(added, i);
        text = json_string_value(json_object_get(t, "content"));
        if (!text) return error_set(err, FACET_ERR_FORMAT, "tokenizer.json: added token %zu has no content", i);
        FACET_TRY(set_token(v, text, json_object_get(t, "id"), err));
        if (json_is_true(json_object_get(t, "special")))
            v->types[json_integer_value(json_object_get(t, "id"))] = is_visible(text) ? USER : CONTROL;
    }
    return FACET_OK;
}

/* Bytes by their names; a place without a token gets a name of its own. */
static facet_status complete_tokens(vocab *v, facet_error *err)
{
    size_t n_pad = 0;
    for (int i = 0; i < v->n; i++) {
        v->scores[i] = -1000.0f;
        if (v->types[i] == NORMAL && tokenizer_byte_value(v->tokens[i].s, v->tokens[i].n) >= 0) v->types[i] = BYTE;
        n_pad += v->tokens[i].s == NULL;
    }
    if (!buf_reserve(&v->pad, 16 * n_pad + 16)) return error_memory(err, "unused tokens", 16 * n_pad);
    for (int i = 0; i < v->n; i++) {
        if (v->tokens[i].s) continue;
        size_t at = v->pad.len;
        buf_printf(&v->pad, "[PAD%d]", i); /* at most 13 bytes: no move of what is reserved */
        v->tokens[i] = (gguf_str){v->pad.data + at, v->pad.len - at};
        v->types[i] = UNUSED;
    }
    return FACET_OK;
}

static bool append_merge(buf *text, const json_t *merge)
{
    if (json_is_string(merge)) return buf_append(text, json_string_value(merge), json_string_length(merge));
    const json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
    if (!json_is_string(left) || !json_is_string(right)) return false;
    buf_append(text, json_string_value(left), json_string_length(left));
    buf_putc(text, ' ');
    return buf_append(text, json_string_value(right), json_string_length(right));
}

static facet_status put_merges(gguf_writer *w, const vocab *v, facet_error *err)
{
    const json_t *list = json_object_get(json_object_get(v->json, "model"), "merges");
    size_t n = json_array_size(list);
    if (n == 0) return error_set(err, FACET_ERR_FORMAT, "tokenizer.json: no merges");
    buf text = {0};
    gguf_str *s = mem_calloc(n, sizeof *s);
    facet_status status = s ? FACET_OK : error_memory(err, "merges", n * sizeof *s);
    size_t at = 0;
    for (size_t i = 0; i < n && status == FACET_OK; i++, at = text.len) {
        if (!append_merge(&text, json_array_get(list, i)))
            status = text.failed ? error_memory(err, "merges", text.len)
                                 : error_set(err, FACET_ERR_FORMAT, "tokenizer.json: merge %zu is no pair of texts", i);
        else
            s[i].n = text.len - at;
    }
    const char *p = text.data;
    for (size_t i = 0; i < n && status == FACET_OK; p += s[i++].n) s[i].s = p;
    if (status == FACET_OK) status = gguf_put_strings(w, KEY("merges"), s, n, err);
    mem_free(s);
    buf_free(&text);
    return status;
}

static int find_token(const vocab *v, const char *text)
{
    size_t n = strlen(text);
    for (int i = 0; i < v->n; i++)
        if (v->tokens[i].n == n && memcmp(v->tokens[i].s, text, n) == 0) return i;
    return -1;
}

/* The id of a role: the token that tokenizer_config.json names, else the usual one. */
static facet_status put_role(gguf_writer *w, const vocab *v, const char *role, const char *usual, const char *key,
                             facet_error *err)
{
    const json_t *named = json_object_get(v->config, role);
    if (json_is_object(named)) named = json_object_get(named, "content");
    int id = json_is_string(named) ? find_token(v, json_string_value(named)) : -1;
    if (id < 0) id = find_token(v, usual);
    return id < 0 ? FACET_OK : gguf_put_u32(w, key, (uint32_t)id, err);
}

static facet_status put_template(gguf_writer *w, const vocab *v, const char *dir, facet_error *err)
{
    static const char key[] = "tokenizer.chat_template";
    char path[4096], *text = NULL;
    size_t n = 0;
    snprintf(path, sizeof path, "%s/chat_template.jinja", dir);
    if (access(path, F_OK) == 0) {
        FACET_TRY(file_read_all(path, MAX_TEMPLATE, &text, &n, err));
        facet_status status = gguf_put_str(w, key, text, n, err);
        mem_free(text);
        return status;
    }
    const json_t *s = json_object_get(v->config, "chat_template");
    return json_is_string(s) ? gguf_put_str(w, key, json_string_value(s), json_string_length(s), err) : FACET_OK;
}

static facet_status put_all(gguf_writer *w, vocab *v, const char *dir, facet_error *err)
{
    uint64_t n = (uint64_t)v->n;
    v->tokens = mem_calloc((size_t)n, sizeof *v->tokens);
    v->types = mem_calloc((size_t)n, sizeof *v->types);
    v->scores = mem_calloc((size_t)n, sizeof *v->scores);
    if (!v->tokens || !v->types || !v->scores) return error_memory(err, "a vocabulary", (size_t)n * sizeof *v->tokens);
    FACET_TRY(read_tokens(v, err));
    FACET_TRY(complete_tokens(v, err));
    FACET_TRY(gguf_put_str(w, KEY("model"), "gemma4", 6, err));
    FACET_TRY(gguf_put_strings(w, KEY("tokens"), v->tokens, n, err));
    FACET_TRY(gguf_put_array(w, KEY("scores"), GGUF_F32, v->scores, n, err));
    FACET_TRY(gguf_put_array(w, KEY("token_type"), GGUF_I32, v->types, n, err));
    FACET_TRY(put_merges(w, v, err));
    FACET_TRY(put_role(w, v, "bos_token", "<bos>", KEY("bos_token_id"), err));
    FACET_TRY(put_role(w, v, "eos_token", "<eos>", KEY("eos_token_id"), err));
    FACET_TRY(put_role(w, v, "unk_token", "<unk>", KEY("unknown_token_id"), err));
    FACET_TRY(put_role(w, v, "pad_token", "<pad>", KEY("padding_token_id"), err));
    FACET_TRY(put_role(w, v, "mask_token", "<mask>", KEY("mask_token_id"), err));
    FACET_TRY(gguf_put_bool(w, KEY("add_bos_token"), true, err));
    FACET_TRY(gguf_put_bool(w, KEY("add_sep_token"), false, err));
    FACET_TRY(put_template(w, v, dir, err));
    return gguf_put_bool(w, KEY("add_space_prefix"), false, err);
}

facet_status hf_tokenizer_put(gguf_writer *w, const char *dir, int n_vocab, facet_error *err)
{
    json_t *json = NULL, *config = NULL;
    FACET_TRY(hf_read_json(dir, "tokenizer.json", true, &json, err));
    facet_status status = hf_read_json(dir, "tokenizer_config.json", false, &config, err);
    vocab v = {.json = json, .config = config, .n = n_vocab};
    if (status == FACET_OK) status = put_all(w, &v, dir, err);
    mem_free(v.tokens);
    mem_free(v.types);
    mem_free(v.scores);
    buf_free(&v.pad);
    json_decref(json);
    json_decref(config);
    return status;
}
