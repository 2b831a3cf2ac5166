/* http_exchange.c: one request and its reply. The reply is made by any thread; MHD's thread fetches it and sleeps
 * meanwhile: the connection is suspended where there is nothing to send, under the same lock under which a producer
 * looks whether it must be resumed. */
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "serve/http_internal.h"

enum { STREAM_BLOCK = 1 << 14 };

http_exchange *exchange_open(http_server *s, struct MHD_Connection *c, const char *method, const char *path)
{
    http_exchange *x = mem_calloc(1, sizeof *x);
    if (!x) return NULL;
    x->server = s;
    x->connection = c;
    x->method = method;
    x->path = path;
    atomic_init(&x->refs, 1);
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->notified, NULL);
    return x;
}

http_exchange *http_retain(http_exchange *x)
{
    atomic_fetch_add(&x->refs, 1);
    return x;
}

void http_release(http_exchange *x)
{
    if (!x || atomic_fetch_sub(&x->refs, 1) > 1) return;
    buf_free(&x->body);
    buf_free(&x->headers);
    buf_free(&x->queue);
    pthread_cond_destroy(&x->notified);
    pthread_mutex_destroy(&x->lock);
    mem_free(x);
}

/* ---- the request ---- */

const char *http_method(const http_exchange *x)
{
    return x->method;
}

const char *http_path(const http_exchange *x)
{
    return x->path;
}

const char *http_header(const http_exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

const char *http_query(const http_exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection, MHD_GET_ARGUMENT_KIND, name);
}

const char *http_body(const http_exchange *x, size_t *n)
{
    *n = x->body.len;
    return x->body.data ? x->body.data : "";
}

bool http_is_too_large(const http_exchange *x)
{
    return x->is_too_large;
}

int http_n_connections(const http_exchange *x)
{
    return http_server_n_connections(x->server);
}

/* ---- waking up and telling; lock is held by the callers of the first two ---- */

static void wake(http_exchange *x)
{
    if (!x->is_suspended || !x->connection) return;
    x->is_suspended = false;
    MHD_resume_connection(x->connection);
}

static size_t backlog(const http_exchange *x)
{
    return x->queue.len - x->taken;
}

/* Without lock. */
static void notify(http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    void (*fn)(void *ud) = x->on_change;
    void *ud = x->on_change_ud;
    if (fn) x->n_notifying++;
    pthread_mutex_unlock(&x->lock);
    if (!fn) return;
    fn(ud);
    pthread_mutex_lock(&x->lock);
    x->n_notifying--;
    pthread_cond_broadcast(&x->notified);
    pthread_mutex_unlock(&x->lock);
}

void http_watch(http_exchange *x, size_t mark, void (*fn)(void *ud), void *ud)
{
    pthread_mutex_lock(&x->lock);
    x->mark = mark;
    x->on_change = fn;
    x->on_change_ud = ud;
    pthread_mutex_unlock(&x->lock);
}

void http_unwatch(http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    x->on_change = NULL;
    while (x->n_notifying) pthread_cond_wait(&x->notified, &x->lock);
    pthread_mutex_unlock(&x->lock);
}

void exchange_set_gone(http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    x->is_gone = true;
    wake(x);
    pthread_mutex_unlock(&x->lock);
    notify(x);
}

void exchange_detach(http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    struct MHD_Response *r = x->response; /* one that was not sent */
    x->response = NULL;
    x->connection = NULL;
    x->is_gone = true;
    pthread_mutex_unlock(&x->lock);
    if (r) MHD_destroy_response(r);
    notify(x);
}

bool http_is_gone(http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    const bool is_gone = x->is_gone;
    pthread_mutex_unlock(&x->lock);
    return is_gone;
}

/* ---- the reply ---- */

void http_set_header(http_exchange *x, const char *name, const char *value)
{
    pthread_mutex_lock(&x->lock);
    buf_append(&x->headers, name, strlen(name) + 1);
    buf_append(&x->headers, value, strlen(value) + 1);
    pthread_mutex_unlock(&x->lock);
}

static void add_headers(http_exchange *x, struct MHD_Response *r, const char *type)
{
    if (type) MHD_add_response_header(r, "Content-Type", type);
    for (size_t i = 0; i < x->headers.len;) {
        const char *name = x->headers.data + i, *value = name + strlen(name) + 1;
        MHD_add_response_header(r, name, value);
        i += strlen(name) + strlen(value) + 2;
    }
}

/* With lock. Without memory for a reply there is none: the connection is closed. */
static void set_response(http_exchange *x, int status, const char *type, struct MHD_Response *r)
{
    if (r && !x->headers.failed) {
        add_headers(x, r, type);
        x->status = status;
    } else {
        x->is_gone = true;
    }
    x->response = r;
    wake(x);
}

/* With lock. A reply to a client that went would only lie about. */
static bool may_reply(const http_exchange *x)
{
    return !x->status && !x->is_gone;
}

