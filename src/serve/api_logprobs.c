#include "serve/api_logprobs.h"

json_t *logprobs_text(const tokenizer *t, int32_t token, json_t **bytes)
{
    size_t n;
    buf text = {0};
    detokenizer d = {.show_special = true};
    const char *raw = tokenizer_token_text(t, token, &n);
    *bytes = json_array();
    const int byte = raw ? tokenizer_byte_value(raw, n) : -1;
    if (byte >= 0) {
        json_array_append_new(*bytes, json_integer(byte));
        return json_string(byte < 0x80 ? (char[]){(char)byte, 0} : "\xef\xbf\xbd");
    }
    detokenizer_push(&d, t, token, &text);
    for (size_t i = 0; i < text.len; i++) json_array_append_new(*bytes, json_integer((unsigned char)text.data[i]));
    json_t *j = json_stringn(text.data ? text.data : "", text.len);
    buf_free(&text);
    return j;
}

/* JSON has no infinity: what cannot come gets the interface's number for it. */
static json_t *number(float logprob)
{
    return json_real(logprob > -9999 ? (double)logprob : -9999);
}

static json_t *one(const tokenizer *t, int32_t token, float logprob)
{
    json_t *bytes, *text = logprobs_text(t, token, &bytes);
    return json_pack("{s:o, s:o, s:o}", "token", text, "logprob", number(logprob), "bytes", bytes);
}

json_t *logprobs_entry(const tokenizer *t, int32_t token, float logprob, const facet_logprob *top, int n_top)
{
    json_t *j = one(t, token, logprob), *list = json_array();
    for (int i = 0; i < n_top; i++) json_array_append_new(list, one(t, top[i].token, top[i].logprob));
    json_object_set_new(j, "top_logprobs", list);
    return j;
}

/* {text: logprob}; of tokens with the same text the likeliest one counts. */
static json_t *by_text(const json_t *top)
{
    size_t i;
    json_t *e, *j = json_object();
    json_array_foreach(top, i, e)
    {
        const char *text = json_string_value(json_object_get(e, "token"));
        if (text && !json_object_get(j, text)) json_object_set(j, text, json_object_get(e, "logprob"));
    }
    return j;
}

json_t *logprobs_lists(const json_t *entries, size_t offset)
{
    size_t i;
    json_t *e, *tokens = json_array(), *logprobs = json_array(), *tops = json_array(), *offsets = json_array();
    json_array_foreach(entries, i, e)
    {
        json_array_append(tokens, json_object_get(e, "token"));
        json_array_append(logprobs, json_object_get(e, "logprob"));
        json_array_append_new(tops, by_text(json_object_get(e, "top_logprobs")));
        json_array_append_new(offsets, json_integer((json_int_t)offset));
        offset += json_array_size(json_object_get(e, "bytes"));
    }
    return json_pack("{s:o, s:o, s:o, s:o}", "tokens", tokens, "token_logprobs", logprobs, "top_logprobs", tops,
                     "text_offset", offsets);
}
