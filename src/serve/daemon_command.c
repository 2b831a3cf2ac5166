#include "serve/daemon_command.h"

#include <string.h>

#include "base/mem.h"

const char *core_code_name(core_code c)
{
#define X(name, text) text,
    static const char *const names[] = {CORE_CODES(X)};
#undef X
    return names[c];
}

command *command_new(command_kind kind, int scope)
{
    command *c = mem_calloc(1, sizeof *c);
    if (!c) return NULL;
    c->kind = kind;
    c->scope = scope;
    c->n_predict = c->store_n = -1;
    c->store_slot = c->slot = -1;
    c->sampling = facet_sampling_default();
    c->params = facet_generate_params_default();
    c->result.end_token = -1;
    return c;
}

void command_free(command *c)
{
    if (!c) return;
    for (size_t i = 0; i < c->params.n_stop; i++) mem_free((void *)(uintptr_t)c->params.stop[i]);
    mem_free((void *)(uintptr_t)c->params.stop);
    mem_free((void *)(uintptr_t)c->sampling.bias);
    facet_grammar_close(c->params.grammar);
    mem_free(c->path);
    mem_free(c->prompt);
    mem_free(c->fresh);
    buf_free(&c->fresh_text);
    mem_free(c);
}

bool command_set_prompt(command *c, const int32_t *tokens, size_t n)
{
    c->prompt = mem_resize_array(NULL, n, sizeof *tokens);
    if (!c->prompt) return false;
    if (n) memcpy(c->prompt, tokens, n * sizeof *tokens);
    c->n_prompt = n;
    return true;
}

bool command_add_stop(command *c, const char *text)
{
    const size_t n = c->params.n_stop;
    const char **list = mem_resize_array((void *)(uintptr_t)c->params.stop, n + 1, sizeof *list);
    if (!list) return false;
    c->params.stop = list;
    if (!(list[n] = mem_strdup(text))) return false;
    c->params.n_stop++;
    return true;
}

bool command_add_bias(command *c, int32_t token, float bias)
{
    const size_t n = c->sampling.n_bias;
    facet_logit_bias *list = mem_resize_array((void *)(uintptr_t)c->sampling.bias, n + 1, sizeof *list);
    if (!list) return false;
    c->sampling.bias = list;
    list[n] = (facet_logit_bias){token, bias};
    c->sampling.n_bias++;
    return true;
}

bool command_inherit(command *c, const facet_sampling *sampling, const facet_generate_params *params)
{
    c->sampling = *sampling;
    c->sampling.bias = NULL;
    c->sampling.n_bias = 0;
    c->params = *params;
    c->params.stop = NULL;
    c->params.n_stop = 0;
    c->params.grammar = NULL;
    bool ok = true;
    for (size_t i = 0; i < sampling->n_bias; i++)
        ok = ok && command_add_bias(c, sampling->bias[i].token, sampling->bias[i].bias);
    for (size_t i = 0; i < params->n_stop; i++) ok = ok && command_add_stop(c, params->stop[i]);
    return ok;
}
