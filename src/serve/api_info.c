/* api_info.c: what the server tells about itself. */
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "serve/api.h"

void api_health(api *a, http_exchange *x)
{
    (void)a;
    api_reply_json(x, 200, json_pack("{s:s}", "status", "ok"));
}

static json_t *model_json(const api *a)
{
    const hparams *h = &a->c.model->h;
    return json_pack("{s:s, s:s, s:I, s:s, s:i, s:i, s:{s:i, s:i, s:i, s:i}}", "id", a->c.model_id, "object", "model",
                     "created", (json_int_t)a->started_at, "owned_by", "facet", "context_length", (int)a->c.n_ctx,
                     "max_model_len", (int)a->c.n_ctx, "meta", "n_vocab", (int)h->n_vocab, "n_ctx_train",
                     (int)h->n_ctx_train, "n_embd", (int)h->n_embd, "n_layers", (int)h->n_layers);
}

void api_models(api *a, http_exchange *x)
{
    api_reply_json(x, 200, json_pack("{s:s, s:[o]}", "object", "list", "data", model_json(a)));
}

static json_t *sampling_json(const facet_sampling *s)
{
    return json_pack("{s:f, s:i, s:f, s:f, s:f, s:f, s:f, s:i}", "temperature", (double)s->temperature, "top_k",
                     s->top_k, "top_p", (double)s->top_p, "min_p", (double)s->min_p, "repetition_penalty",
                     (double)s->repeat_penalty, "presence_penalty", (double)s->presence_penalty, "frequency_penalty",
                     (double)s->frequency_penalty, "repeat_last_n", s->penalty_last_n);
}

void api_props(api *a, http_exchange *x)
{
    static const char *const generations[] = {"april", "may", "july"};
    const chat_format *f = &a->c.model->chat;
    server_engine_stats s;
    server_engine_stats_read(a->c.engine, &s);
    api_reply_json(x, 200,
                   json_pack("{s:s, s:s, s:i, s:i, s:i, s:s, s:o, s:{s:s, s:b, s:b}, s:{s:I, s:I, s:i, s:I, s:I}}",
                             "version", facet_version(), "model", a->c.model_id, "n_ctx", (int)a->c.n_ctx, "n_parallel",
                             s.n_parallel, "n_queue", s.n_queue, "speculation",
                             facet_spec_method_name(a->c.speculation.method), "default_sampling",
                             sampling_json(&a->c.sampling), "chat_template", "generation", generations[f->generation],
                             "is_large", f->is_large, "in_file", f->has_template, "prefix_cache", "prompt_tokens",
                             (json_int_t)s.n_prompt_tokens, "cached_tokens", (json_int_t)s.n_cached_tokens, "entries",
                             s.prefix_entries, "bytes", (json_int_t)s.prefix_bytes, "budget",
                             (json_int_t)s.prefix_budget));
}

void api_slots(api *a, http_exchange *x)
{
    server_engine_stats s;
    server_engine_stats_read(a->c.engine, &s);
    server_slot_state *slots = mem_calloc((size_t)s.n_parallel, sizeof *slots);
    json_t *list = slots ? json_array() : NULL;
    const int n = slots ? server_engine_slots(a->c.engine, slots, s.n_parallel) : 0;
    for (int i = 0; i < n; i++) {
        const server_slot_state *slot = &slots[i];
        const char *state = !slot->is_busy ? "idle" : slot->is_prefill ? "prefill" : "decode";
        json_array_append_new(list, json_pack("{s:i, s:s, s:i, s:i, s:i}", "id", i, "state", state, "cached_tokens",
                                              (int)slot->n_tokens, "prompt_tokens", (int)slot->n_prompt,
                                              "generated_tokens", (int)slot->n_generated));
    }
    mem_free(slots);
    api_reply_json(x, 200, list);
}

void api_metrics_page(api *a, http_exchange *x)
{
    buf page = {0};
    server_engine_stats s;
    server_engine_stats_read(a->c.engine, &s);
    metrics_write(&a->metrics, &s, http_n_connections(x), difftime(time(NULL), (time_t)a->started_at), &page);
    http_reply(x, 200, "text/plain; version=0.0.4; charset=utf-8", page.data, page.len);
    buf_free(&page);
}
