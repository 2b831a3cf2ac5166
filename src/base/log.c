#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

static facet_log_fn receiver;
static void *receiver_ud;

void facet_set_log(facet_log_fn fn, void *ud)
{
    receiver = fn;
    receiver_ud = ud;
}

void log_line(facet_log_level level, const char *fmt, ...)
{
    if (!receiver) return;
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    receiver(receiver_ud, level, line);
}
