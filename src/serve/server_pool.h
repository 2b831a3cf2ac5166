/* server_pool.h: the sessions of a server. Each keeps what it holds for a prompt that begins alike; what only others
 * hold, the engine finds by itself (decode/prefix.h). Used by the engine's thread alone. */
#ifndef FACET_SERVE_SERVER_POOL_H
#define FACET_SERVE_SERVER_POOL_H

#include "decode/session_match.h"

typedef struct server_slot {
    facet_session *session;
    bool is_busy;
    uint64_t last_used; /* counts up */
} server_slot;

typedef struct server_pool {
    server_slot *slots; /* [n] */
    int n;
    uint64_t clock;
} server_pool;

/* The engine is borrowed. */
facet_status server_pool_open(facet_engine *e, int n, server_pool *out, facet_error *err);
void server_pool_close(server_pool *p); /* also of a zeroed one */

/* The idle session that can go on from the most of a prompt, among equals the one that was used longest ago; -1 when
 * all are busy. It is busy from then on. */
int server_pool_take(server_pool *p, const int32_t *prompt, size_t n);
void server_pool_give_back(server_pool *p, int slot);

#endif
