/* http_peers.c: the connections and the thread that looks after them. While a request is worked on, its connection is
 * asleep and libmicrohttpd does not look at it; this thread sees the client go. It also sees those go of which
 * libmicrohttpd does not hear: where the last bytes and the end come together, it reads the bytes and waits for an
 * event that has already been. And it ends what takes too long: libmicrohttpd only knows a time without any byte, which
 * somebody who sends one byte now and then never reaches. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "serve/http_internal.h"

enum {
    TICK_MS = 250,
    MAX_EVENTS = 64,
    GONE_MS = 1000 /* for libmicrohttpd to read what a client that went has sent, and to close by itself */
};

static uint64_t key_of(const peer *q)
{
    return (uint64_t)q->serial << 32 | (uint32_t)q->fd;
}

static bool grow(http_peers *p, size_t fd)
{
    if (fd < p->cap) return true;
    const size_t cap = 2 * fd + 64;
    peer **by_fd = mem_resize_array(p->by_fd, cap, sizeof *by_fd);
    if (!by_fd) return false;
    memset(by_fd + p->cap, 0, (cap - p->cap) * sizeof *by_fd);
    p->by_fd = by_fd;
    p->cap = cap;
    return true;
}

/* The client's end is told once, then again after each change of phase. */
static void watch(http_peers *p, const peer *q, int operation)
{
    struct epoll_event e = {.events = EPOLLRDHUP | EPOLLONESHOT, .data.u64 = key_of(q)};
    epoll_ctl(p->epoll, operation, q->fd, &e);
}

peer *peers_add(http_peers *p, int fd)
{
    peer *q = mem_calloc(1, sizeof *q);
    if (!q) return NULL;
    pthread_mutex_lock(&p->lock);
    const bool has_room = fd >= 0 && grow(p, (size_t)fd);
    if (has_room) {
        *q = (peer){.next = p->list, .fd = fd, .serial = ++p->serial, .since = clock_ns()};
        if (p->list) p->list->prev = q;
        p->list = p->by_fd[fd] = q;
        p->n++;
        watch(p, q, EPOLL_CTL_ADD);
    }
    pthread_mutex_unlock(&p->lock);
    if (has_room) return q;
    mem_free(q);
    return NULL;
}

void peers_remove(http_peers *p, peer *q)
{
    if (!q) return;
    pthread_mutex_lock(&p->lock);
    watch(p, q, EPOLL_CTL_DEL);
    if (q->prev)
        q->prev->next = q->next;
    else
        p->list = q->next;
    if (q->next) q->next->prev = q->prev;
    if (p->by_fd[q->fd] == q) p->by_fd[q->fd] = NULL;
    p->n--;
    pthread_mutex_unlock(&p->lock);
    mem_free(q);
}

void peers_set_phase(http_peers *p, peer *q, peer_phase phase, http_exchange *x)
{
    pthread_mutex_lock(&p->lock);
    p->n_busy += (phase != PEER_IDLE) - (q->phase != PEER_IDLE);
    q->phase = phase;
    q->since = clock_ns();
    q->gone_at = 0;
    q->exchange = x;
    watch(p, q, EPOLL_CTL_MOD);
    pthread_mutex_unlock(&p->lock);
}

/* The client of a connection closed it, or its half: in either case nobody waits for the reply. */
static void hang_up(http_peers *p, const struct epoll_event *e)
{
    const size_t fd = (uint32_t)e->data.u64;
    http_exchange *x = NULL;
    pthread_mutex_lock(&p->lock);
    peer *q = fd < p->cap ? p->by_fd[fd] : NULL;
    if (q && key_of(q) == e->data.u64) {
        q->gone_at = clock_ns();
        if (q->phase == PEER_BUSY) x = http_retain(q->exchange);
    }
    pthread_mutex_unlock(&p->lock);
    if (!x) return;
    exchange_set_gone(x);
    http_release(x);
}

static bool is_late(const http_config *c, const peer *q, uint64_t now)
{
    const int limit_s = q->phase == PEER_IDLE ? c->idle_timeout_s : c->body_timeout_s;
    const bool is_gone = q->gone_at && now - q->gone_at > GONE_MS * 1000000u;
    return q->phase != PEER_BUSY && (is_gone || now - q->since > (uint64_t)limit_s * 1000000000u);
}

/* Ends what takes too long. Shutting the socket down wakes MHD, which then closes it. */
static void tick(http_peers *p)
{
    pthread_mutex_lock(&p->lock);
    const uint64_t now = clock_ns(); /* not before a phase that began while the lock was waited for */
    for (peer *q = p->list; q; q = q->next) {
        const bool is_stalled = q->phase == PEER_BUSY && exchange_tick(q->exchange, now);
        if (is_stalled || is_late(&p->server->config, q, now)) shutdown(q->fd, SHUT_RDWR);
    }
    pthread_mutex_unlock(&p->lock);
}

static void *look_after(void *arg)
{
    http_peers *p = arg;
    uint64_t next_tick = clock_ns();
    for (;;) {
        struct epoll_event e[MAX_EVENTS];
        const int n = epoll_wait(p->epoll, e, MAX_EVENTS, TICK_MS);
        for (int i = 0; i < n; i++) {
            if (e[i].data.u64 == UINT64_MAX) return NULL;
            hang_up(p, &e[i]);
        }
        if (clock_ns() < next_tick) continue;
        tick(p);
        next_tick = clock_ns() + TICK_MS * 1000000u;
    }
}

facet_status peers_open(http_peers *p, http_server *s, facet_error *err)
{
    p->server = s;
    pthread_mutex_init(&p->lock, NULL);
    p->epoll = epoll_create1(EPOLL_CLOEXEC);
    p->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (p->epoll < 0 || p->wake < 0)
        return error_set(err, FACET_ERR_IO, "the server's connections: no file descriptor: %s", strerror(errno));
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = UINT64_MAX};
    if (epoll_ctl(p->epoll, EPOLL_CTL_ADD, p->wake, &e) != 0)
        return error_set(err, FACET_ERR_IO, "the server's connections: epoll: %s", strerror(errno));
    const int code = pthread_create(&p->thread, NULL, look_after, p);
    if (code) return error_set(err, FACET_ERR_MEMORY, "the server's connections: no thread: %s", strerror(code));
    p->has_thread = true;
    return FACET_OK;
}

void peers_close(http_peers *p)
{
    if (!p->server) return;
    if (p->has_thread) {
        const uint64_t one = 1;
        const ssize_t n = write(p->wake, &one, sizeof one);
        (void)n; /* the counter cannot be full */
        pthread_join(p->thread, NULL);
    }
    if (p->epoll >= 0) close(p->epoll);
    if (p->wake >= 0) close(p->wake);
    pthread_mutex_destroy(&p->lock);
    mem_free(p->by_fd);
}
