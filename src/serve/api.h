/* api.h: what the server answers: routes, keys, and what all requests share. */
#ifndef FACET_SERVE_API_H
#define FACET_SERVE_API_H

#include "model/model.h"
#include "serve/api_error.h"
#include "serve/api_grammars.h"
#include "serve/api_metrics.h"
#include "serve/http_server.h"
#include "serve/server_engine.h"

/* Numbers of seven digits: times and probabilities, which come from 32-bit floats where they have more. */
#define API_JSON_FLAGS (JSON_COMPACT | JSON_REAL_PRECISION(7))

/* Everything is borrowed. */
typedef struct api_config {
    facet_model *model;
    server_engine *engine;
    int32_t n_ctx;
    const char *model_id;          /* the name that replies give */
    facet_sampling sampling;       /* where a request says nothing */
    bool has_seed;                 /* sampling.seed holds; otherwise one is drawn */
    facet_speculation speculation; /* likewise */
    int32_t max_tokens;            /* of a text, where a request says nothing; -1 = what the context holds */
    bool clamps;                   /* too many tokens asked for are cut to what the context holds, not refused */
    int max_texts;                 /* of one request */
    bool is_thinking;              /* where a request says nothing */
    int32_t thinking_budget;       /* likewise; -1 = none */
    int32_t reply_budget;          /* tokens that a thought leaves for the reply */
    int32_t effort_budget[3];      /* thinking budgets of reasoning_effort low, medium, high; -1 = none */
    const char *const *keys;       /* NULL-terminated, copied; NULL: no key is wanted */
    const char *origins;           /* that may read replies: "*", "local" (pages of this machine), "none", or origins
                                      with commas between them */
    size_t stream_bytes;           /* a stream with so much that its client did not take pauses */
} api_config;

typedef struct api {
    api_config c;
    api_metrics metrics;
    grammar_cache grammars;
    int64_t started_at; /* Unix time */
    pthread_mutex_t keys_lock;
    char **keys; /* NULL-terminated; NULL: no key is wanted */
} api;

facet_status api_open(const api_config *c, api *out, facet_error *err);
void api_close(api *a);
/* Other keys from now on. On failure the old ones hold. From any thread. */
facet_status api_set_keys(api *a, const char *const *keys, facet_error *err);

/* The callbacks of http_config; ud is the api. */
void api_admit(void *ud, http_exchange *x);
void api_handle(void *ud, http_exchange *x);
void api_finished(void *ud, http_exchange *x);

/* Replies with a JSON value, which is taken; NULL: memory is short. */
void api_reply_json(http_exchange *x, int status, json_t *j);
void api_reply_error(http_exchange *x, const api_error *e);
/* The request's body as a JSON object. */
bool api_read_body(const http_exchange *x, json_t **out, api_error *e);

/* The routes; each replies. */
void api_chat(api *a, http_exchange *x);
void api_completions(api *a, http_exchange *x);
void api_messages(api *a, http_exchange *x);
void api_count_tokens(api *a, http_exchange *x);
void api_responses(api *a, http_exchange *x);
void api_models(api *a, http_exchange *x);
void api_health(api *a, http_exchange *x);
void api_props(api *a, http_exchange *x);
void api_slots(api *a, http_exchange *x);
void api_metrics_page(api *a, http_exchange *x);
void api_tokenize(api *a, http_exchange *x);
void api_detokenize(api *a, http_exchange *x);
/* The page and the files that it loads. */
bool api_has_page(const char *path);
void api_page(api *a, http_exchange *x);

#endif
