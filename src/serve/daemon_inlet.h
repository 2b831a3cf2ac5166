/* daemon_inlet.h: lines from a pipe, a file or a terminal, of bounded length, whatever bytes they hold. */
#ifndef FACET_SERVE_DAEMON_INLET_H
#define FACET_SERVE_DAEMON_INLET_H

#include "base/buf.h"

typedef struct inlet {
    int fd;
    size_t max_line;    /* bytes, the end of the line not counted */
    buf data;           /* read, from `at` on not handed out yet */
    size_t at, scanned; /* data[at, scanned) has no end of line */
    bool is_skipping;   /* in a line that is too long, up to its end */
    bool is_dry;        /* no whole line is there, as inlet_next found */
    bool is_short;      /* there is no memory for more of the line that has begun */
    bool is_over;       /* no more comes */
} inlet;

typedef enum inlet_item {
    INLET_NONE,     /* no whole line is there: fill first */
    INLET_LINE,     /* without its LF, and a CR before it */
    INLET_TOO_LONG, /* the first bytes of a line that is longer than max_line, or than memory allows; the rest is
                       dropped */
    INLET_CUT       /* the end came before the line's LF */
} inlet_item;

/* fd is borrowed. False when memory is short. */
bool inlet_open(inlet *in, int fd, size_t max_line);
void inlet_close(inlet *in);
/* Reads once, which blocks when nothing is there; is_over at the end and after errors. */
void inlet_fill(inlet *in);
/* The next line: *line [*n], good until the next call of either function. */
inlet_item inlet_next(inlet *in, const char **line, size_t *n);

#endif
