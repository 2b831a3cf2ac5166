/* text_api.c: the public text functions: tokens, chats. */
#include <string.h>

#include "base/mem.h"
#include "model/model.h"
#include "text/json_read.h"

facet_status facet_tokenize(const facet_model *m, const char *text, size_t n, bool add_bos, bool parse_special,
                            int32_t **ids, size_t *n_ids, facet_error *err)
{
    int32_t *list = NULL;
    size_t count = 0, cap = 0;
    facet_status status = tokenizer_encode(m->tok, text, n, add_bos, parse_special ? SPECIAL_ALL : SPECIAL_USER, &list,
                                           &count, &cap, err);
    if (status != FACET_OK) {
        mem_free(list);
        return status;
    }
    *ids = list;
    *n_ids = count;
    return FACET_OK;
}

/* Hands the text out, or frees it. */
static facet_status give(buf *b, facet_status status, char **text, size_t *n_text, facet_error *err)
{
    if (status == FACET_OK && (b->failed || !buf_reserve(b, 0))) status = error_memory(err, "the text", b->len);
    if (status != FACET_OK) {
        buf_free(b);
        return status;
    }
    b->data[b->len] = 0;
    *text = b->data;
    *n_text = b->len;
    return FACET_OK;
}

facet_status facet_detokenize(const facet_model *m, const int32_t *ids, size_t n, bool show_special, char **text,
                              size_t *n_text, facet_error *err)
{
    detokenizer d = {.show_special = show_special};
    buf out = {0};
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= facet_model_n_vocab(m)) {
            buf_free(&out);
            return error_set(err, FACET_ERR_ARG, "token %zu is %d: the vocabulary has %d entries", i, ids[i],
                             facet_model_n_vocab(m));
        }
        detokenizer_push(&d, m->tok, ids[i], &out);
    }
    detokenizer_finish(&d, &out);
    return give(&out, FACET_OK, text, n_text, err);
}

/* ---- chats ---- */

facet_status facet_chat_render(const facet_model *m, const char *messages, const char *tools, unsigned flags,
                               char **text, size_t *n_text, facet_error *err)
{
    const chat_options o = {.enable_thinking = flags & FACET_CHAT_THINK,
                            .add_generation_prompt = !(flags & FACET_CHAT_NO_PROMPT)};
    json_t *list = NULL, *functions = NULL;
    buf out = {0};
    if (flags & ~(unsigned)(FACET_CHAT_THINK | FACET_CHAT_NO_PROMPT))
        return error_set(err, FACET_ERR_ARG, "flags are %#x, wanted those of FACET_CHAT_", flags);
    facet_status status = json_read("messages", messages, strlen(messages), JSON_DECODE_ANY, &list, err);
    if (status == FACET_OK && tools)
        status = json_read("tools", tools, strlen(tools), JSON_DECODE_ANY, &functions, err);
    if (status == FACET_OK) status = chat_render(list, functions, m->chat, o, &out, err);
    json_decref(list);
    json_decref(functions);
    return give(&out, status, text, n_text, err);
}

struct facet_chat_parser {
    chat_parser *parser;
    facet_chat_fn fn;
    void *ud;
};

static void pass_on(void *ud, const chat_event *e)
{
    const facet_chat_parser *p = ud;
    const facet_chat_event out = {.kind = e->kind == CHAT_REASONING ? FACET_CHAT_THOUGHT
                                          : e->kind == CHAT_CONTENT ? FACET_CHAT_CONTENT
                                                                    : FACET_CHAT_CALL,
                                  .text = e->text,
                                  .n = e->n,
                                  .arguments = e->arguments,
                                  .n_arguments = e->n_arguments,
                                  .call = e->call_index};
    p->fn(p->ud, &out);
}

facet_status facet_chat_parser_open(const facet_model *m, const char *prompt, size_t n_prompt, facet_chat_fn fn,
                                    void *ud, facet_chat_parser **out, facet_error *err)
{
    facet_chat_parser *p = mem_calloc(1, sizeof *p);
    if (!p) return error_memory(err, "a chat parser", sizeof *p);
    p->fn = fn;
    p->ud = ud;
    const facet_status status =
        chat_parser_open(m->tok, chat_opens_thought(prompt, n_prompt), pass_on, p, &p->parser, err);
    if (status != FACET_OK) {
        mem_free(p);
        return status;
    }
    *out = p;
    return FACET_OK;
}

facet_status facet_chat_parser_push(facet_chat_parser *p, int32_t token, facet_error *err)
{
    return chat_parser_push(p->parser, token, err);
}

facet_status facet_chat_parser_finish(facet_chat_parser *p, facet_error *err)
{
    return chat_parser_finish(p->parser, err);
}

void facet_chat_parser_close(facet_chat_parser *p)
{
    if (!p) return;
    chat_parser_close(p->parser);
    mem_free(p);
}

void facet_free(void *p)
{
    mem_free(p);
}
