/* server.h: the server as a whole: engine thread, interfaces, HTTP. */
#ifndef FACET_SERVE_SERVER_H
#define FACET_SERVE_SERVER_H

#include "serve/api.h"

typedef struct server_config {
    http_config http; /* callbacks are set by server_open */
    api_config api;   /* engine is set by server_open */
    server_engine_config engine;
} server_config;

typedef struct server server;

/* Defaults of everything but what must be given: model, engine. */
server_config server_config_default(void);
/* Listens. What the configuration points to must outlive the server. */
facet_status server_open(const server_config *c, server **out, facet_error *err);
int server_port(const server *s);
/* api_set_keys. */
facet_status server_set_keys(server *s, const char *const *keys, facet_error *err);
/* No new connections and texts from now on; those under way go on. */
void server_drain(server *s);
bool server_is_idle(server *s); /* after server_drain: nothing is under way */
/* Cuts what is under way, with an error to each client. */
void server_close(server *s);

#endif