void http_reply(http_exchange *x, int status, const char *type, const void *data, size_t n)
{
    pthread_mutex_lock(&x->lock);
    if (may_reply(x)) {
        x->is_ended = true;
        set_response(x, status, type,
                     MHD_create_response_from_buffer(n, (void *)(uintptr_t)data, MHD_RESPMEM_MUST_COPY));
    }
    pthread_mutex_unlock(&x->lock);
}

int http_status(const http_exchange *x)
{
    return x->status;
}

bool exchange_is_replied(http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    const bool is_replied = x->status != 0;
    pthread_mutex_unlock(&x->lock);
    return is_replied;
}

/* Moves what was taken out of the way; gives memory back that a burst needed. */
static void trim(http_exchange *x)
{
    const size_t left = backlog(x);
    if (x->taken < left) return;
    if (left) memmove(x->queue.data, x->queue.data + x->taken, left);
    x->queue.len = left;
    x->taken = 0;
    if (!left && x->queue.cap > HTTP_BUF_KEEP) buf_free(&x->queue);
}

/* MHD_ContentReaderCallback: what is there, at most max bytes. */
static ssize_t read_stream(void *cls, uint64_t pos, char *out, size_t max)
{
    http_exchange *x = cls;
    (void)pos;
    pthread_mutex_lock(&x->lock);
    const size_t before = backlog(x), n = before < max ? before : max;
    ssize_t result = (ssize_t)n;
    if (x->is_gone) {
        result = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (n) {
        memcpy(out, x->queue.data + x->taken, n);
        x->taken += n;
        x->last_taken = clock_ns();
        trim(x);
    } else if (x->is_ended) {
        result = MHD_CONTENT_READER_END_OF_STREAM;
    } else if (x->connection) {
        x->is_suspended = true;
        MHD_suspend_connection(x->connection);
    }
    const bool is_drained = before >= x->mark / 2 && backlog(x) < x->mark / 2;
    pthread_mutex_unlock(&x->lock);
    if (is_drained) notify(x);
    return result;
}

static void forget_stream(void *cls)
{
    http_release(cls);
}

void http_stream_begin(http_exchange *x, const char *type)
{
    pthread_mutex_lock(&x->lock);
    if (may_reply(x)) {
        http_retain(x);
        struct MHD_Response *r =
            MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, x, forget_stream);
        if (!r) atomic_fetch_sub(&x->refs, 1);
        x->is_stream = true;
        x->last_put = x->last_taken = clock_ns();
        set_response(x, MHD_HTTP_OK, type, r);
    }
    pthread_mutex_unlock(&x->lock);
}

bool http_stream_put(http_exchange *x, const void *data, size_t n)
{
    pthread_mutex_lock(&x->lock);
    if (!x->is_gone && !x->is_ended) {
        x->last_put = clock_ns();
        if (!backlog(x)) x->last_taken = x->last_put;
        if (!buf_append(&x->queue, data, n)) x->is_gone = true;
        wake(x);
    }
    const bool is_alive = !x->is_gone;
    pthread_mutex_unlock(&x->lock);
    return is_alive;
}

void http_stream_end(http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    x->is_ended = true;
    wake(x);
    pthread_mutex_unlock(&x->lock);
}

size_t http_stream_backlog(http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    const size_t n = backlog(x);
    pthread_mutex_unlock(&x->lock);
    return n;
}

bool exchange_tick(http_exchange *x, uint64_t now)
{
    static const char ping[] = ": ping\n\n";
    const http_config *c = &x->server->config;
    pthread_mutex_lock(&x->lock);
    const bool waits = backlog(x) > 0, is_open = x->is_stream && !x->is_ended && !x->is_gone;
    const bool is_stalled =
        waits && now > x->last_taken && now - x->last_taken > (uint64_t)c->stall_timeout_s * 1000000000u;
    if (is_open && !waits && c->ping_s && now > x->last_put && now - x->last_put > (uint64_t)c->ping_s * 1000000000u) {
        x->last_put = x->last_taken = now;
        buf_append(&x->queue, ping, sizeof ping - 1);
        wake(x);
    }
    pthread_mutex_unlock(&x->lock);
    return is_stalled;
}

/* The response holds a reference to a stream's exchange, so that one is MHD's alone once it is queued. */
static enum MHD_Result queue_reply(http_exchange *x)
{
    struct MHD_Response *r = x->response;
    x->response = NULL;
    const enum MHD_Result result = MHD_queue_response(x->connection, (unsigned)x->status, r);
    MHD_destroy_response(r);
    return result;
}

enum MHD_Result exchange_answer(http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    const bool is_gone = x->is_gone, is_replied = x->response != NULL;
    if (!is_gone && !is_replied) {
        x->is_suspended = true;
        MHD_suspend_connection(x->connection);
    }
    pthread_mutex_unlock(&x->lock);
    if (is_gone) return MHD_NO;
    return is_replied ? queue_reply(x) : MHD_YES;
}
