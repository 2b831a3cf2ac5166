#include "serve/server_engine.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "decode/prefix.h"
#include "decode/scheduler.h"
#include "serve/server_pool.h"

struct server_engine {
    server_engine_config config;
    pthread_t thread;
    bool has_thread;
    /* the thread's own */
    scheduler *sc;
    server_pool pool;
    server_text **active; /* [n_parallel]; n_active of them, oldest first */
    int n_active;
    /* guarded by lock, which comes before those of whatever may_run looks at */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    server_text *first, **last; /* the queue */
    int n_waiting;
    bool is_draining, is_ending;
    server_engine_stats stats;
    server_slot_state *slots; /* [pool.n] */
};

/* ---- ends ---- */

static double ms_since(uint64_t t0)
{
    return (double)(clock_ns() - t0) * 1e-6;
}

static void count(server_engine *e, facet_status status, const text_report *r)
{
    pthread_mutex_lock(&e->lock);
    server_engine_stats *s = &e->stats;
    s->n_texts++;
    s->n_failed += status != FACET_OK && status != FACET_ERR_CANCELLED;
    s->n_cancelled += status == FACET_ERR_CANCELLED;
    s->n_prompt_tokens += (uint64_t)r->n_prompt;
    s->n_cached_tokens += (uint64_t)r->n_cached;
    s->n_tokens += (uint64_t)r->n_tokens;
    s->prefill_ms += r->prefill_ms;
    s->decode_ms += r->decode_ms;
    facet_spec_stats_add(&s->spec, &r->spec);
    pthread_mutex_unlock(&e->lock);
}

static void count_active(server_engine *e, int change)
{
    pthread_mutex_lock(&e->lock);
    e->stats.n_active += change;
    pthread_mutex_unlock(&e->lock);
}

/* The text may be gone afterwards. */
static void finish(server_engine *e, server_text *t, facet_status status, const facet_error *err)
{
    t->is_over = true;
    mem_free(t->tokens);
    t->tokens = NULL;
    count(e, status, &t->report);
    t->ops->on_done(t->ud, status, &t->report, status == FACET_OK ? NULL : err);
}

static void leave(server_engine *e, server_text *t)
{
    int i = 0;
    while (e->active[i] != t) i++;
    memmove(&e->active[i], &e->active[i + 1], (size_t)(e->n_active - i - 1) * sizeof *e->active);
    e->n_active--;
    server_pool_give_back(&e->pool, t->slot);
    count_active(e, -1);
}

/* ---- running ---- */

static scheduler_wish wish(void *ud)
{
    server_text *t = ud;
    if (atomic_load(&t->is_cancelled)) return SCHEDULER_END;
    return t->ops->may_run(t->ud) ? SCHEDULER_RUN : SCHEDULER_WAIT;
}

static facet_status remember(server_text *t, const int32_t *tokens, size_t n, facet_error *err)
{
    if (t->n_tokens + n > t->cap_tokens) {
        const size_t cap = t->n_tokens + n + t->n_tokens / 2 + 64;
        int32_t *grown = mem_resize_array(t->tokens, cap, sizeof *grown);
        if (!grown) return error_memory(err, "the tokens of a text", cap * sizeof *grown);
        t->tokens = grown;
        t->cap_tokens = cap;
    }
    memcpy(t->tokens + t->n_tokens, tokens, n * sizeof *tokens);
    t->n_tokens += n;
    return FACET_OK;
}

static void begin(server_text *t, int32_t n_cached)
{
    if (t->has_begun) return;
    t->has_begun = true;
    t->report.n_cached = n_cached;
    t->ops->on_start(t->ud, &t->report);
}

/* facet_progress_fn: tells how much of the prompt is to be evaluated. */
static bool on_progress(void *ud, const char *phase, uint64_t done, uint64_t total)
{
    server_text *t = ud;
    (void)phase;
    (void)done;
    begin(t, t->report.n_prompt - (int32_t)total);
    return true;
}

static bool on_token(void *ud, int32_t token, const char *text, size_t n)
{
    server_text *t = ud;
    begin(t, t->report.n_prompt);
    if (token >= 0) {
        if (!t->has_token) t->report.first_token_ms = ms_since(t->submitted_at);
        t->has_token = true;
        t->report.n_tokens++;
        if (remember(t, &token, 1, NULL) != FACET_OK) return false;
    }
    return t->ops->on_token(t->ud, token, text, n) && !atomic_load(&t->is_cancelled);
}

