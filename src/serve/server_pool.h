/* server_pool.h: the sessions of a server: those in use, and idle ones that keep what they hold for prompts that begin
 * alike. Used by the engine's thread alone. */
#ifndef FACET_SERVE_SERVER_POOL_H
#define FACET_SERVE_SERVER_POOL_H

#include "decode/session_match.h"

typedef struct server_slot {
    facet_session *session; /* NULL: never used, or given up */
    bool is_busy;
    uint64_t last_used; /* counts up */
} server_slot;

typedef struct server_pool {
    facet_engine *engine;
    server_slot *slots; /* [n] */
    int n;
    uint64_t clock;
} server_pool;

/* n sessions at most, in use and idle together. The engine is borrowed. */
facet_status server_pool_open(facet_engine *e, int n, server_pool *out, facet_error *err);
void server_pool_close(server_pool *p); /* also of a zeroed one */

/* A session for a prompt: the one from whose content most of it can be taken, or a copy of that where the rest is worth
 * keeping or in use, or else one that is empty or was used longest ago. *n_cached gets the tokens of the prompt that it
 * holds. FACET_ERR_LIMIT when all are busy. */
facet_status server_pool_take(server_pool *p, const int32_t *prompt, size_t n, int *slot, int32_t *n_cached,
                              facet_error *err);
void server_pool_give_back(server_pool *p, int slot);
/* Gives idle sessions up, those used longest ago first, until each group of the cache has n_pages free pages. */
void server_pool_make_room(server_pool *p, int32_t n_pages);

#endif
