/* api_call.c: the life of a request for texts. HTTP threads open it and submit it; from then on the engine's thread has
 * it, and frees it with its last text. */
#include "serve/api_call.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "text/json_read.h"

/* ---- opening and closing ---- */

static void random_bytes(void *out, size_t n)
{
    if (getrandom(out, n, 0) == (ssize_t)n) return;
    const uint64_t t = clock_ns();
    memcpy(out, &t, n < sizeof t ? n : sizeof t);
}

void call_make_id(const char *prefix, char *out, size_t n)
{
    uint64_t r[2] = {0};
    random_bytes(r, sizeof r);
    snprintf(out, n, "%s%016llx%08llx", prefix, (unsigned long long)r[0], (unsigned long long)(r[1] & 0xffffffff));
}

void call_close(api_call *c)
{
    if (!c) return;
    for (int i = 0; i < c->n_answers; i++) answer_close(&c->answers[i]);
    for (int i = 0; i < c->n_prompts; i++) mem_free(c->prompts[i].ids);
    mem_free(c->answers);
    mem_free(c->prompts);
    mem_free(c->bias);
    grammars_give_back(&c->api->grammars, c->grammar);
    json_decref(c->messages);
    json_decref(c->tools);
    json_decref(c->body);
    buf_free(&c->forced);
    buf_free(&c->line);
    http_release(c->x);
    mem_free(c);
}

bool call_new(api *a, const api_dialect *d, json_t *body, api_call **out, api_error *e)
{
    api_call *c = mem_calloc(1, sizeof *c);
    if (!c) {
        json_decref(body);
        api_fail_memory(e);
        return false;
    }
    c->api = a;
    c->dialect = d;
    c->body = body;
    c->created = (int64_t)time(NULL);
    c->sampling = a->c.sampling;
    c->speculation = a->c.speculation;
    c->n_choices = 1;
    c->max_tokens = -1;
    c->may_call_twice = true;
    c->is_thinking = a->c.is_thinking;
    c->thinking_budget = a->c.thinking_budget;
    if (!a->c.has_seed) random_bytes(&c->sampling.seed, sizeof c->sampling.seed);
    call_make_id(d->id_prefix, c->id, sizeof c->id);
    *out = c;
    return true;
}

static void reply_error(api_call *c, const api_error *e)
{
    json_t *j = api_error_json(e, c->dialect->is_anthropic);
    char seconds[16];
    snprintf(seconds, sizeof seconds, "%d", e->retry_after_s);
    if (e->retry_after_s) http_set_header(c->x, "Retry-After", seconds);
    api_reply_json(c->x, e->status, j);
}

static void call_refuse(api_call *c, const api_error *e)
{
    reply_error(c, e);
    call_close(c);
}

bool call_add_prompt(api_call *c, int32_t *ids, size_t n, api_error *e)
{
    api_prompt *p = mem_resize_array(c->prompts, (size_t)c->n_prompts + 1, sizeof *p);
    if (!p) {
        mem_free(ids);
        return api_fail_memory(e);
    }
    c->prompts = p;
    p[c->n_prompts++] = (api_prompt){ids, n};
    return true;
}

/* ---- writing ---- */

void call_send(api_call *c, const char *event, json_t *j)
{
    buf_clear(&c->line);
    if (event) buf_printf(&c->line, "event: %s\n", event);
    buf_puts(&c->line, "data: ");
    const bool is_whole = j && json_print(j, API_JSON_FLAGS, &c->line);
    json_decref(j);
    buf_puts(&c->line, "\n\n");
    if (is_whole && !c->line.failed) http_stream_put(c->x, c->line.data, c->line.len);
}

void call_send_done(api_call *c)
{
    static const char done[] = "data: [DONE]\n\n";
    http_stream_put(c->x, done, sizeof done - 1);
}

void call_send_error(api_call *c, const api_error *e)
{
    call_send(c, c->dialect->is_anthropic ? "error" : NULL, api_error_json(e, c->dialect->is_anthropic));
}

static double rate(double n, double ms)
{
    return ms > 0 ? n * 1000 / ms : 0;
}

json_t *call_timings(const api_answer *a)
{
    const text_report *r = &a->report;
    const int32_t n_prefill = r->n_prompt - r->n_cached;
    json_t *j =
        json_pack("{s:f, s:f, s:f, s:f, s:i, s:i, s:i, s:f, s:f}", "queue_ms", r->queue_ms, "prefill_ms", r->prefill_ms,
                  "first_token_ms", r->first_token_ms, "decode_ms", r->decode_ms, "cached_tokens", (int)r->n_cached,
                  "prefill_tokens", (int)n_prefill, "decode_tokens", (int)r->n_tokens, "prefill_tps",
                  rate(n_prefill, r->prefill_ms), "decode_tps", rate(r->n_tokens, r->decode_ms));
    if (a->n_thought) {
        json_object_set_new(j, "thought_tokens", json_integer(a->n_thought));
        json_object_set_new(j, "thought_was_cut", json_boolean(a->is_thought_cut));
    }
    return j;
}

