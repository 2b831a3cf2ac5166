#include "serve/server_pool.h"

#include "base/mem.h"

facet_status server_pool_open(facet_engine *e, int n, server_pool *out, facet_error *err)
{
    *out = (server_pool){.n = n, .slots = mem_calloc((size_t)n, sizeof *out->slots)};
    facet_status status = out->slots ? FACET_OK : error_memory(err, "the sessions", (size_t)n * sizeof *out->slots);
    for (int i = 0; i < n && status == FACET_OK; i++) status = facet_session_open(e, &out->slots[i].session, err);
    if (status != FACET_OK) server_pool_close(out);
    return status;
}

void server_pool_close(server_pool *p)
{
    for (int i = 0; i < p->n && p->slots; i++) facet_session_close(p->slots[i].session);
    mem_free(p->slots);
    *p = (server_pool){0};
}

int server_pool_take(server_pool *p, const int32_t *prompt, size_t n)
{
    int best = -1;
    int32_t most = -1;
    for (int i = 0; i < p->n; i++) {
        const server_slot *s = &p->slots[i];
        if (s->is_busy) continue;
        const int32_t m = session_match(s->session, prompt, n);
        if (m < most || (m == most && s->last_used > p->slots[best].last_used)) continue;
        best = i;
        most = m;
    }
    if (best >= 0) p->slots[best].is_busy = true;
    return best;
}

void server_pool_give_back(server_pool *p, int slot)
{
    server_slot *s = &p->slots[slot];
    s->is_busy = false;
    s->last_used = ++p->clock;
    atomic_store(&s->session->is_cancelled, false);
}