static void on_logprobs(void *ud, int32_t token, float logprob, const facet_logprob *top, int n_top)
{
    const server_text *t = ud;
    t->ops->on_logprobs(t->ud, token, logprob, top, n_top);
}

static void on_drafts(void *ud, const generation_drafts *d)
{
    const server_text *t = ud;
    t->ops->on_drafts(t->ud, d);
}

facet_status server_text_force(server_text *t, const int32_t *tokens, size_t n, facet_error *err)
{
    FACET_TRY(remember(t, tokens, n, err));
    t->report.n_tokens += (int32_t)n;
    t->is_forced = true;
    return FACET_OK;
}

static void on_done(void *ud, facet_status status, const facet_generate_result *r, const facet_error *err);

/* Gives the text to the scheduler: from its beginning, or behind what it has so far. */
static facet_status add(server_text *t, facet_error *err)
{
    server_engine *e = t->engine;
    scheduler_request r = {.session = e->pool.slots[t->slot].session,
                           .prompt = t->tokens,
                           .n_prompt = t->n_tokens,
                           .sampling = t->sampling,
                           .params = t->params,
                           .wish = wish,
                           .on_drafts = t->ops->on_drafts ? on_drafts : NULL,
                           .done = on_done,
                           .done_ud = t};
    r.params.n_predict = t->n_predict - t->report.n_tokens;
    r.params.on_token = on_token;
    if (t->ops->on_logprobs) r.params.on_logprobs = on_logprobs;
    r.params.progress = on_progress;
    r.params.ud = r.params.progress_ud = t;
    return scheduler_add(e->sc, &r, err);
}

static void take_result(text_report *out, const facet_generate_result *r, bool is_first)
{
    if (is_first) out->prefill_ms = r->prefill_ms;
    out->stop = r->stop;
    out->decode_ms += r->decode_ms + (is_first ? 0 : r->prefill_ms);
    facet_spec_stats_add(&out->spec, &r->spec);
}

/* scheduler_done_fn */
static void on_done(void *ud, facet_status status, const facet_generate_result *r, const facet_error *err)
{
    server_text *t = ud;
    facet_error own;
    if (status == FACET_OK) begin(t, t->report.n_prompt);
    /* cancelled while it decoded: the generation ended, but nobody wants it */
    if (status == FACET_OK && atomic_load(&t->is_cancelled))
        status = error_set(&own, FACET_ERR_CANCELLED, "cancelled"), err = &own;
    if (status == FACET_OK) take_result(&t->report, r, !t->has_continued);
    if (status == FACET_OK && t->is_forced && t->report.n_tokens < t->n_predict) {
        t->is_forced = false;
        t->has_continued = true;
        status = add(t, &own);
        if (status == FACET_OK) return;
        err = &own;
    }
    if (status == FACET_OK && t->is_forced) t->report.stop = FACET_STOP_LIMIT;
    leave(t->engine, t);
    finish(t->engine, t, status, err);
}

/* ---- starting ---- */

static facet_status start(server_engine *e, server_text *t, facet_error *err)
{
    text_report *r = &t->report;
    r->n_prompt = (int32_t)t->n_prompt;
    r->queue_ms = ms_since(t->submitted_at);
    FACET_TRY(remember(t, t->prompt, t->n_prompt, err));
    t->slot = server_pool_take(&e->pool, t->prompt, t->n_prompt);
    e->active[e->n_active++] = t;
    count_active(e, 1);
    const facet_status status = add(t, err);
    if (status != FACET_OK) leave(e, t);
    return status;
}

static bool is_ready(const server_text *t)
{
    return !t->leader || t->leader->is_over || t->leader->has_token;
}

/* The next one to start or to end, out of the queue; NULL = none. With lock. */
static server_text *next_waiting(server_engine *e)
{
    for (server_text **at = &e->first; *at; at = &(*at)->next) {
        server_text *t = *at;
        const bool is_cancelled = atomic_load(&t->is_cancelled);
        if (!is_cancelled && (e->n_active == e->config.n_parallel || !is_ready(t))) continue;
        *at = t->next;
        if (!*at) e->last = at;
        e->n_waiting--;
        return t;
    }
    return NULL;
}

