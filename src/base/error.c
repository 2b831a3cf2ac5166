#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *facet_status_name(facet_status s)
{
    static const char *const names[] = {"ok",    "arg",   "io",     "format",  "unsupported", "memory",
                                        "shape", "limit", "device", "numeric", "cancelled",   "parked"};
    return (unsigned)s < sizeof names / sizeof *names ? names[s] : "unknown";
}

/* A message is one line whatever a hostile file put into its names. */
static void flatten(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f) *s = '?';
}

facet_status error_set(facet_error *err, facet_status status, const char *fmt, ...)
{
    if (!err) return status;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->message, sizeof err->message, fmt, ap);
    va_end(ap);
    err->status = status;
    flatten(err->message);
    return status;
}

void error_prefix(facet_error *err, const char *fmt, ...)
{
    if (!err) return;
    char old[sizeof err->message];
    memcpy(old, err->message, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    const int n = vsnprintf(err->message, sizeof err->message, fmt, ap);
    va_end(ap);
    size_t at = n < 0 ? 0 : (size_t)n;
    if (at + 2 < sizeof err->message) {
        memcpy(err->message + at, ": ", 2);
        at += 2;
        memcpy(err->message + at, old, sizeof old - at); /* what does not fit is cut off */
        err->message[sizeof err->message - 1] = 0;
    }
    flatten(err->message);
}
