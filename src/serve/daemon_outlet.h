/* daemon_outlet.h: bytes on their way to a reader who may be slow, or gone. Writing never blocks: what the reader does
 * not take waits here, and whoever produces it asks first whether there is room. */
#ifndef FACET_SERVE_DAEMON_OUTLET_H
#define FACET_SERVE_DAEMON_OUTLET_H

#include <stdint.h>

#include "base/buf.h"

typedef struct outlet {
    int fd;       /* -1: there is none */
    size_t limit; /* bytes that may wait before outlet_is_full; what comes on top is kept, too */
    buf waiting;  /* from `at` on */
    size_t at;
    bool is_broken;         /* the reader is gone: everything is dropped from then on */
    int error;              /* errno of that */
    uint64_t blocked_since; /* ns: since when nothing could be written; 0 = nothing waits */
} outlet;

/* fd is borrowed. The memory for `limit` bytes and a step's worth on top is taken now, so that replies do not want any.
 * False when there is none. */
bool outlet_open(outlet *o, int fd, size_t limit);
void outlet_close(outlet *o);
/* False when there is no memory for it; then nothing of it goes out. */
bool outlet_put(outlet *o, const void *data, size_t n);
bool outlet_printf(outlet *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The reader is gone, as the caller found out. */
void outlet_break(outlet *o, int error);
/* Writes what the reader takes at once. */
void outlet_flush(outlet *o);
size_t outlet_n_waiting(const outlet *o);
bool outlet_is_full(const outlet *o);
/* Seconds that the reader has taken nothing of what waits. */
double outlet_blocked_s(const outlet *o);

#endif