static void start_texts(server_engine *e)
{
    for (;;) {
        facet_error err = {0};
        pthread_mutex_lock(&e->lock);
        server_text *t = next_waiting(e);
        pthread_mutex_unlock(&e->lock);
        if (!t) return;
        facet_status status = FACET_ERR_CANCELLED;
        if (atomic_load(&t->is_cancelled))
            error_set(&err, status, "cancelled");
        else
            status = start(e, t, &err);
        if (status != FACET_OK) finish(e, t, status, &err);
    }
}

/* ---- the thread ---- */

static bool has_work(const server_engine *e)
{
    for (int i = 0; i < e->n_active; i++)
        if (wish(e->active[i]) != SCHEDULER_WAIT) return true;
    for (const server_text *t = e->first; t; t = t->next)
        if (atomic_load(&t->is_cancelled) || (e->n_active < e->config.n_parallel && is_ready(t))) return true;
    return false;
}

static void cancel_all(server_engine *e)
{
    for (int i = 0; i < e->n_active; i++) atomic_store(&e->active[i]->is_cancelled, true);
    for (server_text *t = e->first; t; t = t->next) atomic_store(&t->is_cancelled, true);
}

/* False: it is over. */
static bool wait_for_work(server_engine *e)
{
    bool has = false;
    pthread_mutex_lock(&e->lock);
    for (;;) {
        if (e->is_ending) cancel_all(e);
        has = has_work(e);
        if (has || (e->is_ending && !e->n_active && !e->first)) break;
        pthread_cond_wait(&e->changed, &e->lock);
    }
    pthread_mutex_unlock(&e->lock);
    return has;
}

static void publish(server_engine *e)
{
    prefix_stats prefix;
    prefix_describe(e->config.engine, &prefix);
    pthread_mutex_lock(&e->lock);
    server_engine_stats *s = &e->stats;
    s->prefix_entries = prefix.n_entries;
    s->prefix_bytes = prefix.bytes;
    s->prefix_budget = prefix.budget;
    s->prefix_evictions = prefix.n_evictions;
    s->n_steps = e->config.engine->n_runs;
    for (int g = 0; g < s->n_groups; g++) s->free_pages[g] = kv_pool_free_pages(e->config.engine->pool, g);
    for (int i = 0; i < e->pool.n; i++) {
        e->slots[i] = (server_slot_state){.n_tokens = e->pool.slots[i].session->n_tokens};
    }
    for (int i = 0; i < e->n_active; i++) {
        const server_text *t = e->active[i];
        server_slot_state *slot = &e->slots[t->slot];
        slot->is_busy = true;
        slot->is_prefill = !t->has_token;
        slot->n_prompt = t->report.n_prompt;
        slot->n_generated = t->report.n_tokens;
    }
    pthread_mutex_unlock(&e->lock);
}

static void *run(void *arg)
{
    server_engine *e = arg;
    while (wait_for_work(e)) {
        start_texts(e);
        scheduler_step(e->sc);
        publish(e);
    }
    return NULL;
}

/* ---- from outside ---- */

static facet_status open_parts(server_engine *e, facet_error *err)
{
    const server_engine_config *c = &e->config;
    FACET_TRY(scheduler_open(c->engine, c->prompt_rows, &e->sc, err));
    FACET_TRY(server_pool_open(c->engine, c->n_parallel, &e->pool, err));
    e->active = mem_calloc((size_t)c->n_parallel, sizeof(server_text *));
    e->slots = mem_calloc((size_t)e->pool.n, sizeof *e->slots);
    if (!e->active || !e->slots) return error_memory(err, "the server's texts", (size_t)c->n_parallel * sizeof(void *));
    e->stats =
        (server_engine_stats){.n_queue = c->n_queue, .n_parallel = c->n_parallel, .n_groups = c->engine->kv.n_groups};
    for (int g = 0; g < c->engine->kv.n_groups; g++)
        e->stats.pages[g] = e->stats.free_pages[g] = c->engine->kv.groups[g].n_pages;
    const int code = pthread_create(&e->thread, NULL, run, e);
    if (code) return error_set(err, FACET_ERR_MEMORY, "the engine's thread: %s", strerror(code));
    e->has_thread = true;
    return FACET_OK;
}

