/* A request's body, as the interface that the first byte chooses reads it. What is accepted has prompts of good tokens;
 * what is refused has a status and a message that JSON can carry. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "serve/api_call.h"

static void check_accepted(const api_call *c, int32_t n_vocab)
{
    if (c->n_prompts < 1 || c->n_choices < 1) abort();
    for (int i = 0; i < c->n_prompts; i++)
        for (size_t k = 0; k < c->prompts[i].n; k++)
            if (c->prompts[i].ids[k] < 0 || c->prompts[i].ids[k] >= n_vocab) abort();
}

static void check_refused(const api_error *e)
{
    if (e->status != 400 && e->status != 503) abort();
    if (!*e->message || !utf8_valid(e->message, strlen(e->message))) abort();
    for (int i = 0; i < 2; i++) {
        json_t *j = api_error_json(e, i);
        if (!j) abort();
        json_decref(j);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const api_dialect *const dialects[] = {&dialect_chat, &dialect_completions, &dialect_messages,
                                                  &dialect_responses};
    static facet_model *model;
    static api a;
    if (!model) {
        const api_config c = {
            .n_ctx = 4096, .model_id = "m", .max_tokens = -1, .max_texts = 8, .origins = "none", .thinking_budget = -1};
        if (facet_model_open(FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf", &model, NULL) != FACET_OK) abort();
        if (api_open(&c, &a, NULL) != FACET_OK) abort();
        a.c.model = model;
        a.c.sampling = facet_sampling_default();
    }
    if (size < 1) return 0;
    json_t *body = json_loadb((const char *)data + 1, size - 1, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    api_call *c = NULL;
    api_error e = {0};
    if (!json_is_object(body)) {
        json_decref(body);
        return 0;
    }
    if (!call_new(&a, dialects[data[0] % 4], body, &c, &e)) abort();
    if (c->dialect->read(c, &e))
        check_accepted(c, facet_model_n_vocab(model));
    else
        check_refused(&e);
    call_close(c);
    return 0;
}