text_report call_total(const api_call *c)
{
    text_report sum = {0};
    for (int i = 0; i < c->n_answers; i++) {
        const text_report *r = &c->answers[i].report;
        sum.n_tokens += r->n_tokens;
        if (i % c->n_choices) continue;
        sum.n_prompt += r->n_prompt;
        sum.n_cached += r->n_cached;
    }
    return sum;
}

int32_t call_thought_tokens(const api_call *c)
{
    int32_t n = 0;
    for (int i = 0; i < c->n_answers; i++) n += c->answers[i].n_thought;
    return n;
}

void call_note_failure(api_call *c, facet_status status, const facet_error *err)
{
    if (c->status != FACET_OK) return;
    c->status = status;
    c->error = *err;
}

/* ---- the end ---- */

static void describe_failure(const api_call *c, api_error *e)
{
    api_fail_with(e, &c->error);
    if (c->status == FACET_ERR_CANCELLED) api_fail(e, 503, NULL, "the server is shutting down: the text was cut");
}

void call_end(api_call *c)
{
    const bool ok = c->status == FACET_OK;
    api_error e;
    http_unwatch(c->x);
    if (!ok) describe_failure(c, &e);
    if (c->is_stream) {
        if (ok)
            c->dialect->end(c);
        else
            c->dialect->fail(c, &e);
        http_stream_end(c->x);
    } else if (ok) {
        api_reply_json(c->x, 200, c->dialect->whole(c));
    } else {
        reply_error(c, &e);
    }
    call_close(c);
}

/* ---- submitting ---- */

/* From an HTTP thread: the client went, or took what waited for it. */
static void on_change(void *ud)
{
    api_call *c = ud;
    if (http_is_gone(c->x))
        for (int i = 0; i < c->n_answers; i++) server_text_cancel(c->api->c.engine, &c->answers[i].text);
    else
        server_engine_wake(c->api->c.engine);
}

static bool open_answers(api_call *c, api_error *e)
{
    const int n = c->n_prompts * c->n_choices;
    if (n > c->api->c.max_texts)
        return api_fail(e, 400, "n", "%d texts in one request: this server makes at most %d", n, c->api->c.max_texts);
    c->answers = mem_calloc((size_t)n, sizeof *c->answers);
    if (!c->answers) return api_fail_memory(e);
    for (int i = 0; i < n; i++) {
        c->n_answers = i + 1;
        if (!answer_open(c, i, e)) return false;
    }
    c->n_left = n;
    return true;
}

static bool refuse_busy(const api_call *c, const facet_error *err, api_error *e)
{
    server_engine_stats s;
    if (err->status != FACET_ERR_LIMIT) return api_fail_with(e, err);
    server_engine_stats_read(c->api->c.engine, &s);
    const double mean_s = s.n_texts ? (s.prefill_ms + s.decode_ms) / (double)s.n_texts * 1e-3 : 1;
    const double wait_s = mean_s * (double)s.n_waiting / s.n_parallel;
    api_fail(e, 429, NULL, "%s", err->message);
    e->code = "rate_limit_exceeded";
    e->retry_after_s = wait_s < 1 ? 1 : wait_s > 60 ? 60 : (int)wait_s;
    return false;
}

static bool call_submit(api_call *c, api_error *e)
{
    facet_error err;
    if (!open_answers(c, e)) return false;
    server_text **texts = mem_calloc((size_t)c->n_answers, sizeof *texts);
    if (!texts) return api_fail_memory(e);
    for (int i = 0; i < c->n_answers; i++) texts[i] = &c->answers[i].text;
    /* from the submission on the call may end at any time */
    http_exchange *x = http_retain(c->x);
    const bool is_stream = c->is_stream;
    http_watch(x, c->api->c.stream_bytes, on_change, c);
    if (http_is_gone(x)) on_change(c);
    const facet_status status = server_engine_submit(c->api->c.engine, texts, c->n_answers, &err);
    mem_free(texts);
    if (status == FACET_OK && is_stream) http_stream_begin(x, "text/event-stream");
    if (status != FACET_OK) http_unwatch(x);
    http_release(x);
    return status == FACET_OK ? true : refuse_busy(c, &err, e);
}

/* The request as its dialect reads it. */
static bool call_open(api *a, http_exchange *x, const api_dialect *d, api_call **out, api_error *e)
{
    json_t *body;
    if (!api_read_body(x, &body, e) || !call_new(a, d, body, out, e)) return false;
    (*out)->x = http_retain(x);
    return true;
}

void call_serve(api *a, http_exchange *x, const api_dialect *d)
{
    api_call *c = NULL;
    api_error e = {0};
    if (!call_open(a, x, d, &c, &e))
        api_reply_error(x, &e);
    else if (!d->read(c, &e) || !call_submit(c, &e))
        call_refuse(c, &e);
}
