#include "serve/http_server.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "serve/http_internal.h"

enum { BACKLOG = 1024, DRAIN_FACTOR = 4 };

/* ---- from MHD ---- */

static void on_connection(void *cls, struct MHD_Connection *c, void **context, enum MHD_ConnectionNotificationCode code)
{
    http_server *s = cls;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
        *context = peers_add(&s->peers, info ? info->connect_fd : -1);
    } else {
        peers_remove(&s->peers, *context);
    }
}

static void on_completed(void *cls, struct MHD_Connection *c, void **context, enum MHD_RequestTerminationCode code)
{
    http_server *s = cls;
    http_exchange *x = *context;
    (void)c;
    (void)code;
    if (!x) return;
    if (s->config.finished) s->config.finished(s->config.ud, x);
    peers_set_phase(&s->peers, x->peer, PEER_IDLE, NULL);
    exchange_detach(x);
    http_release(x);
    *context = NULL;
}

static bool announces_too_much(const http_exchange *x)
{
    const char *length = http_header(x, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return length && strtoull(length, NULL, 10) > x->server->config.max_body_bytes;
}

/* The header is there. A client that waits for "100 Continue" is told at once when its body is not wanted; others send
 * it anyway, and would miss a reply behind which the connection is closed. */
static enum MHD_Result begin(http_server *s, struct MHD_Connection *c, const char *url, const char *method,
                             void **context)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    peer *q = info ? info->socket_context : NULL;
    http_exchange *x = q ? exchange_open(s, c, method, url) : NULL;
    if (!x) return MHD_NO;
    *context = x;
    x->peer = q;
    peers_set_phase(&s->peers, q, PEER_BODY, x);
    x->is_too_large = announces_too_much(x);
    s->config.admit(s->config.ud, x);
    return exchange_is_replied(x) && http_header(x, MHD_HTTP_HEADER_EXPECT) ? exchange_answer(x) : MHD_YES;
}

/* What nobody wants is read and dropped, within limits. */
static enum MHD_Result take_body(http_exchange *x, const char *data, size_t *n)
{
    const size_t max = x->server->config.max_body_bytes, now = *n;
    *n = 0;
    x->n_received += now;
    if (x->n_received > max) x->is_too_large = true;
    if (x->n_received / DRAIN_FACTOR > max) return MHD_NO;
    if (x->is_too_large || exchange_is_replied(x)) {
        buf_free(&x->body);
        return MHD_YES;
    }
    return buf_append(&x->body, data, now) ? MHD_YES : MHD_NO;
}

/* MHD_AccessHandlerCallback: the header, then pieces of the body, then the end; then again each time that the
 * connection wakes up without a reply being queued. */
static enum MHD_Result on_access(void *cls, struct MHD_Connection *c, const char *url, const char *method,
                                 const char *version, const char *data, size_t *n, void **context)
{
    http_server *s = cls;
    http_exchange *x = *context;
    (void)version;
    if (!x) return begin(s, c, url, method, context);
    if (*n) return take_body(x, data, n);
    if (!x->is_handled) {
        x->is_handled = true;
        peers_set_phase(&s->peers, x->peer, PEER_BUSY, x);
        if (!exchange_is_replied(x)) s->config.handle(s->config.ud, x);
    }
    return exchange_answer(x);
}

static void on_log(void *cls, const char *format, va_list ap)
{
    char line[512];
    (void)cls;
    vsnprintf(line, sizeof line, format, ap);
    line[strcspn(line, "\n")] = 0;
    log_line(FACET_LOG_DEBUG, "http: %s", line);
}

/* ---- listening ---- */

static facet_status no_address(const http_config *c, const char *why, facet_error *err)
{
    return error_set(err, FACET_ERR_IO, "cannot listen on %s port %d: %s", c->host, c->port, why);
}

/* Connections inherit the size of the send buffer, which the kernel would let grow to megabytes for each slow reader.
 */
static int listen_on(const http_config *c, const struct addrinfo *a)
{
    const int one = 1, fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &c->send_buffer_bytes, sizeof c->send_buffer_bytes);
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0) return fd;
    const int code = errno;
    close(fd);
    errno = code;
    return -1;
}

static int port_of(int fd)
{
    struct sockaddr_storage a = {0};
    socklen_t n = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &n) != 0) return 0;
    return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port
                                         : ((struct sockaddr_in *)&a)->sin_port);
}

static facet_status open_socket(http_server *s, facet_error *err)
{
    const http_config *c = &s->config;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    char port[16];
    snprintf(port, sizeof port, "%d", c->port);
    const int code = getaddrinfo(c->host, port, &hints, &list);
    if (code) return no_address(c, gai_strerror(code), err);
    for (const struct addrinfo *a = list; a && s->listen_fd < 0; a = a->ai_next) s->listen_fd = listen_on(c, a);
    const int why = errno;
    freeaddrinfo(list);
    if (s->listen_fd < 0) return no_address(c, strerror(why), err);
    s->port = port_of(s->listen_fd);
    return FACET_OK;
}

static facet_status start(http_server *s, facet_error *err)
{
    const http_config *c = &s->config;
    const unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    struct MHD_OptionItem pool[] = {{MHD_OPTION_THREAD_POOL_SIZE, c->n_threads, NULL}, {MHD_OPTION_END, 0, NULL}};
    s->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_access, s, MHD_OPTION_EXTERNAL_LOGGER, on_log, s, MHD_OPTION_LISTEN_SOCKET,
        s->listen_fd, MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)c->max_connections, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
        (unsigned)c->max_per_address, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)c->idle_timeout_s,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, c->max_header_bytes, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        c->n_threads > 1 ? MHD_OPTION_ARRAY : MHD_OPTION_END, pool, MHD_OPTION_END);
    if (s->daemon) return FACET_OK;
    return error_set(err, FACET_ERR_MEMORY, "the HTTP server cannot start (%d threads, %d connections): %s",
                     c->n_threads, c->max_connections, strerror(errno));
}

facet_status http_server_open(const http_config *c, http_server **out, facet_error *err)
{
    http_server *s = mem_calloc(1, sizeof *s);
    if (!s) return error_memory(err, "the HTTP server", sizeof *s);
    s->config = *c;
    s->listen_fd = s->peers.epoll = s->peers.wake = -1;
    facet_status status = peers_open(&s->peers, s, err);
    if (status == FACET_OK) status = open_socket(s, err);
    if (status == FACET_OK) status = start(s, err);
    if (status != FACET_OK) {
        http_server_close(s);
        return status;
    }
    *out = s;
    return FACET_OK;
}

int http_server_port(const http_server *s)
{
    return s->port;
}

void http_server_quiesce(http_server *s)
{
    if (s->is_quiesced) return;
    s->is_quiesced = true;
    MHD_quiesce_daemon(s->daemon); /* the socket is ours again */
}

int http_server_n_busy(http_server *s)
{
    pthread_mutex_lock(&s->peers.lock);
    const int n = s->peers.n_busy;
    pthread_mutex_unlock(&s->peers.lock);
    return n;
}

int http_server_n_connections(http_server *s)
{
    pthread_mutex_lock(&s->peers.lock);
    const int n = s->peers.n;
    pthread_mutex_unlock(&s->peers.lock);
    return n;
}

/* MHD closes the listening socket, unless it was quiesced. */
void http_server_close(http_server *s)
{
    if (!s) return;
    if (s->daemon) MHD_stop_daemon(s->daemon);
    if (s->listen_fd >= 0 && (!s->daemon || s->is_quiesced)) close(s->listen_fd);
    peers_close(&s->peers);
    mem_free(s);
}
