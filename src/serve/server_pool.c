#include "serve/server_pool.h"

#include "base/mem.h"

facet_status server_pool_open(facet_engine *e, int n, server_pool *out, facet_error *err)
{
    *out = (server_pool){.engine = e, .n = n, .slots = mem_calloc((size_t)n, sizeof *out->slots)};
    return out->slots ? FACET_OK : error_memory(err, "the sessions", (size_t)n * sizeof *out->slots);
}

void server_pool_close(server_pool *p)
{
    for (int i = 0; i < p->n && p->slots; i++) facet_session_close(p->slots[i].session);
    mem_free(p->slots);
    *p = (server_pool){0};
}

static void clear(server_slot *slot)
{
    facet_session_close(slot->session);
    slot->session = NULL;
}

/* The idle one to overwrite: an empty one, or the one used longest ago; never `but`. -1 = none. */
static int victim(const server_pool *p, int but)
{
    int best = -1;
    for (int i = 0; i < p->n; i++) {
        const server_slot *s = &p->slots[i];
        if (s->is_busy || i == but) continue;
        if (!s->session) return i;
        if (best < 0 || s->last_used < p->slots[best].last_used) best = i;
    }
    return best;
}

/* The session that helps most, an idle one before a busy one. */
static int best_match(const server_pool *p, const int32_t *prompt, size_t n, int32_t *n_cached)
{
    int best = -1;
    *n_cached = 0;
    for (int i = 0; i < p->n; i++) {
        const server_slot *s = &p->slots[i];
        const int32_t m = s->session ? session_match(s->session, prompt, n) : 0;
        if (m < 1 || m < *n_cached || (m == *n_cached && (best < 0 || !p->slots[best].is_busy))) continue;
        best = i;
        *n_cached = m;
    }
    return best;
}

/* Whether a session should stay as it is: it is in use, or it would lose more than it gives. */
static bool is_worth_keeping(const server_slot *s, int32_t n_cached)
{
    return s->is_busy || s->session->n_tokens - n_cached > n_cached;
}

static facet_status copy(server_pool *p, int from, int to, facet_error *err)
{
    facet_session *s = NULL;
    FACET_TRY(session_fork_marked(p->slots[from].session, &s, err));
    clear(&p->slots[to]);
    p->slots[to].session = s;
    return FACET_OK;
}

static facet_status start_anew(server_pool *p, int slot, facet_error *err)
{
    clear(&p->slots[slot]);
    return facet_session_open(p->engine, &p->slots[slot].session, err);
}

facet_status server_pool_take(server_pool *p, const int32_t *prompt, size_t n, int *slot, int32_t *n_cached,
                              facet_error *err)
{
    const int match = best_match(p, prompt, n, n_cached);
    int chosen = match;
    if (match < 0 || is_worth_keeping(&p->slots[match], *n_cached)) chosen = victim(p, match);
    if (chosen < 0 && match >= 0 && !p->slots[match].is_busy) chosen = match;
    if (chosen < 0) return error_set(err, FACET_ERR_LIMIT, "all %d sessions are in use", p->n);
    if (match < 0) {
        FACET_TRY(start_anew(p, chosen, err));
    } else if (chosen != match) {
        FACET_TRY(copy(p, match, chosen, err));
    }
    p->slots[chosen].is_busy = true;
    p->slots[chosen].last_used = ++p->clock;
    *slot = chosen;
    return FACET_OK;
}

void server_pool_give_back(server_pool *p, int slot)
{
    server_slot *s = &p->slots[slot];
    s->is_busy = false;
    s->last_used = ++p->clock;
    atomic_store(&s->session->is_cancelled, false);
}

static bool has_room(const server_pool *p, int32_t n_pages)
{
    for (int g = 0; g < p->engine->kv.n_groups; g++)
        if (kv_pool_free_pages(p->engine->pool, g) < n_pages) return false;
    return true;
}

void server_pool_make_room(server_pool *p, int32_t n_pages)
{
    while (!has_room(p, n_pages)) {
        int oldest = -1;
        for (int i = 0; i < p->n; i++) {
            const server_slot *s = &p->slots[i];
            if (!s->session || s->is_busy) continue;
            if (oldest < 0 || s->last_used < p->slots[oldest].last_used) oldest = i;
        }
        if (oldest < 0) return;
        clear(&p->slots[oldest]);
    }
}
