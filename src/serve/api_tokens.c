/* api_tokens.c: POST /tokenize and /detokenize. */
#include "base/mem.h"
#include "serve/api.h"
#include "serve/api_fields.h"
#include "serve/api_logprobs.h"

/* A token's text, or its byte where it is a part of a character. */
static json_t *piece_json(const tokenizer *t, int32_t id)
{
    json_t *bytes, *text = logprobs_text(t, id, &bytes);
    const bool is_byte = json_array_size(bytes) == 1 && json_string_length(text) > 1;
    json_decref(is_byte ? text : bytes);
    return is_byte ? bytes : text;
}

static json_t *tokens_json(const tokenizer *t, const int32_t *ids, size_t n, bool has_pieces)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, has_pieces
                                        ? json_pack("{s:i, s:o}", "id", (int)ids[i], "piece", piece_json(t, ids[i]))
                                        : json_integer(ids[i]));
    return list;
}

/* {"content": text, "add_special": false, "parse_special": true, "with_pieces": false} */
static bool tokenize(const api *a, const json_t *body, json_t **out, api_error *e)
{
    bool adds_bos = false, parses = true, has_pieces = false;
    const json_t *text = field_get(body, "content");
    int32_t *ids = NULL;
    size_t n = 0, cap = 0;
    facet_error err;
    if (!json_is_string(text)) return field_wrong(text, "content", "a string", e);
    if (!field_bool(body, "add_special", &adds_bos, e) || !field_bool(body, "parse_special", &parses, e) ||
        !field_bool(body, "with_pieces", &has_pieces, e))
        return false;
    if (tokenizer_encode(a->c.model->tok, json_string_value(text), json_string_length(text), adds_bos,
                         parses ? SPECIAL_ALL : SPECIAL_USER, &ids, &n, &cap, &err) != FACET_OK)
        return api_fail_with(e, &err);
    *out = json_pack("{s:o}", "tokens", tokens_json(a->c.model->tok, ids, n, has_pieces));
    mem_free(ids);
    return true;
}

/* {"tokens": [ids]} */
static bool detokenize(const api *a, const json_t *body, json_t **out, api_error *e)
{
    const json_t *tokens = field_get(body, "tokens");
    const int32_t n_vocab = tokenizer_n_vocab(a->c.model->tok);
    buf text = {0};
    detokenizer d = {.show_special = true};
    size_t i;
    json_t *id;
    if (!json_is_array(tokens)) return field_wrong(tokens, "tokens", "an array of token ids", e);
    json_array_foreach(tokens, i, id)
    {
        char path[48], want[64];
        field_path(path, sizeof path, "tokens[%zu]", i);
        snprintf(want, sizeof want, "a whole number from 0 to %d", (int)n_vocab - 1);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= n_vocab) {
            buf_free(&text);
            return field_wrong(id, path, want, e);
        }
        detokenizer_push(&d, a->c.model->tok, (int32_t)json_integer_value(id), &text);
    }
    detokenizer_finish(&d, &text);
    *out = text.failed ? NULL : json_pack("{s:s%}", "content", text.data ? text.data : "", text.len);
    buf_free(&text);
    return true;
}

static void serve(api *a, http_exchange *x, bool (*fn)(const api *, const json_t *, json_t **, api_error *))
{
    json_t *body = NULL, *out = NULL;
    api_error e = {0};
    if (api_read_body(x, &body, &e) && fn(a, body, &out, &e))
        api_reply_json(x, 200, out);
    else
        api_reply_error(x, &e);
    json_decref(body);
}

void api_tokenize(api *a, http_exchange *x)
{
    serve(a, x, tokenize);
}

void api_detokenize(api *a, http_exchange *x)
{
    serve(a, x, detokenize);
}
