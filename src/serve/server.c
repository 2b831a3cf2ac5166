#include "serve/server.h"

#include <unistd.h>

#include "base/mem.h"

struct server {
    api api;
    bool has_api;
    server_engine *engine;
    http_server *http;
};

server_config server_config_default(void)
{
    return (server_config){.http = {.host = "127.0.0.1",
                                    .port = 8080,
                                    .n_threads = 2,
                                    .max_connections = 4096,
                                    .max_header_bytes = 36 << 10,
                                    .max_body_bytes = (size_t)32 << 20,
                                    .send_buffer_bytes = 128 << 10,
                                    .idle_timeout_s = 60,
                                    .body_timeout_s = 60,
                                    .stall_timeout_s = 30,
                                    .ping_s = 15},
                           .api = {.model_id = "facet",
                                   .max_tokens = -1,
                                   .max_texts = 64,
                                   .thinking_budget = -1,
                                   .reply_budget = 512,
                                   .effort_budget = {1024, 4096, -1},
                                   .origins = "local",
                                   .stream_bytes = 64 << 10},
                           .engine = {.n_parallel = 4, .n_queue = 128}};
}

static facet_status open_parts(server *s, const server_config *c, facet_error *err)
{
    api_config a = c->api;
    http_config h = c->http;
    FACET_TRY(server_engine_open(&c->engine, &s->engine, err));
    a.engine = s->engine;
    a.n_ctx = facet_engine_n_ctx(c->engine.engine);
    FACET_TRY(api_open(&a, &s->api, err));
    s->has_api = true;
    h.admit = api_admit;
    h.handle = api_handle;
    h.finished = api_finished;
    h.ud = &s->api;
    return http_server_open(&h, &s->http, err);
}

facet_status server_open(const server_config *c, server **out, facet_error *err)
{
    server *s = mem_calloc(1, sizeof *s);
    if (!s) return error_memory(err, "the server", sizeof *s);
    const facet_status status = open_parts(s, c, err);
    if (status != FACET_OK) {
        server_close(s);
        return status;
    }
    *out = s;
    return FACET_OK;
}

int server_port(const server *s)
{
    return http_server_port(s->http);
}

facet_status server_set_keys(server *s, const char *const *keys, facet_error *err)
{
    return api_set_keys(&s->api, keys, err);
}

void server_drain(server *s)
{
    http_server_quiesce(s->http);
    server_engine_drain(s->engine, false);
}

bool server_is_idle(server *s)
{
    return http_server_n_busy(s->http) == 0;
}

/* Replies that are on their way get a moment to leave. */
void server_close(server *s)
{
    enum { MOMENTS = 40, MOMENT_US = 50000 };
    if (!s) return;
    if (s->http) {
        server_drain(s);
        server_engine_drain(s->engine, true);
        for (int i = 0; i < MOMENTS && !server_is_idle(s); i++) usleep(MOMENT_US);
    }
    /* texts that are still there: their clients do not read; the engine ends them, and MHD may stop then */
    server_engine_stop(s->engine);
    http_server_close(s->http);
    server_engine_close(s->engine);
    if (s->has_api) api_close(&s->api);
    mem_free(s);
}
