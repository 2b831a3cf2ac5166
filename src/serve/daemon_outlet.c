#include "serve/daemon_outlet.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

enum { PIECE = 4096 /* PIPE_BUF: a pipe that poll calls writable takes as much without blocking */ };

void outlet_open(outlet *o, int fd, size_t limit)
{
    *o = (outlet){.fd = fd, .limit = limit};
}

void outlet_close(outlet *o)
{
    buf_free(&o->waiting);
    o->at = 0;
}

void outlet_break(outlet *o, int error)
{
    if (o->is_broken) return;
    o->is_broken = true;
    o->error = error;
    o->blocked_since = 0;
    outlet_close(o);
}

size_t outlet_n_waiting(const outlet *o)
{
    return o->waiting.len - o->at;
}

bool outlet_is_full(const outlet *o)
{
    return outlet_n_waiting(o) >= o->limit;
}

double outlet_blocked_s(const outlet *o)
{
    return o->blocked_since ? (double)(clock_ns() - o->blocked_since) * 1e-9 : 0;
}

void outlet_put(outlet *o, const void *data, size_t n)
{
    if (o->fd < 0 || o->is_broken) return;
    if (o->at == o->waiting.len) {
        buf_clear(&o->waiting);
        o->at = 0;
    }
    if (!buf_append(&o->waiting, data, n)) outlet_break(o, ENOMEM);
}

void outlet_printf(outlet *o, const char *fmt, ...)
{
    char small[512];
    buf b = {0};
    va_list ap;
    va_start(ap, fmt);
    const int n = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof small) {
        outlet_put(o, small, (size_t)n);
        return;
    }
    va_start(ap, fmt);
    if (n >= 0 && buf_reserve(&b, (size_t)n)) {
        vsnprintf(b.data, (size_t)n + 1, fmt, ap);
        outlet_put(o, b.data, (size_t)n);
    } else {
        outlet_break(o, ENOMEM);
    }
    va_end(ap);
    buf_free(&b);
}

/* What was written leaves the buffer when it is the larger part. */
static void drop_written(outlet *o)
{
    const size_t left = outlet_n_waiting(o);
    if (o->at < left || o->at == 0) return;
    if (left) memmove(o->waiting.data, o->waiting.data + o->at, left);
    o->waiting.len = left;
    o->at = 0;
}

void outlet_flush(outlet *o)
{
    while (!o->is_broken && outlet_n_waiting(o)) {
        struct pollfd p = {.fd = o->fd, .events = POLLOUT};
        if (poll(&p, 1, 0) <= 0) break;
        const size_t left = outlet_n_waiting(o);
        const ssize_t n = write(o->fd, o->waiting.data + o->at, left < PIECE ? left : PIECE);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) break;
        if (n < 0) {
            outlet_break(o, errno);
            return;
        }
        o->at += (size_t)n;
        o->blocked_since = 0;
    }
    if (o->is_broken) return;
    drop_written(o);
    if (!outlet_n_waiting(o))
        o->blocked_since = 0;
    else if (!o->blocked_since)
        o->blocked_since = clock_ns();
}