facet_status server_engine_open(const server_engine_config *c, server_engine **out, facet_error *err)
{
    if (c->n_parallel < 1 || c->n_parallel > ENGINE_MAX_PARTS)
        return error_set(err, FACET_ERR_ARG, "texts at a time: %d, wanted 1 to %d", c->n_parallel, ENGINE_MAX_PARTS);
    server_engine *e = mem_calloc(1, sizeof *e);
    if (!e) return error_memory(err, "the server's engine", sizeof *e);
    e->config = *c;
    e->last = &e->first;
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->changed, NULL);
    const facet_status status = open_parts(e, err);
    if (status != FACET_OK) {
        server_engine_close(e);
        return status;
    }
    *out = e;
    return FACET_OK;
}

static facet_status check(const server_engine *e, const server_text *t, facet_error *err)
{
    const size_t n_ctx = (size_t)facet_engine_n_ctx(e->config.engine);
    if (t->n_prompt < 1) return error_set(err, FACET_ERR_ARG, "an empty prompt: give at least one token");
    if (t->n_predict < 0 || t->n_prompt > n_ctx || (size_t)t->n_predict > n_ctx - t->n_prompt)
        return error_set(err, FACET_ERR_LIMIT, "%zu tokens and %d to generate: the context holds %zu", t->n_prompt,
                         t->n_predict, n_ctx);
    return FACET_OK;
}

static facet_status check_queue(server_engine *e, int n, facet_error *err)
{
    if (e->is_draining) return error_set(err, FACET_ERR_CANCELLED, "the server is shutting down");
    /* places that are free do not count: what they take does not wait */
    const int room = e->config.n_queue + e->config.n_parallel - e->stats.n_active - e->n_waiting;
    if (n <= room) return FACET_OK;
    e->stats.n_refused += (uint64_t)n;
    return error_set(err, FACET_ERR_LIMIT, "the queue is full: %d texts run, %d wait, %d may wait", e->stats.n_active,
                     e->n_waiting, e->config.n_queue);
}

facet_status server_engine_submit(server_engine *e, server_text *const *texts, int n, facet_error *err)
{
    for (int i = 0; i < n; i++) FACET_TRY(check(e, texts[i], err));
    pthread_mutex_lock(&e->lock);
    const facet_status status = check_queue(e, n, err);
    for (int i = 0; i < n && status == FACET_OK; i++) {
        server_text *t = texts[i];
        t->engine = e;
        t->submitted_at = clock_ns();
        *e->last = t;
        e->last = &t->next;
        e->n_waiting++;
    }
    pthread_cond_signal(&e->changed);
    pthread_mutex_unlock(&e->lock);
    return status;
}

void server_engine_wake(server_engine *e)
{
    pthread_mutex_lock(&e->lock);
    pthread_cond_signal(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

void server_text_cancel(server_engine *e, server_text *t)
{
    atomic_store(&t->is_cancelled, true);
    server_engine_wake(e);
}

void server_engine_drain(server_engine *e, bool is_now)
{
    pthread_mutex_lock(&e->lock);
    e->is_draining = true;
    e->is_ending |= is_now;
    pthread_cond_signal(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

void server_engine_stats_read(server_engine *e, server_engine_stats *out)
{
    pthread_mutex_lock(&e->lock);
    *out = e->stats;
    out->n_waiting = e->n_waiting;
    pthread_mutex_unlock(&e->lock);
}

int server_engine_slots(server_engine *e, server_slot_state *out, int n)
{
    if (n > e->pool.n) n = e->pool.n;
    pthread_mutex_lock(&e->lock);
    memcpy(out, e->slots, (size_t)n * sizeof *out);
    pthread_mutex_unlock(&e->lock);
    return n;
}

void server_engine_stop(server_engine *e)
{
    if (!e || !e->has_thread) return;
    server_engine_drain(e, true);
    pthread_join(e->thread, NULL);
    e->has_thread = false;
}

void server_engine_close(server_engine *e)
{
    if (!e) return;
    server_engine_stop(e);
    scheduler_close(e->sc);
    server_pool_close(&e->pool);
    mem_free(e->active);
    mem_free(e->slots);
    pthread_cond_destroy(&e->changed);
    pthread_mutex_destroy(&e->lock);
    mem_free(e);
}
