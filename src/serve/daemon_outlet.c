#include "serve/daemon_outlet.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

enum {
    PIECE = 4096,  /* PIPE_BUF: a pipe that poll calls writable takes as much without blocking */
    STEP = 1 << 16 /* what a step of the engine may put on top of the limit */
};

bool outlet_open(outlet *o, int fd, size_t limit)
{
    *o = (outlet){.fd = fd, .limit = limit};
    return fd < 0 || buf_reserve(&o->waiting, limit + STEP);
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

/* What was written leaves the buffer. */
static void drop_written(outlet *o)
{
    const size_t left = outlet_n_waiting(o);
    if (left && o->at) memmove(o->waiting.data, o->waiting.data + o->at, left);
    o->waiting.len = left;
    o->at = 0;
}

bool outlet_put(outlet *o, const void *data, size_t n)
{
    if (o->fd < 0 || o->is_broken) return true;
    if (n >= o->waiting.cap - o->waiting.len) drop_written(o);
    const bool ok = buf_append(&o->waiting, data, n);
    o->waiting.failed = false;
    return ok;
}

bool outlet_printf(outlet *o, const char *fmt, ...)
{
    char line[8192]; /* paths have 4095 bytes at most */
    va_list ap;
    va_start(ap, fmt);
    const int n = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    return n >= 0 && (size_t)n < sizeof line && outlet_put(o, line, (size_t)n);
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
    if (o->at >= outlet_n_waiting(o)) drop_written(o);
    if (!outlet_n_waiting(o))
        o->blocked_since = 0;
    else if (!o->blocked_since)
        o->blocked_since = clock_ns();
}
