/* server_world.h: a server in this process, on a free port of loopback, with the bundled model. Include after
 * testing.h. */
#ifndef FACET_TESTS_SERVER_WORLD_H
#define FACET_TESTS_SERVER_WORLD_H

#include "decode/prefix.h"
#include "serve/http_client.h"
#include "serve/server.h"

#define WORLD_MODEL FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf"
#define WORLD_MTP FACET_SOURCE_DIR "/models/facet-small-mtp-Q8_0.gguf"
#define WORLD_DFLASH FACET_SOURCE_DIR "/models/facet-small-dflash-Q8_0.gguf"

typedef struct world {
    facet_model *model;
    facet_drafter *drafters[2];
    int n_drafters;
    facet_engine *engine;
    server *server;
    int port;
} world;

/* Greedy unless a request says otherwise, so that replies can be compared. */
static inline server_config world_config(void)
{
    server_config c = server_config_default();
    c.http.port = 0;
    c.api.sampling = facet_sampling_default();
    c.api.model_id = "small";
    return c;
}

static inline void world_open_drafter(world *w, const char *path)
{
    facet_error err;
    assert_ok(facet_drafter_open(path, w->model, &w->drafters[w->n_drafters++], &err), err);
}

static inline world world_open_with(server_config c, int32_t n_ctx, bool with_drafters)
{
    world w = {0};
    facet_error err;
    assert_ok(facet_model_open(WORLD_MODEL, &w.model, &err), err);
    if (with_drafters) world_open_drafter(&w, WORLD_MTP);
    if (with_drafters) world_open_drafter(&w, WORLD_DFLASH);
    facet_engine_params p = facet_engine_params_default();
    p.device = "cpu";
    p.n_threads = 1;
    p.n_ctx = n_ctx;
    p.n_sessions = c.engine.n_parallel;
    p.reuse_prompts = true;
    p.cache_bytes = 8 << 20;
    p.drafters = w.drafters;
    p.n_drafters = w.n_drafters;
    assert_ok(facet_engine_open(w.model, &p, &w.engine, &err), err);
    c.engine.engine = w.engine;
    c.api.model = w.model;
    assert_ok(server_open(&c, &w.server, &err), err);
    w.port = server_port(w.server);
    return w;
}

static inline world world_open(server_config c, int32_t n_ctx)
{
    return world_open_with(c, n_ctx, false);
}

static inline void world_close(world *w)
{
    server_close(w->server);
    prefix_clear(w->engine);
    for (int g = 0; g < w->engine->kv.n_groups; g++)
        assert_int_equal(kv_pool_free_pages(w->engine->pool, g), w->engine->kv.groups[g].n_pages);
    facet_engine_close(w->engine);
    for (int i = 0; i < w->n_drafters; i++) facet_drafter_close(w->drafters[i]);
    facet_model_close(w->model);
}

/* One user message; rest: further members, each behind a comma. */
static inline const char *chat_body(const char *text, const char *rest)
{
    static char body[1 << 16];
    snprintf(body, sizeof body, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]%s}", text,
             rest);
    return body;
}

static inline json_t *ask_json(const world *w, const char *path, const char *body, int status)
{
    reply r = http_post(w->port, path, body);
    if (r.status != status) fail_msg("%s: status %d, wanted %d: %.1000s", path, r.status, status, r.body.data);
    json_t *j = reply_json(&r);
    reply_free(&r);
    return j;
}

/* All the text that the deltas of a stream have in one member. */
static inline void join_deltas(const json_t *events, const char *path, buf *out)
{
    size_t i;
    json_t *e;
    json_array_foreach(events, i, e)
    {
        const char *s = json_string_value(json_at(e, path));
        if (s) buf_puts(out, s);
    }
    buf_append(out, "", 0);
}

#endif
