#include "serve/daemon_inlet.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

enum { PIECE = 1 << 16 };

bool inlet_open(inlet *in, int fd, size_t max_line)
{
    *in = (inlet){.fd = fd, .max_line = max_line};
    return buf_reserve(&in->data, 2 * PIECE);
}

void inlet_close(inlet *in)
{
    buf_free(&in->data);
}

/* What was handed out leaves the buffer, and a buffer that one long line made large shrinks. */
static void drop_used(inlet *in)
{
    buf *b = &in->data;
    const size_t left = b->len - in->at;
    if (left && in->at) memmove(b->data, b->data + in->at, left);
    b->len = left;
    in->scanned -= in->at;
    in->at = 0;
    if (left || b->cap <= 4 * PIECE) return;
    char *small = mem_realloc(b->data, 2 * PIECE);
    if (!small) return;
    b->data = small;
    b->cap = 2 * PIECE;
}

void inlet_fill(inlet *in)
{
    drop_used(in);
    in->is_dry = false;
    if (!buf_reserve(&in->data, PIECE)) {
        in->data.failed = false;
        in->is_short = true;
        return;
    }
    const ssize_t n = read(in->fd, in->data.data + in->data.len, PIECE);
    if (n > 0)
        in->data.len += (size_t)n;
    else if (n == 0 || (errno != EINTR && errno != EAGAIN))
        in->is_over = true;
}

/* Hands data[at, end) out and goes on behind `next`. */
static inlet_item give(inlet *in, inlet_item what, size_t end, size_t next, const char **line, size_t *n)
{
    *line = in->data.data + in->at;
    *n = end - in->at;
    in->at = in->scanned = next;
    return what;
}

static inlet_item give_line(inlet *in, size_t end, const char **line, size_t *n)
{
    if (in->is_skipping) { /* the end of what was reported already */
        in->is_skipping = false;
        in->at = in->scanned = end + 1;
        return inlet_next(in, line, n);
    }
    const size_t stop = end > in->at && in->data.data[end - 1] == '\r' ? end - 1 : end;
    if (stop - in->at > in->max_line) return give(in, INLET_TOO_LONG, in->at + in->max_line, end + 1, line, n);
    return give(in, INLET_LINE, stop, end + 1, line, n);
}

inlet_item inlet_next(inlet *in, const char **line, size_t *n)
{
    const size_t len = in->data.len;
    const char *lf = in->scanned < len ? memchr(in->data.data + in->scanned, '\n', len - in->scanned) : NULL;
    if (lf) return give_line(in, (size_t)(lf - in->data.data), line, n);
    in->scanned = len;
    if (in->is_skipping) {
        in->at = len;
        in->is_dry = true;
        return INLET_NONE;
    }
    const bool is_long = len - in->at > in->max_line + 1; /* longer than a line with its CR can be */
    if (is_long || (in->is_short && len > in->at)) {
        in->is_skipping = true;
        in->is_short = false;
        return give(in, INLET_TOO_LONG, is_long ? in->at + in->max_line : len, len, line, n);
    }
    if (in->is_over && len > in->at) return give(in, INLET_CUT, len, len, line, n);
    in->is_dry = true;
    return INLET_NONE;
}
